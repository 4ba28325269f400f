"""Training items as tensors: token ids with slots and loss positions, their activations, and the loss on answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from interp.hooks import record
from interp.model import Model
from interp.oracle.injection import inject
from interp.oracle.items import TrainItem
from interp.oracle.prompt import OraclePrompt, render_question, turn_end
from interp.oracle.spec import OracleSpec
from interp.progress import parts


@dataclass(frozen=True)
class Encoded:
    """One item as the oracle sees it.

    Attributes:
        ids: prompt, answer, and the end of the turn (without it the oracle would not learn to stop).
        n_prompt: number of tokens before the answer; they carry no loss.
        slots: token index of each placeholder.
        sources: (block, context token) of each slot's vector.
    """

    ids: tuple[int, ...]
    n_prompt: int
    slots: tuple[int, ...]
    sources: tuple[tuple[int, int], ...]

    @property
    def n_answer(self) -> int:
        return len(self.ids) - self.n_prompt


class Encoder:
    """Encodes items for one spec and tokenizer; each distinct question is rendered once."""

    def __init__(self, spec: OracleSpec, tokenizer: Any) -> None:
        self.spec, self.tokenizer = spec, tokenizer
        self._prompts: dict[tuple[object, ...], OraclePrompt] = {}
        self._closing = turn_end(tokenizer)

    def __call__(self, items: Sequence[TrainItem]) -> list[Encoded]:
        """One `Encoded` per item.

        Raises:
            ValueError: as `render_question`; or the prompt's tokens are not a prefix of those of prompt and answer, so
                that the loss mask would be wrong; the item is named.
        """
        prompts = [self._prompt(item) for item in items]
        texts = [prompt.text + item.answer + self._closing for prompt, item in zip(prompts, items, strict=True)]
        whole = self.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
        return [_joined(item, p, ids, self.spec) for item, p, ids in zip(items, prompts, whole, strict=True)]

    def _prompt(self, item: TrainItem) -> OraclePrompt:
        key = (item.layers, len(item.positions), item.question)
        if key not in self._prompts:
            counts = [len(item.positions)] * len(item.layers)
            self._prompts[key] = render_question(
                self.spec, self.tokenizer, layers=item.layers, counts=counts, question=item.question
            )
        return self._prompts[key]


def _joined(item: TrainItem, prompt: OraclePrompt, ids: Sequence[int], spec: OracleSpec) -> Encoded:
    n = len(prompt.ids)
    if tuple(ids[:n]) != prompt.ids or len(ids) <= n:
        at = next((k for k, (a, b) in enumerate(zip(prompt.ids, ids, strict=False)) if a != b), min(n, len(ids)))
        raise ValueError(
            f"item of task {item.task!r}, problem {item.problem!r}: the {n} tokens of the prompt are not the "
            f"first tokens of prompt and answer (they differ at token {at} of {n}), so the loss mask would be "
            f"wrong. The answer {item.answer[:20]!r} merges with the prompt: strip leading whitespace from it."
        )
    seen: dict[int, int] = {}
    sources = []
    for layer in prompt.layers:
        sources.append((layer, item.positions[seen.setdefault(layer, 0)]))
        seen[layer] += 1
    return Encoded(tuple(ids), n, prompt.slots, tuple(sources))


@dataclass(frozen=True)
class AnswerBatch:
    """Right-padded encoded items; `is_answer[b, t]` is True where ids[b, t] is a target of the loss."""

    ids: Int[Tensor, "batch pos"]
    is_answer: Bool[Tensor, "batch pos"]
    slots: tuple[tuple[int, ...], ...]
    lengths: tuple[int, ...] | None = None

    @classmethod
    def of(cls, encoded: Sequence[Encoded], *, pad_id: int, device: torch.device) -> AnswerBatch:
        """Pad items to one batch. Right padding needs no mask: attention is causal."""
        width = max(len(e.ids) for e in encoded)
        ids = torch.full((len(encoded), width), pad_id)
        is_answer = torch.zeros(len(encoded), width, dtype=torch.bool)
        for row, e in enumerate(encoded):
            ids[row, : len(e.ids)] = torch.tensor(e.ids)
            is_answer[row, e.n_prompt : len(e.ids)] = True
        return cls(
            ids.to(device), is_answer.to(device), tuple(e.slots for e in encoded), tuple(len(e.ids) for e in encoded)
        )


def base_vectors(
    model: Model, items: Sequence[TrainItem], encoded: Sequence[Encoded], *, token_budget: int = 8192
) -> list[Tensor]:
    """The vectors [slots, d_model] of every item, in the order of its placeholders, in the model's dtype.

    Read from the base (all adapters off, asserted on the layers), in eval mode without gradients. A context that is a
    prefix of another one is read in the same pass: attention is causal, so later tokens do not change it.

    Args:
        token_budget: padded tokens per pass.
    Raises:
        ValueError: a block that the model does not have (before any pass).
    """
    layers = sorted({layer for e in encoded for layer, _ in e.sources})
    contexts = [item.context_ids for item in items]
    # with a rope that depends on the text's length, a prefix read inside a longer text has other activations
    hosts, host_of = (contexts, list(range(len(contexts)))) if model.layout.rope.varies else _hosts(contexts)
    tokens_of: list[set[int]] = [set() for _ in hosts]
    for e, host in zip(encoded, host_of, strict=True):
        tokens_of[host].update(token for _, token in e.sources)
    positions = [sorted(tokens) for tokens in tokens_of]
    acts: dict[tuple[int, int], dict[int, Tensor]] = {}
    with _bare(model):
        for chosen in parts(list(by_length([len(ids) for ids in hosts], token_budget))):
            acts |= _read(model, [hosts[i] for i in chosen], [positions[i] for i in chosen], layers, chosen)
    return [
        torch.stack([acts[host, token][layer] for layer, token in e.sources])
        for e, host in zip(encoded, host_of, strict=True)
    ]


def zero_vectors(model: Model, encoded: Sequence[Encoded]) -> list[Tensor]:
    """Zeros [slots, d_model] for every item, as the prior-only oracle is trained on; injecting them changes nothing."""
    return [torch.zeros(len(e.slots), model.d_model, dtype=model.dtype) for e in encoded]


@contextmanager
def _bare(model: Model) -> Iterator[None]:
    """The base in eval mode, without adapters; `use` asserts that none is applied and restores modes and adapters."""
    with model.adapters.use(None):
        model.module.eval()
        yield


def _read(
    model: Model,
    contexts: Sequence[Sequence[int]],
    places: Sequence[list[int]],
    layers: Sequence[int],
    names: list[int],
) -> dict[tuple[int, int], dict[int, Tensor]]:
    """(context, token) -> block -> vector."""
    with torch.no_grad(), record(model, [f"resid_post.{layer}" for layer in layers], positions=places) as acts:
        model(contexts)
    rows = acts.rows or []
    return {
        (names[item], token): {layer: acts[f"resid_post.{layer}"][row] for layer in layers}
        for row, (item, token) in enumerate(rows)
    }


def _hosts(contexts: Sequence[tuple[int, ...]]) -> tuple[list[tuple[int, ...]], list[int]]:
    """The contexts that are no prefix of another one, and for each context the index of the one that contains it.

    In lexicographic order, a prefix of any other context is a prefix of its successor, so one backward walk suffices.
    """
    order = sorted(range(len(contexts)), key=lambda i: contexts[i])
    hosts: list[tuple[int, ...]] = []
    host_of = [0] * len(contexts)
    for i in reversed(order):
        if not hosts or hosts[-1][: len(contexts[i])] != contexts[i]:
            hosts.append(contexts[i])
        host_of[i] = len(hosts) - 1
    return hosts, host_of


def answer_nats(
    logits: Float[Tensor, "batch pos vocab"], batch: AnswerBatch
) -> tuple[Float[Tensor, "batch"], Int[Tensor, "batch"]]:
    """Summed -log p of each row's answer in nats (float32), and its number of tokens.

    nats_b = - sum_{t in answer} log p(ids_bt | ids_b<t);   the answer includes the end of the turn
    """
    is_answer = batch.is_answer[:, 1:]
    rows, columns = is_answer.nonzero(as_tuple=True)
    nats = nn.functional.cross_entropy(logits[rows, columns].float(), batch.ids[:, 1:][rows, columns], reduction="none")
    return torch.zeros(len(batch.ids), device=nats.device).index_add(0, rows, nats), is_answer.sum(dim=1)


def loss_of(
    model: Model, batch: AnswerBatch, *, bf16: bool = False
) -> tuple[Float[Tensor, "batch"], Int[Tensor, "batch"]]:
    """`answer_nats` of one forward pass, inside an `inject` block that stays open for the backward pass."""
    with autocast(bf16, batch.ids.device), model.layout.rope.of_texts(batch.lengths):
        logits = model.module(input_ids=batch.ids, use_cache=False).logits
    return answer_nats(logits, batch)


def autocast(is_on: bool, device: torch.device) -> AbstractContextManager[Any]:
    """bfloat16 autocast, or nothing."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if is_on else nullcontext()


