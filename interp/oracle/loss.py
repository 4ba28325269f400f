"""Negative log-likelihood of answers under injected activations: the loss of training, the score of controls."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.model import Model
from interp.oracle.encode import AnswerBatch, Encoded
from interp.oracle.injection import inject
from interp.oracle.spec import OracleSpec


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
    """Teacher-forced answers: nats per answer token, and whether greedy decoding would have given the answer."""

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
    for chosen in by_length([len(e.ids) for e in encoded], token_budget):
        batch = AnswerBatch.of([encoded[i] for i in chosen], pad_id=model.pad_id, device=model.device)
        given = torch.cat([vectors[i].to(model.device) for i in chosen])
        with inject(model, given, batch.slots, spec), model.layout.rope.of_texts(batch.lengths):
            logits = model.module(input_ids=batch.ids, use_cache=False).logits
        nats, counts = answer_nats(logits, batch)
        wrong = (logits[:, :-1].argmax(-1) != batch.ids[:, 1:]) & batch.is_answer[:, 1:]
        nll[chosen] = (nats / counts).cpu()
        for row, i in enumerate(chosen):
            right[i] = not bool(wrong[row].any())
    return Scores(nll, tuple(right))


def by_length(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices in groups of similar length whose padded size stays within `budget` (at least one each)."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    groups: list[list[int]] = [[]]
    for i in order:
        if groups[-1] and (len(groups[-1]) + 1) * lengths[i] > budget:
            groups.append([])
        groups[-1].append(i)
    return [group for group in groups if group]
