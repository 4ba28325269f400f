"""The scores that a task puts first, of every member, as a table of the report's page."""

from __future__ import annotations

from study.analyses.base import ShownTable
from study.figures.numbers import format_estimate, short
from study.ledger_rows import Tables, is_blank, number, one_answer
from study.rows import Row

CAPTION = "Scores over all items, with 95 % intervals; n: items, and the number of groups."


def scores(tables: Tables) -> ShownTable | None:
    """One row per score (and prompt mode), one column per member; None for a task that names no `HEADLINE`."""
    table = tables.get("eval")
    if table is None or "headline" not in table:
        return None
    records = ({str(name): value for name, value in row.items()} for row in table.to_dict("records"))
    named: list[Row] = [row for row in records if not is_blank(row["headline"])]
    if not named:
        return None
    members = list(dict.fromkeys(str(row["member"]) for row in named))
    has_modes = len({_mode(row) for row in named}) > 1
    lines = []
    for name, mode in dict.fromkeys((str(row["headline"]), _mode(row)) for row in named):
        own = {str(row["member"]): row for row in named if (str(row["headline"]), _mode(row)) == (name, mode)}
        control = next((value for row in own.values() if (value := number(row, "control_value")) is not None), None)
        lines.append(
            (
                f"{name}, {mode}" if has_modes else name,
                "" if control is None else short(control),
                *(_cell(own[member]) if member in own else "" for member in members),
            )
        )
    reasons = dict.fromkeys(filter(None, map(one_answer, named)))
    warned = "".join(f" {why[0].upper()}{why[1:]}: its scores follow the order of the options." for why in reasons)
    return ShownTable(CAPTION + warned, ("Score", "Without the skill", *members), tuple(lines))


def _mode(row: Row) -> str:
    return "" if is_blank(row.get("mode")) else str(row["mode"])


def _cell(row: Row) -> str:
    """`0.75 [0.60, 0.86], n = 400 in 28`; why there is no value where there is none."""
    value, lo, hi, groups = (number(row, name) for name in ("value", "lo", "hi", "n_groups"))
    if value is None or lo is None or hi is None:
        return str(row.get("note") or "undefined")
    shared = f" in {groups:,.0f}" if groups and groups != row["n"] else ""
    return f"{format_estimate(value, lo, hi, n=int(row['n']))}, n = {int(row['n']):,}{shared}"
