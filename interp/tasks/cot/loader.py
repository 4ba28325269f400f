"""Problems with chains of thought as examples whose sentences are named by records; labels of sentences as items."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interp.prompt import Example, Message
from interp.sentences import split_sentences
from interp.tasks.cot.audits import Item
from interp.tasks.records import read_rows

GROUP = "problem"
_DO = 'Write {"question": ..., "cot": ..., "answer": ...}.'


def examples(data: str | Path, *, limit: int | None = None) -> list[Example]:
    """One example per row `{question, cot, answer, [id, problem]}`: the chain is teacher-forced, the label the answer.

    Metadata: `n_sentences`, and `sentences`, the character ranges of the sentences in the chain; the index of a range
    is the id that labels refer to. Group: problem, the row's own or the hash of its question.

    Raises:
        ValueError: a bad row or repeated id, with file, line and field.
    """
    out: list[Example] = []
    seen: dict[str, str] = {}
    for k, (where, row) in enumerate(read_rows(data)):
        question, cot, answer = (_text(where, row, name) for name in ("question", "cot", "answer"))
        name = str(row.get("id", k))
        if name in seen:
            raise ValueError(f"{where}, field 'id': {name!r} was used at {seen[name]}. Rename one.")
        seen[name] = where
        ranges = tuple(split_sentences(cot))
        if not ranges:
            raise ValueError(f"{where}, field 'cot': expected a sentence with letters, came {cot[:40]!r}. {_DO}")
        problem = str(row.get("problem") or hashlib.sha256(question.encode()).hexdigest()[:16])
        metadata = {"sentences": ranges, "n_sentences": len(ranges), "question": question, "source": where}
        out.append(
            Example(name, (Message("user", question),), answer, {"problem": problem}, metadata=metadata, answer=cot)
        )
        if len(out) == limit:
            break
    return out


def _text(where: str, row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    value = str(value) if isinstance(value, int | float) and not isinstance(value, bool) and name == "answer" else value
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where}, field '{name}': expected text, came {value!r:.60}. {_DO}")
    return value


def read_items(data: str | Path) -> list[Item]:
    """Labels to be audited: JSON lines `{label, context, [problem, task, status, split, boundary]}`.

    Raises:
        ValueError: a line without label or context, with file, line and field.
    """
    items = []
    for where, row in read_rows(data):
        for name in ("label", "context"):
            if row.get(name) is None or isinstance(row[name], dict | list):
                raise ValueError(f"{where}, field '{name}': expected text, came {row.get(name)!r:.60}. Fill it in.")
        rest = {k: str(row[k]) for k in ("task", "status", "split", "boundary") if row.get(k) is not None}
        context = str(row["context"])
        items.append(Item(str(row.get("problem", context)), context, str(row["label"]), **rest))
    return items
