"""Cumulative ablation: the top heads removed together, next to the lowest-ranked heads and random heads of the same
layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Literal

import numpy as np
from torch import nn

from interp import stats
from interp.heads.effects import HeadEffects
from interp.heads.ids import HeadId, Unit, unit_name
from interp.heads.kinds import Kind, Mean
from interp.heads.metrics import LabelAccuracy, LogitDiff, Prob
from interp.heads.pairs import TokenPair, Where
from interp.heads.sweep import HeadSweep
from interp.model import Model

if TYPE_CHECKING:
    import pandas as pd

Reading = Literal["accuracy", "probability", "margin"]
Arm = tuple[str, int, int]  # (arm, k, draw)
_FIELD = {"accuracy": "right", "probability": "p", "margin": "margin"}
_METRIC = {"accuracy": (LabelAccuracy(),), "probability": (Prob(),), "margin": (LogitDiff(),)}


def cumulative_ablation(
    model: Model | nn.Module,
    pairs: Sequence[TokenPair],
    ranking: Sequence[HeadId | str],
    *,
    ks: Sequence[int],
    kind: Kind = Mean(),  # noqa: B008  (a frozen value)
    positions: Where | None = None,
    reading: Reading = "accuracy",
    n_random: int = 10,
    match_layers: bool = True,
    seed: int = 0,
) -> pd.DataFrame:
    """The answer that remains when the first k heads of a ranking are changed in one run, for each k.

        top       the first k of `ranking`
        lowest    of every layer as many heads as the top k have there, from the end of the ranking
        random    the same number per layer drawn at random (of all heads if not `match_layers`), n_random times

    Args:
        pairs: prompts on which the ranking was not made.
        ranking: every head of the layers in question, best first.
        positions: as in `head_sweep`.
        reading: share of right answers, probability of the answer, or margin in logits.
    Returns:
        Columns of `study.figures.cumulative_ablation`: arm, k, draw, value, lo, hi, n, n_groups, chance, interval,
        metric, kind, and `heads`.
    Raises:
        ValueError: a k outside 0 to the length of the ranking.
    Source: LLMSymbMech ablation.py (zeros; top and lowest), equality in tests/test_heads_truth.py.
    """
    sets = cumulative_sets(ranking, ks=ks, n_random=n_random, match_layers=match_layers, seed=seed)
    job = cumulative_job(model, pairs, sets, kind=kind, positions=positions, reading=reading)
    effects = HeadEffects.of(
        job.plan, job.pairs, [outcome for _, outcome in job.run()], sampling=stats.Sampling(seed=seed)
    )
    return cumulative_table(effects, sets, reading=reading)


def cumulative_sets(
    ranking: Sequence[HeadId | str], *, ks: Sequence[int], n_random: int = 10, match_layers: bool = True, seed: int = 0
) -> dict[Arm, Unit]:
    """The heads that each arm of `cumulative_ablation` changes together. Arguments and errors as there."""
    order = [head if isinstance(head, HeadId) else HeadId.parse(head) for head in ranking]
    wrong = [k for k in ks if not 0 <= k <= len(order)]
    if wrong:
        raise ValueError(f"k={wrong[0]}: the ranking has {len(order)} heads.")
    return _arms(order, ks, n_random=n_random, match_layers=match_layers, seed=seed)


def cumulative_job(
    model: Model | nn.Module,
    pairs: Sequence[TokenPair],
    sets: Mapping[Arm, Unit],
    *,
    kind: Kind = Mean(),  # noqa: B008  (a frozen value)
    positions: Where | None = None,
    reading: Reading = "accuracy",
) -> HeadSweep:
    """The sweep over the sets of heads; its outcomes can be stored."""
    units = {unit_name(unit): unit for unit in sets.values() if unit}
    return HeadSweep(Model.wrap(model), tuple(pairs), kind, positions, list(units.values()), _METRIC[reading])


def cumulative_table(effects: HeadEffects, sets: Mapping[Arm, Unit], *, reading: Reading = "accuracy") -> pd.DataFrame:
    """The table of `cumulative_ablation` from the outcomes of `cumulative_job`; needs no model."""
    import pandas as pd

    rows = [_row(effects, reading, arm, unit) for arm, unit in sets.items()]
    chance = float(np.mean([1 / len(pair.options) for pair in effects.pairs])) if reading == "accuracy" else 0.0
    plan = effects.plan
    facts = {"chance": chance, "metric": reading, "kind": plan.kind, "unit": "pairs", "model": plan.model}
    return pd.DataFrame(rows).assign(**facts, dtype=plan.dtype, positions=plan.positions)


def _row(effects: HeadEffects, reading: Reading, arm: Arm, unit: Unit) -> dict[str, object]:
    field = _FIELD[reading]
    column = effects.values[field][:, effects.index(unit)] if unit else effects.values[f"clean_{field}"][:, 0]
    if reading == "accuracy":
        found, interval = stats.wilson_clustered(column, groups=effects.groups), "Wilson at the effective n"
    else:
        found, interval = stats.cluster_t(column, groups=effects.groups), stats.RULE
    named = dict(zip(("arm", "k", "draw"), arm, strict=True))
    size = {"value": found.value, "lo": found.lo, "hi": found.hi, "n": found.n, "n_groups": found.n_groups}
    return {**named, **size, "interval": found.interval_kind(interval), "heads": unit_name(unit)}


def _arms(order: list[HeadId], ks: Sequence[int], *, n_random: int, match_layers: bool, seed: int) -> dict[Arm, Unit]:
    """The head set of every (arm, k, draw)."""
    dice, out = Random(seed), {}
    for k in sorted(set(ks)):
        quota = Counter(head.layer for head in order[:k])
        out["top", k, 0] = tuple(sorted(order[:k]))
        out["lowest", k, 0] = _first(order[::-1], quota)
        for draw in range(n_random):
            mixed = dice.sample(order, len(order))
            out["random", k, draw] = _first(mixed, quota) if match_layers else tuple(sorted(mixed[:k]))
    return out


def _first(order: Sequence[HeadId], quota: Counter[int]) -> Unit:
    """The first heads of an order that fill the number per layer."""
    left, chosen = Counter(quota), []
    for head in order:
        if left[head.layer] > 0:
            left[head.layer] -= 1
            chosen.append(head)
    return tuple(sorted(chosen))
