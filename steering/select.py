"""Select layer, position and strength on the select split by an objective declared in advance; one candidate goes to
test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    import pandas as pd

Item = TypeVar("Item")
INTERVAL = "bootstrap of the largest |t| over groups, simultaneous over layers, positions and strengths"
SIDES = {"train": 0.6, "select": 0.2, "test": 0.2}


def split_by_group(groups: Sequence[str], *, seed: int, sides: Mapping[str, float] = SIDES) -> dict[str, list[int]]:
    """Indices of each side, no group on two of them: groups are shuffled and each is assigned to the side that still
    lacks most items.

    Raises:
        ValueError: a share that is not positive, fewer groups than sides, or groups so unequal that a side stays empty.
    """
    names = sorted(set(groups))
    if not sides or min(sides.values()) <= 0 or len(names) < len(sides):
        raise ValueError(
            f"split: expected positive shares and a group per side, got {dict(sides)}, {len(names)} groups."
        )
    members: dict[str, list[int]] = {name: [] for name in names}
    for index, group in enumerate(groups):
        members[group].append(index)
    Random(seed).shuffle(names)
    total, out = sum(sides.values()), {side: [] for side in sides}
    for name in names:
        lacking = {side: share / total * len(groups) - len(out[side]) for side, share in sides.items()}
        out[max(lacking, key=lambda side: lacking[side])].extend(members[name])
    if empty := [side for side, indices in out.items() if not indices]:
        largest = max(names, key=lambda name: len(members[name]))
        raise ValueError(
            f"split: no item is left for {', '.join(empty)}: group {largest!r} alone has {len(members[largest])} of "
            f"{len(groups)} items in {len(names)} groups. Use a finer grouping, fewer sides, or another seed."
        )
    return {side: sorted(indices) for side, indices in out.items()}


@dataclass(frozen=True)
class Objective:
    """What should change, and what must stay; declared before the select split is examined.

    Attributes:
        metric: the score to move; `aim` says in which direction.
        limits: score -> largest change allowed, in its own unit: acc_disambig 0.03 (either way).
        max_kl: most KL(p₀ ‖ p) at the last token, nats.
        max_depth: layers from this share of the depth on are left out (late ones write the answer itself).
    """

    metric: str
    aim: Literal["lower", "higher"] = "lower"
    limits: Mapping[str, float] = field(default_factory=dict)
    max_kl: float = float("inf")
    max_depth: float = 1.0

    def __post_init__(self) -> None:
        if self.aim not in ("lower", "higher"):
            raise ValueError(f"objective: aim {self.aim!r}, expected lower or higher.")


BBQ = Objective("soft_amb_commit_bias", "lower", {"acc_disambig": 0.03, "coverage": 0.05}, max_kl=0.5)
ARDITI = Objective("margin", "higher", max_kl=0.1, max_depth=0.8)
"""The filters of Arditi et al. (arXiv 2406.11717): the last fifth of the layers and KL above 0.1 nats are left out."""


def rank_candidates(table: pd.DataFrame, objective: Objective, *, n_layers: int) -> pd.DataFrame:
    """Every (position, layer) with its best allowed strength, best first; those not allowed follow, with the reason.

    gain is the change of the metric in the wanted direction. Its interval is simultaneous over every layer, position
    and strength, since the best is selected on these items; `shrinkage` gives the gain of the chosen one on other
    items. excess_gain is the gain beyond the mean of the random controls at that layer. A candidate without any allowed
    strength keeps its best strength and the reason why it is not allowed, so that there is a ranking even if no
    candidate is allowed.

    Args:
        table: `DoseResult.table()` on the select split. Tables of several positions are joined with a column
            `position`, each made with `n_tables` their number (`dose_response(..., n_tables=3)`).
    Returns:
        Columns position, layer, site, alpha, metric, gain, lo, hi, null_lo, null_hi, excess_gain, n, n_groups,
        interval, allowed, reason, rank, chosen: those that `study.figures.layer_selection` draws.
    Raises:
        ValueError: the table lacks the metric or one of the limits; more positions than its bands were made for.
    Source: docs/howto/dose_curves.md.
    """
    import pandas as pd

    rows = table[(table["arm"] == "direction") & (table["alpha"] != 0)]
    needed = {objective.metric, *objective.limits} | ({"kl"} if objective.max_kl < float("inf") else set())
    if missing := needed - set(rows["metric"]):
        raise ValueError(
            f"objective: no score {', '.join(sorted(missing))} in the table; it has "
            f"{', '.join(sorted(set(rows['metric'])))}."
        )
    rows = rows.assign(position=rows.get("position", "last"))
    n_positions = rows["position"].nunique()
    if (rows["n_tables"] < n_positions).any():
        raise ValueError(
            f"positions: {n_positions} are ranked, but the bands are for {rows['n_tables'].min():g}. Make each table "
            f"with n_tables={n_positions}, so that the best of all is covered."
        )
    candidates = [
        _best(part, objective, n_layers) | {"position": where, "layer": layer, "site": part["site"].iloc[0]}
        for (where, layer), part in rows.groupby(["position", "layer"], sort=True)
    ]
    order: dict[str, Any] = dict(ascending=False, kind="stable", ignore_index=True)
    ranked = pd.DataFrame(candidates).sort_values(["allowed", "gain"], **order)
    first = ranked.index == 0
    return ranked.assign(rank=range(1, len(ranked) + 1), chosen=first & ranked["allowed"] & (ranked["gain"] > 0))


def _best(part: pd.DataFrame, objective: Objective, n_layers: int) -> dict[str, Any]:
    sign = -1.0 if objective.aim == "lower" else 1.0
    options = []
    for alpha, rows in part.groupby("alpha"):
        by_metric: dict[str, Any] = {str(row["metric"]): row for row in rows.to_dict("records")}
        main = by_metric[objective.metric]
        lo, hi = sorted((sign * main["selection_lo"], sign * main["selection_hi"]))
        options.append(
            {
                "alpha": alpha,
                "gain": sign * main["change"],
                "lo": lo,
                "hi": hi,
                "excess_gain": sign * main["control_difference"],
                **_null(main, sign),
                "metric": objective.metric,
                "n": main["n"],
                "n_groups": main["n_groups"],
                "interval": INTERVAL,
                "reason": _reason(by_metric, objective, n_layers),
            }
        )
    defined = [one for one in options if one["gain"] == one["gain"]]
    if not defined:
        return {**options[0], "reason": f"{objective.metric} is not defined", "allowed": False}
    allowed = [one for one in defined if not one["reason"]]
    best = max(allowed or defined, key=lambda one: one["gain"])
    return {**best, "allowed": bool(allowed)}


def _null(main: Mapping[str, Any], sign: float) -> dict[str, float]:
    """95 % of the controls' changes in the wanted direction: their levels minus the level at strength 0."""
    start = main["value"] - main["change"]
    lo, hi = sorted((sign * (main["null_lo"] - start), sign * (main["null_hi"] - start)))
    return {"null_lo": lo, "null_hi": hi}


