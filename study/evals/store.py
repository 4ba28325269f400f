"""Answers on disk: one file per batch, written whole or not at all, so that a killed run continues where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.cache.files import replace
from interp.cache.lock import writer_lock
from interp.evaluate import Answer
from interp.prompt import Example
from interp.tasks.protocol import EvaluatedTask, read_reply

if TYPE_CHECKING:
    import pandas as pd

MANIFEST, ANSWERS, PROVENANCE = "manifest.json", "answers.parquet", "provenance"


class EvalFolder:
    """The answers of one member: `manifest.json`, `batches/*.json`, and `answers.parquet` once all are there.

    Args:
        root: folder of this member's answers.
        identity: everything that changes an answer (weights, adapter, prompts, decoding, batch plan); JSON values.
        provenance: what else is worth knowing (names, versions, seeds); of the run that began the folder, not compared.
    Raises:
        ValueError: the folder holds answers of another identity; names the fields that differ.
    """

    def __init__(self, root: Path, identity: Mapping[str, Any], *, provenance: Mapping[str, Any] | None = None) -> None:
        self.root, self.identity = root, json.loads(json.dumps(identity, sort_keys=True))
        self.provenance = dict(provenance or {})

    def open(self) -> AbstractContextManager[None]:
        """Hold the folder for writing; checks that it is empty or holds the same evaluation."""
        (self.root / "batches").mkdir(parents=True, exist_ok=True)
        (self.root / ".tmp").mkdir(exist_ok=True)
        path = self.root / MANIFEST
        if path.exists():
            held = {k: v for k, v in json.loads(path.read_text()).items() if k != PROVENANCE}
            differing = sorted(k for k in {*held, *self.identity} if held.get(k) != self.identity.get(k))
            if differing:
                shown = "; ".join(f"{k}: {held.get(k)!r:.60} != {self.identity.get(k)!r:.60}" for k in differing)
                raise ValueError(
                    f"{self.root} holds another evaluation ({shown}). Choose another --out, or delete the folder."
                )
        else:
            content = self.identity | ({PROVENANCE: self.provenance} if self.provenance else {})
            replace(self.root, path, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())
        return writer_lock(self.root)

    @property
    def done(self) -> frozenset[int]:
        """Numbers of the batches whose answers are on disk."""
        return frozenset(int(path.stem) for path in (self.root / "batches").glob("*.json"))

    def put(self, batch: int, answers: Sequence[Answer]) -> None:
        """Keep one batch, durably."""
        content = json.dumps([asdict(answer) for answer in answers], sort_keys=True) + "\n"
        replace(self.root, self.root / "batches" / f"{batch:06d}.json", content.encode())

    def answers(self) -> list[dict[str, Any]]:
        """All answers so far, as plain dictionaries."""
        return read_answers(self.root)


def read_answers(root: Path) -> list[dict[str, Any]]:
    """The answers in a member's folder, batch by batch, as they were made; nothing is opened for writing."""
    paths = sorted((root / "batches").glob("*.json"))
    return [answer for path in paths for answer in json.loads(path.read_text())]


def prompts_sha256(examples: Sequence[Example]) -> str:
    """Digest of what is asked and what counts as right: ids, messages, texts and labels, in order."""
    content = [[e.id, [[m.role, m.content] for m in e.messages], e.text, e.label] for e in examples]
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


_COLUMNS = ("member", "id", "cell", "gold", "_place", *(f.name for f in fields(Answer)))


def _is_taken(name: str) -> bool:
    return name in _COLUMNS or name.startswith(("score.", "p.", "group.", "meta."))


def read_again(answer: Mapping[str, Any], example: Example, task: EvaluatedTask) -> dict[str, Any]:
    """A stored answer with label and scores as the task reads them now: from the text, or from the likeliest label."""
    said = answer["text"]
    if said is None and answer["p"]:
        said = max(answer["p"], key=lambda label: answer["p"][label])
    if said is None:
        return dict(answer)
    said = answer.get("opened", "") + said
    label, rule = read_reply(task, example, said)
    rule = rule if answer["text"] is not None else "labels"
    return {**answer, "label": label, "rule": rule, "scores": task.score(example, said)}


def answers_frame(
    answers: Sequence[Mapping[str, Any]], examples: Sequence[Example], member: str, *, task: EvaluatedTask | None = None
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
            | {"_place": place} | plain
            | {f"score.{k}": v for k, v in answer["scores"].items()}
            | {f"p.{k}": v for k, v in answer["p"].items()}
            | {f"group.{k}": v for k, v in example.groups.items()}
        )  # fmt: skip
        rows.append(row | {f"meta.{k}" if _is_taken(k) else k: v for k, v in kept.items()})
    frame = pd.DataFrame(rows).sort_values(["_place", "sample"], kind="stable")
    if banner := getattr(task, "BANNER", ""):
        frame["banner"] = banner
    return frame.drop(columns="_place").reset_index(drop=True)
