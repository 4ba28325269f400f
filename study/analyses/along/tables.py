"""The table `along`: AUROC of a probe after each part of the replies, decodable-at, and both members compared."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from interp.site import layer_of
from interp.stats import Estimate, Sampling, cluster_t
from probes.along import SELECTED, Curve
from probes.decodable import DecodableAt, Later, later_by
from probes.metrics import area_difference, interval_of, quiet
from study.analyses.along.member import DECISIONS, FORCED, PROBE, AxisCurves, Read, forced_curve
from study.rows import Row
from study.schema import DIFFERENCE, tidy

if TYPE_CHECKING:
    import pandas as pd

    from study.analyses.along.options import AlongOptions

_UNITS = {"fraction": "share of the reply", "tokens": "tokens of the reply"}
_PERCENTILE = "percentiles over resampled groups"
_NOWHERE = "the AUROC exceeds the level of the null at no place"
_OPEN = "in some resamples the AUROC exceeds the level at no place, so the upper end is open"


def along_table(
    reads: Sequence[Read], made: Mapping[str, Mapping[str, AxisCurves]], options: AlongOptions, *, seed: int
) -> pd.DataFrame:
    """The table `along`: AUROC at each place, decodable-at, and both members compared.

    Args:
        made: member -> axis -> its curves.
    """
    rows: list[Row] = []
    for read in reads:
        for curves in made[read.member].values():
            rows += [_base(read) | row for row in _axis_rows(curves)]
        if read.forced is not None:
            rows += [_base(read) | row for row in _forced_rows(read, options, seed)]
    sampling = Sampling(seed=seed, n_resamples=options.boot)
    pair = [read for read in reads if read.member in ("engaged", "heuristic")]
    if len(pair) == 2:
        first, second = sorted(pair, key=lambda read: read.member)
        rows += [_base(first) | {"member": DIFFERENCE} | row for row in _differences(first, second, made, sampling)]
    return tidy(rows, analysis="along", unit="replies", group_unit=reads[0].probe.groups, seed=seed)


def _base(read: Read) -> Row:
    probe, sites = read.probe, {key[2] for key in read.probe.cell.looks}
    site = sites.pop() if len(sites) == 1 else "several"
    layer = layer_of(site) if site != "several" else None
    return {
        "member": read.member,
        "read_by": read.read_by,
        "train_checkpoint": probe.name,
        "target": f"{probe.column}={probe.cell.target}",
        "position": probe.cell.position,
        "site": site,
        "layer": np.nan if layer is None else layer,
        "kind": probe.cell.kind,
        "split": "test",
        "is_difference": False,
        "note": "",
    }


def _axis_rows(one: AxisCurves) -> Iterator[Row]:
    for role, by_pool in one.by_role.items():
        for curve in by_pool.values():
            yield from _curve_rows(one, role, curve)
    for role, crossing in one.crossings.items():
        yield {"role": role, "pooling": one.main, "axis": one.axis.name} | _crossing(crossing)
    if one.alone is not None:
        what = {"role": "confounds", "axis": one.axis.name, "control": "confounds: " + ", ".join(one.confounds)}
        yield what | {"metric": "auroc", "chance": 0.5} | _numbers(one.alone, "auroc")
        for k, gain in enumerate(one.over):
            more = {"control_value": one.alone.value, "metric": "auroc_over_confounds", "pooling": one.main}
            yield what | more | _place(one, k) | _numbers(gain, "auroc") | {"role": PROBE}
    if one.axis.name == "decision":
        yield from _gains(one)


def _forced_rows(read: Read, options: AlongOptions, seed: int) -> Iterator[Row]:
    """AUROC of the forced answers for the target, and the mean probability of the reply's own label."""
    assert read.forced is not None
    curve, crossing = forced_curve(read, options, seed=seed)
    same: Row = {"role": FORCED, "axis": "fraction", "kind": "forced answer", "site": "logits", "layer": np.nan}
    same |= {"train_checkpoint": "", "pooling": "last"}
    for k, estimate in enumerate(curve.estimates):
        row = same | {"metric": "auroc", "at": curve.axis.at[k], "chance": 0.5, "selected": False}
        row |= {"label_mass": float(read.forced.mass[:, k].mean()), "band_lo": curve.band_lo[k]}
        yield (
            row
            | {"band_hi": curve.band_hi[k]}
            | _numbers(estimate, "auroc")
            | _classes(curve)
            | _null_columns(curve, k)
        )
    if crossing is not None:
        yield same | _crossing(crossing)
    share = read.forced.share_of([example.metadata.get("reply.label") for example in read.examples])
    known = ~np.isnan(share[:, 0])
    groups = read.labelled.split.group[known]
    if len(np.unique(groups)) < 2:
        return
    for k, at in enumerate(options.fractions):
        with warnings.catch_warnings():
            quiet()
            estimate = cluster_t(share[known, k], groups=groups, bounds=(0.0, 1.0))
        row = same | {"metric": "p_own_label", "at": at, "chance": 1 / len(read.forced.labels)}
        row |= {"label_mass": float(read.forced.mass[known, k].mean()), "interval": "jackknife t over groups"}
        yield row | {
            "value": estimate.value,
            "lo": estimate.lo,
            "hi": estimate.hi,
            "n": estimate.n,
            "n_groups": estimate.n_groups,
        }


