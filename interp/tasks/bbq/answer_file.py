"""Somebody else's answers to BBQ: JSON lines `{"category", "example_id", "answer": "A" | "B" | "C" | null}`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from interp.prompt import Example
from interp.tasks.bbq.targets import CATEGORIES
from interp.tasks.records import read_rows

LETTERS = ("A", "B", "C")
_DO = 'Write {"category": ..., "example_id": ..., "answer": "A" | "B" | "C" | null}.'


def read_answers(path: str | Path, examples: Sequence[Example]) -> dict[str, str | None]:
    """Example id -> letter, None where the line says null; `examples` in the order of the files.

    Categories, and contexts of a category, that the answers do not touch at all are left out; the others must be
    answered whole.

    Raises:
        ValueError: a bad line, with file, line and field; an item that is not in the data, twice or not answered.
    """
    known = {(str(e.metadata["category"]), int(str(e.metadata["example_id"]))): e for e in examples}
    found: dict[str, str | None] = {}
    for where, row in read_rows(path):
        key = _key(where, row)
        if key not in known:
            raise ValueError(f"{where}: {key[0]} has no example_id {key[1]} in the data that was loaded.")
        example = known[key]
        if example.id in found:
            raise ValueError(f"{where}: {key[0]} {key[1]} was answered before. Keep one line per item.")
        found[example.id] = _answer(where, row)
    touched = {known_id.metadata["cell"] for known_id in known.values() if known_id.id in found}
    missing = [e.id for e in examples if e.metadata["cell"] in touched and e.id not in found]
    if missing:
        what = f"{path}: {len(missing)} items of {', '.join(sorted(map(str, touched)))} are not answered, "
        raise ValueError(what + f'first {missing[0]}. Write "answer": null for those without an answer.')
    return found


def _key(where: str, row: dict[str, Any]) -> tuple[str, int]:
    if row.get("category") not in CATEGORIES:
        came = row.get("category")
        raise ValueError(f"{where}, field 'category': expected one of {', '.join(CATEGORIES)}, got {came!r}. {_DO}")
    if type(row.get("example_id")) is not int:
        came = row.get("example_id")
        raise ValueError(f"{where}, field 'example_id': expected a whole number, got {came!r}. {_DO}")
    return row["category"], row["example_id"]


def _answer(where: str, row: dict[str, Any]) -> str | None:
    if "answer" not in row or row["answer"] not in (*LETTERS, None):
        came = repr(row.get("answer")) if "answer" in row else "none"
        raise ValueError(f"{where}, field 'answer': expected A, B, C or null, got {came}. {_DO}")
    return row["answer"]
