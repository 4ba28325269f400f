"""Numbers follow the code that made them: an edited statistic makes new tables, and no model is run for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from study.run import code
from study.run.code import code_of
from tests.study_kit import statuses, tree, write_study

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("interp", "probes", "steering", "study")

HELPERS = '''
"""Helpers."""
SCALE = 2


def used(x: int) -> int:
    """Doubles."""
    return SCALE * x  # by the scale


def unused(x):
    return x + 1


class Thing:
    def __init__(self, x):
        self.x = x

    def called(self):
        return used(self.x)

    def never(self):
        return unused(self.x)
'''
MAIN = """
from made_up.helpers import Thing


def work(x):
    from made_up.more import late
    return Thing(x).called() + late(x)
"""
MORE = "def late(x):\n    return x\n\n\ndef other(x):\n    return x\n"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "made_up"
    folder.mkdir()
    for name, text in (("__init__", ""), ("helpers", HELPERS), ("main", MAIN), ("more", MORE)):
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.startswith("made_up")]:
        monkeypatch.delitem(sys.modules, name)  # another test's package of this name
    return folder


def digest() -> str:
    for known in (code._digest, code._source, code._path):
        known.cache_clear()
    return code_of("made_up.main:work")


@pytest.mark.parametrize(
    ("file", "old", "new", "counts"),
    [
        ("helpers", "SCALE = 2", "SCALE = 3", True),
        ("helpers", "SCALE * x", "SCALE * x * 1", True),
        ("helpers", "return used(self.x)", "return used(self.x) + 1", True),
        ("helpers", "self.x = x", "self.x = x + 1", True),
        ("more", "def late(x):\n    return x", "def late(x):\n    return -x", True),
        ("main", "+ late(x)", "- late(x)", True),
        ("helpers", "return x + 1", "return x + 2", False),
        ("helpers", "return unused(self.x)", "return 7", False),
        ("helpers", "  # by the scale", "", False),
        ("helpers", '"""Doubles."""', '"""Times two."""', False),
        ("helpers", "(x: int) -> int", "(x: float)", False),
        ("helpers", "return SCALE * x", "return (\n        SCALE\n        * x\n    )", False),
        ("more", "def other(x):\n    return x", "def other(x):\n    return 9", False),
    ],
)
def test_the_digest_of_a_function_is_of_what_it_runs(
    package: Path, file: str, old: str, new: str, counts: bool
) -> None:
    before, path = digest(), package / f"{file}.py"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert (digest() != before) == counts


@pytest.mark.parametrize(("old", "counts"), [("return key\n", True), ("return name\n", True), ("return 0\n", False)])
def test_methods_of_a_class_inside_a_function_or_a_reached_class_are_its_code(
    package: Path, old: str, counts: bool
) -> None:
    """Python calls `__missing__` of the inner class by itself; `late` names no method of it."""
    inner = "class Seen(dict):\n{0}    def __missing__(self, key):\n{0}        return "
    text = f"def late(x):\n    {inner.format('    ')}key\n    return Seen()[x], Outer\n\n\n"
    text += f"class Outer:\n    {inner.format('    ')}name\n\n    def never(self):\n        return 0\n"
    (package / "more.py").write_text(text)
    before = digest()
    assert text.count(old) == 1
    (package / "more.py").write_text(text.replace(old, "return 77\n"))
    assert (digest() != before) == counts


def test_a_lazy_export_and_a_module_under_its_name_are_followed(package: Path) -> None:
    (package / "main.py").write_text("from made_up import more\n\n\ndef work(x):\n    return more.late(x)\n")
    before = digest()
    (package / "more.py").write_text(MORE.replace("def other(x):\n    return x", "def other(x):\n    return 1"))
    assert digest() == before, "only what is taken from the module counts"
    (package / "more.py").write_text(MORE.replace("def late(x):\n    return x", "def late(x):\n    return 1"))
    assert digest() != before


def test_a_function_named_by_its_import_path_is_followed(package: Path) -> None:
    (package / "main.py").write_text('TABLE = {"late": "made_up.more:late"}\n\n\ndef work(x):\n    return TABLE, x\n')
    before = digest()
    (package / "more.py").write_text(MORE.replace("def other(x):\n    return x", "def other(x):\n    return 1"))
    assert digest() == before
    (package / "more.py").write_text(MORE.replace("def late(x):\n    return x", "def late(x):\n    return 1"))
    assert digest() != before


def test_figures_and_report_follow_the_code_of_every_analysis_and_probes_that_of_every_kind() -> None:
    """Nothing that is looked up in a table may be out of the digest: a correction would leave old results as new."""
    from study.analyses.probes import step as probes
    from study.analyses.registry import analyses
    from study.config import parse_study
    from study.report import draw
    from study.report import step as report

    named = {"name": "x", "pair": "embedded", "task": {"path": "interp.tasks.procedural"}, "cache": {}}
    study = parse_study(
        {**named, "probes": {"groups": "procedure", "kinds": ["ridge", "tests.test_probe_kinds:nearest_centroid"]}}
    )

    def reached(step: Any) -> set[tuple[str, str]]:
        more = step.STEP.code(study)
        return set(code._Walk([code._place(one) for one in (step.run, *more)]).found)

    drawn, told, fitted = reached(draw), reached(report), reached(probes)
    for one in analyses().values():
        for function, places in ((one.figures, drawn), (one.claims, told), (one.planned, told)):
            assert function is None or code._place(function) in places, one.name
    assert {module for module, _ in drawn} >= {"study.figures.dumbbell", "study.figures.head_grid"}
    assert ("probes.solver.minimise", "minimise") in fitted, "the solver of logistic probes"
    assert ("tests.test_probe_kinds", "nearest_centroid") in fitted


def test_answers_do_not_depend_on_statistics_and_their_tables_do() -> None:
    from study.analyses.cache import step as cache
    from study.analyses.eval import step as eval
    from study.analyses.heads import step as heads
    from study.analyses.steering import step as steering

    for run in (eval.run, cache.run, heads.run):
        reached = {module for module, _ in code._Walk([(run.__module__, "run")]).found}
        assert {"interp.evaluate.run", "interp.cache.extract", "interp.heads.sweep"} & reached
        assert "interp.passes" in reached, "what pads a batch is engine code"
        assert not [m for m in reached if m.startswith("interp.stats")]
    reached = {module for module, _ in code._Walk([(steering.run.__module__, "run")]).found}
    plain = {"interp.stats.permutation", "interp.stats.check", "interp.stats.estimate"}
    made = {m for m in reached if m.startswith("interp.stats.")} - plain
    found = code._Walk([(steering.run.__module__, "run")]).found
    assert {name for module, name in found if module == "interp.stats.estimate"} <= {"N_RESAMPLES"}, "a number"
    assert "steering.dose" in reached and not made, "labels that are permuted are controls, thus work"
    tables = {module for module, _ in code._Walk([(eval.tables.__module__, "tables")]).found}
    assert "interp.stats.intervals" in tables


STUDY = """\
name: small
pair: embedded
seed: 5
task: {path: interp.tasks.procedural, per_cell: 2}
eval: {generate: false}
heads: {n: 4, kinds: [mean], slot: ''}
figures: false
report: false
"""
DRIVER = """\
import sys, torch
if "no-forward" in sys.argv:
    def refuse(*args, **kwargs):
        raise AssertionError("a model was run")
    torch.nn.Module.__call__ = refuse
