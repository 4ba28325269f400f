"""Problems with chains of thought as examples whose sentences are named by records; labels of sentences as items."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from interp.prompt import Example, Message
from interp.sentences import split_sentences
from interp.tasks.cot.audits import Item
from interp.tasks.cot.replies import plain
from interp.tasks.records import read_rows
from interp.tasks.row_files import check_new

GROUP = "problem"
_DO = 'Write {"question": ..., "cot": ..., "answer": ...}.'


def examples(data: str | Path, *, limit: int | None = None) -> list[Example]:
    """One example per problem: the question alone, to be answered by the model; the label is the gold answer.

    Rows `{question, cot, answer, [id, problem, sentences]}`. Group: problem, the row's own or the hash of its question.

    Raises:
        ValueError: a bad row or repeated id, with file, line and field.
    """
    return _read(data, limit, with_chain=False)


def chain_examples(data: str | Path, *, limit: int | None = None) -> list[Example]:
    """As `examples`, with the chain teacher-forced after the question: what recording and importance read.

    Metadata: `n_sentences`, and `sentences`, the character ranges of the sentences in the chain (the row's own
    `sentences`, else `split_sentences`; `split_by` says which); the index of a range is the id that labels refer to.

    Raises:
        ValueError: as `examples`; ranges that overlap or lie outside the chain.
    """
    return _read(data, limit, with_chain=True)


def _read(data: str | Path, limit: int | None, *, with_chain: bool) -> list[Example]:
    out: list[Example] = []
    seen: dict[str, str] = {}
    for k, (where, row) in enumerate(read_rows(data)):
        question, cot, answer = (_text(where, row, name) for name in ("question", "cot", "answer"))
        name = str(row.get("id", k))
        check_new(seen, name, where, "id")
        ranges = _ranges(where, row, cot)
        problem = str(row.get("problem") or hashlib.sha256(question.encode()).hexdigest()[:16])
        metadata: dict[str, Any] = {"n_sentences": len(ranges), "source": where}
        how = "punctuation" if row.get("sentences") is None else "the row"
        metadata |= {"sentences": ranges, "split_by": how, "question": question} if with_chain else {}
        gold, chain = plain(answer) or answer, cot if with_chain else None
        asked = (Message("user", question),)
        out.append(Example(name, asked, gold, {GROUP: problem}, metadata=metadata, answer=chain))
        if len(out) == limit:
            break
    return out


def _ranges(where: str, row: Mapping[str, Any], cot: str) -> tuple[tuple[int, int], ...]:
    pairs = row.get("sentences")
    if pairs is None:
        sentence_ranges = tuple(split_sentences(cot))
        if not sentence_ranges:
            raise ValueError(f"{where}, field 'cot': expected a sentence with letters, got {cot[:40]!r}. {_DO}")
        return sentence_ranges
    is_pairs = isinstance(pairs, list) and all(
        isinstance(r, list) and [type(n) for n in r] == [int, int] for r in pairs
    )
    ranges = tuple((a, b) for a, b in pairs) if is_pairs else ()
    inside = all(0 <= a < b <= len(cot) and cot[a:b].strip() for a, b in ranges)
    if not ranges or not inside or any(left[1] > right[0] for left, right in pairwise(ranges)):
        what = f"expected [start, end] characters of 'cot' ({len(cot)} long), in order, got {str(pairs)[:60]}"
        raise ValueError(f"{where}, field 'sentences': {what}. Leave the field out to split the chain automatically.")
    return ranges


def _text(where: str, row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    value = str(value) if isinstance(value, int | float) and not isinstance(value, bool) and name == "answer" else value
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where}, field '{name}': expected text, got {value!r:.60}. {_DO}")
    return value


def read_items(data: str | Path) -> list[Item]:
    """Read labels to audit: JSON lines `{label, context, [problem, task, status, split, boundary]}`.

    A label that could not be built is null, and its status says why (a status other than "ok").

    Raises:
        ValueError: a line without label or context, with file, line and field.
    """
    items = []
    for where, row in read_rows(data):
        unbuilt = row.get("label") is None and row.get("status", "ok") != "ok"
        for name in ("label", "context"):
            if (row.get(name) is None and not (name == "label" and unbuilt)) or isinstance(row.get(name), dict | list):
                raise ValueError(f"{where}, field '{name}': expected text, got {row.get(name)!r:.60}. Fill it in.")
        rest = {k: str(row[k]) for k in ("task", "status", "split", "boundary") if row.get(k) is not None}
        context = str(row["context"])
        label = "" if unbuilt else str(row["label"])
        items.append(Item(str(row.get("problem", context)), context, label, **rest))
    return items
