"""Tidy tables of head effects; columns are those that figures and reports read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from interp import stats
from interp.heads.effects import UNITS, HeadEffects
from interp.heads.estimates import halves
from interp.heads.ids import layers_of

if TYPE_CHECKING:
    import pandas as pd

INTERVAL = stats.RULE


def provenance(effects: HeadEffects, metric: str) -> dict[str, Any]:
    """What is the same in every row: definition, kind, positions, model, data."""
    plan = effects.plan
    return {
        "metric": metric, "metric_unit": UNITS.get(metric, ""), "kind": plan.kind, "effect": plan.effect,
        "positions": plan.positions, "interval": INTERVAL, "unit": "pairs",
        "n_dropped": effects.n_dropped, "model": plan.model, "adapter": plan.adapter or "none", "dtype": plan.dtype,
        "weights": plan.weights[:12], "data_sha256": plan.pairs_sha256[:12], "seed": effects.sampling.seed,
        "label_mass": effects.label_mass,
    }  # fmt: skip


def tidy(
    effects: HeadEffects, metrics: Sequence[str] | None = None, *, keep: HeadEffects | None = None
) -> pd.DataFrame:
    """One row per unit and definition, with the columns of the tables of a study; `layer` is blank for sets of heads.

    `p_adjusted` is max-|t| over all units; it and `null_max95` of a share or of d_z are those of the logit effect that
    it is made of; `flip_rate`, which cannot be negative, has none. `control_value` is the mean of the norm-matched
    control heads, `control_difference` (with its interval) the paired difference from them. With `keep`, rows of the
    logit effect have `keep_difference`: the same-answer control. `cliff` is left to `at`.
    """
    import pandas as pd

    known = tuple(name for name in effects.metrics if name != "cliff")
    wanted = known if metrics is None else tuple(metrics)
    table = pd.concat([_metric_rows(effects, name) for name in wanted], ignore_index=True)
    return table if keep is None else _with_keep(table, effects, keep)


def _with_keep(table: pd.DataFrame, effects: HeadEffects, keep: HeadEffects) -> pd.DataFrame:
    table, is_main = table.copy(), table["metric"] == effects.main
    for name, column in _spread("keep_difference", effects.keep_difference(keep)).items():
        table[name] = np.nan
        table.loc[is_main, name] = column
    return table


def _spread(name: str, found: stats.Estimates) -> dict[str, np.ndarray]:
    return {name: found.value, f"{name}_lo": found.lo, f"{name}_hi": found.hi}


def _metric_rows(effects: HeadEffects, metric: str) -> pd.DataFrame:
    import pandas as pd

    found = effects.estimates(metric)
    p, null, n_flips = _null(effects, metric)
    columns = {
        "layer": layers_of(effects.units),
        "head": effects.names,
        "value": found.value,
        "lo": found.lo,
        "hi": found.hi,
        "n": found.n,
        "n_groups": found.n_groups,
        "p_adjusted": p,
        "null_max95": null,
        "control_value": _controls(effects, found.value),
        **_spread("control_difference", effects.control_difference(metric)),
        "named": [unit in effects.named for unit in effects.units],
        "n_perm": n_flips,
    }
    table = pd.DataFrame(columns).assign(**provenance(effects, metric))
    return table.assign(interval=table["interval"].mask(table["value"].notna() & table["lo"].isna(), stats.NO_SPREAD))


def _null(effects: HeadEffects, metric: str) -> tuple[np.ndarray, np.ndarray, int]:
    """(p, limit in the unit of the metric, number of flips)."""
    nothing = np.full(len(effects.units), np.nan)
    if metric == "flip_rate":
        return nothing, nothing, 0
    ratio = metric in ("cma_frac", "abl_frac", "cohen_dz")
    tested = effects.tested(None if ratio else metric)
    if not ratio:
        return tested.p, tested.null_max95, tested.n_flips
    if metric == "cohen_dz":
        spread = effects.per_example().std(axis=0, ddof=1)
        scale = np.divide(1.0, spread, out=np.full_like(spread, np.nan), where=spread > 0)
    else:
        scale = np.full(len(nothing), 1.0 / abs(effects.whole.mean()))
    return tested.p, tested.null_max95 * scale, tested.n_flips


def _controls(effects: HeadEffects, values: np.ndarray) -> np.ndarray:
    def mean(others: list[int]) -> float:
        known = values[others][~np.isnan(values[others])]
        return float(known.mean()) if len(known) else np.nan

    return np.array([mean(others) for others in effects.controls])


def heatmap(effects: HeadEffects, metric: str) -> pd.DataFrame:
    """Rows of single heads under one definition, for `study.figures.head_map`."""
    table = tidy(effects, [metric])
    return table[table["layer"].notna()].reset_index(drop=True)


def rows_at(effects: HeadEffects, unit: int) -> pd.DataFrame:
    """Every definition of one unit's effect, `cliff` included: value, lo, hi, n, p, control, and what it is."""
    import pandas as pd

    name = effects.names[unit]
    table = tidy(effects)
    table = table[table["head"] == name]
    if "cliff" in effects.metrics:
        found = effects.cliff(unit)
        row = {
            **{c: table.iloc[0][c] for c in ("layer", "head", "p_adjusted", "named")},
            "value": found.value, "lo": found.lo, "hi": found.hi, "n": len(effects.pairs),
            "n_groups": found.n_groups, "control_value": 0.0, **provenance(effects, "cliff"),
        }  # fmt: skip
        table = pd.concat([table, pd.DataFrame([row])], ignore_index=True)
    return table.reset_index(drop=True)


