"""From tables of probes to figures: one kind, one target, one position and one kind of site in each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from interp.remedy import remedy
from probes.kinds import in_order, label_of, rank
from probes.metrics import INTERVALS
from probes.result import SweepResult
from study.figures.drawn import tried
from study.figures.style import MEMBERS

if TYPE_CHECKING:
    import pandas as pd

    from study.figures import Drawn

Cell = tuple[str, str, str]
"""(target, position, kind of site)."""


def by_layer(results: Sequence[SweepResult], *, kind: str | None = None, target: str | None = None) -> Drawn:
    """Figure 02 of sweeps of one target: AUROC over layers, its null, and TEST, where the first sweep was selected.

    Raises:
        ValueError: several targets and none named; no kind that has a null; more than three checkpoints.
    """
    tables = [result.table for result in results]
    chosen = [s for s in results[0].selected if target in (None, s.target) and kind in (None, s.kind)]
    targets = list(dict.fromkeys(s.target for s in chosen))
    if len(targets) != 1:
        known = list(dict.fromkeys(s.target for s in results[0].selected))
        raise ValueError(f"target={target!r}: a figure shows one target; the sweep holds {', '.join(known)}. Name one.")
    first = min(chosen, key=lambda s: (not _has_null(tables[0], s.kind), rank(s.kind)))
    return _layers(tables, (first.target, first.position, first.site.split(".")[0]), first.kind)


def figures_of(results: Sequence[SweepResult], transfers: Sequence[pd.DataFrame]) -> Iterator[tuple[str, Drawn | str]]:
    """(name, figure) of everything that the sweeps allow, or (name, why it was not drawn).

    Args:
        results:   one sweep per checkpoint.
        transfers: tables of `probes.transfer`.
    """
    tables = [result.table for result in results]
    yield from figures_of_tables(tables, transfers)
    for cell in _all_cells(tables):
        yield f"cosines-{_name(*cell)}", tried(partial(_cosines, results, cell))


def figures_of_tables(
    tables: Sequence[pd.DataFrame], transfers: Sequence[pd.DataFrame], **size: Any
) -> Iterator[tuple[str, Drawn | str]]:
    """As `figures_of`, from tables alone (one per checkpoint); directions are in none, so cosines are left out.

    Args:
        size: `width` of every figure.
    """
    for cell in _all_cells(tables):
        own, at = [table for table in tables if cell in cells_of(table)], _name(*cell)
        yield f"layers-{at}", tried(partial(_layers, own, cell, **size))
        yield f"selectivity-{at}", tried(partial(_selectivity, own, cell, **size))
        if transfers:
            yield f"transfer-{at}", tried(partial(_transfer, transfers, cell, **size))
    for target in dict.fromkeys(str(target) for table in tables for target in table["target"]):
        yield f"reliability-{_name(target)}", tried(partial(_reliability, tables, target, **size))
        yield f"cohorts-{_name(target)}", tried(partial(_cohorts, tables, target, **size))


def first_layers(tables: Sequence[pd.DataFrame], **where: Any) -> Drawn:
    """Figure 02 of the first target, position and kind of site that any table has a curve for.

    Raises:
        ValueError: there is none, or it has no null.
    """
    cells = _all_cells(tables)
    if not cells:
        raise ValueError("no curve over layers in the table.")
    return _layers([table for table in tables if cells[0] in cells_of(table)], cells[0], **where)


def first_reliability(tables: Sequence[pd.DataFrame], **where: Any) -> Drawn:
    """Reliability of the probes of the first target.

    Raises:
        ValueError: no calibration in the tables.
    """
    return _reliability(tables, str(tables[0]["target"].iloc[0]), **where)


def _all_cells(tables: Sequence[pd.DataFrame]) -> list[Cell]:
    return list(dict.fromkeys(cell for table in tables for cell in cells_of(table)))


def cells_of(table: pd.DataFrame) -> list[Cell]:
    """What has a curve over layers."""
    rows = table[(table["role"] == "layer") & table["layer"].notna()]
    return list(dict.fromkeys(zip(rows["target"], rows["position"], _site_kind(rows["site"]), strict=True)))


def _layers(tables: Sequence[pd.DataFrame], cell: Cell, kind: str | None = None, **where: Any) -> Drawn:
    """Figure 02: out of fold by layer, and TEST where this kind of site was selected."""
    from study.figures import probe_by_layer

    rows = _rows(tables, cell)
    tested = [name for name in in_order(rows["kind"]) if _has_null(rows, name)]
    if not tested or kind not in (None, *tested):
        raise ValueError(
            remedy("no null over layers: sweep with {probes.perm}, and another kind than logistic (it has none).")
        )
    rows = rows[rows["kind"] == (kind or tested[0])].drop(columns="null_lo")  # it is of TEST, the band of layers is not
    renamed = rows.rename(columns={"null_max_hi": "null_max95", "is_selected": "selected"})
    renamed["kind"] = renamed["kind"].map(label_of)
    return probe_by_layer(renamed.assign(chance=0.5, target=_words(cell), unit="rows"), **where)


def _selectivity(tables: Sequence[pd.DataFrame], cell: Cell, **where: Any) -> Drawn:
    """Figure 03: the label minus a control label."""
    from study.figures import selectivity

    rows = _rows(tables, cell)
    rows = rows[(rows["split"] == "oof") & rows["selectivity_null_hi"].notna()]
    if not len(rows):
        raise ValueError(remedy("no selectivity in the table: sweep with {probes.control:COLUMN}."))
    rows = rows[rows["kind"] == _first_kind(rows)].drop(columns=["lo", "hi", "null_lo", "null_hi"])
    rows = rows.rename(columns={"selectivity_lo": "lo", "selectivity_hi": "hi", "selectivity_null_hi": "null_hi"})
    rows = rows.assign(null_lo=-rows["null_hi"], metric="AUROC", target=_words(cell), unit="rows")
    return selectivity(rows.assign(interval=INTERVALS["auroc_gain"]), **where)


def _transfer(tables: Sequence[pd.DataFrame], cell: Cell, **where: Any) -> Drawn:
    """Figure 04: every train layer read at every test layer, for both members."""
    import pandas as pd

    from study.figures import transfer

    table = pd.concat(tables, ignore_index=True)
    table = table[~table["is_selected"].astype(bool)]  # those are of the layers that each look chose
    rows = table[
        (table["target"] == cell[0]) & (table["position"] == cell[1]) & (_site_kind(table["train_site"]) == cell[2])
        & (table["metric"] == "auroc") & (table["variant"] == "raw") & table["train_layer"].notna()
    ]  # fmt: skip
    if not len(rows):
        raise ValueError("no transfer of these probes: run `diptych probes transfer SWEEP CACHE --all-layers`.")
    rows = rows[rows["kind"] == _first_kind(rows)]
    wide = {"train_d_feature": "train_d_model", "test_d_feature": "test_d_model"}
    return transfer(rows.rename(columns=wide).assign(chance=0.5, target=_words(cell), unit="rows"), **where)


def _rows(tables: Sequence[pd.DataFrame], cell: Cell) -> pd.DataFrame:
    """AUROC rows of the probes of a cell, every checkpoint with its role in the look of the figures."""
    import pandas as pd

    parts = [table[table["layer"].notna() & (_site_kind(table["site"]) == cell[2])] for table in tables]
    rows = with_roles(pd.concat(parts, ignore_index=True))
    rows = rows[(rows["role"] == "layer") & (rows["target"] == cell[0]) & (rows["position"] == cell[1])]
    rows = rows[(rows["cohort"] == "all") & (rows["metric"] == "auroc")]
    return rows.assign(layer=rows["layer"].astype(int))


def with_roles(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with the column `member`: the look of their checkpoint in a figure.

    Raises:
        ValueError: more checkpoints than there are looks.
    """
    names = list(dict.fromkeys(rows["checkpoint"]))
    free = iter([role for role in MEMBERS if role not in names])
    if len(names) > len(MEMBERS):
        raise ValueError(f"{len(names)} checkpoints ({', '.join(names)}): a figure shows at most {len(MEMBERS)}.")
    roles = {name: name if name in MEMBERS else next(free) for name in names}
    return rows.assign(member=rows["checkpoint"].map(roles))


