"""How much is known of a claim about a head: four levels, each with the control that could have produced it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from interp import stats
from interp.heads.effects import HeadEffects
from interp.heads.ids import HeadId, check_head
from interp.heads.kinds import Mean, Patch, record_z
from interp.heads.metrics import LogitDiff
from interp.heads.pairs import TokenPair
from interp.heads.sweep import HeadSweep, head_sweep
from interp.model import Model
from interp.positions import Answer

if TYPE_CHECKING:
    import pandas as pd

N_SHUFFLES = 200


def evidence(
    model: Model | nn.Module, pairs: Sequence[TokenPair], head: HeadId | str, *, seed: int = 0
) -> pd.DataFrame:
    """What speaks for the claim that a head carries the answer of base into exp, level by level, at the answer slot.

        level        value                                              control
        decodable    balanced accuracy of a nearest-mean reader of z    the same on shuffled labels
                     (leave one group out), labels: the answer
        necessary    abl_logit under mean ablation at the slot          norm-matched heads of its layer
        restores     cma of its own twin, as a share of the flip        same-answer donor: another item whose answer is
                                                                        exp's own, so that nothing is to be carried
        transfers    cma from a donor of another item whose answer is   the same same-answer donor
                     the foil: the answer, not the prompt, is carried

    A level holds where its interval and that of value - control lie above 0. `restores` without `transfers` says that
    the head carries something of this prompt, not the answer. Failing a level does not make a head unnecessary where
    another does the same work: ablate sets of heads too.

    Args:
        pairs: pairs that flip the answer; donors are found among them, so answers must recur.
    Returns:
        Columns level, value, lo, hi, control, n, n_groups, difference, difference_lo, difference_hi, holds, unit.
    Raises:
        ValueError: no pair flips its answer, or answers do not recur so that no donor exists.
    Source: same-answer control of arXiv 2606.08292; levels in shared/specs (head effects) §2.
    """
    import pandas as pd

    model = Model.wrap(model)
    unit = head if isinstance(head, HeadId) else HeadId.parse(head)
    flips = [pair for pair in pairs if pair.flips and pair.base_ids is not None and pair.foil is not None]
    if len(flips) < 2:
        raise ValueError(f"evidence: expected pairs that flip the answer, got {len(flips)} of {len(pairs)}.")
    same, other = _with_donor(flips, seed, same_answer=True), _with_donor(flips, seed, same_answer=False)
    check_head(unit, model.layout)
    layer = [HeadId(unit.layer, index) for index in range(model.layout.layers[unit.layer].n_heads)]
    ablated = head_sweep(model, flips, kind=Mean(), positions=Answer(), heads=layer, metrics=(LogitDiff(),))
    controls = ablated.per_example()[:, ablated.controls[unit.head]].mean(axis=1)
    restored, placebo, moved = (_patched(model, chosen, unit) for chosen in (flips, same, other))
    gap = restored.whole
    rows = [
        _decodable(model, flips, unit, seed),
        _row("necessary", ablated.per_example()[:, unit.head], controls, flips, "logits"),
        _row("restores", restored.per_example()[:, 0], placebo.per_example()[:, 0], flips, "logits"),
        _row("transfers", moved.per_example()[:, 0], placebo.per_example()[:, 0], flips, "logits"),
    ]
    return pd.DataFrame(rows).assign(head=str(unit), gap=float(gap.mean()), model=model.name)


def _patched(model: Model, pairs: Sequence[TokenPair], head: HeadId) -> HeadEffects:
    job = HeadSweep(model, tuple(pairs), Patch(), Answer(), heads=[head], metrics=(LogitDiff(),))
    return HeadEffects.of(job.plan, job.pairs, [outcome for _, outcome in job.run()])


def _with_donor(pairs: Sequence[TokenPair], seed: int, *, same_answer: bool) -> list[TokenPair]:
    """Every pair with another item's exp prompt as base, one whose answer is its own (or its foil)."""
    dice, out = np.random.default_rng(seed), []
    for pair in pairs:
        wanted = pair.answer if same_answer else pair.foil
        donors = [one for one in pairs if one.unit != pair.unit and one.answer == wanted]
        if not donors:
            raise ValueError(
                f"evidence: no other item has the answer {wanted}, which pair {pair.id!r} needs for its donor. "
                "Use pairs whose answers recur, e.g. items with two labels."
            )
        donor = donors[int(dice.integers(len(donors)))]
        out.append(replace(pair, base_ids=donor.exp_ids, base_positions=None, base_roles=donor.roles, positions=None))
    return out


def _row(
    level: str, value: np.ndarray, control: np.ndarray, pairs: Sequence[TokenPair], unit: str
) -> dict[str, object]:
    groups = [pair.unit for pair in pairs]
    found = stats.cluster_mean(value, groups=groups)
    difference = stats.cluster_mean(value - control, groups=groups)
    return {
        "level": level,
        "value": found.value,
        "lo": found.lo,
        "hi": found.hi,
        "control": float(control.mean()),
        "difference": difference.value,
        "difference_lo": difference.lo,
        "difference_hi": difference.hi,
        "holds": bool(found.lo > 0 and difference.lo > 0),
        "n": found.n,
        "n_groups": found.n_groups,
        "unit": unit,
    }


def _decodable(model: Model, pairs: Sequence[TokenPair], head: HeadId, seed: int) -> dict[str, object]:
    """Nearest mean of z at the slot, each group left out in turn; control: labels shuffled over groups."""
    z = np.stack(
        [
            record_z(model, pair.exp_ids, [len(pair.exp_ids) - 1], [head.layer])[0][head.layer][0, head.head]
            .float()
            .cpu()
            for pair in pairs
        ]
    ).astype(float)
    labels, groups = np.array([pair.answer for pair in pairs]), np.array([pair.unit for pair in pairs])
    right = _nearest_mean(z, labels, groups)
    dice = np.random.default_rng(seed)
    shuffled = np.array([_nearest_mean(z, dice.permutation(labels), groups).mean() for _ in range(N_SHUFFLES)])
    weights = np.array([1 / (labels == label).sum() for label in labels])
    weights = weights / weights.mean()  # balanced accuracy: every class counts alike
    row = _row("decodable", right * weights, np.full(len(right), shuffled.mean()), pairs, "balanced accuracy")
    return {**row, "holds": bool(row["holds"]) and bool((right * weights).mean() > np.quantile(shuffled, 0.95))}


def _nearest_mean(z: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """1 where the mean of the item's own class, of other groups, is the nearest."""
    classes, right = np.unique(labels), np.zeros(len(z))
    for group in np.unique(groups):
        held = groups == group
        means = [z[~held & (labels == label)] for label in classes]
        distances = np.stack(
            [
                np.linalg.norm(z[held] - part.mean(axis=0), axis=1) if len(part) else np.full(held.sum(), np.inf)
                for part in means
            ]
        )
        right[held] = classes[distances.argmin(axis=0)] == labels[held]
    return right