def _place(one: AxisCurves, k: int) -> Row:
    named = {"decision_site": DECISIONS[k]} if one.axis.name == "decision" else {}
    return {"axis": one.axis.name, "at": one.axis.at[k], **named}


def _numbers(e: Estimate, metric: str) -> Row:
    note = "" if np.isfinite(e.value) else "undefined: one class or one group"
    known = {"value": e.value, "lo": e.lo, "hi": e.hi, "n": e.n, "n_groups": e.n_groups, "note": note}
    return known | {"interval": interval_of(metric)}


def _curve_rows(one: AxisCurves, role: str, curve: Curve) -> Iterator[Row]:
    is_main = curve.pooling == one.main
    chosen = sorted(set(curve.chosen))
    note = f"chosen on DEV: {', '.join(chosen)}" if curve.pooling == SELECTED else ""
    for k, estimate in enumerate(curve.estimates):
        row = {"role": role, "pooling": curve.pooling, "metric": "auroc", "chance": 0.5, "selected": is_main}
        row |= _place(one, k) | _numbers(estimate, "auroc") | _classes(curve)
        row |= {"band_lo": curve.band_lo[k], "band_hi": curve.band_hi[k]}
        row |= _null_columns(curve, k) | {"scheme": one.scheme}
        if is_main and role == PROBE:
            low, high = np.quantile(one.controls[:, k], (0.025, 0.975))
            row |= {"control": "probes fitted on shuffled labels", "control_value": one.controls[:, k].mean()}
            row |= {"control_lo": low, "control_hi": high, "n_controls": len(one.controls)}
        yield row | {"note": "; ".join(filter(None, (row["note"], note)))}


def _null_columns(curve: Curve, k: int) -> Row:
    if curve.null is None:
        return {}
    below, above = np.quantile(curve.areas[1:, k], (0.025, 0.975))
    row: Row = {"null_mean": curve.null.mean[k], "null_lo": below, "null_hi": above, "n_perm": curve.null.n}
    row |= {"null_max95": curve.null.max_hi, "p": curve.null.p[k], "p_adjusted": curve.null.p_max[k]}
    return row | {"correction": "step-down max-T over places"}


def _classes(curve: Curve) -> Row:
    out: Row = {}
    for name, side in (("positive", 1), ("negative", 0)):
        inside = curve.labels == side
        out |= {f"n_{name}": int(inside.sum()), f"groups_{name}": len(np.unique(curve.groups[inside]))}
    return out


