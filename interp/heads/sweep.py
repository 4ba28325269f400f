"""`head_sweep`: every head's effect on every pair, with its statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from torch import nn

from interp.heads.direct import write_norms
from interp.heads.effects import HeadEffects
from interp.heads.ids import HeadId, Heads, Unit, expand_heads
from interp.heads.kinds import Kind, Patch
from interp.heads.outcomes import Effect, HeadSweep
from interp.heads.pairs import TokenPair, Where
from interp.heads.readout import METRICS, Metric
from interp.model import Model
from interp.stats import Sampling

NORM_PAIRS = 8


def head_sweep(
    model: Model | nn.Module,
    pairs: Sequence[TokenPair],
    *,
    kind: Kind = Patch(),  # noqa: B008  (a frozen value)
    positions: Where | None = None,
    heads: Heads = "all",
    metrics: Sequence[Metric] = METRICS,
    effect: Effect = "total",
    freeze_norm: bool = False,
    named: Sequence[str | HeadId] = (),
    sampling: Sampling = Sampling(),
    verify: float = 0.0,
    engine: Literal["auto", "reference"] = "auto",
    chunk_bytes: int | None = None,
) -> HeadEffects:
    """Change the output of every head, one at a time (or in sets), and read how the answer changes.

    z of a query head, its slice of the output projection's input, is replaced at `positions` of the exp prompt; under
    grouped keys and values the siblings of the head are left alone. Exact, by the sweep engine: about
    1 + N H T / (2 S) clean forwards for N H heads at T of S tokens, plus what `kind` has to record.

    Args:
        kind: Patch, Mean, Zero, Resample, UniformAttention, KnockOut, Noise.
        positions: which tokens of exp; Answer() is the slot, "pairs" each pair's own. None: the pairs' own where any
            carries some, else the slot.
        heads: "all", or heads ("L19.H17") and sets of heads.
        metrics: what is read; `Prob` costs the whole unembedding of every row.
        effect: "direct" freezes everything after the head but the final norm (frozen too with `freeze_norm`).
        named: heads that a hypothesis named before this sweep; figures box them.
        sampling: seed, resamples and confidence of the statistics.
        verify: share of the rows of every pair that hooked forward passes recompute and compare.
    Raises:
        ValueError: a head, position or donor that does not exist, named with what does.
        RuntimeError: a submodule is in training mode, or a verified row disagrees.
    Source: Yang et al., arXiv 2502.20332 (`cma`); equality with their code on shared/vectors/heads.json.
    """
    model = Model.wrap(model)
    job = HeadSweep(model, tuple(pairs), kind, positions, heads, tuple(metrics), effect, freeze_norm, verify, engine,
                    chunk_bytes)  # fmt: skip
    outcomes = [outcome for _, outcome in job.run()]
    boxed = expand_heads(list(named), model.layout) if named else ()
    return HeadEffects.of(job.plan, job.pairs, outcomes, write_norms=unit_norms(model, pairs, job.units),
                          named=boxed, sampling=sampling)  # fmt: skip


def unit_norms(model: Model, pairs: Sequence[TokenPair], units: Sequence[Unit]) -> np.ndarray:
    """Mean length of each unit's write at the answer slot, over up to eight of the pairs; of a set, the sum."""
    step = max(1, len(pairs) // NORM_PAIRS)
    norms = write_norms(model, [(pair.exp_ids, len(pair.exp_ids) - 1) for pair in pairs[::step][:NORM_PAIRS]])
    return np.array([sum(norms[head.layer, head.head] for head in unit) for unit in units])
