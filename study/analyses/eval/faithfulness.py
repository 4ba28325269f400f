"""Does the label follow the reasoning? A reply is changed in one place and the label read off again."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from interp import stats
from interp.evaluate.labels import label_log_probabilities
from interp.io.items import ItemStore
from interp.model import Model
from interp.prompt import Example
from interp.tasks.protocol import Task, decision_prefix, hook, labels_of
from study.analyses.eval.member import group_of, row
from study.analyses.eval.store import COUNTERFACTUALS, KIND
from study.rows import Row

if TYPE_CHECKING:
    import pandas as pd

_CASES_PER_PASS = 64


def read_counterfactuals(root: Path) -> list[Row]:
    """What `counterfactual_answers` left in a member's folder; nothing where it was not run."""
    store = ItemStore.reading(root, KIND)
    return store.get_json(COUNTERFACTUALS) if COUNTERFACTUALS in store else []


def counterfactual_answers(
    model: Model,
    task: Task,
    examples: Sequence[Example],
    frame: pd.DataFrame,
    store: ItemStore,
    *,
    thinking: bool | None = None,
) -> None:
    """For every changed reply: id, kind, the label it should give, the likeliest label, and that before the change.

    `thinking` as in the decoding that made the replies. Kept as an item of the answers' store, once; nothing for a task
    without `counterfactuals`.
    """
    change = hook(task, "counterfactuals")
    if COUNTERFACTUALS in store or change is None or frame["text"].isna().all():
        return
    by_id = {example.id: example for example in examples}
    texts = [
        (by_id[row["id"]], row["text"], _likeliest(task, by_id[row["id"]], row)) for row in frame.to_dict("records")
    ]
    cases = [_Case(e, text, best, *case) for e, text, best in texts for case in change(e, text)]
    readings: list[Row] = []
    for at in range(0, len(cases), _CASES_PER_PASS):
        readings += _read(model, task, cases[at : at + _CASES_PER_PASS], thinking)
    store.put_json(COUNTERFACTUALS, readings)


class _Case(NamedTuple):
    """A changed reply: `before` is the likeliest label of the reply as it was written, None if that was not scored."""

    example: Example
    text: str
    before: str | None
    kind: str
    changed: str
    expected: str


def _likeliest(task: Task, example: Example, answer: Mapping[Hashable, object]) -> str | None:
    """The label with the highest probability where the reply decides, if all of them were scored there."""
    labels = labels_of(task, example)
    p = {label: value for label in labels if isinstance(value := answer.get(f"p.{label}"), float)}
    is_scored = bool(p) and len(p) == len(labels) and not any(map(math.isnan, p.values()))
    return max(p, key=lambda label: p[label]) if is_scored else None


def _read(model: Model, task: Task, cases: Sequence[_Case], thinking: bool | None) -> list[Row]:
    texts = [
        (k, name, text)
        for k, case in enumerate(cases)
        for name, text in (("after", case.changed), ("before", decision_prefix(task, case.text, case.example)))
        if name == "after" or case.before is None
    ]
    asked = [(cases[k].example, text, label) for k, _, text in texts for label in labels_of(task, cases[k].example)]
    scores = iter(label_log_probabilities(model, asked, thinking=thinking))
    best: dict[tuple[int, str], str] = {}
    for k, name, _ in texts:
        per_token = {label: total / n for label in labels_of(task, cases[k].example) for total, n in [next(scores)]}
        best[k, name] = max(per_token, key=lambda label: per_token[label])
    return [
        {
            "id": case.example.id,
            "kind": case.kind,
            "expected": case.expected,
            "before": case.before or best[k, "before"],
            "after": best[k, "after"],
        }
        for k, case in enumerate(cases)
    ]


def faithfulness_rows(frame: pd.DataFrame, changed: Sequence[Row], task: Task) -> list[Row]:
    """One row per kind of change: how often the label becomes what the changed reply implies.

    The control is how often it was that label already before the change.
    """
    member = str(frame["member"].iloc[0])
    units = group_of(frame, task)
    unit_of = dict(zip(frame["id"], units if units is not None else frame["id"], strict=True))
    rows = []
    for kind in dict.fromkeys(case["kind"] for case in changed):
        cases = [case for case in changed if case["kind"] == kind]
        groups = [unit_of[case["id"]] for case in cases]
        if len(set(groups)) < 2:
            continue
        follows = stats.wilson_clustered([float(c["after"] == c["expected"]) for c in cases], groups=groups)
        before = sum(c["before"] == c["expected"] for c in cases) / len(cases)
        interval = "Wilson at the effective n"
        rows.append(row(member, "trace", f"follows_{kind}", follows, interval=interval, control=before))
    return rows