def _cosines(results: Sequence[SweepResult], cell: Cell) -> Drawn:
    """Directions of each pair of kinds, and of one kind in two checkpoints."""
    from probes import cosines as between
    from study.figures import cosines

    named: dict[str, dict[str, Any]] = {}
    for result in results:
        own = str(result.table["checkpoint"].iloc[0]) + " " if len(results) > 1 else ""
        for (target, position, site, kind), direction in result.directions.items():
            if (target, position, site.split(".")[0]) == cell and site[-1].isdigit():
                named.setdefault(site, {})[own + label_of(kind)] = direction.unit
    empty = replace(results[0], directions={})
    table = between(empty, {(name, site): unit for site, units in named.items() for name, unit in units.items()})
    if not len(table):
        raise ValueError(
            remedy("no two directions of one site: sweep with several {probes.kinds}, or give two sweeps.")
        )
    kinds, names = (table[["a", "b"]].map(lambda text, i=i: text.split(" ")[i]) for i in (-1, 0))
    table = table[(kinds["a"] == kinds["b"]) | (names["a"] == names["b"]) | (len(results) == 1)]
    return cosines(table)


def _reliability(tables: Sequence[pd.DataFrame], target: str, **where: Any) -> Drawn:
    """Figure 5 of the specification, at the cell that was selected; Platt's sigmoid where scores are no logits."""
    import pandas as pd

    from study.figures import reliability

    rows = pd.concat(tables, ignore_index=True)
    rows = rows[(rows["role"] == "calibration") & (rows["target"] == target)]
    if not len(rows):
        raise ValueError(remedy("no calibration in the table: sweep with a TEST set ({probes.test_share} above 0)."))
    rows = with_roles(rows[rows["kind"] == _first_kind(rows)])
    prefix = "" if (rows["metric"] == "reliability").any() else "platt_"
    errors = rows[rows["metric"] == f"{prefix}ece"].set_index("checkpoint")
    rows = rows[rows["metric"] == f"{prefix}reliability"]
    for name, column in (("ece", "value"), ("ece_lo", "lo"), ("ece_hi", "hi"), ("ece_floor_hi", "null_hi")):
        rows = rows.assign(**{name: rows["checkpoint"].map(errors[column])})
    return reliability(rows.drop(columns=["null_lo", "null_hi"]).assign(unit="rows"), **where)


