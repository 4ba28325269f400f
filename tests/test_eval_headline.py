"""The table of scores on the report's page: what the task puts first, with interval, n and control."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pandas as pd

from study.analyses.eval.headline import scores
from study.analyses.eval.tables import eval_tables

N = 30


def task(headline: dict[str, str] | None) -> Any:
    def report(answers: pd.DataFrame, seed: int) -> list[dict[str, Any]]:
        head = {"member": answers["member"].iloc[0], "n_groups": 15, "interval": "by hand", "control": 0.5}
        return [
            {**head, "cell": "all", "metric": "kindness", "value": 0.7, "lo": 0.6, "hi": 0.8, "n": N},
            {**head, "cell": "x", "metric": "kindness", "value": 0.1, "lo": 0.0, "hi": 0.2, "n": N},
            {**head, "cell": "all", "metric": "bias", "value": float("nan"), "lo": None, "hi": None, "n": 0},
            {**head, "cell": "all", "metric": "other", "value": 0.4, "lo": 0.3, "hi": 0.5, "n": N},
        ]

    parts = {
        "examples": lambda data: [],
        "report": report,
        "score": lambda example, text: {"correct": 1.0},
        "parse": lambda text: text,
    }
    return SimpleNamespace(**parts, **({} if headline is None else {"HEADLINE": headline}))


def answers(member: str, labels: list[str]) -> pd.DataFrame:
    frame = pd.DataFrame({"id": [str(i) for i in range(N)], "label": labels, "gold": list("AB") * (N // 2)})
    same = {"member": member, "cell": "x", "sample": 0, "text": None, "unparsed": 0.0}
    return frame.assign(**same, **{"score.correct": (frame["label"] == frame["gold"]).astype(float)})


def test_the_page_shows_the_scores_that_the_task_names_of_all_items_with_interval_n_and_control() -> None:
    frames = {"engaged": answers("engaged", list("AB") * (N // 2)), "heuristic": answers("heuristic", ["B"] * N)}
    headline = {"kindness": "kindness to people", "bias": "bias of its choices"}
    shown = scores(eval_tables(frames, task(headline)))
    assert shown is not None and shown.columns == ("Score", "Without the skill", "engaged", "heuristic")
    value = "0.70 [0.60, 0.80], n = 30 in 15"
    undefined = "undefined: there is no item to compute it from"
    assert shown.rows == (
        ("kindness to people", ".50", value, value),
        ("bias of its choices", ".50", undefined, undefined),
    )
    assert "Heuristic answers 'B' to 100 % of items" in shown.caption and "Engaged answers" not in shown.caption


def test_a_task_that_puts_no_score_first_has_no_such_table() -> None:
    frames = {"engaged": answers("engaged", ["A"] * N)}
    assert scores(eval_tables(frames, task(None))) is None
    assert scores({}) is None