def _crossing(one: DecodableAt) -> Row:
    row: Row = {"metric": "decodable_at", "metric_unit": _UNITS[one.axis.name], "interval": _PERCENTILE}
    row |= {"null_max95": one.level, "n": one.n, "n_groups": one.n_groups}
    if not one.is_reached:
        return row | {"value": np.nan, "lo": np.nan, "hi": np.nan, "note": _NOWHERE}
    note = "" if np.isfinite(one.hi) else _OPEN
    return row | {"value": one.value, "lo": one.lo, "hi": one.hi, "note": note}


def _gains(one: AxisCurves) -> Iterator[Row]:
    """AUROC at the last decision minus AUROC at the prompt and at the first decision."""
    for role, by_pool in one.by_role.items():
        curve = by_pool[one.main]
        for k in (0, 1):
            gain = area_difference(
                curve.scores[2], curve.scores[k], curve.labels, groups=curve.groups, strata=curve.strata
            )
            values = {"before": curve.estimates[k].value, "after": curve.estimates[2].value}
            row = {"role": role, "pooling": one.main, "metric": "auroc_gain", "control": f"AUROC at: {DECISIONS[k]}"}
            yield row | values | {"axis": "decision", "decision_site": DECISIONS[2]} | _numbers(gain, "auroc")


def _differences(
    first: Read, second: Read, made: Mapping[str, Mapping[str, AxisCurves]], sampling: Sampling
) -> Iterator[Row]:
    """engaged minus heuristic: AUROC at each place on the items of both, and decodable-at."""
    same = _same_split(first, second)
    for axis in ("fraction", "tokens"):
        a, b = made[first.member][axis], made[second.member][axis]
        row: Row = {"role": PROBE, "pooling": a.main, "axis": axis, "is_difference": True}
        crossing = {"metric": "decodable_at", "metric_unit": _UNITS[axis], "interval": _PERCENTILE}
        if not same:
            yield row | crossing | {"note": "the members' sweeps split the items differently, so no pairs can be made"}
            continue
        ia, ib = _common(first, second, a, b)
        places = [k for k, at in enumerate(a.axis.at) if at in b.axis.at]
        for k in places:
            j = b.axis.at.index(a.axis.at[k])
            yield row | {"metric": "auroc"} | _place(a, k) | _numbers(_paired(a.curve, b.curve, k, j, ia, ib), "auroc")
        if a.axis == b.axis and a.crossings and b.crossings:
            yield row | crossing | _later(later_by(a.curve, b.curve, sampling=sampling))


def _later(one: Later) -> Row:
    note = "" if np.isfinite(one.value) else "one of the members is decodable at no place"
    return {"value": one.value, "lo": one.lo, "hi": one.hi, "n": one.n, "n_groups": one.n_groups, "note": note}


def _same_split(first: Read, second: Read) -> bool:
    def rows(read: Read) -> dict[str, tuple[int, int]]:
        split = read.labelled.split
        places = zip(split.fold_of.tolist(), split.group.tolist(), strict=True)
        return {item: place for (item, _), place in zip(read.keys, places, strict=True)}

    a, b = rows(first), rows(second)
    return all(a[item] == b[item] for item in a.keys() & b.keys())


def _common(first: Read, second: Read, a: AxisCurves, b: AxisCurves) -> tuple[np.ndarray, np.ndarray]:
    """Places among the tested replies of both of those that answer the same item and sample."""
    theirs = {second.keys[row]: k for k, row in enumerate(b.tested)}
    pairs = [(k, theirs[first.keys[row]]) for k, row in enumerate(a.tested) if first.keys[row] in theirs]
    ia, ib = zip(*pairs, strict=True) if pairs else ((), ())
    return np.array(ia, dtype=int), np.array(ib, dtype=int)


def _paired(a: Curve, b: Curve, k: int, j: int, ia: np.ndarray, ib: np.ndarray) -> Estimate:
    groups = a.groups[ia]
    if len(np.unique(groups)) < 2:
        return Estimate.undefined(len(ia), len(np.unique(groups)))
    labels = {"labels_b": b.labels[ib], "strata": a.strata[ia]}
    return area_difference(a.scores[k, ia], b.scores[j, ib], a.labels[ia], groups=groups, **labels)
