"""The sweep: every layer, position and kind with its interval, its null and its controls; TEST is scored once."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from torch import Tensor

from interp.progress import track
from interp.site import kind_of_site
from interp.stats import holm
from probes.at_site import Cells, SiteTask, sweep_sites, tasks_of
from probes.config import SweepConfig
from probes.controls import LEAST_CROSSING, UnlearnableControlWarning, crossing_share
from probes.design import SweepDesign, refuse_duplicates, sweep_design
from probes.kinds import CONTROLS, SURFACE, KindLike
from probes.metrics import layer_bands
from probes.null import Areas, NullSummary, nested_unit, summarise
from probes.result import COLUMNS, Key, Selected, SweepResult
from probes.rows import Extras, attach_null, final_rows, seed_columns, spread, text_columns
from probes.source import Column, Data, Source, check_base, open_base, open_source, positions_of, sites_named
from probes.splits import Split, check_leaks, group_split


def sweep(
    data: Data,
    *,
    target: Column,
    groups: Column | None,
    i_know: str = "",
    unit: Column | Literal["auto"] | None = "auto",
    positive: object = None,
    positions: str | Sequence[str] = "*",
    sites: str | Sequence[str] = "*",
    control: Column | None = None,
    confounds: Sequence[str] | Mapping[str, Column] = (),
    cohort: Column | None = None,
    surface: Tensor | None = None,
    base: Data | None = None,
    ids: Sequence[str] | None = None,
    keep: Sequence[bool] | np.ndarray | None = None,
    checkpoint: str = "",
    kinds: Sequence[KindLike] | None = None,
    config: SweepConfig | None = None,
    jobs: int = 1,
    device: str = "cpu",
) -> SweepResult:
    """Find where in the network a label is linearly decodable, next to the null and the controls of each score.

    Layer and C are selected on DEV by out-of-fold AUROC and loss; TEST is scored once, at the selected layer: held-out
    groups, or below 80 groups every fold in turn with layer and C selected without it (`group_split`). AUROC compares
    rows that one probe scored. The null repeats all of it, selection included, on permuted labels, and the whole is
    repeated under further seeds of the split without a null. Sites are read one at a time.

    Args:
        data: a cache, or {site: array [example, ...]}.
        target: column or values; two values, or several (then each against the rest).
        groups: column or values of the independent unit; None needs `i_know`, the reason why rows are independent.
        unit: column or values of the rows that move together inside a group (twins, scenarios, samples), so that the
            null moves them as a whole; "auto" takes the finest group of the cache's examples that lies inside `groups`,
            if any.
        positive: which of two label values counts as 1; None: the larger.
        positions: rules, as `interp.positions.parse_positions` reads them; "*" means all positions with one row per
            example. Plain arrays have the position "last".
        sites: patterns, as `interp.site.match_sites` reads them.
        control: units for control labels (e.g. an entity), whose values occur in several groups.
        confounds: columns whose linear prediction is removed from the features, fitted on training folds.
        cohort: column; TEST rows of the table are repeated for each of its values.
        surface: features read without the model (see `controls.surface_features`): swept as the site "surface".
        base: activations of the base checkpoint on the same rows in the same order: the same probe on them gives a
            control row per common site, with the paired gain of `data` over it.
        keep: boolean for every row of the data (`interp.where.kept` makes it from conditions); the other rows are left
            out everywhere. `ids` and `base` have all rows; target, groups and other values have those that are kept.
        kinds: kinds of probes, instead of those of `config`: names, or your own functions (see `probes.kinds`).
        jobs: processes that sites are spread over; a script then needs `if __name__ == "__main__":`.
        device: where features are moved for fitting, e.g. "cuda"; one site at a time.
    Raises:
        ValueError: unknown column or site, leaks, equal activations in two groups, too few groups, one class, NaN.
    Warns:
        FewGroupsWarning: fewer than 20 groups in DEV.
        OutOfReachWarning: no p of 0.05 can be reached for any data; the warning comes before anything is fitted.
        ExchangeableRowsWarning: the null has to assume that rows of a group are exchangeable.
        UnlearnableControlWarning: units of `control` lie inside groups, so no selectivity is given.
    Source: protocol in docs; Hewitt & Liang (selectivity), Westfall & Young (max-T).

    Example:
        >>> import numpy as np
        >>> rng, groups = np.random.default_rng(0), np.repeat(np.arange(24), 4)
        >>> labels = groups % 2
        >>> feats = {"resid_post.0": rng.normal(size=(96, 8)) + 2 * labels[:, None]}
        >>> result = sweep(feats, target=labels, groups=groups, kinds=["ridge"], config=SweepConfig(n_perm=99))
        >>> print(result.sentences[0].split(":")[0])
        '1' is linearly decodable at resid_post.0 (last, ridge)
    """
    config = replace(config or SweepConfig(), **({} if kinds is None else {"kinds": tuple(kinds)}))
    source = open_source(data, ids=ids, checkpoint=checkpoint)
    below = None if base is None else open_base(base, source)
    if keep is not None:
        source, below = source.where(keep), None if below is None else below.where(keep)
    values = source.column("target", target)
    group_values = None if groups is None else source.column("groups", groups)
    named = _unit(source, unit, group_values)
    options: dict[str, Any] = dict(groups=group_values, i_know=i_know)
    units = None if named is None else source.column("unit", named)
    design = sweep_design(values, **options, positive=positive, unit=units, config=config)
    chosen_sites, at = sites_named(sites, source.sites), positions_of(positions, data)
    check_leaks(design.split, ids=source.ids, contents=source.contents)
    extras = Extras.read(source, control, confounds, cohort, surface)
    extras = _learnable(extras, design.split)
    check_base(below, chosen_sites)
    design.warn()
    if source.contents is None:
        refuse_duplicates(source, chosen_sites, at, design.split)
    again = _reseeded(values, design.split, config, options)
    fixed: dict[str, Any] = dict(labels=design.labels, split=design.split, exchanges=design.exchanges, reseeded=again)
    how: dict[str, Any] = dict(extras=extras, config=config, device=device)
    tasks = tasks_of(source, chosen_sites, at, below, **fixed, **how)
    cells = _collected(tasks, design.labels, jobs)
    reasons = {"independent_because": design.split.reason, "unit": _unit_name(named), "design": list(design.sentences)}
    return _result(cells, design, source, extras, config, config.settings | reasons)


def _collected(tasks: Sequence[SiteTask], targets: Iterable[str], jobs: int) -> dict[str, Cells]:
    """Results of every target at all sites."""
    cells = {name: Cells() for name in targets}
    with track("probes", len(tasks), unit="sites") as bar:
        for part in bar.over(sweep_sites(tasks, jobs=jobs)):
            for name, one in part.items():
                cells[name].add(one)
    return cells


def _learnable(extras: Extras, split: Split) -> Extras:
    """The extras, without the control if most rows lie in units of a single split group.

    A probe has not seen such a unit in training, so its control label is at chance, however much the probe memorises.
    """
    if extras.control is None or crossing_share(extras.control, split.group) >= LEAST_CROSSING:
        return extras
    warnings.warn(
        f"control: only {crossing_share(extras.control, split.group):.0%} of the rows lie in units that occur in "
        "several groups. A probe cannot have seen the control label of any other unit in training, so its AUROC "
        "is at chance however much it memorises, and no selectivity is given. Name a column whose values cross "
        "the groups (entity, option text).",
        UnlearnableControlWarning,
        stacklevel=3,
    )
    return replace(extras, control=None)


def _unit(source: Source, unit: Column | None, groups: np.ndarray | None) -> Column | None:
    """The unit's column or values; for "auto", the finest group of the examples inside the split's groups."""
    if not isinstance(unit, str) or unit != "auto":
        return unit
    return None if groups is None else nested_unit({n: source.columns[n] for n in source.group_columns}, groups)


def _unit_name(unit: Column | None) -> str:
    return "" if unit is None else unit if isinstance(unit, str) else "given as values"


def _reseeded(values: np.ndarray, split: Split, config: SweepConfig, options: Mapping[str, Any]) -> tuple[Split, ...]:
    """Splits like this one under the further seeds of the kind that asks for the most."""
    seeds = max((config.seeds(kind) for kind in config.table), key=len)
    share = "crossed" if split.is_crossed else config.test_share if split.is_test.any() else 0.0
    return tuple(group_split(values, **options, n_folds=config.n_folds, test_share=share, seed=seed) for seed in seeds)


def _result(
    cells_of: Mapping[str, Cells],
    design: SweepDesign,
    source: Source,
    extras: Extras,
    config: SweepConfig,
    settings: Mapping[str, Any],
) -> SweepResult:
    import pandas as pd

    rows: list[dict[str, Any]] = []
    selected: list[Selected] = []
    for kind in config.table:
        cells = {name: _stacked(part, kind) for name, part in cells_of.items()}
        nulls = {name: summarise(cell.stacked.dev, cell.tested) for name, cell in cells.items()}
        family = _family(nulls, is_crossed=design.split.is_crossed)
        for name, part in cells_of.items():
            new_rows, chosen = _rows_of_kind(part, name, cells[name], nulls[name], family, design, extras, config)
            rows += new_rows
            selected.append(chosen)
    rows += [row for part in cells_of.values() for row in part.rows]
    table = pd.DataFrame(rows).reindex(columns=list(COLUMNS))
    table["member"], table["depth"] = source.checkpoint, (table["layer"] + 0.5) / source.n_layers
    order = {(name, kind): i for i, (name, kind) in enumerate((n, k) for n in cells_of for k in config.table)}
    return SweepResult(
        table=table,
        scores={key: scored.scores[0] for part in cells_of.values() for key, scored in part.scored.items()},
        directions={key: d for part in cells_of.values() for key, d in part.directions.items()},
        selected=tuple(sorted(selected, key=lambda s: order[s.target, s.kind])),
        labels=dict(design.labels),
        ids=source.ids,
        split=design.split,
        settings=dict(settings),
        looks={key: looks for part in cells_of.values() for key, looks in part.looks.items() if looks},
    )


@dataclass(frozen=True, eq=False)
class _Stacked:
    """The cells of one target and kind that can be selected, and their AUROCs stacked in that order."""

    keys: list[Key]
    stacked: Areas

    @property
    def tested(self) -> np.ndarray | None:
        """TEST AUROC of each label at the cells that it selects [label]."""
        return self.stacked.tested() if len(self.stacked.inner) else None

    @property
    def best(self) -> Key:
        return self.keys[int(self.stacked.dev[0].argmax())]

    @property
    def looks(self) -> tuple[Key, ...]:
        """Cell that each look selects for the real label."""
        return tuple(self.keys[int(j)] for j in self.stacked.choice[:, 0]) if len(self.stacked.inner) else ()


def _stacked(part: Cells, kind: str) -> _Stacked:
    keys = [key for key in part.areas if key[3] == kind and key[2] not in CONTROLS]
    keys = keys or [key for key in part.areas if key[3] == kind]
    return _Stacked(keys, Areas.stack([part.areas[key] for key in keys]))


def _family(nulls: Mapping[str, NullSummary | None], *, is_crossed: bool) -> dict[str, tuple[np.ndarray, float]]:
    """For each target, p of every site and the p that decides, both corrected for the choice among sites and targets.

    Sites: the maximum over sites; targets: Holm. If TEST is held out, p on TEST decides. A crossed TEST contains the
    rows on which the layers were selected, so the p of the best site, over all groups, decides: it repeats every
    choice, and has more power than TEST, whose looks choose different sites.
    """
    tested = {name: null for name, null in nulls.items() if null is not None}
    if not tested:
        return {}
    best = np.array([null.p_max.min() for null in tested.values()])
    factor, tests = holm(best) / best, [null.p_test for null in tested.values()]
    is_tested = bool(np.isfinite(tests).all()) and not is_crossed
    decide = holm(tests) if is_tested else holm(best)
    return {
        name: (np.minimum(1.0, null.p_max * f), float(p))
        for (name, null), f, p in zip(tested.items(), factor, decide, strict=True)
    }


def _rows_of_kind(
    part: Cells,
    name: str,
    cell: _Stacked,
    null: NullSummary | None,
    family: Mapping[str, tuple[np.ndarray, float]],
    design: SweepDesign,
    extras: Extras,
    config: SweepConfig,
) -> tuple[list[dict[str, Any]], Selected]:
    """Null and spread over seeds into the rows of one target and kind, the rows of its TEST, and what was selected."""
    y, split, best, looks = design.labels[name], design.split, cell.best, cell.looks
    c = config.Cs[int(part.scored[best].chosen[0])]
    chosen = Selected(*best, c, looks)
    shared: dict[str, Any] = {}
    if null is not None:
        shared = dict(scheme=design.exchanges[name].scheme, p_least=design.smallest[name])
        null = replace(null, p_max=family[name][0])
    attach_null(part.rows, cell.keys, best[3], null, best, shared)
    text = part.looks.get((best[0], best[1], SURFACE, best[3]))
    dev_text = part.scored.get((best[0], best[1], SURFACE, best[3]))
    again, bands = _reseeded_areas(part, cell.keys), _bands(part, cell, y, split, config)
    for row in part.rows:
        key = (row["target"], row["position"], row["site"], row["kind"])
        if row["metric"] == "auroc" and row["role"] == "layer" and key in cell.keys:
            j = cell.keys.index(key)
            row |= seed_columns(np.array([a.dev[0, j] for a in (cell.stacked, *again)])) | bands[key]
            if key == best and dev_text is not None:
                row |= text_columns(part.scored[key].scores[0], dev_text.scores[0], y, split, split.is_dev)
    if not looks:
        return [], chosen
    seen = [(at, part.looks[key][i].scores) for i, (key, at) in enumerate(zip(looks, split.looks(), strict=True))]
    scores = _merged(seen, len(y))
    shared |= seed_columns(np.array([a.tested()[0] for a in (cell.stacked, *again)]))
    shared |= dict(p_adjusted=family[name][1]) if null is not None else {}
    if text is not None:
        words = _merged([(at, text[i].scores) for i, (at, _) in enumerate(seen)], len(y))
        shared |= text_columns(scores, words, y, split, split.is_tested)
    scored = replace(part.scored[best], scores=scores[None])
    rows = final_rows(
        best, scored, seen, y, split, extras, config, null, shared | _where(looks, best), _cohort_nulls(part, cell)
    )
    return rows, chosen


def _reseeded_areas(part: Cells, keys: list[Key]) -> list[Areas]:
    """The cells stacked again, once for each further seed."""
    return [Areas.stack([part.seeds[key][i] for key in keys]) for i in range(len(part.seeds[keys[0]]))]


def _bands(
    part: Cells, cell: _Stacked, y: np.ndarray, split: Split, config: SweepConfig
) -> dict[Key, dict[str, float]]:
    """Columns of the simultaneous bands, over the layers of one kind of site at one position."""
    out: dict[Key, dict[str, float]] = {}
    dev = split.is_dev
    for family in dict.fromkeys((key[1], kind_of_site(key[2])) for key in cell.keys):
        keys = [key for key in cell.keys if (key[1], kind_of_site(key[2])) == family]
        lo, hi = layer_bands(
            np.stack([part.scored[key].scores[0, dev] for key in keys]),
            y[dev],
            groups=split.group[dev],
            strata=split.fold_of[dev],
            least_se=[spread(part.areas[key].dev) for key in keys],
            sampling=config.sampling,
        )
        out |= {key: dict(band_lo=a, band_hi=b) for key, a, b in zip(keys, lo.tolist(), hi.tolist(), strict=True)}
    return out


def _merged(looks: Sequence[tuple[Split, np.ndarray]], n: int) -> np.ndarray:
    """Scores of the TEST rows of every look [example]; 0 elsewhere."""
    out = np.zeros(n)
    for at, scores in looks:
        out[at.is_test] = scores[at.is_test]
    return out


def _where(looks: tuple[Key, ...], best: Key) -> dict[str, str]:
    """Note of a TEST row whose looks chose other cells than DEV as a whole did."""
    sites = [f"{key[2]} ({key[1]})" for key in looks]
    other = {site: sites.count(site) for site in sites}
    if set(looks) == {best}:
        return {}
    return {
        "note": "chosen without each TEST fold: "
        + ", ".join(f"{site} in {n} of {len(sites)}" for site, n in other.items())
    }


def _cohort_nulls(part: Cells, cell: _Stacked) -> dict[str, np.ndarray]:
    """TEST AUROC of every label in each cohort, at the cells that each look selects."""
    names = part.cohorts[cell.keys[0]]
    return {n: Areas.stack([part.cohorts[key][n] for key in cell.keys]).tested(cell.stacked.choice) for n in names}
