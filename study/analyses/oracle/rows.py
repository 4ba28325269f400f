"""Rows of a study's table `oracle`: accuracy, what it is beyond each control on the same readings, and the gaps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from interp.oracle import Choices
from interp.stats import Estimate

PRIOR = "prior"
FLOORS = ("majority", PRIOR)
GAPS = {
    "shuffled": "matched shuffle: another reading's activations", "zero": "nothing injected",
    "text_only": "the base reads the text", PRIOR: "oracle trained on zeroed activations",
}  # fmt: skip
LEVEL = "by problem: Wilson at the effective n, or jackknife t"
PAIRED = "paired difference by reading, by problem"


def oracle_rows(
    choices: Choices, gold: Mapping[str, str], probe: np.ndarray | None, *, n_choices: int
) -> list[dict[str, Any]]:
    """Rows of one question from one source.

    `accuracy` carries its paired difference from each control: `text_only_difference`, `probe_difference`, and
    `floor_difference`, from prior-only oracle and majority both (`over_floor`). A gap is a paired difference itself.

    Args:
        probe: whether a probe on the same vectors has each reading right, None where none could be fitted [reading].
    """
    real, likelihoods = choices.grade(gold), choices.likelihoods(gold)
    right = right_of_controls(choices, gold, probe)
    value = {name: float(np.nanmean(other)) for name, other in right.items()}
    over = {name: choices.over(gold, other) for name, other in right.items()}
    apart = {"floor": over_floor(over)} | {name: over[name] for name in ("text_only", "probe") if name in over}
    gaps = {name: likelihoods.gap(name) for name in choices.controls}
    floor = max(value[name] for name in FLOORS if name in value)
    beside = {"majority": value["majority"], "floor": floor, "text_only": value.get("text_only"),
              "probe": value.get("probe")}  # fmt: skip
    first = _row("accuracy", real.accuracy, "", **beside, control="the larger of prior-only oracle and majority",
                 control_value=floor, **_gap(gaps["shuffled"]))  # fmt: skip
    for name, one in apart.items():
        first |= _difference(name, one)
    rows = [first, _row("balanced_accuracy", real.balanced, "", control="chance", control_value=1 / n_choices)]
    for name, one in gaps.items():
        rows.append(_row(f"gap_{name}", one, "nats per answer token", interval=PAIRED, control=GAPS[name],
                         control_value=0.0))  # fmt: skip
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


def _difference(name: str, e: Estimate) -> dict[str, Any]:
    names = (f"{name}_difference", f"{name}_difference_lo", f"{name}_difference_hi")
    return dict(zip(names, (e.value, e.lo, e.hi), strict=True)) if e.is_defined else {}


def _gap(e: Estimate) -> dict[str, Any]:
    return {"gap": e.value, "gap_lo": e.lo, "gap_hi": e.hi} if e.is_defined else {}
