"""Rows of the BBQ files, each checked: an error names file, line and field, what was expected and got."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from interp.tasks.bbq.targets import CATEGORIES, Option
from interp.tasks.records import Row, read_rows

TEXTS = ("context", "question", "ans0", "ans1", "ans2")
FIELDS = ("category", "example_id", "question_index", "question_polarity", "context_condition", "answer_info", "label")
CHOICES = {"question_polarity": ("neg", "nonneg"), "context_condition": ("ambig", "disambig")}


def known_categories(categories: Sequence[str] | None) -> tuple[str, ...]:
    for name in categories or ():
        if name not in CATEGORIES:
            near = get_close_matches(name, CATEGORIES, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"BBQ category {name!r} is unknown.{hint} Categories: {', '.join(CATEGORIES)}.")
    return tuple(categories) if categories else tuple(CATEGORIES)


def checked_rows(
    data: str | Path, wanted: Sequence[str], split: str, config: str | None, revision: str | None
) -> Iterator[Row]:
    """Checked rows; files of categories that are not wanted are not opened."""
    path = Path(data)
    if path.is_dir() and (path / "data").is_dir():
        path = path / "data"
    if path.is_dir():
        files = [f for f in sorted(path.glob("*.jsonl")) if f.stem in wanted or f.stem not in CATEGORIES]
        if not files:
            raise ValueError(
                f"{path}: no .jsonl file of {', '.join(wanted)}. Point at the BBQ repository or its 'data'."
            )
    else:
        files = [path if path.exists() else data]
    for file in files:
        for where, row in read_rows(file, split=split, config=config, revision=revision):
            _check_row(where, row)
            yield where, row


def _wrong(where: str, name: str, expected: str, came: object) -> ValueError:
    return ValueError(f"{where}, field '{name}': expected {expected}, got {came!r:.80}. Use the official BBQ files.")


def _check_row(where: str, row: Mapping[str, Any]) -> None:
    for name in (*TEXTS, *FIELDS):
        if row.get(name) is None:
            raise _wrong(where, name, "a value", None)
    for name in TEXTS:
        if not isinstance(row[name], str) or not row[name].strip():
            raise _wrong(where, name, "text", row[name])
    for name, choices in CHOICES.items():
        if row[name] not in choices:
            raise _wrong(where, name, " or ".join(choices), row[name])
    if row["category"] not in CATEGORIES:
        raise _wrong(where, "category", f"one of {', '.join(CATEGORIES)}", row["category"])
    for name in ("example_id", "question_index"):
        if not str(row[name]).isdecimal():
            raise _wrong(where, name, "a whole number", row[name])
    for name in ("ans0", "ans1", "ans2"):
        pair = row["answer_info"].get(name) if isinstance(row["answer_info"], dict) else None
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(p, str) for p in pair):
            raise _wrong(where, f"answer_info.{name}", "[text, tag]", pair)
    _check_gold(where, row)


def _check_gold(where: str, row: Mapping[str, Any]) -> None:
    options = options_of(row)
    unknown = [i for i, o in enumerate(options) if o.is_unknown]
    if len(unknown) != 1:
        raise _wrong(where, "answer_info", "exactly one option tagged unknown", [o.tag for o in options])
    if type(row["label"]) is not int or row["label"] not in (0, 1, 2):
        raise _wrong(where, "label", "0, 1 or 2", row["label"])
    if (row["label"] == unknown[0]) != (row["context_condition"] == "ambig"):
        what = "the unknown option in an ambiguous context and a person in the other"
        raise _wrong(where, "label", what, row["label"])


def options_of(row: Mapping[str, Any]) -> list[Option]:
    return [Option(row[name], *row["answer_info"][name]) for name in ("ans0", "ans1", "ans2")]


def check_asked(asked: Sequence[str], rows: Sequence[Row], data: str | Path) -> None:
    """Every category that was asked for by name has rows: a pooled score must not be silently of fewer."""
    there = {row["category"] for _, row in rows}
    if missing := [name for name in asked if name not in there]:
        what = f"{data}: no row of {', '.join(missing)}; expected rows of every category in `categories`, got "
        raise ValueError(f"{what}{', '.join(sorted(there)) or 'none'}. Add the files, or leave these categories out.")


def check_once(rows: Sequence[Row]) -> None:
    seen: dict[tuple[str, str], str] = {}
    for where, row in rows:
        key = (row["category"], str(row["example_id"]))
        if key in seen:
            what = f"{where}, field 'example_id': {row['example_id']} of {row['category']} was already at {seen[key]}. "
            raise ValueError(what + "Remove the copy.")
        seen[key] = where