def _reason(by_metric: Mapping[str, Mapping[str, Any]], objective: Objective, n_layers: int) -> str:
    """Why this strength is not allowed; empty if it is."""
    layer = int(next(iter(by_metric.values()))["layer"])
    if (layer + 1) / n_layers > objective.max_depth:
        return f"layer {layer} lies beyond {objective.max_depth:.0%} of {n_layers} layers"
    for name, limit in objective.limits.items():
        change = by_metric[name]["change"]
        if not abs(change) <= limit:
            return f"{name} changes by {change:+.3g}, allowed {limit:g}"
    if objective.max_kl < float("inf") and not by_metric["kl"]["value"] <= objective.max_kl:
        return f"KL {by_metric['kl']['value']:.3g} nats, allowed {objective.max_kl:g}"
    return ""


def shrinkage(ranked: pd.DataFrame, test: pd.DataFrame, objective: Objective) -> pd.DataFrame:
    """The chosen candidate on select and, at the same strength, on test: the gain that selection promised, and the gain
    that is left.

    Raises:
        ValueError: nothing was chosen, or test does not hold the chosen layer and strength.
    """
    import pandas as pd

    chosen = ranked[ranked["chosen"]]
    if len(chosen) != 1:
        raise ValueError(f"selection: no candidate is allowed; the best one fails because {ranked['reason'].iloc[0]}.")
    one = chosen.iloc[0]
    near = (test["alpha"] - one["alpha"]).abs() < 1e-9
    rows = test[(test["arm"] == "direction") & near & (test["layer"] == one["layer"])]
    rows = rows[rows["metric"] == objective.metric]
    if len(rows) != 1:
        raise ValueError(f"test table: {len(rows)} rows of layer {one['layer']} at alpha {one['alpha']:g}, expected 1.")
    sign, row = (-1.0 if objective.aim == "lower" else 1.0), rows.iloc[0]
    lo, hi = sorted((sign * row["change_lo"], sign * row["change_hi"]))
    kept = ["layer", "alpha", "gain", "lo", "hi", "n", "n_groups"]
    after = {
        "layer": one["layer"],
        "alpha": one["alpha"],
        "gain": sign * row["change"],
        "lo": lo,
        "hi": hi,
        "n": row["n"],
        "n_groups": row["n_groups"],
    }
    return pd.DataFrame([dict(one[kept]) | {"split": "select"}, after | {"split": "test"}])
