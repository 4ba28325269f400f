"""The sweep: every layer, position and kind with its interval, its null and its controls; TEST looked at once."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

import numpy as np
from torch import Tensor

from interp.cache import ActivationCache
from interp.stats import FewGroupsWarning
from interp.stats._check import FEW_GROUPS
from probes.at_site import Found, sweep_sites, tasks_of
from probes.config import SweepConfig
from probes.null import at_selected, resolved_scheme, summarise
from probes.result import COLUMNS, Selected, SweepResult
from probes.rows import CONTROL_SITES, Extras, attach_null, final_rows
from probes.source import Column, Data, Source, open_source
from probes.splits import Split, check_leaks, group_split


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
    base: Data | None = None,
    ids: Sequence[str] | None = None,
    checkpoint: str = "",
    config: SweepConfig | None = None,
    jobs: int = 1,
    device: str = "cpu",
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
        base: activations of the base checkpoint on the same rows in the same order: the same probe on them is a control
            row per site that both hold, with the paired gain of `data` over it.
        jobs: processes that sites are spread over; a script then needs `if __name__ == "__main__":`.
        device: where features are moved for fitting, e.g. "cuda"; one site at a time.
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
    found = {name: Found() for name in labels}
    at = [positions] if isinstance(positions, str) else list(positions)
    below = None if base is None else _open_base(base, source, chosen_sites)
    tasks = tasks_of(source, chosen_sites, at, labels, split, extras, config, device, below)
    for part in sweep_sites(tasks, jobs=jobs):
        for name, one in part.items():
            found[name].add(one)
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


def _open_base(base: Data, source: Source, sites: Sequence[str]) -> Source:
    """The base checkpoint's rows, refused where they are not the rows of the sweep."""
    below = open_source(base, ids=None if isinstance(base, ActivationCache) else source.ids)
    if below.ids != source.ids:
        first = next((i for i, (a, b) in enumerate(zip(below.ids, source.ids, strict=False)) if a != b), len(below))
        raise ValueError(
            f"base: expected the {len(source)} rows of the sweep in their order, got {len(below)} rows that part at "
            f"row {first}. Record the base on the same data."
        )
    if not set(below.sites) & set(sites):
        raise ValueError(f"base: none of the swept sites is in it. It holds: {', '.join(below.sites)}.")
    return below


def _warn_few_groups(split: Split) -> None:
    n = len(np.unique(split.group[split.is_dev]))
    if n < FEW_GROUPS:
        warnings.warn(
            f"DEV holds {n} groups (fewer than {FEW_GROUPS}): intervals are leave-one-group-out with Student's t, and "
            "wide. Read the permutation p beside them.",
            FewGroupsWarning,
            stacklevel=3,
        )


def _result(
    found: Mapping[str, Found],
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
                names = part.cohorts.get(best, {})
                nulls = {c: at_selected(dev, np.stack([part.cohorts[k][c] for k in keys], axis=1)) for c in names}
                rows += final_rows(best, part.scored[best], labels[name], split, extras, config, null, scheme, nulls)
        rows += part.rows
    table = pd.DataFrame(rows).reindex(columns=list(COLUMNS))
    table["checkpoint"], table["depth"] = source.checkpoint, (table["layer"] + 0.5) / source.n_layers
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
