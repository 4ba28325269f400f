"""Claims about what the members answer: where they differ, and where they do not."""

from __future__ import annotations

from dataclasses import replace

from interp.stats import Estimate, picked_among, rejects
from study.config.sections import SmallestEffects
from study.designs import of_difference, of_equivalence, of_rate
from study.ledger import SEVERITY, Above, Below, Claim, Control, Measured, Within, p_words, short
from study.ledger_rows import Tables, bounds, flag, is_blank, measured, number, rows, words
from study.rows import Row
from study.schema import DIFFERENCE

CHANGE = "accuracy_difference"
SEPARATES, EQUIVALENT, BINDING = "eval/separates", "eval/equivalent", "eval/binding"
TRAINING, ADVERSARIAL = "training", "adversarial"
"""Roles of cells (column `cell_role`) that claims are made about."""


def behaviour(tables: Tables, smallest: SmallestEffects) -> list[Claim]:
    """Separation where the surface misleads, equivalence where it does not."""
    cells = [row for row in rows(tables, "pair", member=DIFFERENCE, metric=CHANGE) if row.get("cell") != "all"]
    claims = [_separates(tables, cells, smallest.accuracy), _equivalent(tables, cells)]
    binding = _binding(tables, smallest.accuracy)
    return [*claims, binding] if binding else claims


def _separates(tables: Tables, cells: list[Row], smallest: float) -> Claim:
    text = "The pair separates on adversarial surface cells"
    if not cells:
        return Claim(text, "behaviour", "eval", why="no table of both members on the same items", key=SEPARATES)
    hard = [row for row in cells if row.get("cell_role") == ADVERSARIAL]
    if not hard:
        return _largest(tables, cells, smallest)
    cell_claims = [_separated(tables, row, len(hard), text, smallest) for row in hard]
    # the claim is about all of these cells, so its verdict is the worst of theirs
    worst = max(cell_claims, key=lambda c: (SEVERITY.index(c.verdict), -_value(c)))
    p_values = [p for c in cell_claims for p in c.tests]
    return replace(worst, tests=(max(p_values),) if p_values else ())


def _by_content(row: Row) -> tuple[Control, ...]:
    """A failed control if a member gives the same answer to everything; otherwise none."""
    if not flag(row, "is_degenerate"):
        return ()
    return (Control.of("both members' answers depend on the item", False, "one answer in more than 90 % of items"),)


def _value(claim: Claim) -> float:
    assert claim.measured is not None
    return claim.measured.value


def _separated(tables: Tables, row: Row, count: int, text: str, smallest: float) -> Claim:
    """One of the cells that all have to be above zero: its own p, which needs no correction over them."""
    name = f"{words(row['cell'])}, the weakest of {count}" if count > 1 else ""
    p = number(row, "p")
    test = _test("same items, groups as units", number(row, "p_adjusted") if p is None else p)
    controls = (test, _beats_one_label(tables, row), *_by_content(row))
    design = of_difference(row, smallest, accuracy=_better(tables, row))
    return Claim(
        text,
        "behaviour",
        "eval",
        Above(),
        measured(row, name=name, signed=True),
        controls,
        smallest=smallest,
        tests=_known(p),
        key=SEPARATES,
        design=design,
    )


def _better(tables: Tables, row: Row) -> float | None:
    """Accuracy of the better member in the cell of a difference; None where the table has none."""
    own = rows(tables, "pair", metric="accuracy", cell=row["cell"])
    return max((float(r["value"]) for r in own), default=None)


def _largest(tables: Tables, cells: list[Row], smallest: float) -> Claim:
    """The largest difference of all cells, with an interval and a p that hold for whichever cell is largest."""
    row = max(cells, key=lambda r: (abs(float(r["value"])), str(r["cell"])))
    p = number(row, "p_adjusted")
    measurement = simultaneous(
        measured(row, name=f"largest of {len(cells)} cells, simultaneous interval", signed=True), len(cells)
    )
    asserts = Above() if measurement.value >= 0 else Below()
    test = _test(f"same items, {row.get('correction') or 'corrected over the cells'}", p)
    return Claim(
        f"The members differ on {words(row['cell'])}",
        "behaviour",
        "eval",
        asserts,
        measurement,
        (test, _beats_one_label(tables, row), *_by_content(row)),
        smallest=smallest,
        tests=_known(p),
        key="eval/largest",
        design=of_difference(row, smallest, accuracy=_better(tables, row), family=len(cells)),
    )


