"""Somebody else's answers, scored by a task without a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from interp.evaluate import Answer
from interp.io.frames import write_frame
from interp.prompt import Example
from interp.tasks.protocol import EvaluatedTask, hook
from interp.tasks.records import read_rows
from study.analyses.eval.member import member_rows
from study.analyses.eval.store import answers_frame
from study.analyses.eval.tables import report_table

if TYPE_CHECKING:
    import pandas as pd


def scored_frame(task: EvaluatedTask, examples: Sequence[Example], answers: Path, *, member: str) -> pd.DataFrame:
    """One row per answered item, as `answers_frame`; a null answer is unparsed.

    Raises:
        ValueError: a bad line of the file, with its number and field.
    """
    read = hook(task, "read_answers") or _by_id(task)
    labels: dict[str, str | None] = read(answers, examples)
    answered = [e for e in examples if e.id in labels]
    rows = [asdict(_answer(task, e, labels[e.id])) for e in answered]
    return answers_frame(rows, answered, member)


def _answer(task: EvaluatedTask, example: Example, label: str | None) -> Answer:
    scores = task.score(example, label or "")
    return Answer(example.id, 0, None, label, scores, 0, 0, True, "", rule="file" if label is not None else "unparsed")


def _by_id(task: EvaluatedTask) -> Callable[[Path, Sequence[Example]], dict[str, str | None]]:
    """Read `{"id", "answer"}` lines, for a task that does not define how to read answers."""

    def read(path: Path, examples: Sequence[Example]) -> dict[str, str | None]:
        ids, labels = {e.id for e in examples}, {}
        for where, row in read_rows(path):
            key, answer = str(row.get("id")), row.get("answer")
            if key not in ids or key in labels:
                state = "was answered before" if key in labels else "is not in the data"
                raise ValueError(f"{where}, field 'id': {key!r} {state}. Keep one line per item of the data.")
            if answer is not None and task.parse(str(answer)) is None:
                raise ValueError(f"{where}, field 'answer': expected a label or null, got {answer!r}.")
            labels[key] = None if answer is None else task.parse(str(answer))
        if missing := [e.id for e in examples if e.id not in labels]:
            what = f"{path}: {len(missing)} items are not answered, first {missing[0]!r}. "
            raise ValueError(what + 'Write "answer": null for those without an answer.')
        return labels

    return read


def score_answers(
    task: EvaluatedTask,
    examples: Sequence[Example],
    answers: Path,
    *,
    out: Path | None = None,
    member: str | None = None,
    seed: int = 0,
    **options: object,
) -> pd.DataFrame:
    """The table `eval` of a file of answers, written to `out` (CSV or Parquet by its ending) where given.

    Args:
        options: options of the task's `score_report`, such as unparsed="wrong".
    """
    frame = scored_frame(task, examples, answers, member=member or answers.stem)
    report = hook(task, "score_report")
    rows = report(frame, seed=seed, **options) if report else member_rows(frame, task, seed=seed)
    table = report_table(rows, frame, task, seed=seed)
    if out is not None:
        write_frame(out, table)
    return table
