"""Rows of a sweep's table: estimates of one cell, what its controls add, and its look at TEST."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.stats import Estimate, max_null_p
from probes.calibrate import calibration_rows, estimate_columns, majority
from probes.config import SweepConfig
from probes.controls import confound_matrix, control_labels, random_directions, residualise, selectivity
from probes.kinds import CONTROLS, RANDOM
from probes.layer import Scored
from probes.metrics import area, area_difference, auroc_many, score_table
from probes.null import NullSummary
from probes.result import Key, RawDirection
from probes.source import Column, Source, layer_number
from probes.splits import Split


@dataclass(frozen=True)
class Extras:
    """Further columns, in row order; None if not requested."""

    control: np.ndarray | None
    confounds: np.ndarray | None
    cohort: np.ndarray | None
    surface: Tensor | None

    @classmethod
    def read(
        cls,
        source: Source,
        control: Column | None,
        confounds: Sequence[str] | Mapping[str, Column],
        cohort: Column | None,
        surface: Tensor | None,
    ) -> Extras:
        """The named columns of a source, confounds as numbers."""
        named = confounds if isinstance(confounds, Mapping) else {name: name for name in confounds}
        matrix = {name: source.column(f"confounds[{name!r}]", column) for name, column in named.items()}
        return cls(
            control=None if control is None else source.column("control", control),
            confounds=confound_matrix(matrix) if matrix else None,
            cohort=None if cohort is None else source.column("cohort", cohort),
            surface=surface,
        )

    def cohorts(self, where: np.ndarray) -> list[tuple[str, np.ndarray]]:
        """(name, its rows) of every cohort among these rows; none where no column was named."""
        if self.cohort is None:
            return []
        names = self.cohort.astype(str)
        return [(str(name), where & (names == name)) for name in np.unique(names[where])]


def raw_direction(scored: Scored, feats: Tensor, dev: np.ndarray) -> RawDirection:
    """The DEV refit of a cell as unit, norm and bias, with the spread of DEV activations along it."""
    coef = scored.probe.coef[0].double()
    norm = float(coef.norm())
    unit = coef / norm if norm else coef
    along = feats[torch.from_numpy(dev).to(feats.device)].double() @ unit.to(feats.device)
    bias = float(scored.probe.intercept[0])
    return RawDirection(unit.float(), norm, bias, float(along.mean()), float(along.std()))


def selectivity_columns(
    kind: str,
    feats: Tensor,
    y: np.ndarray,
    split: Split,
    units: np.ndarray,
    scores: np.ndarray,
    config: SweepConfig,
) -> dict[str, Any]:
    """Selectivity columns of the AUROC row: the label minus a control label, out of fold.

    selectivity = AUROC(real) - AUROC(control 1), paired over groups, same splits and Cs
    selectivity_null_hi = 95 % of |AUROC(control i) - AUROC(control j)| over i < j: the difference between two labels
    without meaning; NaN with one control
    """
    dev, n = split.is_dev, config.controls(kind)
    fakes = np.stack([control_labels(units.tolist(), y, seed=config.seed + 2 + 1000 * i) for i in range(n)])
    control = config.score(kind, feats, torch.from_numpy(fakes), split).scores[:, dev]
    fakes, fold = fakes[:, dev], split.fold_of[dev]
    e = selectivity(scores[dev], y[dev], control[0], fakes[0], groups=split.group[dev], strata=fold)
    apart = _apart(auroc_many(control, fakes, fold))
    return dict(selectivity=e.value, selectivity_lo=e.lo, selectivity_hi=e.hi, selectivity_null_hi=apart)


def _apart(values: np.ndarray) -> float:
    """95 % point of the absolute difference of two of them; NaN for one."""
    i, j = np.triu_indices(len(values), 1)
    return float(np.nanquantile(np.abs(values[i] - values[j]), 0.95)) if len(i) else float("nan")


def residual_rows(
    key: Key, feats: Tensor, y: np.ndarray, split: Split, confounds: np.ndarray, config: SweepConfig
) -> list[dict[str, Any]]:
    """The same probe on features without what the confounds predict, each fold with its own regression."""
    kind, scores, one = key[3], np.zeros((1, len(y))), None
    for f in range(split.n_folds):
        train = split.is_dev & (split.fold_of != f)
        without = residualise(feats.float(), confounds, train)
        one = config.score(kind, without, torch.from_numpy(y[None]), split)
        scores[:, split.fold_of == f] = one.scores[:, split.fold_of == f]
    assert one is not None
    scored = Scored(scores, one.chosen, one.probe, one.certificate)
    rows = cell_rows(key, scored, y, split, split.is_dev, "oof", config)
    return [{**row, "role": "residual", "note": "features without the named confounds"} for row in rows]


def base_rows(
    key: Key, feats: Tensor, scores: np.ndarray, y: np.ndarray, split: Split, config: SweepConfig
) -> list[dict[str, Any]]:
    """The same probe on the base checkpoint's activations of the same rows, and the gain of the checkpoint over it.

    auroc_gain = AUROC(checkpoint) - AUROC(base), out of fold, paired over groups, same folds and Cs

    Args:
        feats: activations of the base [example, d_feature], any width.  scores: out-of-fold scores of the checkpoint
            [example].
    """
    dev, kind = split.is_dev, key[3]
    labels = torch.from_numpy(y[None])
    own = config.score(kind, feats, labels, split)
    rows = cell_rows(key, own, y, split, dev, "oof", config)
    gain = area_difference(scores[dev], own.scores[0, dev], y[dev], groups=split.group[dev], strata=split.fold_of[dev])
    rows.append(rows[0] | estimate_columns("auroc_gain", gain))
    return [{**row, "role": "base", "note": "the same probe on the base checkpoint"} for row in rows]


def counts(y: np.ndarray, split: Split, where: np.ndarray) -> dict[str, int]:
    """Number of rows and groups of each class among the given rows."""
    out = {}
    for name, inside in (("positive", where & (y == 1)), ("negative", where & (y == 0))):
        out |= {f"n_{name}": int(inside.sum()), f"groups_{name}": len(np.unique(split.group[inside]))}
    return out


def cell_rows(
    key: Key,
    scored: Scored,
    y: np.ndarray,
    split: Split,
    where: np.ndarray,
    name: str,
    config: SweepConfig,
    extra: Mapping[str, Any] | None = None,
    *,
    least_se: float = 0.0,
) -> list[dict[str, Any]]:
    """Every metric of one cell on some rows, as rows of the table, AUROC first; `extra` are columns of that one."""
    target, position, site, kind = key
    estimates = score_table(
        scored.scores[0, where],
        y[where],
        groups=split.group[where],
        strata=split.fold_of[where],
        is_logit=config.table[kind].is_logit,
        least_se=least_se,
        sampling=config.sampling,
    )
    base = {
        "target": target,
        "position": position,
        "site": site,
        "layer": layer_number(site),
        "kind": kind,
        "role": "control" if site in CONTROLS else "layer",
        "C": config.Cs[int(scored.chosen[0])] if config.table[kind].has_penalty else float("nan"),
        "split": name,
        "cohort": "all",
        "majority": majority(y[where]),
        "certificate": scored.certificate,
        "selected": False,
        "note": "",
    }
    base |= counts(y, split, where)
    rows = [base | estimate_columns(metric, e) for metric, e in estimates.items()]
    return [rows[0] | dict(extra or {}), *rows[1:]]


def spread(areas: np.ndarray) -> float:
    """Standard deviation of a null whose first entry is the observed value; 0 without one, or where it is undefined."""
    return float(areas[1:].std()) if len(areas) > 2 and np.isfinite(areas).all() else 0.0


def random_row(
    where: tuple[str, str, str], feats: Tensor, y: np.ndarray, split: Split, config: SweepConfig
) -> dict[str, Any]:
    """AUROC of random directions at one site, on the same rows as its probes."""
    target, position, site = where
    dev = split.is_dev
    drawn = random_directions(feats[torch.from_numpy(dev).to(feats.device)].float(), y[dev], seed=config.seed + 3)
    return {
        "target": target,
        "position": position,
        "site": site,
        "layer": layer_number(site),
        "kind": RANDOM,
        "role": "control",
        "split": "oof",
        "cohort": "all",
        "metric": "auroc",
        "value": drawn.mean,
        "lo": drawn.lo,
        "hi": drawn.hi,
        "interval": f"middle 95 % of {drawn.n} directions",
        "n": int(dev.sum()),
        "n_groups": len(np.unique(split.group[dev])),
        "majority": majority(y[dev]),
        "selected": False,
        "note": "random unit directions, each turned so that it is at least 1/2",
    } | counts(y, split, dev)


def attach_null(
    rows: list[dict[str, Any]], keys: list[Key], kind: str, null: NullSummary | None, best: Key, shared: dict[str, Any]
) -> None:
    """Write the null's columns into the AUROC rows of one kind, and mark the selected cell.

    Args:
        shared: columns that say which null it is.
    """
    place = {key: j for j, key in enumerate(keys)}
    for row in rows:
        key = (row["target"], row["position"], row["site"], row["kind"])
        if row["kind"] != kind or row["role"] in ("residual", "base") or key not in place:
            continue
        row["selected"] = key == best
        if null is None or row["metric"] != "auroc":
            continue
        j = place[key]
        row |= dict(
            null_mean=null.mean[j],
            null_hi=null.hi[j],
            null_max95=null.max_hi,
            p=null.p[j],
            p_adjusted=null.p_max[j],
            n_perm=null.n,
            **shared,
        )


def seed_columns(values: np.ndarray) -> dict[str, float]:
    """Spread of one AUROC over seeds of the split, the first included."""
    finite = values[np.isfinite(values)]
    if len(finite) < 2:
        return {"n_seeds": float(len(finite))}
    return dict(
        n_seeds=float(len(finite)),
        seed_sd=float(finite.std(ddof=1)),
        seed_min=float(finite.min()),
        seed_max=float(finite.max()),
    )


def text_columns(
    own: np.ndarray, text: np.ndarray | None, y: np.ndarray, split: Split, where: np.ndarray
) -> dict[str, float]:
    """AUROC minus that of the surface features on the same rows, paired; nothing where there are none."""
    if text is None:
        return {}
    e = area_difference(own[where], text[where], y[where], groups=split.group[where], strata=split.fold_of[where])
    return dict(text_difference=e.value, text_difference_lo=e.lo, text_difference_hi=e.hi)


def final_rows(
    key: Key,
    scored: Scored,
    looks: Sequence[tuple[Split, np.ndarray]],
    y: np.ndarray,
    split: Split,
    extras: Extras,
    config: SweepConfig,
    null: NullSummary | None,
    shared: dict[str, Any],
    cohort_nulls: Mapping[str, np.ndarray],
) -> list[dict[str, Any]]:
    """TEST at the selected cell, whole and by cohort (AUROC where both classes are there).

    Args:
        scored: the scores of TEST rows.  looks: as `calibration_rows`.  shared: columns of all AUROC rows.
    """
    test = split.is_tested
    least_se = 0.0 if null is None or not len(null.test) else spread(null.test)
    cell = cell_rows(key, scored, y, split, test, "test", config, least_se=least_se)
    rows = [row | {"selected": True} for row in cell]
    rows += calibration_rows(key[3], looks, y, split, rows[0], config)
    rows[0] |= shared
    if null is not None:
        rows[0] |= dict(p=null.p_test, n_perm=null.n) | null_columns(null.test)
    assert rows[0]["metric"] == "auroc"
    for name, inside in extras.cohorts(test):
        estimate = Estimate.undefined(int(inside.sum()), len(np.unique(split.group[inside])))
        if len(np.unique(split.group[inside])) > 1:
            estimate = area(
                scored.scores[0, inside],
                y[inside],
                groups=split.group[inside],
                strata=split.fold_of[inside],
                least_se=spread(cohort_nulls.get(name, np.empty(0))),
            )
        own = estimate_columns("auroc", estimate) | null_columns(cohort_nulls.get(name))
        rows.append(rows[0] | own | counts(y, split, inside) | dict(cohort=name, majority=majority(y[inside])))
    return rows


def null_columns(areas: np.ndarray | None) -> dict[str, float]:
    """Mean and middle 95 % of a null whose first entry is the observed value, and p; NaN where it is not defined."""
    if areas is None or len(areas) < 2 or not np.isfinite(areas).all():
        return dict.fromkeys(("null_mean", "null_lo", "null_hi", "p"), float("nan"))
    low, high = np.quantile(areas[1:], (0.025, 0.975))
    p = float(max_null_p([areas[0]], areas[1:])[0])
    return dict(null_mean=float(areas[1:].mean()), null_lo=float(low), null_hi=float(high), p=p)
