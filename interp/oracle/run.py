"""The steps of a training run, in one process or several: windows of items, activations, masked loss, updates."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from interp.model import Model
from interp.oracle.encode import AnswerBatch, Encoded, Encoder, base_vectors, loss_of, zero_vectors
from interp.oracle.injection import inject
from interp.oracle.items import TrainItem
from interp.oracle.recipe import Recipe, rate
from interp.oracle.spec import OracleSpec


class Run:
    """The mutable state of a run (adapter, optimiser) and the order of its steps."""

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
        """Whether a checkpoint is written after `step` steps."""
        return step == self.n_steps or (self.recipe.save_every is not None and step % self.recipe.save_every == 0)

    @contextmanager
    def training(self) -> Iterator[None]:
        """The adapter active and trainable, with the recipe's gradient checkpointing; eval mode afterwards."""
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
            # A resumed run prepares the whole window again, not only its remaining batches: which items share a forward
            # pass changes the last bits of their activations, and a resumed run must end with the same weights.
            prepared = iter(self.prepare([item for part in mine for item in part]))
            for (step, _), part in zip(todo, mine, strict=True):
                examples = [next(prepared) for _ in part]
                if step >= start:
                    yield step + 1, self.step(step, examples)

    def windows(self) -> Iterator[tuple[int, list[list[TrainItem]]]]:
        """(index of the first step, batches) of every window: items sorted by length, batches in random order."""
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
        # divide by the answer tokens of all processes, so that the summed gradient is that of one big batch
        recipe, n_tokens = self.recipe, self.processes.total(sum(e.n_answer for e, _ in part))
        size, total = recipe.micro_batch or max(1, len(part)), 0.0
        self.optimizer.param_groups[0]["lr"] = rate(step, steps=self.n_steps, recipe=recipe)
        with torch.random.fork_rng(devices=cuda_devices(self.model)):
            # dropout depends on seed and step alone, so a resumed run draws the same masks
            torch.manual_seed((recipe.seed * 1_000_003 + step) * self.processes.count + self.processes.rank)
            for at in range(0, len(part), size):
                total += self.backward(part[at : at + size], n_tokens)
        self.processes.add_gradients(self.parameters)
        nn.utils.clip_grad_norm_(self.parameters, recipe.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return self.processes.total(total)

    def backward(self, part: Sequence[tuple[Encoded, Tensor]], n_tokens: float) -> float:
        """Add the gradient of some items to the parameters."""
        batch = AnswerBatch.of([e for e, _ in part], pad_id=self.model.pad_id, device=self.model.device)
        vectors = torch.cat([v for _, v in part]).to(self.model.device)
        # backward inside the block: gradient checkpointing runs the hooked layer again, which must inject again
        with inject(self.model, vectors, batch.slots, self.spec):
            nats, _ = loss_of(self.model, batch, bf16=self.recipe.autocast)
            loss = nats.sum() / n_tokens
            loss.backward()
        return float(loss.detach())

    def state(self, step: int) -> dict[str, Any]:
        """All state that later steps depend on."""
        weights = {name: p.detach().cpu() for name, p in zip(self.names, self.parameters, strict=True)}
        return {"step": step, "weights": weights, "optimizer": self.optimizer.state_dict()}

    def restore(self, state: Mapping[str, Any]) -> int:
        """Load a state of `state`; returns its step."""
        with torch.no_grad():
            for name, parameter in zip(self.names, self.parameters, strict=True):
                parameter.copy_(state["weights"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        return int(state["step"])


def length_of(item: TrainItem) -> int:
    """Sort key of items within a window: 4 per slot and 1 per character of question and answer, in place of tokens."""
    return 4 * len(item.positions) * len(item.layers) + len(item.question) + len(item.answer)


def cuda_devices(model: Model) -> list[torch.device]:
    return [model.device] if model.device.type == "cuda" else []


@dataclass(frozen=True)
class Processes:
    """The processes of a run. With a single process every method is the identity, and only torch is imported.

    Gradients of the adapter are summed here rather than by a wrapper around the model (DDP): the hooks, the disabled
    adapter and the passes without gradients then see the same module as in a run of one process.

    Attributes:
        rank, count: index of this process, number of processes.
        accelerator: `accelerate.Accelerator` if there are several processes, else None.
    """

    rank: int = 0
    count: int = 1
    accelerator: Any = None

    @classmethod
    def current(cls) -> Processes:
        """The processes started by `accelerate launch` or `torchrun`; a single one otherwise.

        Raises:
            ValueError: several processes were started, but accelerate is not installed or does not see them all.
        """
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            return cls()
        try:
            from accelerate import Accelerator
        except ImportError:
            raise ValueError(
                "several processes need accelerate, which is not installed: pip install accelerate"
            ) from None
        accelerator = Accelerator(cpu=not torch.cuda.is_available())
        if accelerator.num_processes != int(os.environ["WORLD_SIZE"]):
            raise ValueError(
                f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, accelerate found {accelerator.num_processes} processes: "
                f"each would train alone. Start them with torchrun or `accelerate launch`."
            )
        return cls(accelerator.process_index, accelerator.num_processes, accelerator)

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def mine(self, items: Sequence[Any]) -> list[Any]:
        """This process's part of a batch: every `count`-th item."""
        return list(items[self.rank :: self.count])

    def total(self, value: float | int) -> float:
        """Sum of a number over all processes."""
        if self.accelerator is None:
            return float(value)
        here = torch.tensor(value, dtype=torch.float64, device=self.accelerator.device)
        return float(self.accelerator.reduce(here, reduction="sum"))

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace every gradient by its sum over all processes."""
        if self.accelerator is None:
            return
        for parameter in parameters:
            mine: Tensor = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            parameter.grad = self.accelerator.reduce(mine, reduction="sum")

    def wait(self) -> None:
        """Wait for all processes."""
        if self.accelerator is not None:
            self.accelerator.wait_for_everyone()
