"""The sweep: every layer, position and kind with its interval, its null and its controls; TEST looked at once."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from interp.stats import FewGroupsWarning
from interp.stats._check import FEW_GROUPS
from probes.config import SweepConfig
from probes.controls import shuffled_rows
from probes.layer import Scored, score_labels
from probes.metrics import auroc_many
from probes.null import null_labels, resolved_scheme, summarise
from probes.result import COLUMNS, Key, RawDirection, Selected, SweepResult
from probes.rows import (
    CONTROL_SITES,
    Extras,
    attach_null,
    cell_rows,
    final_rows,
    raw_direction,
    residual_rows,
    selectivity_columns,
)
from probes.source import Column, Data, Source, open_source
from probes.splits import Split, check_leaks, group_split


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
    options: dict[str, Any] = dict(n_folds=config.n_folds, test_share=config.test_share, seed=config.seed)
    split = group_split(joint, groups=group_values, i_know=i_know, **options)
    check_leaks(split, ids=source.ids, contents=source.contents)
    _warn_few_groups(split)
    extras = Extras.read(source, control, confounds, cohort, surface)
    found = {name: _Found() for name in labels}
    for position in [positions] if isinstance(positions, str) else positions:
        for site in (*chosen_sites, "shuffled", *(["surface"] if surface is not None else [])):
            feats = _features(site, position, source, extras, chosen_sites, config.seed)
            for name, y in labels.items():
                _one_site(found[name], (name, position, site), feats, y, split, extras, config)
    return _result(found, labels, source, split, extras, config)


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


def _features(site: str, position: str, source: Source, extras: Extras, sites: tuple[str, ...], seed: int) -> Tensor:
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
    extras: Extras,
    config: SweepConfig,
) -> None:
    options: dict[str, Any] = dict(Cs=config.Cs, balanced=config.balanced, tol=config.tol)
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
        found.directions[key] = raw_direction(scored, feats, dev)
        extra: dict[str, Any] = {}
        if extras.control is not None and where[2] != "shuffled":
            extra = selectivity_columns(kind, feats, y, split, extras.control, scored.scores[0], config)
        found.rows += cell_rows(key, scored, y, split, dev, "oof", config, extra)
        if extras.confounds is not None and where[2] not in ("shuffled", "surface"):
            found.rows += residual_rows(key, feats, y, split, extras.confounds, config)


def _result(
    found: Mapping[str, _Found],
    labels: Mapping[str, np.ndarray],
    source: Source,
    split: Split,
    extras: Extras,
    config: SweepConfig,
) -> SweepResult:
    import pandas as pd

    rows: list[dict[str, Any]] = []
    selected: list[Selected] = []
    for name, part in found.items():
        scheme = resolved_scheme(labels[name], split, config.scheme)
        for kind in config.kinds:
            keys = [key for key in part.dev if key[3] == kind and key[2] not in CONTROL_SITES]
            keys = keys or [key for key in part.dev if key[3] == kind]
            dev = np.stack([part.dev[key] for key in keys], axis=1)
            test = np.stack([part.test[key] for key in keys], axis=1) if part.test else None
            null, best = summarise(dev, test), keys[int(dev[0].argmax())]
            c = config.Cs[int(part.scored[best].chosen[0])]
            selected.append(Selected(*best, c))
            attach_null(part.rows, keys, kind, null, best, scheme)
            if test is not None:
                rows += final_rows(best, part.scored[best], labels[name], split, extras, config, null, scheme)
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
