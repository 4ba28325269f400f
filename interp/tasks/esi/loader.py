"""ESI cases as examples: the user's copy of the MIETIC validation file, or synthetic cases of the same schema.

Source: MIETIC 1.0.0 (PhysioNet, credentialed, no redistribution): rows are read where they lie and never written;
results keep ids, prompt hashes, gold levels and replies.
"""

from __future__ import annotations

import csv
import math
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from interp.prompt import Example, Message
from interp.remedy import remedy
from interp.tasks.esi.cases import ESSENTIAL, KNOWN, LEVELS, NARRATIVE, NUMBERS, generate_rows
from interp.tasks.esi.triggers import TRIGGERS, polarity_of
from interp.tasks.row_files import check_new

MAX_NARRATIVE = 8000
MAX_PER_CELL = 100_000
DEFAULT_PER_CELL = 20
_UNITS = {"temperature": "°F", "heartrate": "/min", "resprate": "/min", "o2sat": "%", "sbp": "mmHg", "dbp": "mmHg"}
_MISSING = ("", "nan", "na", "n/a", "none", "null")
INSTRUCTION = (
    "You are a triage nurse in an emergency department. Assign the Emergency Severity Index (ESI), version 4: 1 needs "
    "an immediate life-saving intervention; 2 is high-risk, newly confused, or in severe pain; otherwise count the "
    "different resources needed: none is 5, one is 4, two or more is 3, or 2 if a vital sign is in the danger zone. "
    'Reason as you need to, then end with the line "ESI: <level>".'
)
CARD_SYSTEM = """\
You are an emergency department triage nurse. Assign the Emergency Severity Index (ESI), 1 to 5, to the patient. \
Answer in this form:

EXTRACTION:
- Chief complaint: ...
- Vital signs: ...
- Red flags: ...

ESI ALGORITHM:
- Step A (lifesaving): ...
- Step B (high-risk): ...
- Step C (resources): ...
- Step D (vitals): ...

ANSWER: ESI <level>"""
"""System message of the prompt "card": the form of reply that the cards of the GRPO series print, asked for in our
words (the wording of their own system message is cut off in public copies)."""
PROMPTS = ("toolkit", "card")


@dataclass(frozen=True)
class Cases:
    """Rows of a file that are asked, and why the others are not: reason -> count."""

    rows: tuple[tuple[str, Mapping[str, str]], ...]
    excluded: Mapping[str, int]


def examples(
    data: str | Path | None = None,
    *,
    per_cell: int | None = None,
    seed: int = 0,
    retained_only: bool = True,
    max_narrative: int = MAX_NARRATIVE,
    prompt: str = "toolkit",
    system: str | None = None,
) -> list[Example]:
    """One example per case: instruction, what is known at the door, narrative; the label is the gold level "1"-"5".

    Groups: subject (of synthetic cases, the template), and the pair of a synthetic case. Metadata: `cell` "ESI 2",
    `rule.<name>` (present, negated, historical, absent) and `rule.pain` of the narrative, and how a synthetic case was
    made. No metadata and no prompt holds an outcome column.

    Args:
        data:     `MIETIC-validate-samples.csv`; None generates synthetic cases.
        per_cell: synthetic pairs per kind of perturbation (20); of a file, the first cases of each level.
        retained_only: use only cases of the file that the experts agreed to retain.
        max_narrative: cases with a longer narrative are excluded, counted and named in a warning.
        prompt:   "toolkit": one user message that begins with `INSTRUCTION`; "card": `CARD_SYSTEM` as a system message,
            and the case as the user message, as the GRPO adapters were asked.
        system:   another system message in the place of `CARD_SYSTEM`, such as that of the adapter's own card.
    Raises:
        ValueError: a file without an essential column, a bad value (file, line, field), nothing left, an unknown
            prompt, or a system message for the prompt "toolkit", which has none.

    Example:
        >>> case = examples(per_cell=1, seed=0)[0]
        >>> case.id, case.label, case.metadata["perturbation"]
        ('synthetic-0-00000', '1', 'present')
    """
    turns = _turns(prompt, system)
    if data is None:
        if per_cell is not None and per_cell > MAX_PER_CELL:
            raise ValueError(f"per_cell {per_cell:,}: expected at most {MAX_PER_CELL:,} pairs. Ask for fewer.")
        rows = generate_rows(DEFAULT_PER_CELL if per_cell is None else per_cell, seed=seed)
        return [
            case_of(row, f"synthetic (seed {seed}), row {k}", id=f"synthetic-{seed}-{k:05d}", turns=turns)
            for k, row in rows
        ]
    cases = read_cases(data, retained_only=retained_only, max_narrative=max_narrative)
    if cases.excluded:
        told = ", ".join(f"{n} {reason}" for reason, n in cases.excluded.items())
        warnings.warn(f"{Path(data).name}: {len(cases.rows)} cases kept, left out: {told}.", stacklevel=2)
    items = [case_of(row, where, turns=turns) for where, row in cases.rows]
    if not items:
        raise ValueError(
            f"{data}: no case left. {remedy('Use {task.retained_only:False}, or a longer {task.max_narrative}.')}"
        )
    seen: dict[str, str] = {}
    for case in items:
        check_new(seen, case.id, str(case.metadata["source"]), "stay_id", "Remove the copy.")
    return items if per_cell is None else _first(items, per_cell)


