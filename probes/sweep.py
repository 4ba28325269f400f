"""The sweep: every layer, position and kind with its interval, its null and its controls; TEST looked at once."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from interp.stats import Estimate, FewGroupsWarning, auroc
from interp.stats._check import FEW_GROUPS
from probes.controls import confound_matrix, control_labels, residualise, selectivity, shuffled_rows
from probes.layer import LOGIT_KINDS, Scored, score_labels
from probes.metrics import auroc_many, score_table
from probes.null import NullSummary, null_labels, resolved_scheme, summarise
from probes.result import COLUMNS, Key, RawDirection, Selected, SweepResult
from probes.source import Column, Data, Source, layer_of, open_source
from probes.splits import Split, check_leaks, group_split

CS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True)
class SweepConfig:
    """Options of a sweep; defaults live here alone.

    Attributes:
        kinds:     of probes; each is swept and selected by itself.
        Cs:        ascending inverse penalties.
        n_perm:    permutations of the null; a number is for the closed forms, {kind: n} for any kind (logistic costs
                   folds x C fits per permutation).
        n_boot:    resamples behind every interval.
        scheme:    how null labels move: "auto", "group", "within", "between".
        balanced:  weigh classes equally in logistic probes.
    """

    kinds: tuple[str, ...] = ("logistic", "ridge", "massmean")
    Cs: tuple[float, ...] = CS
    n_folds: int = 5
    test_share: float = 0.25
    n_perm: int | Mapping[str, int] = 999
    n_boot: int = 2000
    scheme: str = "auto"
    balanced: bool = False
    tol: float = 1e-3
    seed: int = 0

    def permutations(self, kind: str) -> int:
        if isinstance(self.n_perm, Mapping):
            return self.n_perm.get(kind, 0)
        return 0 if kind == "logistic" else self.n_perm


@dataclass
class _Found:
    """What one target collects while sites are read one after another."""

    dev: dict[Key, np.ndarray] = field(default_factory=dict)
    test: dict[Key, np.ndarray] = field(default_factory=dict)
    scored: dict[Key, Scored] = field(default_factory=dict)
    directions: dict[Key, RawDirection] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)


def sweep(
    data: Data,
    *,
    target: Column,
    groups: Column | None,
    i_know: str = "",
    positive: object = None,
    positions: str | Sequence[str] = "last",
    sites: Sequence[str] | Literal["all"] = "all",
    control: Column | None = None,
    confounds: Sequence[str] | Mapping[str, Column] = (),
    cohort: Column | None = None,
    surface: Tensor | None = None,
    ids: Sequence[str] | None = None,
    checkpoint: str = "",
    config: SweepConfig | None = None,
) -> SweepResult:
    """Where in the network a label is linearly decodable, and what that number must be compared with.

    Layer and C are selected on DEV by out-of-fold AUROC and loss; TEST is scored once, at the selected layer. The
    null repeats all of it, selection included, on permuted labels. Sites are read one at a time.

    Args:
        data: a cache, or {site: array [example, ...]}.
        target: column or values; two values, or several (then each against the rest).
        groups: column or values of the independent unit; None needs `i_know`, the reason why rows are independent.
        positive: which of two label values counts as 1; the larger where None.
        control: units for control labels (entity); must not be the split group.
        confounds: columns whose linear prediction is taken out of the features, fitted on training folds.
        cohort: column; TEST rows of the table are repeated for each of its values.
        surface: features read without the model (see `controls.surface_features`): swept as the site "surface".
    Raises:
        ValueError: as the parts: unknown column or site, leaks, too few groups, one class, NaN.
    Warns:
        FewGroupsWarning: fewer than 20 groups in DEV.
    Source: protocol in docs; Hewitt & Liang (selectivity), Westfall & Young (max-T).
    """
    config = config or SweepConfig()
    source = open_source(data, ids=ids, checkpoint=checkpoint)
    labels = _targets(source.column("target", target), positive)
    group_values = None if groups is None else source.column("groups", groups)
    chosen_sites = _chosen(sites, source.sites)
    joint = source.column("target", target)
    options = dict(n_folds=config.n_folds, test_share=config.test_share, seed=config.seed)
    split = group_split(joint, groups=group_values, i_know=i_know, **options)
    check_leaks(split, ids=source.ids, contents=source.contents)
    _warn_few_groups(split)
    extras = _Extras.read(source, control, confounds, cohort, surface)
    found = {name: _Found() for name in labels}
    for position in [positions] if isinstance(positions, str) else positions:
        for site in (*chosen_sites, "shuffled", *(["surface"] if surface is not None else [])):
            feats = _features(site, position, source, extras, chosen_sites, config.seed)
            for name, y in labels.items():
                _one_site(found[name], (name, position, site), feats, y, split, extras, config)
    return _result(found, labels, source, split, extras, config)


@dataclass(frozen=True)
class _Extras:
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
    ) -> _Extras:
        named = confounds if isinstance(confounds, Mapping) else {name: name for name in confounds}
        matrix = {name: source.column(f"confounds[{name!r}]", column) for name, column in named.items()}
        return cls(
            control=None if control is None else source.column("control", control),
            confounds=confound_matrix(matrix) if matrix else None,
            cohort=None if cohort is None else source.column("cohort", cohort),
            surface=surface,
        )


def _targets(values: np.ndarray, positive: object) -> dict[str, np.ndarray]:
    """0/1 labels by name: one for two values, one against the rest for several."""
    missing = [i for i, v in enumerate(values.tolist()) if v is None or v != v]
    if missing:
        raise ValueError(
            f"target: {len(missing)} of {len(values)} rows have no label, first row {missing[0]}. Drop them."
        )
    names = np.unique(values).tolist()
    if positive is not None and positive not in names:
        raise ValueError(f"positive={positive!r}: not a label. Labels: {names}.")
    if len(names) == 2:
        one = names[1] if positive is None else positive
        return {str(one): (values == one).astype(np.int64)}
    wanted = names if positive is None else [positive]
    return {str(name): (values == name).astype(np.int64) for name in wanted}


def _chosen(sites: Sequence[str] | str, known: tuple[str, ...]) -> tuple[str, ...]:
    if sites == "all":
        return known
    unknown = [site for site in sites if site not in known]
    if unknown:
        raise ValueError(f"sites: {unknown} not in the data, which holds: {', '.join(known)}.")
    return tuple(sites)


def _warn_few_groups(split: Split) -> None:
    n = len(np.unique(split.group[split.is_dev]))
    if n < FEW_GROUPS:
        warnings.warn(
            f"DEV holds {n} groups (fewer than {FEW_GROUPS}): percentile intervals are too narrow. Read the "
            "permutation p, or report a t-interval over group means.",
            FewGroupsWarning,
            stacklevel=3,
        )


def _features(site: str, position: str, source: Source, extras: _Extras, sites: tuple[str, ...], seed: int) -> Tensor:
    if site == "surface":
        assert extras.surface is not None
        return extras.surface
    if site == "shuffled":
        return shuffled_rows(source.read(sites[len(sites) // 2], position), seed=seed)
    return source.read(site, position)


def _one_site(
    found: _Found,
    where: tuple[str, str, str],
    feats: Tensor,
    y: np.ndarray,
    split: Split,
    extras: _Extras,
    config: SweepConfig,
) -> None:
    options = dict(Cs=config.Cs, balanced=config.balanced, tol=config.tol)
    dev, test = split.is_dev, split.is_test
    for kind in config.kinds:
        key = (*where, kind)
        n_perm = config.permutations(kind)
        null = null_labels(y, split, n=n_perm, scheme=config.scheme, seed=config.seed + 1)
        everything = np.concatenate([y[None], null])
        scored = score_labels(kind, feats, torch.from_numpy(everything), split, **options)
        found.dev[key] = auroc_many(scored.scores[:, dev], everything[:, dev])
        if test.any():
            found.test[key] = auroc_many(scored.scores[:, test], everything[:, test])
        found.scored[key] = Scored(scored.scores[:1], scored.chosen[:1], scored.probe, scored.certificate)
        found.directions[key] = _direction(scored, feats, dev)
        extra: dict[str, Any] = {}
        if extras.control is not None and where[2] != "shuffled":
            extra = _selectivity(kind, feats, y, split, extras.control, scored.scores[0], config)
        found.rows += _rows(key, scored, y, split, dev, "oof", config, extra)
        if extras.confounds is not None and where[2] not in ("shuffled", "surface"):
            found.rows += _residual_rows(key, feats, y, split, extras.confounds, config)


def _direction(scored: Scored, feats: Tensor, dev: np.ndarray) -> RawDirection:
    coef = scored.probe.coef[0].double()
    norm = float(coef.norm())
    unit = coef / norm if norm else coef
    along = feats[torch.from_numpy(dev)].double() @ unit
    bias = float(scored.probe.intercept[0])
    return RawDirection(unit.float(), norm, bias, float(along.mean()), float(along.std()))


def _selectivity(
    kind: str,
    feats: Tensor,
    y: np.ndarray,
    split: Split,
    units: np.ndarray,
    scores: np.ndarray,
    config: SweepConfig,
) -> dict[str, Any]:
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


def _residual_rows(
    key: Key, feats: Tensor, y: np.ndarray, split: Split, confounds: np.ndarray, config: SweepConfig
) -> list[dict[str, Any]]:
    """The same probe on features without what the confounds predict, each fold with its own regression."""
    kind, scores = key[3], np.zeros((1, len(y)))
    for f in range(split.n_folds):
        train = split.is_dev & (split.fold_of != f)
        without = residualise(feats.float(), confounds, train)
        one = score_labels(
            kind, without, torch.from_numpy(y[None]), split, Cs=config.Cs, balanced=config.balanced, tol=config.tol
        )
        scores[:, split.fold_of == f] = one.scores[:, split.fold_of == f]
    scored = Scored(scores, one.chosen, one.probe, one.certificate)
    rows = _rows(key, scored, y, split, split.is_dev, "oof", config, {})
    return [{**row, "role": "residual", "note": "features without the named confounds"} for row in rows]


def _rows(
    key: Key,
    scored: Scored,
    y: np.ndarray,
    split: Split,
    where: np.ndarray,
    name: str,
    config: SweepConfig,
    extra: Mapping[str, Any],
) -> list[dict[str, Any]]:
    target, position, site, kind = key
    estimates = score_table(
        scored.scores[0, where], y[where], groups=split.group[where], is_logit=kind in LOGIT_KINDS, seed=config.seed,
        n_resamples=config.n_boot,
    )  # fmt: skip
    rate = y[where].mean()
    base = {
        "target": target, "position": position, "site": site, "layer": layer_of(site), "kind": kind,
        "role": "control" if site in ("shuffled", "surface", "embed") else "layer",
        "C": config.Cs[int(scored.chosen[0])] if kind != "massmean" else float("nan"), "split": name, "cohort": "all",
        "majority": max(rate, 1 - rate), "certificate": scored.certificate, "is_selected": False, "note": "",
    }  # fmt: skip
    return [
        base | dict(metric=metric, value=e.value, lo=e.lo, hi=e.hi, n=e.n, n_groups=e.n_groups)
        | (dict(extra) if metric == "accuracy" else {})
        for metric, e in estimates.items()
    ]  # fmt: skip


def _result(
    found: Mapping[str, _Found],
    labels: Mapping[str, np.ndarray],
    source: Source,
    split: Split,
    extras: _Extras,
    config: SweepConfig,
) -> SweepResult:
    import pandas as pd

    rows: list[dict[str, Any]] = []
    selected: list[Selected] = []
    for name, part in found.items():
        scheme = resolved_scheme(labels[name], split, config.scheme)
        for kind in config.kinds:
            keys = [key for key in part.dev if key[3] == kind and key[2] not in ("shuffled", "surface", "embed")]
            keys = keys or [key for key in part.dev if key[3] == kind]
            dev = np.stack([part.dev[key] for key in keys], axis=1)
            test = np.stack([part.test[key] for key in keys], axis=1) if part.test else None
            null, best = summarise(dev, test), keys[int(dev[0].argmax())]
            c = config.Cs[int(part.scored[best].chosen[0])]
            selected.append(Selected(*best, c))
            _attach_null(part.rows, keys, kind, null, best, scheme)
            if test is not None:
                rows += _test_rows(best, part.scored[best], labels[name], split, extras, config, null, scheme)
        rows += part.rows
    layers = [row["layer"] for row in rows if not np.isnan(row["layer"])]
    depth = max(layers, default=0.0) + 1
    table = pd.DataFrame(rows).reindex(columns=list(COLUMNS))
    table["checkpoint"], table["depth"] = source.checkpoint, (table["layer"] + 1) / depth
    return SweepResult(
        table=table,
        scores={key: scored.scores[0] for part in found.values() for key, scored in part.scored.items()},
        directions={key: d for part in found.values() for key, d in part.directions.items()},
        selected=tuple(selected),
        labels=dict(labels),
        ids=source.ids,
        split=split,
        settings=asdict(config) | {"independent_because": split.reason},
    )


def _attach_null(
    rows: list[dict[str, Any]], keys: list[Key], kind: str, null: NullSummary | None, best: Key, scheme: str
) -> None:
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


def _test_rows(
    key: Key,
    scored: Scored,
    y: np.ndarray,
    split: Split,
    extras: _Extras,
    config: SweepConfig,
    null: NullSummary | None,
    scheme: str,
) -> list[dict[str, Any]]:
    """TEST at the selected cell, whole and by cohort (AUROC where both classes are there)."""
    test = split.is_test
    rows = [row | {"is_selected": True} for row in _rows(key, scored, y, split, test, "test", config, {})]
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