def simultaneous(measurement: Measured, count: int) -> Measured:
    """The estimate with the interval that covers at 95 % when it is the largest of `count`, inside [-1, 1]."""
    n_groups = measurement.n if measurement.n_groups is None else measurement.n_groups
    wide = picked_among(Estimate(measurement.value, measurement.lo, measurement.hi, measurement.n, n_groups), count)
    return replace(measurement, lo=max(wide.lo, -1.0), hi=min(wide.hi, 1.0))


def _known(p: float | None) -> tuple[float, ...]:
    return () if p is None else (p,)


def _test(name: str, p: float | None) -> Control:
    return Control.of(name, None if p is None else bool(rejects(p)), "" if p is None else p_words(p), sort="null")


def _beats_one_label(tables: Tables, row: Row) -> Control:
    """The better member minus always answering one label, on the same items: single-label cells cannot tell."""
    better = "engaged" if float(row["value"]) >= 0 else "heuristic"
    name = "beats always answering one label"
    accuracy_rows = rows(tables, "eval", member=better, metric="accuracy", cell="all") or rows(
        tables, "eval", member=better, metric="accuracy", cell=row["cell"]
    )
    if not accuracy_rows:
        return Control(name, "not run")
    where = "over all cells" if accuracy_rows[0]["cell"] == "all" else f"in {words(accuracy_rows[0]['cell'])}"
    control = number(accuracy_rows[0], "control_value")
    detail = "" if control is None else f"{short(float(accuracy_rows[0]['value']))} against {short(control)}"
    return Control.at_least(
        f"{better} member {name}, {where}", bounds(accuracy_rows[0], "control_difference"), 0.0, detail
    )


def _equivalent(tables: Tables, cells: list[Row]) -> Claim:
    """Equivalence in every training cell, at the margin that its row declares."""
    text = "Training-distribution accuracy is equivalent"
    declared = [r for r in cells if r.get("cell_role") == TRAINING and not is_blank(r.get("margin"))]
    if not declared:
        why = "no cell of the training distribution with a margin"
        return Claim(text, "behaviour", "eval", Within(0.05), why=why, key=EQUIVALENT)
    cell_claims = [_equal(tables, row, len(declared), text) for row in declared]
    return max(cell_claims, key=lambda c: (SEVERITY.index(c.verdict), abs(_value(c))))


def _equal(tables: Tables, row: Row, count: int, text: str) -> Claim:
    margin = float(row["margin"])
    name = f"{words(row['cell'])}, the least equal of {count}" if count > 1 else ""
    control = Control.within(f"95 % interval inside ±{margin:g}", bounds(row), (-margin, margin))
    controls = (control, *_by_content(row))
    return Claim(
        text,
        "behaviour",
        "eval",
        Within(margin),
        measured(row, name=name, signed=True),
        controls,
        key=EQUIVALENT,
        design=of_equivalence(row, margin, accuracy=_better(tables, row)),
    )


def _binding(tables: Tables, smallest: float) -> Claim | None:
    """Variable binding of the engaged member, where order-swapped twins were asked."""
    swap_rows = rows(tables, "eval", member="engaged", metric="order_swap_flipping")
    if not swap_rows:
        return None
    chance = number(swap_rows[0], "control_value")
    keeping = rows(tables, "eval", member="engaged", metric="order_swap_keeping")
    kept = Control.at_least(
        "same answer where the swap does not change it",
        bounds(keeping[0]) if keeping else None,
        0.5,
        short(float(keeping[0]["value"])) if keeping else "",
    )
    text = "The engaged member binds step numbers in order-swapped twins that flip the answer"
    asserts = Above(0.5 if chance is None else chance)
    return Claim(
        text,
        "behaviour",
        "eval",
        asserts,
        measured(swap_rows[0], name="accuracy"),
        (kept,),
        smallest=smallest,
        key=BINDING,
        design=of_rate(swap_rows[0], asserts.null, smallest),
    )
