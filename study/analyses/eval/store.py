"""Answers on disk: one item per batch in a store, so that a killed run continues where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING

from interp.evaluate import Answer
from interp.io.files import write_file
from interp.io.items import PLAN, ItemStore, read_plan
from interp.prompt import Example
from interp.tasks.protocol import EvaluatedTask, read_reply
from study.rows import Row

if TYPE_CHECKING:
    import pandas as pd

ANSWERS, COUNTERFACTUALS = "answers.parquet", "counterfactuals"
KIND = "evaluation"


def answers_store(
    root: Path, identity: Mapping[str, object], *, notes: Mapping[str, object] | None = None
) -> AbstractContextManager[ItemStore]:
    """The answers of one member, held for writing: an item per batch, and `answers.parquet` once all are there.

    Args:
        identity: everything that changes an answer (weights, adapter, prompts, decoding, batch plan); JSON values.
        notes: what else is worth knowing (names, versions, seeds); of the run that began the folder, not compared.
    Raises: as `ItemStore.writing`.
    """
    return ItemStore.writing(root, KIND, identity, notes=notes)


def batches_of(store: ItemStore) -> frozenset[int]:
    """Numbers of the batches whose answers are on disk."""
    return frozenset(int(key) for key in store.keys if key.isdigit())


def put_batch(store: ItemStore, batch: int, answers: Sequence[Answer]) -> None:
    """Keep one batch, durably."""
    store.put_json(f"{batch:06d}", [asdict(answer) for answer in answers])


def read_answers(root: Path) -> list[Row]:
    """The answers in a member's folder, batch by batch, as they were made; nothing is opened for writing.

    Raises:
        ValueError: no evaluation there; DamagedFileError: a batch that is not what was written, by its file.
    """
    return answers_in(ItemStore.reading(root, KIND))


def answers_in(store: ItemStore) -> list[Row]:
    """All answers so far, as plain dictionaries."""
    return [answer for batch in sorted(batches_of(store)) for answer in store.get_json(f"{batch:06d}")]


def write_answers(root: Path, frame: pd.DataFrame) -> None:
    """`answers.parquet`, made of the answers."""
    write_file(root / ANSWERS, frame.to_parquet())


def identity_of(root: Path) -> Row:
    """What was asked in a member's folder: task, items, weights, dtype, decoding."""
    return read_plan(root / PLAN)["identity"]


def prompts_sha256(examples: Sequence[Example]) -> str:
    """Digest of what is asked and what counts as right: ids, messages, texts and labels, in order."""
    content = [[e.id, [[m.role, m.content] for m in e.messages], e.text, e.label] for e in examples]
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


_COLUMNS = ("member", "id", "cell", "gold", "_place", *(f.name for f in fields(Answer)))


def _is_taken(name: str) -> bool:
    return name in _COLUMNS or name.startswith(("score.", "p.", "group.", "meta."))


def read_again(answer: Row, example: Example, task: EvaluatedTask) -> Row:
    """A stored answer with label and scores as the task reads them now: from the text, or from the likeliest label."""
    text = answer["text"]
    if text is None and answer["p"]:
        text = max(answer["p"], key=lambda label: answer["p"][label])
    if text is None:
        return dict(answer)
    text = answer.get("opened", "") + text
    label, rule = read_reply(task, example, text)
    rule = rule if answer["text"] is not None else "labels"
    return {**answer, "label": label, "rule": rule, "scores": task.score(example, text)}


def answers_frame(
    answers: Sequence[Row], examples: Sequence[Example], member: str, *, task: EvaluatedTask | None = None
) -> pd.DataFrame:
    """One row per answer: member, id, cell, gold, label, text, scores, p of each label, groups and metadata.

    Columns `score.<name>`, `p.<label>`, `group.<name>`; metadata keeps its own names, except that one which is also the
    name of a column of the answers becomes `meta.<name>`. With a task, label and scores are what it says of the
    stored text now, under its `BANNER` where it has one; without, what was stored.
    """
    import pandas as pd

    by_id = {example.id: (i, example) for i, example in enumerate(examples)}
    rows = []
    for answer in answers:
        place, example = by_id[answer["example_id"]]
        answer = answer if task is None else read_again(answer, example, task)
        plain = {k: v for k, v in answer.items() if k not in ("scores", "p", "logp", "example_id")}
        kept = {k: v for k, v in example.metadata.items() if isinstance(v, str | int | float | bool | None)}
        row = (
            {"member": member, "id": example.id, "cell": str(kept.pop("cell", "all")), "gold": example.label}
            | {"_place": place}
            | plain
            | {f"score.{k}": v for k, v in answer["scores"].items()}
            | {f"p.{k}": v for k, v in answer["p"].items()}
            | {f"group.{k}": v for k, v in example.groups.items()}
        )
        rows.append(row | {f"meta.{k}" if _is_taken(k) else k: v for k, v in kept.items()})
    frame = pd.DataFrame(rows).sort_values(["_place", "sample"], kind="stable")
    if banner := getattr(task, "BANNER", ""):
        frame["banner"] = banner
    return frame.drop(columns="_place").reset_index(drop=True)
