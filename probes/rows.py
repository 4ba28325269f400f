"""Rows of a sweep's table: estimates of one cell, what its controls add, and its look at TEST."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.stats import Estimate, FewGroupsWarning, auroc
from probes.config import SweepConfig
from probes.controls import confound_matrix, control_labels, residualise, selectivity
from probes.layer import LOGIT_KINDS, Scored, score_labels
from probes.metrics import score_table
from probes.null import NullSummary
from probes.result import Key, RawDirection
from probes.source import Column, Source, layer_of
from probes.splits import Split

CONTROL_SITES = ("shuffled", "surface", "embed")
"""Sites that are swept for comparison and never selected."""


@dataclass(frozen=True)
class Extras:
    """Columns beside the label, in row order; None where not asked for."""

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


def raw_direction(scored: Scored, feats: Tensor, dev: np.ndarray) -> RawDirection:
    """The DEV refit of a cell as unit, norm and bias, with the spread of DEV activations along it."""
    coef = scored.probe.coef[0].double()
    norm = float(coef.norm())
    unit = coef / norm if norm else coef
    along = feats[torch.from_numpy(dev)].double() @ unit
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
    """Accuracy on the label minus accuracy on control labels of the units, same splits and Cs, out of fold."""
    fake, dev = control_labels(units.tolist(), y, seed=config.seed + 2), split.is_dev
    control = score_labels(
        kind, feats, torch.from_numpy(fake[None]), split, Cs=config.Cs, balanced=config.balanced, tol=config.tol
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewGroupsWarning)
        found = selectivity(
            scores[dev], y[dev], control.scores[0, dev], fake[dev], groups=split.group[dev], seed=config.seed,
            n_resamples=config.n_boot,
        )  # fmt: skip
    return {"selectivity": found.value, "selectivity_lo": found.lo, "selectivity_hi": found.hi}


def residual_rows(
    key: Key, feats: Tensor, y: np.ndarray, split: Split, confounds: np.ndarray, config: SweepConfig
) -> list[dict[str, Any]]:
    """The same probe on features without what the confounds predict, each fold with its own regression."""
    kind, scores, one = key[3], np.zeros((1, len(y))), None
    for f in range(split.n_folds):
        train = split.is_dev & (split.fold_of != f)
        without = residualise(feats.float(), confounds, train)
        one = score_labels(
            kind, without, torch.from_numpy(y[None]), split, Cs=config.Cs, balanced=config.balanced, tol=config.tol
        )
        scores[:, split.fold_of == f] = one.scores[:, split.fold_of == f]
    assert one is not None
    scored = Scored(scores, one.chosen, one.probe, one.certificate)
    rows = cell_rows(key, scored, y, split, split.is_dev, "oof", config, {})
    return [{**row, "role": "residual", "note": "features without the named confounds"} for row in rows]


def cell_rows(
    key: Key,
    scored: Scored,
    y: np.ndarray,
    split: Split,
    where: np.ndarray,
    name: str,
    config: SweepConfig,
    extra: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Every metric of one cell on some rows, as rows of the table."""
    target, position, site, kind = key
    estimates = score_table(
        scored.scores[0, where], y[where], groups=split.group[where], is_logit=kind in LOGIT_KINDS, seed=config.seed,
        n_resamples=config.n_boot,
    )  # fmt: skip
    rate = y[where].mean()
    base = {
        "target": target, "position": position, "site": site, "layer": layer_of(site), "kind": kind,
        "role": "control" if site in CONTROL_SITES else "layer",
        "C": config.Cs[int(scored.chosen[0])] if kind != "massmean" else float("nan"), "split": name, "cohort": "all",
        "majority": max(rate, 1 - rate), "certificate": scored.certificate, "is_selected": False, "note": "",
    }  # fmt: skip
    return [
        base | dict(metric=metric, value=e.value, lo=e.lo, hi=e.hi, n=e.n, n_groups=e.n_groups)
        | (dict(extra) if metric == "accuracy" else {})
        for metric, e in estimates.items()
    ]  # fmt: skip


def attach_null(
    rows: list[dict[str, Any]], keys: list[Key], kind: str, null: NullSummary | None, best: Key, scheme: str
) -> None:
    """Write the null's columns into the AUROC rows of one kind, and mark the selected cell."""
    place = {key: j for j, key in enumerate(keys)}
    for row in rows:
        key = (row["target"], row["position"], row["site"], row["kind"])
        if row["kind"] != kind or row["role"] == "residual" or key not in place:
            continue
        row["is_selected"] = key == best
        if null is None or row["metric"] != "auroc":
            continue
        j = place[key]
        row |= dict(
            null_mean=null.mean[j], null_hi=null.hi[j], null_max_hi=null.max_hi, p=null.p[j], p_maxT=null.p_max[j],
            n_perm=null.n, scheme=scheme,
        )  # fmt: skip


def final_rows(
    key: Key,
    scored: Scored,
    y: np.ndarray,
    split: Split,
    extras: Extras,
    config: SweepConfig,
    null: NullSummary | None,
    scheme: str,
) -> list[dict[str, Any]]:
    """TEST at the selected cell, whole and by cohort (AUROC where both classes are there)."""
    test = split.is_test
    rows = [row | {"is_selected": True} for row in cell_rows(key, scored, y, split, test, "test", config, {})]
    if null is not None:
        auroc_row = next(row for row in rows if row["metric"] == "auroc")
        auroc_row |= dict(p=null.p_test, n_perm=null.n, scheme=scheme)
    if extras.cohort is None:
        return rows
    for name in np.unique(extras.cohort[test].astype(str)):
        inside = test & (extras.cohort.astype(str) == name)
        if len(np.unique(y[inside])) < 2 or len(np.unique(split.group[inside])) < 2:
            estimate = Estimate.undefined(int(inside.sum()), len(np.unique(split.group[inside])))
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # small cohorts: the interval says so
                estimate = auroc(
                    scored.scores[0, inside], y[inside], groups=split.group[inside], seed=config.seed,
                    n_resamples=config.n_boot,
                )  # fmt: skip
        e, rate = estimate, float(y[inside].mean())
        rows.append(
            rows[0] | dict(cohort=name, metric="auroc", value=e.value, lo=e.lo, hi=e.hi, n=e.n, n_groups=e.n_groups,
                           p=float("nan"), majority=max(rate, 1 - rate))
        )  # fmt: skip
    return rows