from study.cli import main
main([word for word in sys.argv[1:] if word != "no-forward"])
"""


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with a finished run of a small study in `run`."""
    root = tmp_path_factory.mktemp("copy")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "driver.py").write_text(DRIVER)
    write_study(root, STUDY)
    said = study(root)
    assert "eval: done" in said and "heads: done" in said
    return root


def study(root: Path, *more: str, command: str = "run", code: int = 0) -> str:
    words = ["study", command, "study.yaml", "--out", "run", *more]
    done = subprocess.run([sys.executable, "driver.py", *words], cwd=root, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"})  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def accuracies(root: Path) -> pd.DataFrame:
    table = pd.read_parquet(root / "run" / "tables" / "eval.parquet")
    return table[table["metric"] == "accuracy"].set_index(["member", "cell"])


def edit(root: Path, file: str, old: str, new: str) -> None:
    path = root / file
    assert old in path.read_text(), file
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.slow
def test_an_edited_statistic_changes_the_tables_without_a_forward_pass(copied: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(copied, tmp_path / "root"))
    before, work = accuracies(root), tree(root / "run", "steps/eval/engaged", "steps/eval/heuristic")
    with (root / "interp" / "evaluate" / "run.py").open("a") as file:
        file.write("\n# a comment\n")
    assert "nothing to run" in study(root, "no-forward"), "a comment is no code"
    line = "    centre = (p + z * z / (2 * n))"
    edit(root, "interp/stats/intervals.py", line, f"    z = z / 2\n{line}")
    said = study(root, "no-forward")
    assert "eval: done" in said and "heads: done" in said
    after = accuracies(root)
    width_before, width_after = before["hi"] - before["lo"], after["hi"] - after["lo"]
    assert (width_after < 0.85 * width_before).all(), "half the z, about half the width"
    assert (after["value"] == before["value"]).all()
    held = tree(root / "run", "steps/eval/engaged", "steps/eval/heuristic")
    assert {k: v for k, v in held.items() if "items" in k} == {k: v for k, v in work.items() if "items" in k}


@pytest.mark.slowest
@pytest.mark.long
def test_edited_engine_code_runs_again_unless_the_work_is_kept_on_purpose(copied: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(copied, tmp_path / "root"))
    edit(
        root,
        "interp/evaluate/run.py",
        "keep = decoding.score_labels",
        "keep = bool(decoding.score_labels)",
    )
    planned = study(root, command="plan")
    assert "made with code" in planned and "--keep" in planned
    kept = study(root, "--keep", "no-forward")
    assert "eval: kept: made with code" in kept
    state = (root / "run" / "run.json").read_text()
    assert "made with code" in state and "this is" in state, "the run says which code made it"
    again = study(root)
    assert "eval: its code changed (made with code" in again and "eval: done" in again
    assert statuses(root / "run") == {"eval": "done", "heads": "done", "known_truth": "done"}
    assert list((root / "run" / "steps" / ".kept").iterdir()), "what the other code made is set aside, not deleted"
