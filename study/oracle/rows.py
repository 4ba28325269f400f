"""Rows of a study's table `oracle`: accuracy, what it is beyond each control on the same readings, and the gaps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from interp.oracle import Choices
from interp.stats import Estimate

PRIOR = "prior"
ACCURACIES = {
    "majority": "always the commonest answer",
    PRIOR: "oracle trained on zeroed activations",
    "text_only": "the base reads the text",
    "probe": "linear probe on the same vectors, out of fold",
}
FLOORS = ("majority", PRIOR)
GAPS = {
    "shuffled": "matched shuffle: another reading's activations", "zero": "nothing injected",
    "text_only": "the base reads the text", PRIOR: "oracle trained on zeroed activations",
}  # fmt: skip
LEVEL = "by problem: Wilson at the effective n, t or cluster bootstrap"
PAIRED = "paired difference by reading, by problem"


def oracle_rows(
    choices: Choices, gold: Mapping[str, str], probe: np.ndarray | None, *, n_choices: int
) -> list[dict[str, Any]]:
    """Rows of one question from one source.

    `accuracy` carries, as `control_difference`, how far it is beyond the nearer of prior-only oracle and majority: of
    both paired differences the smaller value, lower and upper end, so that its lower end is above 0 only where both
    are. `accuracy_minus_<control>` is the paired difference from each control.

    Args:
        probe: whether a probe on the same vectors has each reading right, None where none could be fitted [reading].
    """
    real, likelihoods = choices.grade(gold), choices.likelihoods(gold)
    right = right_of_controls(choices, gold, probe)
    over = {name: choices.over(gold, other) for name, other in right.items()}
    value = {name: float(np.nanmean(other)) for name, other in right.items()}
    floors = [name for name in FLOORS if name in over]
    gaps = {name: likelihoods.gap(name) for name in choices.controls}
    beside = {
        "majority": value["majority"], "floor": max(value[name] for name in floors),
        "text_only": value.get("text_only"), "probe": value.get("probe"),
    }  # fmt: skip
    first = _row("accuracy", real.accuracy, "", **beside, control="the larger of prior-only oracle and majority",
                 control_value=beside["floor"], **_difference(over_floor(over)),
                 **_gap(gaps["shuffled"]))  # fmt: skip
    balanced = _row("balanced_accuracy", real.balanced, "", control="chance", control_value=1 / n_choices)
    rows = [first, balanced]
    for name, one in over.items():
        more = {"control": ACCURACIES[name], "control_value": value[name], **_difference(one)}
        rows.append(_row(f"accuracy_minus_{name}", one, "", interval=PAIRED, **more))
    for name, one in gaps.items():
        more = {"control": GAPS[name], "control_value": 0.0, **_difference(one)}
        rows.append(_row(f"gap_{name}", one, "nats per answer token", interval=PAIRED, **more))
    return rows


def right_of_controls(choices: Choices, gold: Mapping[str, str], probe: np.ndarray | None) -> dict[str, np.ndarray]:
    """Whether each control has each reading right [reading]."""
    wanted = [gold[item] for item in choices.items]
    common = max(sorted(set(wanted)), key=wanted.count)
    out = {"majority": np.array([float(one == common) for one in wanted])}
    out |= {name: choices.right(gold, name) for name in (PRIOR, "text_only") if name in choices.controls}
    return out if probe is None else out | {"probe": probe}


def over_floor(over: Mapping[str, Estimate]) -> Estimate:
    """Value, lower and upper end that the differences from majority and prior-only oracle both reach.

    Its lower end is above 0 only where the accuracy is above each of them.
    """
    given = [over[name] for name in FLOORS if name in over]
    if not all(one.is_defined for one in given):
        return given[0]
    value, lo, hi = (min(getattr(one, key) for one in given) for key in ("value", "lo", "hi"))
    return Estimate(value, lo, hi, given[0].n, given[0].n_groups)


def _row(metric: str, e: Estimate, unit: str, *, interval: str = LEVEL, **more: Any) -> dict[str, Any]:
    base = {"metric": metric, "metric_unit": unit, "value": e.value, "lo": e.lo, "hi": e.hi, "n": e.n,
            "n_groups": e.n_groups, "interval": interval,
            "note": "" if e.is_defined else "fewer than two problems"}  # fmt: skip
    clean = base if e.is_defined else base | dict.fromkeys(("value", "lo", "hi"), None)
    return clean | more


def _difference(e: Estimate) -> dict[str, Any]:
    names = ("control_difference", "control_difference_lo", "control_difference_hi")
    return dict(zip(names, (e.value, e.lo, e.hi), strict=True)) if e.is_defined else {}


def _gap(e: Estimate) -> dict[str, Any]:
    return {"gap": e.value, "gap_lo": e.lo, "gap_hi": e.hi} if e.is_defined else {}
