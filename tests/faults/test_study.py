"""A run of a study whose files were changed: a step is done only where every file of its own proves it."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import pytest

from interp.cache.reader import problems_of
from interp.cache.store import drop_damaged
from study.run.runner import run_study
from tests.cache_kit import build, content, tiny_plan
from tests.fake_steps import Steps, install
from tests.faults.kit import check_kills, flips, tree
from tests.test_study_run import read


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    made = install(monkeypatch)
    made.work["eval"] = work
    return made


def work(context) -> None:
    """Two files, each made where it is not there."""
    for name in ("out.txt", "more/items.txt"):
        path = context.folder / name
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            path.write_text(f"{context.name} {name}")


def go(folder: Path) -> tuple[tuple[str, ...], list[str]]:
    said: list[str] = []
    finished = run_study(read(folder), folder / "run", say=said.append)
    assert not finished.failed
    return finished.ran, said


def test_killed_in_every_step_and_run_again_it_leaves_the_bytes_of_an_undisturbed_run(steps, tmp_path, kills):
    """Made-up steps; test_study_whole.py kills real ones."""
    study = read(tmp_path)

    def work(root: Path) -> None:
        finished = run_study(study, root / "run", say=lambda line: None)
        assert not finished.failed and set(finished.state.steps) == {"eval", "cache", "probes", "figures"}

    work(tmp_path / "warm")  # so that its children import nothing
    check_kills(work, tmp_path, kills=5 * kills)


@pytest.mark.parametrize("name", ["out.txt", "more/items.txt"])
@pytest.mark.parametrize("how", ["gone", "cut", "flipped", "another"])
def test_a_file_of_finished_work_that_was_changed_is_named_set_aside_and_made_again(steps, tmp_path, name, how):
    go(tmp_path)
    want, path = tree(tmp_path / "run"), tmp_path / "run" / "steps" / "eval" / name
    data = path.read_bytes()
    assert go(tmp_path)[0] == ()
    path.unlink()
    if how != "gone":
        path.write_bytes({"cut": data[:-1], "flipped": data[:-1] + b"\x00", "another": b"another"}[how])
    ran, said = go(tmp_path)
    assert "eval" in ran
    assert any(f"eval: steps/eval/{name} was changed or is missing" in line for line in said)
    assert tree(tmp_path / "run") == want
    kept = list((tmp_path / "run" / "steps" / ".kept").rglob(Path(name).name))
    assert len(kept) == (how != "gone")
    assert go(tmp_path)[0] == ()


def test_no_flipped_bit_of_a_seal_makes_a_step_done_or_throws_its_work_away(steps, tmp_path, kills):
    go(tmp_path)
    want, seal = tree(tmp_path / "run"), tmp_path / "run" / "steps" / "eval" / "step.json"
    before = json.loads(seal.read_bytes())
    steps.work["eval"] = lambda context: work(context) if (context.folder / "out.txt").exists() else 1 / 0
    for at in flips(seal, 3 * kills):
        try:
            if json.loads(seal.read_bytes()) == before:
                continue
        except ValueError:
            pass
        ran, _ = go(tmp_path)
        assert "eval" in ran, at
        assert tree(tmp_path / "run") == want, at


def test_a_damaged_cache_is_fixed_by_the_advice_that_its_error_gives_and_by_none(steps, tmp_path):
    plan = tiny_plan()

    def extract(context) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            root = context.folder / "m"
            root.mkdir(exist_ok=True)
            drop_damaged(root, plan)
            build(root, plan)
        work(context)

    steps.work["cache"] = extract
    go(tmp_path)
    root = tmp_path / "run" / "steps" / "cache" / "m"
    want = content(root)
    data = next(root.glob("shards/00/000001.*.safetensors"))
    for advice in (True, False):
        held = data.read_bytes()
        data.write_bytes(held[:-3] + bytes([held[-3] ^ 1]) + held[-2:])
        assert "digest" in str(problems_of(root, "hash")[0])
        if advice:
            (root / "shards/00/000001.json").unlink()
            (root / "SEALED.json").unlink()
        ran, _ = go(tmp_path)
        assert "cache" in ran
        assert content(root) == want
        assert problems_of(root, "hash") == ()
        assert go(tmp_path)[0] == ()


def test_a_lost_run_json_costs_no_work(steps, tmp_path):
    go(tmp_path)
    want = tree(tmp_path / "run")
    (tmp_path / "run" / "run.json").unlink()
    steps.ran.clear()
    go(tmp_path)
    assert [name for name in steps.ran if name != "figures"] == []
    assert tree(tmp_path / "run") == want


def test_the_seal_names_every_file_of_the_step_and_only_those(steps, tmp_path):
    go(tmp_path)
    folder = tmp_path / "run" / "steps" / "eval"
    stamp = json.loads((folder / "step.json").read_bytes())
    assert set(stamp["files"]) == {"out.txt", "more/items.txt"}
    assert stamp["files"]["out.txt"][0] == (folder / "out.txt").stat().st_size
    shutil.rmtree(folder)
    assert "eval" in go(tmp_path)[0]


def test_no_flipped_bit_of_run_json_is_believed(steps, tmp_path, kills):
    go(tmp_path)
    path = tmp_path / "run" / "run.json"
    before = json.loads(path.read_bytes())
    for at in flips(path, 10 * kills):
        try:
            if json.loads(path.read_bytes()) == before:
                continue  # white space
        except ValueError:
            pass
        with pytest.raises(ValueError, match=r"run\.json.*Delete it and run the study again"):
            go(tmp_path)
        assert path.exists(), at