def _turns(prompt: str, system: str | None) -> tuple[Message, ...]:
    """What comes before the case: the system message of the prompt "card", nothing of "toolkit"."""
    if prompt not in PROMPTS:
        raise ValueError(f"prompt: expected {' or '.join(PROMPTS)}, got {prompt!r}.")
    if prompt == "toolkit" and system is not None:
        raise ValueError("system: the prompt 'toolkit' has no system message. Give it with prompt: card.")
    return (Message("system", CARD_SYSTEM if system is None else system),) if prompt == "card" else ()


def read_cases(data: str | Path, *, retained_only: bool = True, max_narrative: int = MAX_NARRATIVE) -> Cases:
    """Checked rows of a MIETIC file, its header repaired.

    The published file begins with a byte-order mark that was decoded wrongly: the first column is read as
    `subject_id` whatever stands before "ubject_id".

    Raises:
        ValueError: a missing column; a gold level that is none; a row with too many or too few cells.
    """
    path, kept, excluded = Path(data), [], Counter()
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        reader = csv.reader(file)
        header = repaired_header(next(reader, []), path.name)
        for cells in reader:
            where = f"{path.name}, line {reader.line_num}"
            if len(cells) != len(header):
                do = "A cell with a line break must stand in quotes; save the file again as CSV."
                raise ValueError(f"{where}: expected {len(header)} cells, got {len(cells)}. {do}")
            row = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
            if retained_only and row["Final Decision"].upper() != "RETAIN":
                excluded["not retained by the experts"] += 1
            elif len(row[NARRATIVE]) > max_narrative:
                excluded[f"with a narrative of more than {max_narrative} characters"] += 1
            else:
                _check(row, where)
                kept.append((where, row))
    return Cases(tuple(kept), dict(excluded))


def repaired_header(header: Sequence[str], name: str) -> list[str]:
    """Column names without the remains of a byte-order mark before the first.

    Raises:
        ValueError: an essential column is missing; the message lists the columns of the file.
    """
    fixed = [column.strip() for column in header]
    if fixed and not fixed[0].isascii():
        fixed[0] = re.sub(r"[^\x00-\x7f]+", "", fixed[0])
    if fixed and fixed[0] in ("ubject_id", "subject_id"):
        fixed[0] = "subject_id"
    if missing := [column for column in ESSENTIAL if column not in fixed]:
        what = f"{name}, header: expected the columns {', '.join(ESSENTIAL)}; missing {', '.join(missing)}"
        raise ValueError(f"{what}; got {', '.join(fixed)[:200]!r}. Use MIETIC-validate-samples.csv as published.")
    return fixed


def _check(row: Mapping[str, str], where: str) -> None:
    if row["acuity"].removesuffix(".0") not in LEVELS:
        raise ValueError(f"{where}, field 'acuity': expected 1 to 5, got {row['acuity']!r}. Fix or remove the row.")
    for column in ("subject_id", NARRATIVE):
        if row[column].lower() in _MISSING:
            raise ValueError(f"{where}, field '{column}': expected a value, got none. Fix or remove the row.")
    for column in NUMBERS:
        value = row.get(column, "")
        if value.lower() not in _MISSING and not _is_number(value):
            raise ValueError(f"{where}, field '{column}': expected a number or nothing, got {value!r}. Fix the row.")


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def case_of(row: Mapping[str, str], where: str, *, id: str | None = None, turns: tuple[Message, ...] = ()) -> Example:
    """A checked row as an example; synthetic rows also have `template`, `pair` and `perturbation`."""
    text, spans = prompt_text(row, instruction="" if turns else INSTRUCTION)
    gold = row["acuity"].removesuffix(".0")
    groups = {"subject": row.get("template") or row["subject_id"]}
    groups |= {"pair": row["pair"]} if row.get("pair") else {}
    polarities = {f"rule.{rule}": polarity_of(row[NARRATIVE], rule) for rule in TRIGGERS}
    metadata: dict[str, object] = {
        "cell": f"ESI {gold}",
        **polarities,
        "rule.pain": _pain(row.get("pain", "")),
        "source": where,
    }
    metadata |= {key: row[key] for key in ("perturbation", "trigger", "synthetic") if key in row}
    name = id or f"stay-{row['stay_id']}" if row.get("stay_id") or id else f"subject-{row['subject_id']}"
    return Example(name, (*turns, Message("user", text)), gold, groups, spans, metadata)


def prompt_text(row: Mapping[str, str], *, instruction: str = INSTRUCTION) -> tuple[str, dict[str, tuple[int, int]]]:
    """The user message of a case, and where data and narrative are in it. Values that are missing are said to be."""
    lines = [f"{column}: {_shown(column, row.get(column, ''))}" for column in KNOWN]
    data = "\n".join(lines)
    head = f"{instruction}\n\n" * bool(instruction) + "Known at the door:\n"
    text = f"{head}{data}\n\nTriage note:\n{row[NARRATIVE]}"
    at, note = len(head), len(text) - len(row[NARRATIVE])
    return text, {"data": (at, at + len(data)), "narrative": (note, len(text))}


def _shown(column: str, value: str) -> str:
    if value.lower() in _MISSING:
        return "not recorded"
    return f"{value} {_UNITS[column]}" if column in _UNITS else value


def _pain(value: str) -> str:
    """Whether the pain field calls for a 2: present (7 or more), negated (less), absent (no number)."""
    if not _is_number(value):
        return "absent"
    return "present" if float(value) >= 7 else "negated"


def _first(items: Sequence[Example], n: int) -> list[Example]:
    if n < 1:
        raise ValueError(f"per_cell: expected at least 1, got {n}.")
    count: Counter[object] = Counter()
    out = []
    for e in items:
        count[e.label] += 1
        if count[e.label] <= n:
            out.append(e)
    return out