@dataclass(frozen=True)
class Scores:
    """Teacher-forced answers: nats per answer token, and whether greedy decoding would give the answer."""

    nll: Float[Tensor, "item"]
    is_right: tuple[bool, ...]


@torch.no_grad()
def score_answers(
    model: Model,
    spec: OracleSpec,
    encoded: Sequence[Encoded],
    vectors: Sequence[Tensor],
    *,
    token_budget: int = 8192,
) -> Scores:
    """Every item's answer under its vectors, in input order, with the adapter that is active.

        nll_i = nats_i / tokens_i;  right_i: every token of the answer is the most probable one given those before

    Args:
        vectors: [slots, d_model] per item.
        token_budget: padded tokens per pass.
    """
    nll, right = torch.zeros(len(encoded)), [False] * len(encoded)
    for chosen in parts(list(by_length([len(e.ids) for e in encoded], token_budget))):
        batch = AnswerBatch.of([encoded[i] for i in chosen], pad_id=model.pad_id, device=model.device)
        injected = torch.cat([vectors[i].to(model.device) for i in chosen])
        with inject(model, injected, batch.slots, spec), model.layout.rope.of_texts(batch.lengths):
            logits = model.module(input_ids=batch.ids, use_cache=False).logits
        nats, counts = answer_nats(logits, batch)
        wrong = (logits[:, :-1].argmax(-1) != batch.ids[:, 1:]) & batch.is_answer[:, 1:]
        nll[chosen] = (nats / counts).cpu()
        for row, i in enumerate(chosen):
            right[i] = not bool(wrong[row].any())
    return Scores(nll, tuple(right))


def by_length(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices in groups of similar length whose padded size is at most `budget`; a group has at least one."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    groups: list[list[int]] = [[]]
    for i in order:
        if groups[-1] and (len(groups[-1]) + 1) * lengths[i] > budget:
            groups.append([])
        groups[-1].append(i)
    return [group for group in groups if group]
