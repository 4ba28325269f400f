"""Rows of SCIENCE.md: the verdict follows from interval and limit; files are current only for their own code."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from benchmarks.known_results import store, table
from benchmarks.known_results.literature import LITERATURE
from benchmarks.known_results.registry import EXPERIMENTS, Experiment
from benchmarks.known_results.rows import Curve, Findings, Row

NAN = float("nan")


def row(**changes: object) -> Row:
    base = Row(claim="a/b", what="score", value=0.5, lo=0.4, hi=0.6, n=20, n_groups=10, unit="", null="random heads",
               null_value=0.1, expected="above")  # fmt: skip
    return dataclasses.replace(base, **changes)


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "reproduced"),
        ({"limit": 0.5}, "open"),
        ({"limit": 0.7}, "open"),  # above the null, below the end of its spread
        ({"limit": 0.7, "null_value": 0.5}, "open"),  # looks like the null
        ({"limit": 0.7, "null_value": 0.65}, "contradicted"),
        ({"expected": "below", "null_value": 0.5, "limit": 0.3}, "open"),
        ({"expected": "below", "null_value": 0.35, "limit": 0.3}, "contradicted"),
        ({"limit": 0.4}, "open"),  # an interval that touches the limit has not cleared it
        ({"expected": "below"}, "contradicted"),
        ({"expected": "below", "null_value": 0.7}, "reproduced"),
        ({"expected": "below", "null_value": 0.5}, "open"),
        ({"expected": "near", "null_value": 0.5, "margin": 0.2}, "reproduced"),
        ({"expected": "near", "null_value": 0.5, "margin": 0.05}, "open"),
        ({"expected": "near", "null_value": 0.1, "margin": 0.2}, "contradicted"),
        ({"lo": NAN, "hi": NAN}, "open"),
        ({"null_value": NAN}, "open"),
    ],
)
def test_the_verdict_needs_the_whole_interval_on_one_side(changes: dict[str, object], verdict: str) -> None:
    assert row(**changes).verdict == verdict


def test_a_value_outside_its_interval_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0.7 lies outside"):
        row(value=0.7)
    with pytest.raises(ValueError, match="needs a margin"):
        row(expected="near")


@dataclasses.dataclass(frozen=True)
class Sizes:
    n: int = 3


EXPERIMENT = Experiment("rows", "Rows", "About rows.")  # a module that exists; it is never run here


def test_results_come_back_as_they_were_written_and_are_current_for_their_code_alone(tmp_path: Path) -> None:
    findings = Findings([row(), row(limit=0.3)], [Curve("AUROC", "layer", [0, 1], [0.5, 0.9], "shuffled", [0.6, 0.6])])
    result = store.result_of(EXPERIMENT, "tiny", Sizes(), findings, 1.25, store.code_of(EXPERIMENT, Sizes()))
    assert store.read(store.write(result, tmp_path)) == result
    assert store.is_current(EXPERIMENT, "tiny", Sizes(), tmp_path)
    assert not store.is_current(EXPERIMENT, "tiny", Sizes(4), tmp_path)
    assert not store.is_current(EXPERIMENT, "other", Sizes(), tmp_path)
    assert not store.is_current(dataclasses.replace(EXPERIMENT, dtype="bfloat16"), "tiny", Sizes(), tmp_path)


def test_the_page_shows_interval_null_limit_literature_and_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXPERIMENTS, "rows", EXPERIMENT)
    monkeypatch.setitem(LITERATURE, "a/b", "somebody 1999")
    findings = Findings([row(limit=0.3), row(limit=0.55)])
    page = table.compose(
        [store.result_of(EXPERIMENT, "tiny", Sizes(), findings, 1.25, store.code_of(EXPERIMENT, Sizes()))]
    )
    assert "| score | 0.5 [0.4, 0.6] | 20 (10) | random heads: 0.1, limit 0.3 | somebody 1999 | reproduced |" in page
    assert "limit 0.55 | somebody 1999 | **open** |" in page
    assert "2 rows: 1 reproduced, 0 contradicted, 1 open." in page


@pytest.mark.parametrize("name", list(EXPERIMENTS))
def test_every_experiment_has_settings_and_a_run(name: str) -> None:
    experiment = EXPERIMENTS[name]
    assert experiment.name == name
    assert dataclasses.is_dataclass(experiment.settings())
    assert callable(experiment.run)


def test_every_claim_of_the_results_has_its_literature() -> None:
    claims = {row.claim for result in store.results() for row in result.findings.rows}
    assert claims <= set(LITERATURE)


def test_the_committed_page_is_composed_of_the_committed_results() -> None:
    from benchmarks.science import PAGE

    found = list(store.results())
    assert not found or PAGE.read_text() == table.compose(found)
