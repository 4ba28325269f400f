"""Figures of a reading: what they draw, and what they refuse."""

from __future__ import annotations

import pandas as pd
import pytest

from study.figures import oracle, oracle_confusion

TASKS = (
    ("step taxonomy (8)", 0.94, 0.02, 0.25, 0.25, 0.52, 1.0, 0.96, 1.37),
    ("previous tokens", 0.18, 0.03, 0.18, 0.02, 0.20, float("nan"), 0.49, 0.31),
    ("answer correct?", 0.61, 0.04, 0.55, 0.55, 0.58, 0.66, 0.03, 0.21),
)


def reading_table() -> pd.DataFrame:
    rows = []
    size = {"member": "base", "n": 512, "n_groups": 128, "unit": "readings", "group_unit": "problems"}
    for target, value, half, floor, majority, text_only, probe, shuffled, zero in TASKS:
        rows.append(
            {"target": target, "metric": "accuracy", "value": value, "lo": value - half, "hi": value + half,
             "floor": floor, "floor_difference_lo": value - half - floor, "majority": majority, "text_only": text_only,
             "probe": probe, "interval": "clustered Wilson"} | size
        )  # fmt: skip
        rows += [
            {"target": target, "metric": f"gap_{control}", "value": gap, "lo": gap - 0.05, "hi": gap + 0.05,
             "interval": "paired"} | size
            for control, gap in (("shuffled", shuffled), ("zero", zero))
        ]  # fmt: skip
    return pd.DataFrame(rows)


def confusion() -> pd.DataFrame:
    names, counts = ("active_computation", "self_checking", "final_answer"), ((40, 5, 5), (4, 30, 6), (0, 1, 49))
    return pd.DataFrame(
        [{"gold": t, "pred": a, "count": counts[i][j], "value": counts[i][i] / sum(counts[i]), "lo": 0.6,
          "hi": 0.99, "n": sum(counts[i]), "n_groups": 20, "unit": "readings", "group_unit": "problems",
          "interval": "clustered Wilson"} for i, t in enumerate(names) for j, a in enumerate(names)]
    )  # fmt: skip


def test_every_mark_says_what_it_shows():
    drawn = oracle(reading_table())
    assert drawn.titles["mark-accuracy-0"].startswith("step taxonomy (8): accuracy 0.940 [0.920, 0.960], floor 0.25")
    assert "linear" not in drawn.titles["mark-accuracy-1"]
    assert "probe" not in drawn.titles["mark-accuracy-1"], "a probe that was not made is not drawn"
    assert drawn.titles["mark-gap-2-shuffled"].endswith("nats per token, not shown to be read")
    assert "not shown" not in drawn.titles["mark-gap-0-shuffled"]
    assert "2 of them read from the activations" in drawn.alt
    assert "n = 512 readings, 128 problems" in drawn.caption


def test_an_accuracy_without_its_shuffle_interval_or_n_is_not_drawn():
    table = reading_table()
    with pytest.raises(ValueError, match="no row of control 'shuffled' for previous tokens"):
        oracle(table[~((table["target"] == "previous tokens") & (table["metric"] == "gap_shuffled"))])
    with pytest.raises(ValueError, match="lacks columns lo, n"):
        oracle(table.drop(columns=["lo", "n"]))
    with pytest.raises(ValueError, match="repeats target, member, metric"):
        oracle(pd.concat([table, table]))
    with pytest.raises(ValueError, match="unknown control other"):
        oracle(table.replace({"metric": {"gap_zero": "gap_other"}}))
    with pytest.raises(ValueError, match="no control gap is defined"):
        oracle(table[table["metric"] == "accuracy"])


def test_two_members_are_rows_of_their_own():
    table = reading_table()
    both = oracle(pd.concat([table, table.assign(member="engaged")]))
    assert "previous tokens, from engaged" in both.titles["mark-accuracy-4"]


def test_confusion_shows_shares_of_rows_with_recall_beside():
    drawn = oracle_confusion(confusion())
    assert drawn.titles["mark-0-1"] == "active computation answered self checking: 10%"
    assert "active computation answered" not in drawn.titles["mark-2-2"]
    assert "Most often confused: self checking answered final answer, 15%." in drawn.alt
    texts = [text.get_text() for text in drawn.figure.axes[0].texts]
    assert any("n 50" in text for text in texts)
    with pytest.raises(ValueError, match="'final_answer' has 60 answers of 50 items"):
        oracle_confusion(confusion().replace({"count": {49: 59}}))
    with pytest.raises(ValueError, match="lacks columns lo, hi"):
        oracle_confusion(confusion().drop(columns=["lo", "hi"]))
