"""Errors of the system, Ctrl-C and SIGTERM end as one message that says what to do; YAML numbers; names of folders."""

from __future__ import annotations

import errno
import json
import os
import signal
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from interp.io.paths import shown, without_folder, without_paths
from interp.io.yaml_text import dump_yaml, parse_yaml
from study.analyses.base import Context
from study.analyses.oracle.training import TrainingFile
from study.cli import main
from study.cli.common import CONTINUES, user_errors_as_messages
from study.run.attempt import told
from study.run.process import words
from tests.fake_steps import Steps, install
from tests.study_kit import write_study
from tests.test_study_run import TEXT


@pytest.mark.parametrize("code", ["ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "ENOENT", "EISDIR", "ENOTDIR", "EIO",
                                  "EMFILE", "ENAMETOOLONG", "ELOOP", "EEXIST"])  # fmt: skip
def test_an_error_of_the_system_names_the_file_and_what_to_do(code: str) -> None:
    number = getattr(errno, code)
    text = words(OSError(number, os.strerror(number), "some/file.csv"))
    assert text.startswith("some/file.csv: ") and "[Errno" not in text
    assert len(text.split(". ")) >= 2  # what it means, and what to do


def test_a_full_disk_says_that_the_same_command_continues() -> None:
    assert "run the same command again" in words(OSError(errno.ENOSPC, "No space left on device"))


def test_want_of_memory_is_a_message_with_the_option_of_the_door() -> None:
    for error in (MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")):
        assert "Lower tokens_per_batch=" in words(error)

    @click.command()
    @click.option("--tokens-per-batch", type=int)
    @user_errors_as_messages
    def big(tokens_per_batch: int | None) -> None:
        raise MemoryError

    done = CliRunner().invoke(big, [])
    assert done.exit_code == 1 and "Lower --tokens-per-batch" in done.output


def test_an_error_that_was_written_for_the_user_is_left_as_it_is() -> None:
    assert words(FileNotFoundError("items: no such file, and no data set")) == "items: no such file, and no data set"
    assert words(ValueError("x: bad")) == "x: bad"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_command_says_what_the_same_command_will_do(number: signal.Signals, code: int) -> None:
    @click.command()
    @user_errors_as_messages
    def wait() -> None:
        os.kill(os.getpid(), number)
        raise AssertionError("the signal was not acted on")

    before = signal.getsignal(signal.SIGTERM)
    done = CliRunner().invoke(wait, [])
    assert done.exit_code == code and "Run the same command again" in done.output and "Traceback" not in done.output
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_study_continues(number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: Steps = install(monkeypatch)
    steps.work["cache"] = lambda context: os.kill(os.getpid(), number)
    command = ["study", "run", str(write_study(tmp_path, TEXT)), "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 128 + number and "it continues where it stopped" in done.output
    assert json.loads((tmp_path / "run" / "run.json").read_text())["steps"]["eval"]["status"] == "done"
    assert not list((tmp_path / "run").rglob(".tmp/*"))
    steps.ran.clear()
    steps.work.clear()
    assert CliRunner().invoke(main, command).exit_code == 0
    assert steps.ran == ["cache", "probes", "figures"]


def test_every_command_that_is_said_to_continue_exists() -> None:
    for name in CONTINUES:
        command: click.Command = main
        for word in name.split():
            assert isinstance(command, click.Group), name
            found = command.get_command(click.Context(command), word)
            assert found is not None, name
            command = found


# --- numbers of YAML ---


@pytest.mark.parametrize(("text", "value"), [("1e-5", 1e-5), ("1E5", 1e5), ("-2e3", -2e3), ("3.e2", 300.0),
                                             (".5e1", 5.0), ("1.5e+3", 1500.0), ("1e-5x", "1e-5x"), ("e5", "e5"),
                                             ("'1e-5'", "1e-5"), ("1_0", 10), ("12", 12)])  # fmt: skip
def test_a_number_with_an_exponent_is_a_number(text: str, value: object) -> None:
    got = parse_yaml(f"a: {text}", "x")["a"]
    assert got == value and type(got) is type(value)


def test_a_training_file_takes_a_rate_without_a_dot(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("base: org/a\ncorpus: c.jsonl\ntasks: {context: 5}\nrecipe: {lr: 1e-5}\n")
    assert TrainingFile.read(tmp_path / "t.yaml").recipe["lr"] == 1e-5


@given(st.dictionaries(st.sampled_from(["a", "1e5", "no"]), st.one_of(
    st.sampled_from(["1e5", "1e-5", "12e4567", "no", "null", "1:30", "0x1f", ".5e1", "~", ""]),
    st.floats(allow_nan=False, allow_infinity=False), st.integers(), st.booleans(), st.none())))  # fmt: skip
def test_what_is_written_as_yaml_is_read_back_with_its_types(content: dict[str, object]) -> None:
    got = parse_yaml(dump_yaml(content), "x")
    assert got == content and [type(v) for v in got.values()] == [type(v) for v in content.values()]


# --- names of folders in what is written ---


def test_a_run_folder_with_a_short_name_garbles_no_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("b").mkdir()
    steps = install(monkeypatch)
    message = "labels beside b/x.json: expected a, b or c, got abb/b; see {0}/steps/eval/a.csv and {0}"

    def fail(context: Context) -> None:
        raise ValueError(message.format(context.root))

    steps.work["eval"] = fail
    done = CliRunner().invoke(main, ["study", "run", str(write_study(tmp_path, TEXT)), "--out", "b"])
    expected = "labels beside b/x.json: expected a, b or c, got abb/b; see steps/eval/a.csv and the run folder"
    assert expected in done.output
    assert json.loads(Path("b/run.json").read_text())["steps"]["eval"]["cause"] == expected


def test_only_the_whole_path_of_a_folder_is_replaced() -> None:
    for text, expected in {
        "/x/b/steps/a.csv: bad": "steps/a.csv: bad", "in /x/b": "in RUN", "(/x/b/)": "(RUN)", "/x/b.": "RUN.",
        "/x/bar/a": "/x/bar/a", "/x/b.old/a": "/x/b.old/a", "/w/x/b/a": "/w/x/b/a", "beside": "beside",
    }.items():  # fmt: skip
        assert without_folder(text, Path("/x/b"), "RUN") == expected


def test_no_folder_of_this_machine_stays_in_what_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/home/Ada L"))
    text = "'/home/Ada L/models/tuned/config.json', /scratch/ada/x.jsonl: https://hf.co/a/b and org/name, and/or"
    assert without_paths(text) == "'.../config.json', .../x.jsonl: https://hf.co/a/b and org/name, and/or"
    context = Context(tmp_path / "run", "eval", None, {})  # type: ignore[arg-type]
    assert told(f"{tmp_path}/run/steps/a; {tmp_path}/data.csv", context) == "steps/a; .../data.csv"


def test_a_model_is_shown_by_its_id_or_the_name_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "tuned").mkdir()
    assert shown("org/model") == "org/model"
    assert shown(str(tmp_path / "tuned")) == shown("~/models/tuned") == shown("../tuned") == "tuned"
