"""The demo over five seeds: it claims what was planted in the embedded pair, and nothing that was not."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from study.demo import demo
from study.known_truth.show import TABLE, counts
from study.report.page import render
from study.schema import read_table

SEEDS = (1, 2, 3, 4, 5)
FOUND = 0.9


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The demo with every seed, without its figures."""
    folder = tmp_path_factory.mktemp("demo")
    for seed in SEEDS:
        demo(
            folder / str(seed),
            per_cell=30,
            training=480,
            seed=seed,
            jobs=1,
            overrides=["figures=false", "report=false"],
        )
    return {seed: folder / str(seed) for seed in SEEDS}


@pytest.mark.slowest
@pytest.mark.long
def test_five_seeds_find_nine_tenths_of_what_was_planted_and_raise_no_false_alarm(runs: dict[int, Path]) -> None:
    tables = {seed: read_table(run, TABLE) for seed, run in runs.items()}
    whole = pd.concat([table.assign(of_seed=seed) for seed, table in tables.items()])
    wrong = whole[whole["verdict"].isin(["false_alarm", "missed", "not_testable"])]
    said = wrong[["of_seed", "claim", "verdict", "claim_verdict", "value", "lo", "hi", "p", "control"]].to_string()
    found = [counts(table) for table in tables.values()]
    assert sum(one.false_alarm for one in found) == 0, said
    assert sum(one.found for one in found) >= FOUND * sum(one.n_planted for one in found), said


@pytest.mark.slowest
@pytest.mark.long
def test_the_first_page_of_the_demo_names_the_planted_head_and_where_it_acts(runs: dict[int, Path]) -> None:
    for run in runs.values():
        page = render(run)
        first = page[page.index('id="found"') : page.index('id="claims"')]
        assert "L1.H0" in first and "step lookup" in first
