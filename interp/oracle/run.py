"""The steps of a training run: windows of mixed tasks, activations on the fly, masked loss, updates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from interp.model import Model
from interp.oracle.encode import AnswerBatch, Encoded, Encoder
from interp.oracle.injection import inject
from interp.oracle.items import TrainItem
from interp.oracle.loss import loss_of
from interp.oracle.processes import Processes
from interp.oracle.recipe import Recipe, rate
from interp.oracle.sources import base_vectors, zero_vectors
from interp.oracle.spec import OracleSpec


class Run:
    """The moving parts of a run: model, optimiser, and the order of steps."""

    def __init__(
        self,
        model: Model,
        items: Sequence[TrainItem],
        spec: OracleSpec,
        recipe: Recipe,
        encoder: Encoder,
        adapter: str,
        processes: Processes,
    ) -> None:
        self.model, self.items, self.spec, self.recipe = model, items, spec, recipe
        self.encoder, self.adapter, self.processes = encoder, adapter, processes
        with model.adapters.use(adapter):
            named = [(name, p) for name, p in model.module.named_parameters() if f".{adapter}." in name]
        self.parameters = [p for _, p in named]
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        self.names = [name for name, _ in named]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)
        per_epoch = -(-len(items) // recipe.batch_size)
        self.n_steps = min(recipe.epochs * per_epoch, recipe.max_steps or recipe.epochs * per_epoch)

    def is_checkpoint(self, step: int) -> bool:
        """Whether the state after `step` steps is kept."""
        return step == self.n_steps or (self.recipe.save_every is not None and step % self.recipe.save_every == 0)

    @contextmanager
    def training(self) -> Iterator[None]:
        """The adapter active and trainable, gradient checkpointing as the recipe says; eval mode afterwards."""
        causal_lm, recipe = self.model.causal_lm, self.recipe
        self.model.adapters.activate(self.adapter)
        for parameter in self.model.module.parameters():
            parameter.requires_grad_(False)
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        if recipe.gradient_checkpointing:
            causal_lm.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        self.model.module.train()
        try:
            yield
        finally:
            if recipe.gradient_checkpointing:
                causal_lm.activation_checkpointing_disable()
            self.model.module.eval().requires_grad_(False)

    def steps(self, start: int) -> Iterator[tuple[int, float]]:
        """Run the steps after `start`, yielding (steps done, loss)."""
        for first, batches in self.windows():
            todo = [(first + k, batch) for k, batch in enumerate(batches) if first + k < self.n_steps]
            if not todo or todo[-1][0] < start:
                continue
            mine = [self.processes.mine(batch) for _, batch in todo]
            # of the whole window, also where a part of it is done: which activations share a forward pass moves their
            # last bits, and a resumed run must end with the same ones
            prepared = iter(self.prepare([item for part in mine for item in part]))
            for (step, _), part in zip(todo, mine, strict=True):
                taken = [next(prepared) for _ in part]
                if step >= start:
                    yield step + 1, self.step(step, taken)

    def windows(self) -> Iterator[tuple[int, list[list[TrainItem]]]]:
        """(number of its first step, batches) of every window: sorted by length inside, batches in random order."""
        size, step = self.recipe.batch_size, 0
        for epoch in range(self.recipe.epochs):
            order = list(self.items)
            if epoch:
                Random(f"{self.recipe.seed}/epoch {epoch}").shuffle(order)
            for at in range(0, len(order), size * self.recipe.window):
                window = sorted(order[at : at + size * self.recipe.window], key=length_of)
                batches = [window[k : k + size] for k in range(0, len(window), size)]
                Random(f"{self.recipe.seed}/window {step}").shuffle(batches)
                yield step, batches
                step += len(batches)

    def prepare(self, items: Sequence[TrainItem]) -> list[tuple[Encoded, Tensor]]:
        """Items encoded, with their activations."""
        encoded = self.encoder(items)
        if self.recipe.activations == "zeros":
            return list(zip(encoded, zero_vectors(self.model, encoded), strict=True))
        return list(zip(encoded, base_vectors(self.model, items, encoded), strict=True))

    def step(self, step: int, part: Sequence[tuple[Encoded, Tensor]]) -> float:
        """One update from this process's part of the batch; returns the loss of the whole batch."""
        recipe, n_tokens = self.recipe, self.processes.total(sum(e.n_answer for e, _ in part))
        size, total = recipe.micro_batch or max(1, len(part)), 0.0
        self.optimizer.param_groups[0]["lr"] = rate(step, steps=self.n_steps, recipe=recipe)
        with torch.random.fork_rng(devices=cuda_devices(self.model)):
            torch.manual_seed((recipe.seed * 1_000_003 + step) * self.processes.count + self.processes.rank)
            for at in range(0, len(part), size):
                total += self.backward(part[at : at + size], n_tokens)
        self.processes.add_gradients(self.parameters)
        nn.utils.clip_grad_norm_(self.parameters, recipe.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return self.processes.total(total)

    def backward(self, part: Sequence[tuple[Encoded, Tensor]], n_tokens: float) -> float:
        """Add the gradient of some items; the hook stays until it is there, as checkpointing may run it once more."""
        batch = AnswerBatch.of([e for e, _ in part], pad_id=self.model.pad_id, device=self.model.device)
        vectors = torch.cat([v for _, v in part]).to(self.model.device)
        with inject(self.model, vectors, batch.slots, self.spec):
            nats, _ = loss_of(self.model, batch, bf16=self.recipe.autocast)
            loss = nats.sum() / n_tokens
            loss.backward()
        return float(loss.detach())

    def state(self, step: int) -> dict[str, Any]:
        """Everything that the following steps depend on."""
        weights = {name: p.detach().cpu() for name, p in zip(self.names, self.parameters, strict=True)}
        return {"step": step, "weights": weights, "optimizer": self.optimizer.state_dict()}

    def restore(self, state: Mapping[str, Any]) -> int:
        """Put a state back; returns its step."""
        with torch.no_grad():
            for name, parameter in zip(self.names, self.parameters, strict=True):
                parameter.copy_(state["weights"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        return int(state["step"])


def length_of(item: TrainItem) -> int:
    """What a batch is sorted by: slots, and characters of question and answer."""
    return 4 * len(item.positions) * len(item.layers) + len(item.question) + len(item.answer)


def cuda_devices(model: Model) -> list[torch.device]:
    return [model.device] if model.device.type == "cuda" else []
