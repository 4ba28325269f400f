"""One block per analysis: its question, an answer made from the verdicts, figures, and how it was done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from study.analyses.base import ShownTable
from study.analyses.registry import analyses
from study.known_truth.show import TABLE, astray, counts, shown_table
from study.ledger import VERDICTS, Claim
from study.ledger_rows import Tables, is_blank
from study.report.figure_order import ranked
from study.report.run_folder import RunFolder, SavedFigure

if TYPE_CHECKING:
    import pandas as pd

OTHER = ("Other figures", "Which other figures were drawn?")
MAX_ANSWERS = 5
_METHOD = (
    ("model", "models"),
    ("adapter", "adapters"),
    ("dtype", "dtype"),
    ("position", "positions read"),
    ("positions", "positions changed"),
    ("kind", "kinds"),
    ("split", "splits"),
    ("interval", "intervals"),
    ("control", "controls"),
    ("scheme", "null"),
    ("n_perm", "draws of the null"),
    ("correction", "correction"),
    ("seed", "seed"),
    ("data_sha256", "data"),
)
_MAX_VALUES = 6


@dataclass(frozen=True)
class Block:
    """What a block of the report shows.

    Attributes:
        answers: its claims in the order of verdicts, the first of them; `n_more` are left to the ledger.
        method: (what, how), read off the columns of its tables and its part of the study.
        figures, folded: those that are shown and those that are folded away.
        cause: why the step failed, "" where it did not.
        notes: what the step left out.
        table: what its analysis shows as a table.
        is_first: it stands at the top of the page, right after what was found.
        answer: of a block whose answer is no claim.
    """

    analysis: str
    title: str
    question: str
    answers: tuple[Claim, ...]
    n_more: int
    figures: tuple[SavedFigure, ...]
    folded: tuple[SavedFigure, ...]
    method: tuple[tuple[str, str], ...]
    cause: str = ""
    notes: tuple[str, ...] = ()
    table: ShownTable | None = None
    is_first: bool = False
    answer: str = ""


def blocks(run: RunFolder, ledger: Sequence[Claim]) -> tuple[Block, ...]:
    """A block for every analysis that has a table, a figure, or a step that failed or found nothing to measure."""
    found = []
    known = analyses()
    titles = {name: (one.title, one.question) for name, one in known.items() if one.title}
    for analysis, (title, question) in {**titles, "other": OTHER}.items():
        figures = tuple(f for f in run.figures if f.analysis == analysis)
        tables = {name: table for name, table in run.tables.items() if _is_of(table, analysis)}
        step = run.state.steps.get(analysis)
        cause = step.cause if step and step.status != "done" else ""
        is_empty = step is not None and bool(step.notes) and any(c.analysis == analysis for c in ledger)
        if not figures and not tables and not cause and not is_empty:
            continue
        own = sorted((c for c in ledger if c.analysis == analysis), key=lambda c: VERDICTS.index(c.verdict))
        first, rest = ranked(figures, own)
        one = known.get(analysis)
        shown = one.shown(run.tables) if one is not None and one.shown is not None else None
        found.append(
            Block(
                analysis,
                title,
                question,
                tuple(own[:MAX_ANSWERS]),
                max(0, len(own) - MAX_ANSWERS),
                first,
                rest,
                _method(tables, run.study.get(analysis)),
                cause,
                tuple(step.notes) if step else (),
                shown,
                one is not None and one.is_first,
            )
        )
    return (*_known_truth(run), *found)


def _known_truth(run: RunFolder) -> list[Block]:
    """The block of a planted pair: what was planted, and what this run claims of it."""
    if TABLE not in run.tables:
        return []
    table = run.tables[TABLE]
    wrong = "".join(f" {said.capitalize()}: {'; '.join(claims)}." for said, claims in astray(table).items())
    question = "Does this run find what was planted in the pair, and claim nothing else?"
    return [
        Block(
            TABLE,
            "Known truth",
            question,
            (),
            0,
            (),
            (),
            (),
            table=shown_table(table),
            is_first=True,
            answer=f"{counts(table)}.{wrong}",
        )
    ]


def _is_of(table: pd.DataFrame, analysis: str) -> bool:
    return "analysis" in table.columns and bool((table["analysis"] == analysis).any())


def _method(tables: Tables, options: object) -> tuple[tuple[str, str], ...]:
    """What the tables say of how they were made, and the options of the step."""
    said = [(words, _values(tables, column)) for column, words in _METHOD]
    said = [(what, how) for what, how in said if how]
    if isinstance(options, Mapping):
        said += [(str(key), _plain(value)) for key, value in options.items() if not is_blank_option(value)]
    return tuple(said)


def is_blank_option(value: object) -> bool:
    """Whether an option of a study says nothing."""
    return value is None or value == "" or value == [] or value == {}


def _values(tables: Tables, column: str) -> str:
    seen = dict.fromkeys(
        _plain(value)
        for table in tables.values()
        if column in table.columns
        for value in table[column].dropna().unique().tolist()
        if not is_blank(value)
    )
    shown = "; ".join(list(seen)[:_MAX_VALUES])
    return shown + (f"; and {len(seen) - _MAX_VALUES} more" if len(seen) > _MAX_VALUES else "")


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_plain(part)}" for key, part in value.items())
    return ", ".join(map(_plain, value)) if isinstance(value, list | tuple) else str(value)
