"""Claims about what the members answer: where they part, and where they do not."""

from __future__ import annotations

import re
from typing import Any

from study.report.claims import (
    VERDICTS,
    Above,
    Below,
    Claim,
    Control,
    Tables,
    Within,
    below,
    is_blank,
    judge,
    measured,
    number,
    p_words,
    rows,
    short,
)

DIFFERENCE, CHANGE = "engaged - heuristic", "accuracy_difference"
_MARGIN = re.compile(r"margin ([0-9.]+)|±\s*([0-9.]+)")


def behaviour(tables: Tables) -> list[Claim]:
    """Separation where the surface misleads, equivalence where it does not."""
    cells = [row for row in rows(tables, "pair", member=DIFFERENCE, metric=CHANGE) if row.get("cell") != "all"]
    claims = [_separates(tables, cells), _equivalent(cells)]
    binding = _binding(tables)
    return [*claims, binding] if binding else claims


def _separates(tables: Tables, cells: list[dict[str, Any]]) -> Claim:
    hard = [row for row in cells if "adversarial" in str(row["cell"])]
    text = "The pair separates on adversarial surface cells"
    if not cells:
        return Claim(text, "behaviour", "eval", why="no table of both members on the same items")
    if hard:
        row = max(hard, key=lambda r: (_badness(tables, r), -float(r["value"])))  # a claim about all: its worst verdict
        name = f"{words(row['cell'])}, the weakest of {len(hard)}" if len(hard) > 1 else ""
        asserts = Above()
    else:
        row = max(cells, key=lambda r: (abs(float(r["value"])), str(r["cell"])))
        text, name = f"The members part on {words(row['cell'])}", f"largest of {len(cells)} cells"
        asserts = Above() if float(row["value"]) >= 0 else Below()
    return Claim(text, "behaviour", "eval", asserts, measured(row, name=name, signed=True),
                 _beside(tables, row))  # fmt: skip


def _beside(tables: Tables, row: dict[str, Any]) -> tuple[Control, ...]:
    return _corrected(row), _beats_one_label(tables, row)


def _badness(tables: Tables, row: dict[str, Any]) -> int:
    """How bad the verdict of one cell is that should be above zero."""
    return VERDICTS.index(judge(measured(row), Above(), _beside(tables, row)))


def _corrected(row: dict[str, Any]) -> Control:
    p = number(row, "p_adjusted")
    how = row.get("correction") or "corrected over the cells"
    return Control.of(f"same items, {how}", below(p), "" if p is None else p_words(p))


def _beats_one_label(tables: Tables, row: dict[str, Any]) -> Control:
    """Whether the better member does better than always answering one label: single-label cells cannot tell."""
    better = "engaged" if float(row["value"]) >= 0 else "heuristic"
    found = rows(tables, "eval", member=better, metric="accuracy", cell="all") or rows(
        tables, "eval", member=better, metric="accuracy", cell=row["cell"]
    )
    control = number(found[0], "control_value") if found else None
    if control is None:
        return Control("beats always answering one label", "not run")
    value = float(found[0]["value"])
    where = "over all cells" if found[0]["cell"] == "all" else f"in {words(found[0]['cell'])}"
    return Control.of(f"{better} member beats always answering one label, {where}", float(found[0]["lo"]) > control,
                      f"{short(value)} against {short(control)}")  # fmt: skip


def _equivalent(cells: list[dict[str, Any]]) -> Claim:
    text = "Training-distribution accuracy is equivalent"
    declared = [row for row in cells if is_training(row["cell"]) and not is_blank(row.get("verdict"))]
    declared = [row for row in declared if margin_of(row["verdict"]) is not None]
    if not declared:
        return Claim(text, "behaviour", "eval", Within(0.05), why="no cell of the training distribution with a margin")
    row = max(declared, key=lambda r: (not str(r["verdict"]).startswith("equivalent"), abs(float(r["value"]))))
    margin = margin_of(row["verdict"]) or 0.0
    name = f"{words(row['cell'])}, the least equal of {len(declared)}" if len(declared) > 1 else ""
    passed = str(row["verdict"]).startswith("equivalent")
    control = Control.of(f"two one-sided tests at ±{margin:g}", passed, "" if passed else str(row["verdict"]))
    return Claim(text, "behaviour", "eval", Within(margin), measured(row, name=name, signed=True), (control,))


def margin_of(verdict: object) -> float | None:
    """The margin that an equivalence verdict names, or None."""
    match = _MARGIN.search(str(verdict))
    return float(match[1] or match[2]) if match else None


def _binding(tables: Tables) -> Claim | None:
    """Variable binding of the engaged member, where order-swapped twins were asked."""
    found = rows(tables, "eval", member="engaged", metric="order_swap_flipping")
    if not found:
        return None
    chance = number(found[0], "control_value")
    keeping = rows(tables, "eval", member="engaged", metric="order_swap_keeping")
    name = "same answer where the swap does not change it"
    kept = Control(name, "not run")
    if keeping:
        kept = Control.of(name, float(keeping[0]["lo"]) > 0.5, short(float(keeping[0]["value"])))
    text = "The engaged member binds step numbers: order-swapped twins, flipping"
    asserts = Above(0.5 if chance is None else chance)
    return Claim(text, "behaviour", "eval", asserts, measured(found[0], name="accuracy"), (kept,))


def is_training(cell: object) -> bool:
    """Whether a cell is of the training distribution: the one where members are claimed to be equal."""
    return str(cell).startswith("training")


def words(name: object) -> str:
    """A name of a table in words."""
    return str(name).replace("_", " ")
