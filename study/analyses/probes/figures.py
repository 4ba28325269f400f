"""Figures of probes from their schema tables: one kind, one target, one position and one kind of site in each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Unpack

from interp.remedy import remedy
from probes.kinds import in_order, label_of, rank
from study.figures.drawn import tried
from study.figures.style import Place, Size

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from probes.result import SweepResult
    from study.figures import Drawn
    from study.figures.style import Width

Cell = tuple[str, str, str]
"""(target, position, kind of site)."""


def figures(
    tables: Mapping[str, pd.DataFrame], *, width: Width | None = None, explain: bool = False
) -> Iterator[tuple[str, Drawn | str]]:
    """(stem, figure, or why it was not drawn) of everything that the tables `probes` and `probes_transfer` allow.

    Args:
        width: width of every figure; None: its own default.
        explain: also name figures that the tables lack the rows for (no control labels, no cohorts, no null).
    """
    if "probes" not in tables:
        return
    size: Size = {} if width is None else {"width": width}
    for stem, drawn in _figures(_counted(tables["probes"]), tables.get("probes_transfer"), size):
        if explain or not (isinstance(drawn, str) and drawn.startswith("no ")):
            yield f"probes-{stem}", drawn


def _figures(probes: pd.DataFrame, transfers: pd.DataFrame | None, size: Size) -> Iterator[tuple[str, Drawn | str]]:
    for cell in cells_of(probes):
        at = _name(*cell)
        yield f"layers-{at}", tried(partial(_layers, probes, cell, **size))
        yield f"selectivity-{at}", tried(partial(_selectivity, probes, cell, **size))
        if transfers is not None:
            yield f"transfer-{at}", tried(partial(_transfer, transfers, cell, **size))
    for target in dict.fromkeys(map(str, probes["target"])):
        yield f"reliability-{_name(target)}", tried(partial(_reliability, probes, target, **size))
        yield f"cohorts-{_name(target)}", tried(partial(_cohorts, probes, target, **size))


def by_layer(results: Sequence[SweepResult], *, kind: str | None = None, target: str | None = None) -> Drawn:
    """Figure 02 of sweeps of one target: AUROC over layers, its null, and TEST, where the first sweep was selected.

    Raises:
        ValueError: several targets and none named; no kind that has a null; more than three checkpoints.
    """
    probes = _counted(_table(results))
    chosen = [s for s in results[0].selected if target in (None, s.target) and kind in (None, s.kind)]
    targets = list(dict.fromkeys(s.target for s in chosen))
    if len(targets) != 1:
        swept = list(dict.fromkeys(s.target for s in results[0].selected))
        raise ValueError(f"target={target!r}: a figure shows one target; the sweep holds {', '.join(swept)}. Name one.")
    own = probes[probes["member"] == probes["member"].iloc[0]]
    first = min(chosen, key=lambda s: (not _has_null(own, s.kind), rank(s.kind)))
    return _layers(probes, (first.target, first.position, first.site.split(".")[0]), first.kind)


def first_layers(probes: pd.DataFrame, **where: Unpack[Place]) -> Drawn:
    """The curve over layers of the first target, position and kind of site in the table.

    Raises:
        ValueError: there is none, or it has no null.
    """
    probes = _counted(probes)
    cells = cells_of(probes)
    if not cells:
        raise ValueError("no curve over layers in the table.")
    return _layers(probes, cells[0], **where)


def first_reliability(probes: pd.DataFrame, **where: Unpack[Place]) -> Drawn:
    """Reliability of the probes of the first target.

    Raises:
        ValueError: no calibration in the table.
    """
    return _reliability(_counted(probes), str(probes["target"].iloc[0]), **where)


def figures_of(results: Sequence[SweepResult]) -> Iterator[tuple[str, Drawn | str]]:
    """`figures` and `cosine_figures` of sweeps in memory, one per checkpoint."""
    yield from figures({"probes": _table(results)})
    yield from cosine_figures(results)


def cosine_figures(results: Sequence[SweepResult]) -> Iterator[tuple[str, Drawn | str]]:
    """(stem, figure, or why it was not drawn) of the directions of sweeps, which no table holds."""
    for cell in cells_of(_table(results)):
        yield f"probes-cosines-{_name(*cell)}", tried(partial(_cosines, results, cell))


def cells_of(probes: pd.DataFrame) -> list[Cell]:
    """What has a curve over layers."""
    rows = probes[(probes["role"] == "layer") & probes["layer"].notna()]
    return list(dict.fromkeys(zip(rows["target"], rows["position"], _site_kind(rows["site"]), strict=True)))


def _table(results: Sequence[SweepResult]) -> pd.DataFrame:
    import pandas as pd

    from study.analyses.probes.tables import probe_table

    return pd.concat([probe_table(result.table) for result in results], ignore_index=True)


def _counted(probes: pd.DataFrame) -> pd.DataFrame:
    """Rows that say how many items and groups they are of."""
    rows = probes[probes["n"].notna() & probes["n_groups"].notna()]
    return rows.assign(selected=_flags(rows["selected"])).astype({"n": int, "n_groups": int})


def _layers(probes: pd.DataFrame, cell: Cell, kind: str | None = None, **where: Unpack[Place]) -> Drawn:
    """Figure 02: out of fold by layer, and TEST where this kind of site was selected."""
    from study.figures import probe_by_layer

    rows = _rows(probes, cell)
    tested = [name for name in in_order(rows["kind"]) if _has_null(rows, name)]
    if not tested or kind not in (None, *tested):
        raise ValueError(
            remedy("no null over layers: sweep with {probes.perm}, and another kind than logistic (it has none).")
        )
    return probe_by_layer(_shown(rows[rows["kind"] == (kind or tested[0])], cell), **where)


def _selectivity(probes: pd.DataFrame, cell: Cell, **where: Unpack[Size]) -> Drawn:
    """Figure 03: the label minus a control label."""
    from study.figures import selectivity

    rows = _rows(probes, cell)
    rows = rows[(rows["split"] == "oof") & rows["selectivity_null_hi"].notna()]
    if not len(rows):
        raise ValueError(remedy("no selectivity in the table: sweep with {probes.control:COLUMN}."))
    return selectivity(_shown(rows[rows["kind"] == _first_kind(rows)], cell), **where)


def _transfer(transfers: pd.DataFrame, cell: Cell, **where: Unpack[Size]) -> Drawn:
    """Figure 04: every train layer read at every test layer, for both members."""
    from study.figures import transfer

    sizes = ["train_layer", "test_layer", "train_d_feature", "test_d_feature"]
    rows = transfers[~_flags(transfers["selected"]) & transfers[sizes].notna().all(axis=1)]
    rows = rows[(rows["target"] == cell[0]) & (rows["position"] == cell[1])]
    rows = rows[(_site_kind(rows["train_site"]) == cell[2]) & (rows["metric"] == "auroc") & (rows["variant"] == "raw")]
    blocks = set(zip(rows["train_checkpoint"], rows["test_checkpoint"], strict=True))
    if len(blocks) < 2 or not all((a, a) in blocks and (b, a) in blocks for a, b in blocks):
        raise ValueError(
            "no transfer of these probes between all layers: run `diptych probes transfer SWEEP CACHE --all-layers`."
        )
    rows = rows.astype({"n": int, "n_groups": int, **dict.fromkeys(sizes, int)})
    return transfer(_shown(rows[rows["kind"] == _first_kind(rows)], cell), **where)


def _rows(probes: pd.DataFrame, cell: Cell) -> pd.DataFrame:
    """AUROC rows of the probes of a cell."""
    rows = probes[(probes["role"] == "layer") & probes["layer"].notna() & (probes["target"] == cell[0])]
    rows = rows[(rows["position"] == cell[1]) & (_site_kind(rows["site"]) == cell[2])]
    rows = rows[(rows["cohort"] == "all") & (rows["metric"] == "auroc")]
    return rows.astype({"layer": int})


def _cosines(results: Sequence[SweepResult], cell: Cell) -> Drawn:
    """Directions of each pair of kinds, and of one kind in two checkpoints."""
    from probes import cosines as between
    from study.figures import cosines

    units: dict[str, dict[str, Tensor]] = {}
    for result in results:
        own = str(result.table["member"].iloc[0]) + " " if len(results) > 1 else ""
        for (target, position, site, kind), direction in result.directions.items():
            if (target, position, site.split(".")[0]) == cell and site[-1].isdigit():
                units.setdefault(site, {})[own + label_of(kind)] = direction.unit
    empty = replace(results[0], directions={})
    table = between(empty, {(name, site): unit for site, own in units.items() for name, unit in own.items()})
    if not len(table):
        raise ValueError(
            remedy("no two directions of one site: sweep with several {probes.kinds}, or give two sweeps.")
        )
    kinds, names = (table[["a", "b"]].map(lambda text, i=i: text.split(" ")[i]) for i in (-1, 0))
    table = table[(kinds["a"] == kinds["b"]) | (names["a"] == names["b"]) | (len(results) == 1)]
    return cosines(table)


def _reliability(probes: pd.DataFrame, target: str, **where: Unpack[Place]) -> Drawn:
    """Figure 5 of the specification, at the cell that was selected."""
    from study.figures import reliability

    rows = probes[(probes["role"] == "calibration") & (probes["target"] == target)]
    if not len(rows):
        raise ValueError(remedy("no calibration in the table: sweep with a TEST set ({probes.test_share} above 0)."))
    return reliability(rows[rows["kind"] == _first_kind(rows)], **where)


def _cohorts(probes: pd.DataFrame, target: str, **where: Unpack[Size]) -> Drawn:
    """Figure 6 of the specification: TEST at the selected cell in every cohort."""
    from study.figures import probe_cohorts

    rows = probes[(probes["target"] == target) & (probes["split"] == "test") & (probes["metric"] == "auroc")]
    rows = rows[rows[["value", "null_lo", "layer"]].notna().all(axis=1)]
    if not (rows["cohort"] != "all").any():
        raise ValueError(
            remedy("no cohorts with both classes and a null: sweep with {probes.cohort:COLUMN} and {probes.perm}.")
        )
    return probe_cohorts(rows[rows["kind"] == _first_kind(rows)].astype({"layer": int}), **where)


def _shown(rows: pd.DataFrame, cell: Cell) -> pd.DataFrame:
    """Rows of one kind, with kind and target as a figure names them."""
    target, position, sites = cell
    return rows.assign(kind=rows["kind"].map(label_of), target=f"{target}, {sites} at {position}")


def _flags(column: pd.Series) -> pd.Series:
    """A flag as bool; a blank is False."""
    return column.map(lambda value: value is True or value == True).astype(bool)  # noqa: E712 (numpy's True)


def _site_kind(sites: pd.Series) -> pd.Series:
    return sites.str.split(".").str[0]


def _has_null(probes: pd.DataFrame, kind: str) -> bool:
    rows = probes[(probes["kind"] == kind) & (probes["split"] == "oof") & (probes["role"] == "layer")]
    rows = rows[rows["metric"] == "auroc"]
    return bool(len(rows) and "null_hi" in rows and rows["null_hi"].notna().all())


def _first_kind(rows: pd.DataFrame) -> str:
    return min(rows["kind"].unique(), key=rank)


def _name(*parts: str) -> str:
    return "-".join("".join(c if c.isalnum() or c in "._" else "_" for c in part) for part in parts)
