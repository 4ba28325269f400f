"""Does the label follow the reasoning? A reply is changed in one place and the label read off again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp import stats
from interp.evaluate.labels import label_log_probabilities
from interp.io.items import ItemStore
from interp.model import Model
from interp.prompt import Example
from interp.tasks.protocol import decision_prefix, labels_of
from study.analyses.eval.member import Row, group_of, row
from study.analyses.eval.store import COUNTERFACTUALS, KIND

if TYPE_CHECKING:
    import pandas as pd

_CASES_PER_PASS = 64


def read_counterfactuals(root: Path) -> list[dict[str, Any]]:
    """What `counterfactual_answers` left in a member's folder; nothing where it was not run."""
    store = ItemStore.reading(root, KIND)
    return store.get_json(COUNTERFACTUALS) if COUNTERFACTUALS in store else []


def counterfactual_answers(
    model: Model,
    task: Any,
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
    if COUNTERFACTUALS in store or not callable(getattr(task, "counterfactuals", None)) or frame["text"].isna().all():
        return
    by_id = {example.id: example for example in examples}
    texts = [(by_id[i], text) for i, text in zip(frame["id"], frame["text"], strict=True)]
    cases = [(e, text, *case) for e, text in texts for case in task.counterfactuals(e, text)]
    readings: list[dict[str, Any]] = []
    for at in range(0, len(cases), _CASES_PER_PASS):
        readings += _read(model, task, cases[at : at + _CASES_PER_PASS], thinking)
    store.put_json(COUNTERFACTUALS, readings)


def _read(
    model: Model, task: Any, cases: Sequence[tuple[Example, str, str, str, str]], thinking: bool | None
) -> list[dict[str, Any]]:
    asked = [
        (e, prefix, label)
        for e, text, _, changed, _ in cases
        for prefix in (decision_prefix(task, text), changed)
        for label in labels_of(task, e)
    ]
    scores = iter(label_log_probabilities(model, asked, thinking=thinking))
    out = []
    for example, _, kind, _, expected in cases:
        labels = labels_of(task, example)
        before, after = ({label: next(scores) for label in labels} for _ in range(2))
        best = [max(s, key=lambda label, s=s: s[label][0] / s[label][1]) for s in (before, after)]
        out.append({"id": example.id, "kind": kind, "expected": expected, "before": best[0], "after": best[1]})
    return out


def faithfulness_rows(frame: pd.DataFrame, changed: Sequence[Mapping[str, Any]], task: Any) -> list[Row]:
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
