"""Every key of a study changes something that a run makes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pydantic import ValidationError

from study.analyses.along.options import AlongOptions
from study.analyses.cache.options import CacheOptions
from study.analyses.eval.options import EvalOptions
from study.analyses.heads.options import HeadsOptions
from study.analyses.oracle.options import OracleOptions
from study.analyses.probes.options import ProbesOptions
from study.analyses.steering.options import SteeringOptions
from study.config import Study, parse_study, read_study
from study.config.sections import (
    FiguresSection,
    KnownTruthSection,
    Published,
    ReportSection,
    SmallestEffects,
)
from study.load_options import LoadOptions
from study.run.digest import Digests
from study.run.keys import Inputs, key_after, key_of, table_key_of
from study.run.runner import run_study
from study.run.steps import steps_of
from study.schema import read_table, tidy
from study.task_options import TaskOptions
from tests.study_kit import SMALL, tree, write_study

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
    assert finished.ran == ("eval", "known_truth", "report"), "only the tables and what reads them"
    assert tree(run, "steps/eval/engaged", "steps/eval/heuristic") == work, "no model was run again"
    row = verdict(run)
    assert row["margin"] == 0.9999 and row["verdict"].endswith("margin 0.9999")
    after = tree(run, "report.html", "tables")
    assert {name for name in after if after[name] != before[name]} >= {"report.html", "tables/pair.parquet"}
    assert "inside ±0.9999" in (run / "report.html").read_text()
    assert run_study(declared, run, say=lambda _: None).ran == ()


def test_a_score_of_no_item_is_a_row_without_a_value() -> None:
    """Where no reply had a label, a count over labelled replies has n = 0: the table says so and is written."""
    from study.analyses.eval.tables import report_table
    from study.schema import check_table
    from tests.eval_kit import frame

    row = dict(member="engaged", cell="all", metric="n_correct", value=0.0, lo=0.0, hi=0.0, n=0, n_groups=4,
               interval="a count", control=None, note="")  # fmt: skip
    table = check_table(report_table([row], frame("engaged", [1, 0]), None), "eval")
    assert table["value"].isna().all() and table["note"].str.startswith("undefined").all()


# --- every key -----------------------------------------------------------------------------------------------------

SECTIONS = {"eval": EvalOptions, "cache": CacheOptions, "probes": ProbesOptions, "along": AlongOptions,
            "heads": HeadsOptions, "steering": SteeringOptions, "oracle": OracleOptions, "figures": FiguresSection,
            "known_truth": KnownTruthSection, "report": ReportSection}  # fmt: skip
SHARED = {"task": TaskOptions, "load": LoadOptions}
OTHERS: tuple[Any, ...] = (
    7, 321, 0.375, "another", True, False, ("another",), ("mean",), ("massmean",), ("direct",), ("png",), "none",
    "between", "classes", "sd", "direct", "notebook", "same-layer", "own",
    "refuse", "plain", "keep", (1,), (0.5,), (("a", "b"),), {"a": 1}, {"a": ("b",)},
)  # fmt: skip
"""Values to try in the place of the one that a key has; the first that its type takes is used."""


def full_study() -> Study:
    """A study with every section."""
    import yaml

    return parse_study(yaml.safe_load(SMALL) | {"along": {}}, "small")


def changed(owner: Any, name: str) -> Any:
    """The same section with another value of one key."""
    if name == "questions":
        return dataclasses.replace(
            owner, questions=(*owner.questions, dataclasses.replace(owner.questions[0], name="b"))
        )
    if isinstance(owner, KnownTruthSection):
        return dataclasses.replace(owner, path="study.embedded.truths:_HEADS")
    for value in OTHERS:
        try:
            made = dataclasses.replace(owner, **{name: value})
        except ValidationError:
            continue
        if getattr(made, name) != getattr(owner, name):
            return made
    raise AssertionError(f"{type(owner).__name__}.{name}: none of OTHERS is another valid value; add one")


def keys_of_steps(study: Study) -> dict[str, tuple[str, str]]:
    """Step -> (key, table key), as the runner makes them of inputs that stay the same."""
    inputs, keys = Inputs("d" * 64, dict.fromkeys(study.members, "w" * 64), {}), {}
    out = {}
    for name, step in steps_of(study).items():
        if not step.after:
            keys[name] = key_of(study, step, inputs, keys).key
            out[name] = (keys[name], table_key_of(study, step))
    return out


def after_keys(study: Study, folder: Path) -> dict[str, str]:
    return {name: key_after(study, step, folder, Digests(), {}) for name, step in steps_of(study).items() if step.after}


@pytest.mark.parametrize(
    ("section", "name"), [(s, f.name) for s, kind in (SECTIONS | SHARED).items() for f in dataclasses.fields(kind)]
)
def test_every_key_of_a_section_changes_the_key_of_a_step(section: str, name: str, tmp_path: Path) -> None:
    """So that no result of another value is ever taken for one of this value."""
    study = full_study()
    other = dataclasses.replace(study, **{section: changed(getattr(study, section), name)})
    if section == "task":  # what the items are is in their digest, which `Inputs` carries
        assert task_digest(other) != task_digest(study)
        return
    before = (keys_of_steps(study), after_keys(study, tmp_path))
    assert (keys_of_steps(other), after_keys(other, tmp_path)) != before


def task_digest(study: Study) -> str:
    return Digests().data(study.task) if study.task.data is None else str(study.task)


# pair, checkpoint, is_embedded: which weights; their digest is in the key, tests/test_study_run.py
# added: sections of other packages, each in the key of its own step, tests/test_added_analysis.py
ELSEWHERE = {*SECTIONS, *SHARED, "pair", "checkpoint", "is_embedded", "added"}


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(Study) if f.name not in ELSEWHERE])
def test_every_key_of_the_study_itself_changes_the_key_of_a_step(name: str, tmp_path: Path) -> None:
    study = full_study()
    given: dict[str, Any] = {"smallest_effects": SmallestEffects(nats=1.0), "published": (Published("a", 1.0),)}
    other = dataclasses.replace(study, **{name: given[name]}) if name in given else changed(study, name)
    before = (keys_of_steps(study), after_keys(study, tmp_path))
    assert (keys_of_steps(other), after_keys(other, tmp_path)) != before


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(SmallestEffects)])
def test_every_smallest_effect_changes_a_claim(name: str) -> None:
    from study.report.claims import claims
    from tests.report_tables import all_tables

    tables = all_tables()
    carried: dict[str, Any] = dict(
        target="gold_label", position="last", kind="logistic", train_checkpoint="engaged", variant="raw",
        lo=0.6, hi=0.8, test_checkpoint="heuristic", train_site="resid_post.3", test_site="resid_post.3",
        metric="auroc", value=0.7,
        drop=-0.01, drop_lo=-0.04, drop_hi=0.02, n=162, n_groups=20, member="engaged", model="tiny", adapter="none",
    )  # fmt: skip
    tables["probes_transfer"] = tidy([carried], analysis="probes", interval="t")
    large = SmallestEffects(**{name: 50.0})
    assert [c.checks for c in claims(tables)] != [c.checks for c in claims(tables, smallest=large)]