def _cohorts(tables: Sequence[pd.DataFrame], target: str, **where: Any) -> Drawn:
    """Figure 6 of the specification: TEST at the selected cell in every cohort."""
    import pandas as pd

    from study.figures import probe_cohorts

    rows = pd.concat(tables, ignore_index=True)
    rows = rows[(rows["target"] == target) & (rows["split"] == "test") & (rows["metric"] == "auroc")]
    rows = rows[rows[["value", "null_lo", "layer"]].notna().all(axis=1)]
    if not (rows["cohort"] != "all").any():
        raise ValueError(
            remedy("no cohorts with both classes and a null: sweep with {probes.cohort:COLUMN} and {probes.perm}.")
        )
    rows = with_roles(rows[rows["kind"] == _first_kind(rows)])
    return probe_cohorts(rows.assign(layer=rows["layer"].astype(int), chance=0.5, unit="rows"), **where)


def _site_kind(sites: pd.Series) -> pd.Series:
    return sites.str.split(".").str[0]


def _has_null(table: pd.DataFrame, kind: str) -> bool:
    rows = table[(table["kind"] == kind) & (table["split"] == "oof") & (table["role"] == "layer")]
    rows = rows[rows["metric"] == "auroc"]
    return bool(len(rows) and "null_hi" in rows and rows["null_hi"].notna().all())


def _first_kind(rows: pd.DataFrame) -> str:
    return min(rows["kind"].unique(), key=rank)


def _words(cell: Cell) -> str:
    target, position, sites = cell
    return f"{target}, {sites} at {position}"


def _name(*parts: str) -> str:
    return "-".join("".join(c if c.isalnum() or c in "._" else "_" for c in part) for part in parts)
