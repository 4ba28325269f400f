"""Every key of a study changes something that a run makes."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from study.config import read_study
from study.run.runner import run_study
from study.tables import read_table
from tests.study_kit import tree, write_study

EVAL = """\
name: small
pair: embedded
seed: 5
task: {path: interp.tasks.procedural, per_cell: 2}
eval: {generate: false}
figures: false
"""


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("answered")
    file = write_study(folder, EVAL)
    run_study(read_study(file), folder / "run", say=lambda _: None)
    return file, folder / "run"


def verdict(run: Path) -> pd.Series:
    table = read_table(run, "pair")
    return table[table["cell"].eq("training_distribution") & table["is_difference"].fillna(False)].iloc[0]


def test_the_declared_margin_is_the_one_that_equivalence_is_judged_at(answered: tuple[Path, Path]) -> None:
    file, run = answered
    assert verdict(run)["margin"] == 0.05
    work, before = tree(run, "steps/eval/engaged", "steps/eval/heuristic"), tree(run, "report.html", "tables")
    declared = read_study(file, overrides=["claim_margin=0.9999"])
    finished = run_study(declared, run, say=lambda _: None)
    assert finished.ran == ("eval", "report"), "only the tables and what reads them"
    assert tree(run, "steps/eval/engaged", "steps/eval/heuristic") == work, "no model was run again"
    row = verdict(run)
    assert row["margin"] == 0.9999 and row["verdict"].endswith("margin 0.9999")
    after = tree(run, "report.html", "tables")
    assert {name for name in after if after[name] != before[name]} >= {"report.html", "tables/pair.parquet"}
    assert "inside ±0.9999" in (run / "report.html").read_text()
    assert run_study(declared, run, say=lambda _: None).ran == ()


def test_a_score_of_no_item_is_a_row_without_a_value() -> None:
    """Where no reply had a label, a count over labelled replies has n = 0: the table says so and is written."""
    from study.steps.eval import _member_row
    from study.tables import check_table, tidy

    row = dict(member="engaged", cell="all", metric="n_correct", value=0.0, lo=0.0, hi=0.0, n=0, n_groups=4,
               interval="a count", control="", note="")  # fmt: skip
    made = _member_row(row, {"engaged": {"model": "tiny", "adapter": "none", "data_sha256": "ab" * 6}})
    table = check_table(tidy([made], analysis="eval", seed=0), "eval")
    assert table["value"].isna().all() and table["note"].str.startswith("undefined").all()