def forest(effects: HeadEffects, metric: str, *, keep: HeadEffects | None = None) -> pd.DataFrame:
    """Every unit on both halves of the pairs, for `study.figures.top_heads`.

    Pairs of `keep` go to the half of their group; those of groups that `effects` does not have, to the reporting one.
    """
    import pandas as pd

    chosen = halves(effects.groups, seed=effects.sampling.seed)
    selecting = {group for group, first in zip(effects.groups, chosen, strict=True) if first}
    parts = []
    for half, own in (("select", chosen), ("report", ~chosen)):
        other = None if keep is None else np.array([(g in selecting) == (half == "select") for g in keep.groups])
        beside = keep.subset(other) if keep is not None and other is not None and other.any() else None
        parts.append(tidy(effects.subset(own), [metric], keep=beside).assign(half=half))
    return pd.concat(parts, ignore_index=True)


def top(effects: HeadEffects, k: int, metric: str) -> pd.DataFrame:
    """The k largest |value| on the selecting half, as they are on the reporting half, in the order of selection."""
    if k < 1:
        raise ValueError(f"top: k={k}; expected at least 1.")
    table = forest(effects, metric)
    select = table[table["half"] == "select"]
    order = select.assign(size=select["value"].abs()).sort_values("size", ascending=False, kind="stable")["head"]
    report = table[table["half"] == "report"].set_index("head")
    return report.loc[list(order[:k])].reset_index()


def top_html(effects: HeadEffects) -> str:
    """The largest effects as a notebook shows them; named heads are always among them."""
    from interp.show import MOST_ROWS, html_table, interval, p_value

    plan = effects.plan
    try:
        rows, how = effects.top(MOST_ROWS), "chosen on one half of the pairs, reported on the other"
    except ValueError:  # too few groups for halves
        band = stats.simultaneous_band(effects.per_example(), groups=effects.groups, sampling=effects.sampling)
        table = effects.table([effects.main]).assign(lo=band.lo, hi=band.hi)
        rows = table.iloc[table["value"].abs().argsort().to_numpy()[::-1][:MOST_ROWS]]
        how = "chosen and reported on all pairs (too few groups for halves): intervals simultaneous over all heads"
    lines = []
    for row in rows.to_dict("records"):
        control, name = row["control_value"], f"{row['head']}{' (named)' if row['named'] else ''}"
        effect = interval(row["value"], row["lo"], row["hi"], signed=True)
        beside = "–" if control != control else f"{control:.2f}"
        lines.append([name, effect, p_value(row["p_adjusted"]), beside, f"{row['n']:.0f} ({row['n_groups']:.0f})"])
    unit = UNITS.get(effects.main, "")
    head = ["head", f"{effects.main}{f', {unit}' if unit else ''} [95 %]", "p (max over heads)", "control heads",
            "pairs (groups)"]  # fmt: skip
    title = f"{plan.model}, {plan.kind} at {plan.positions}: the largest of {len(effects.units)}, {how}."
    return html_table(head, lines, title=title)
