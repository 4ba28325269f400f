"""The runner: each step once, dependents alone after a change, failures kept apart, nothing outside the run folder."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from interp.cache.errors import CacheBusyError
from study.analyses.base import Context
from study.config import Study, read_study
from study.run.runner import Finished, run_study
from tests.fake_steps import Steps, install
from tests.faults.kit import signed
from tests.study_kit import statuses, tree, write_study

TEXT = """\
name: fake
pair: embedded
task: {path: interp.tasks.procedural, per_cell: 2}
eval: {per_cell: 3}
cache: {}
probes: {groups: procedure}
figures: {}
report: false
"""


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return install(monkeypatch)


def read(folder: Path, *overrides: str) -> Study:
    return read_study(write_study(folder, TEXT), overrides=overrides)


def go(study: Study, out: Path, **options: object) -> Finished:
    return run_study(study, out, say=lambda line: None, **options)  # type: ignore[arg-type]


def test_a_second_run_runs_nothing_and_changes_nothing(
    steps: Steps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("study.run.runner.commit", lambda: "the commit that ran")
    go(read(tmp_path), tmp_path / "run")
    monkeypatch.setattr("study.run.runner.commit", lambda: "a later commit")
    assert steps.ran == ["eval", "cache", "probes", "figures"]
    before = tree(tmp_path / "run", "run.json", "study.yaml", "tables", "steps")
    assert go(read(tmp_path), tmp_path / "run").ran == ()
    assert steps.ran == ["eval", "cache", "probes", "figures"]
    assert tree(tmp_path / "run", "run.json", "study.yaml", "tables", "steps") == before


def test_a_changed_section_reruns_only_what_reads_it(steps: Steps, tmp_path: Path) -> None:
    go(read(tmp_path), tmp_path / "run")
    steps.ran.clear()
    go(read(tmp_path, "eval.per_cell=4"), tmp_path / "run")
    assert steps.ran == ["eval"]  # its table has the same bytes, so nothing is drawn again
    steps.ran.clear()
    go(read(tmp_path, "eval.per_cell=4", "cache.sites=resid_post.0"), tmp_path / "run")
    assert steps.ran == ["cache", "probes"]
    steps.ran.clear()
    go(read(tmp_path, "eval.per_cell=4", "cache.sites=resid_post.0", "seed=1"), tmp_path / "run")
    assert steps.ran == ["eval", "cache", "probes", "figures"]  # the seed stands in every table


def test_output_of_another_configuration_is_kept_aside_and_taken_back(steps: Steps, tmp_path: Path) -> None:
    steps.work["cache"] = lambda context: (context.folder / "out.txt").write_text(context.section.sites) and None
    go(read(tmp_path), tmp_path / "run")
    go(read(tmp_path, "cache.sites=resid_post.0"), tmp_path / "run")
    assert (tmp_path / "run" / "steps" / "cache" / "out.txt").read_text() == "resid_post.0"
    steps.ran.clear()
    go(read(tmp_path), tmp_path / "run")
    assert steps.ran == []  # both are there from the first time; only tables are made again
    assert (tmp_path / "run" / "steps" / "cache" / "out.txt").read_text() == "resid_post.*"
    assert statuses(tmp_path / "run")["probes"] == "done"


def test_changed_data_and_changed_weights_are_changed_inputs(
    steps: Steps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "items.jsonl"
    data.write_text('{"id": 1}\n')
    study = read(tmp_path, "task.data=items.jsonl")
    go(study, tmp_path / "run")
    steps.ran.clear()
    data.write_text('{"id": 2}\n')
    go(study, tmp_path / "run")
    assert steps.ran[:3] == ["eval", "cache", "probes"]
    copy = tmp_path / "weights"
    shutil.copytree(Path(study.members["engaged"].base).parent, copy)
    monkeypatch.setattr("study.embedded.weights_folder", lambda: copy)
    steps.ran.clear()
    go(read(tmp_path, "task.data=items.jsonl"), tmp_path / "run")
    assert steps.ran == []  # the same weights elsewhere
    config = copy / "engaged" / "adapter_config.json"
    config.write_text(config.read_text() + " ")
    go(read(tmp_path, "task.data=items.jsonl"), tmp_path / "run")
    assert steps.ran == ["eval", "cache", "probes"]


def test_a_failing_step_says_why_and_what_does_not_read_it_runs(steps: Steps, tmp_path: Path) -> None:
    def fail(context: Context) -> None:
        (context.folder / "half.txt").write_text("half")
        raise ValueError("site 'z.31': this model has 28 layers (0-27).")

    steps.work["cache"] = fail
    finished = go(read(tmp_path), tmp_path / "run")
    assert finished.failed["cache"] == "site 'z.31': this model has 28 layers (0-27)."
    assert finished.failed["probes"] == "it needs cache, which failed"
    assert statuses(tmp_path / "run") == {"eval": "done", "cache": "failed", "probes": "skipped", "figures": "done"}
    del steps.work["cache"]
    steps.ran.clear()
    assert not go(read(tmp_path), tmp_path / "run").failed
    assert steps.ran == ["cache", "probes", "figures"]
    assert (tmp_path / "run" / "steps" / "cache" / "half.txt").read_text() == "half"  # finished work is kept


def test_a_bug_in_a_step_keeps_its_traceback_and_says_where(steps: Steps, tmp_path: Path) -> None:
    steps.work["eval"] = lambda context: {}["missing"]
    finished = go(read(tmp_path), tmp_path / "run")
    assert finished.failed == {"eval": "KeyError: 'missing' (traceback: steps/eval/traceback.txt)"}
    assert "KeyError" in (tmp_path / "run" / "steps" / "eval" / "traceback.txt").read_text()


def test_a_full_disk_fails_the_step_in_words_and_the_next_run_goes_on(
    steps: Steps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from interp.io import files

    real = files.write_durable

    def full(path: Path, data: bytes) -> None:
        if "eval" in path.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, data)

    monkeypatch.setattr(files, "write_durable", full)
    finished = go(read(tmp_path), tmp_path / "run")
    assert "no room to write" in finished.failed["eval"]
    assert "free some space and run the same command" in finished.failed["eval"]
    assert str(tmp_path) not in (tmp_path / "run" / "run.json").read_text()
    assert statuses(tmp_path / "run")["cache"] == "done"
    monkeypatch.setattr(files, "write_durable", real)
    assert not go(read(tmp_path), tmp_path / "run").failed


def test_a_table_that_was_deleted_or_changed_is_made_again_without_the_work(steps: Steps, tmp_path: Path) -> None:
    go(read(tmp_path), tmp_path / "run")
    before = tree(tmp_path / "run", "tables")
    (tmp_path / "run" / "tables" / "eval.csv").unlink()
    (tmp_path / "run" / "tables" / "cache.parquet").write_bytes(b"changed")
    steps.ran.clear()
    go(read(tmp_path), tmp_path / "run")
    assert steps.ran == []
    assert tree(tmp_path / "run", "tables") == before


def test_work_that_is_gone_is_done_again(steps: Steps, tmp_path: Path) -> None:
    go(read(tmp_path), tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "steps" / "eval")
    (tmp_path / "run" / "tables" / "eval.csv").unlink()
    steps.ran.clear()
    go(read(tmp_path), tmp_path / "run")
    assert "eval" in steps.ran


def test_a_run_folder_that_was_moved_is_gone_on_with(steps: Steps, tmp_path: Path) -> None:
    go(read(tmp_path), tmp_path / "run")
    (tmp_path / "elsewhere").mkdir()
    moved = shutil.move(tmp_path / "run", tmp_path / "elsewhere" / "moved")
    steps.ran.clear()
    assert go(read_study(moved / "study.yaml"), moved).ran == ()
    assert steps.ran == []
    text = "".join(p.read_text() for p in (moved / "run.json", moved / "study.yaml"))
    assert str(tmp_path) not in text


def test_what_a_model_says_cannot_reach_outside_the_run_or_the_terminal(steps: Steps, tmp_path: Path) -> None:
    said = "\x1b[2J\x1b]0;owned\x07" + "word" * 250_000
    steps.work["eval"] = lambda context: (_ for _ in ()).throw(ValueError(said))
    lines: list[str] = []
    run_study(read(tmp_path), tmp_path / "run", say=lines.append)
    shown = "".join(lines)
    assert "\x1b" not in shown and "\x07" not in shown and len(shown) < 20_000
    assert "(1,000,0" in shown  # how long it was


def test_a_table_that_would_lead_outside_is_refused(steps: Steps, tmp_path: Path) -> None:
    go(read(tmp_path), tmp_path / "run")
    state = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "precious.txt").write_text("precious")
    state["steps"]["eval"]["outputs"] = {"../precious.txt": "0", "tables/../../precious.txt": "0"}
    (tmp_path / "run" / "run.json").write_text(json.dumps(signed(state, "sha256")))
    go(read(tmp_path, "seed=9"), tmp_path / "run")
    assert (tmp_path / "precious.txt").read_text() == "precious"


def test_two_runs_of_one_folder_do_not_mix(steps: Steps, tmp_path: Path) -> None:
    def again(context: Context) -> None:
        go(read(tmp_path), tmp_path / "run")

    steps.work["eval"] = again
    finished = go(read(tmp_path), tmp_path / "run")
    assert "already being written by process" in finished.failed["eval"]
    assert CacheBusyError.__name__ not in finished.failed["eval"]


def test_only_one_step_is_run_where_one_is_named(steps: Steps, tmp_path: Path) -> None:
    go(read(tmp_path), tmp_path / "run", only=["cache"])
    assert steps.ran == ["cache"]
    go(read(tmp_path), tmp_path / "run", only=["probes"])
    assert steps.ran == ["cache", "probes"]
    with pytest.raises(ValueError, match="only= head: not a step of this study. Steps: eval, cache, probes, figures"):
        go(read(tmp_path), tmp_path / "run", only=["head"])


def test_a_step_without_what_it_needs_is_refused_before_anything_runs(steps: Steps, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="step 'probes' needs cache"):
        go(read(tmp_path, "cache=false"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_broken_run_file_says_so(steps: Steps, tmp_path: Path) -> None:
    go(read(tmp_path), tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text('{"name": ')
    with pytest.raises(ValueError, match="run.json: not readable .* Delete it and run the study again"):
        go(read(tmp_path), tmp_path / "run")


def test_a_step_alone_is_not_run_on_what_another_configuration_made(steps: Steps, tmp_path: Path) -> None:
    go(read(tmp_path), tmp_path / "run")
    finished = go(read(tmp_path, "cache.sites=resid_post.0"), tmp_path / "run", only=["probes"])
    assert finished.failed["probes"] == "it needs cache, which was made from a different configuration; run that first"


def test_tables_of_an_earlier_configuration_are_gone_where_a_step_cannot_run(steps: Steps, tmp_path: Path) -> None:
    go(read(tmp_path), tmp_path / "run")
    assert (tmp_path / "run" / "tables" / "probes.csv").is_file()
    steps.work["cache"] = lambda context: {}["missing"]
    finished = go(read(tmp_path, "cache.sites=resid_post.0"), tmp_path / "run")
    assert set(finished.failed) == {"cache", "probes"}
    assert sorted(path.name for path in (tmp_path / "run" / "tables").glob("*.csv")) == ["eval.csv"]


@pytest.mark.long
def test_steps_side_by_side_end_as_they_do_one_after_the_other(tmp_path: Path) -> None:
    """Real steps that fail at once, each in a process of its own; nothing is lost and both causes are said."""
    text = TEXT.replace("eval: {per_cell: 3}", "eval: {limit: 1, thinking: true, generate: false}")
    text = text.replace("probes: {groups: procedure}", "heads: {n: 4, kinds: [mean], positions: 'span:nothing'}")
    study = read_study(write_study(tmp_path, text), overrides=["cache.max_bytes=1B", "figures=false"])
    one = go(study, tmp_path / "one")
    two = go(study, tmp_path / "two", jobs=2)
    assert one.failed == two.failed and set(one.failed) >= {"cache", "heads"}


@pytest.mark.long
def test_a_run_in_processes_leaves_the_bytes_of_a_run_in_one(tmp_path: Path) -> None:
    """Figures are drawn in a process while the known truths are compared here."""
    chosen = ["eval={max_new_tokens: 2}", "task.limit=8", "cache.sites=resid_post.0", "probes=false"]
    study = read(tmp_path, *chosen, "figures.formats=[svg]")
    one, two = go(study, tmp_path / "one"), go(study, tmp_path / "two", jobs=2)
    assert one.ran[-2:] == ("known_truth", "figures") and set(one.ran) == set(two.ran) and not two.failed
    parts = ("tables", "figures", "run.json")
    assert tree(tmp_path / "one", *parts) == tree(tmp_path / "two", *parts)
