"""A whole study on the embedded pair: killed in every step and gone on with, moved, run twice, wrong from the start."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest
from click.testing import CliRunner

from study.cli import main
from tests.cache_kit import fork, status
from tests.study_kit import SMALL, statuses, tree, write_study
from tests.study_kit import main as run_or_die

ROOT = Path(__file__).resolve().parent.parent
RESULT = ("tables", "figures", "report.html")


def kill(file: Path, out: Path, step: str, nth: int) -> None:
    """Run the study in a child that is killed at the nth file that a step writes."""
    code = status(fork(lambda: run_or_die(str(file), str(out), step, str(nth))))
    assert code == -signal.SIGKILL, step


@pytest.mark.slowest
@pytest.mark.long
def test_a_run_that_is_killed_in_every_step_ends_with_the_same_bytes(small_run: Path, tmp_path: Path) -> None:
    file = write_study(tmp_path / "other place")
    killed = [("eval", 4), ("cache", 9), ("probes", 3), ("heads", 7), ("steering", 6), ("oracle", 1), ("figures", 4),
              ("report", 1)]  # fmt: skip
    for step, nth in killed:
        kill(file, tmp_path / "run", step, nth)
        assert statuses(tmp_path / "run").get(step) != "done"
    run_or_die(str(file), str(tmp_path / "run"))
    assert tree(tmp_path / "run", *RESULT) == tree(small_run, *RESULT)


def test_a_run_that_is_killed_in_one_step_ends_with_the_same_bytes(small_run: Path, tmp_path: Path) -> None:
    """With all that the other steps had finished; tests/faults/test_study.py kills every step of a made-up study."""
    run = Path(shutil.copytree(small_run, tmp_path / "moved" / "run"))
    shutil.rmtree(run / "steps" / "heads")
    kill(run / "study.yaml", run, "heads", 7)
    assert tree(run, "steps/heads") != tree(small_run, "steps/heads"), "the step ended before it could be killed"
    run_or_die(str(run / "study.yaml"), str(run))
    assert tree(run, *RESULT) == tree(small_run, *RESULT)
    assert len(tree(small_run, "tables")) >= 10


@pytest.mark.slow
def test_a_finished_run_is_shown_at_once_and_stays_as_it_is(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Path(shutil.copytree(small_run, tmp_path / "moved" / "run"))
    before = tree(run, *RESULT, "run.json", "study.yaml")
    monkeypatch.setattr("torch.nn.Module.__init__", lambda *_, **__: pytest.fail("a model was built"))
    done = CliRunner().invoke(main, ["study", "run", str(run)])
    assert done.exit_code == 0, done.output
    assert "everything is up to date; nothing to run" in done.output
    assert tree(run, *RESULT, "run.json", "study.yaml") == before


@pytest.mark.slow
def test_tables_and_figures_are_read_from_the_folder_alone(small_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(small_run, tmp_path / "run", ignore=shutil.ignore_patterns("steps")))
    shown = CliRunner().invoke(main, ["tables", str(run), "--table", "pair", "--where", "cell=training_distribution"])
    assert shown.exit_code == 0, shown.output
    assert "accuracy_difference" in shown.output and "engaged - heuristic" in shown.output
    drawn = CliRunner().invoke(main, ["figures", str(run), "--style", "paper", "--format", "svg"])
    assert drawn.exit_code == 0, drawn.output
    made = {path.name: path.read_bytes() for path in (run / "figures-paper").glob("*.svg")}
    assert made == {path.name: path.read_bytes() for path in (small_run / "figures").glob("*.svg")}
    assert "dumbbell.svg" in made and "headline.svg" in made


@pytest.mark.slow
@pytest.mark.parametrize(
    ("left_out", "panels"),
    [
        ((), 4), (("heads", "heads_difference", "heads_cumulative"), 3), (("steering",), 4), (("probes",), 3),
        (("pair",), 3), (("heads", "heads_difference", "heads_cumulative", "steering"), 3), (("probes", "steering"), 3),
    ],
)  # fmt: skip
def test_the_headline_composes_what_a_study_of_any_shape_has(
    small_run: Path, left_out: tuple[str, ...], panels: int
) -> None:
    """Without steering, heads removed together or else reliability take its place."""
    from study.report.headline_figure import headline
    from study.schema import read_tables

    drawn = headline({name: table for name, table in read_tables(small_run).items() if name not in left_out})
    assert drawn.rows["panel"].nunique() == panels
    assert ("Not drawn" in drawn.caption) is bool(left_out)


@pytest.mark.slow
def test_nothing_that_a_run_keeps_names_the_machine(small_run: Path) -> None:
    for name, content in tree(small_run, *RESULT, "run.json", "study.yaml").items():
        for word in (str(ROOT), str(small_run), str(small_run.parent)):
            assert word.encode() not in content, (name, word)


@pytest.mark.slow
def test_both_members_are_cached_over_the_same_items_and_drawn_side_by_side(small_run: Path) -> None:
    from interp.cache import ActivationCache

    engaged, heuristic = (ActivationCache.open(small_run / "steps" / "cache" / m) for m in ("engaged", "heuristic"))
    assert engaged.examples["id"].tolist() == heuristic.examples["id"].tolist()
    assert len(engaged.pair(heuristic)) == engaged.n_rows
    assert (small_run / "figures" / "dumbbell.svg").stat().st_size > 5_000
    assert "95 %" in (small_run / "figures" / "dumbbell.txt").read_text()


@pytest.mark.slow
def test_every_number_of_every_table_has_its_interval_and_n(small_run: Path) -> None:
    from study.schema import check_table, read_tables

    tables = read_tables(small_run)
    assert {"eval", "pair", "probes", "heads", "heads_selected", "steering", "oracle"} <= set(tables)
    assert set(tables["steering"]["metric"]) <= set(tables["steering_slopes"]["metric"])  # one vocabulary
    for name, table in tables.items():
        check_table(table, name)
        assert table["data_sha256"].str.fullmatch(r"[0-9a-f]{12,64}").all(), name
        assert table["seed"].notna().all(), name


def test_an_adapter_of_another_base_is_refused_before_any_weight_is_read(tmp_path: Path) -> None:
    from study.embedded import weights_folder
    from tests.tiny import save_checkpoint

    base = save_checkpoint(tmp_path / "other-base")
    pair = f"pair: {{base: {base}, engaged: {{adapter: {weights_folder() / 'engaged'}}}, heuristic: {{base: {base}}}}}"
    file = write_study(tmp_path, SMALL.replace("pair: embedded", pair))
    done = CliRunner().invoke(main, ["study", "run", str(file), "--out", str(tmp_path / "run")])
    assert done.exit_code == 1
    assert "adapter" in done.output and "engaged" in done.output
    assert not (tmp_path / "run" / "steps" / "eval").exists()


def test_a_typo_a_missing_file_and_a_missing_study_are_said_first(tmp_path: Path) -> None:
    file = write_study(tmp_path, SMALL.replace("groups:", "group:"))
    done = CliRunner().invoke(main, ["study", "run", str(file)])
    assert done.exit_code == 1
    assert "line 7: section probes: unknown key 'group'; did you mean 'groups'?" in done.output
    file = write_study(tmp_path, SMALL.replace("per_cell: 4}", "data: nothing.jsonl}"))
    done = CliRunner().invoke(main, ["study", "plan", str(file)])
    assert done.exit_code == 1 and "line 4: task.data: no file or folder 'nothing.jsonl'" in done.output
    done = CliRunner().invoke(main, ["study", "run", str(tmp_path / "none.yaml")])
    assert done.exit_code == 1 and "none.yaml: no such file" in done.output


def test_the_plan_counts_tokens_and_bytes_and_starts_nothing(tmp_path: Path) -> None:
    file = write_study(tmp_path)
    done = CliRunner().invoke(main, ["study", "plan", str(file), "--out", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    lines = {line.split()[0]: line for line in done.output.splitlines() if line}
    assert " 152 " in lines["eval"] and " 228 " in lines["cache"]  # 76 items of 2 and of 3 members
    assert "18,240" in lines["eval"]  # 152 replies of at most 120 tokens
    assert not (tmp_path / "run").exists()


def test_a_task_that_raises_is_the_cause_of_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from interp.tasks import procedural

    def fail(example: object, text: str) -> dict[str, float]:
        raise RuntimeError("the scorer knows no such label")

    monkeypatch.setattr(procedural, "score", fail)
    text = SMALL.split("cache:")[0] + "figures: false\nreport: false\n"
    file = write_study(tmp_path, text.replace("max_new_tokens: 120", "max_new_tokens: 2"))
    done = CliRunner().invoke(main, ["study", "run", str(file), "--out", str(tmp_path / "run"), "--quiet"])
    assert done.exit_code == 1
    assert "eval failed: RuntimeError: the scorer knows no such label (traceback: steps/eval/" in done.output
