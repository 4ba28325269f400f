"""Every long command says on standard error how many steps are done and how much time is left, and --quiet silences it.

The clock moves a second with every look and every look prints, so that commands on tiny models print what long ones do.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from interp import progress
from study.cli import main
from study.embedded import weights_folder
from tests.study_kit import write_study
from tests.test_oracle_train_cli import write as write_recipe
from tests.test_progress import LINE, Clock

ITEMS = ("--task", "interp.tasks.procedural", "--seed", "5")
CHECKPOINT = ("--base", str(weights_folder() / "base"), "--name", "b")
WHERE = ("--target", "surface_label", "--groups", "procedure")
COMMANDS: dict[str, tuple[str, Sequence[str]]] = {
    "eval run": ("eval b", (*CHECKPOINT, *ITEMS, "--per-cell", "2", "--mode", "labels", "--no-figures")),
    "cache extract": ("cache", (*CHECKPOINT, *ITEMS, "--per-cell", "6", "--sites", "resid_post.*")),
    "heads sweep": ("heads b mean", (*CHECKPOINT, *ITEMS, "--n", "4", "--slot", "", "--kind", "mean", "--no-figures")),
    "probes sweep": ("probes", ("cache", *WHERE, "--kinds", "ridge", "--perm", "19", "--boot", "100")),
    "probes mdl": ("probes", ("cache", *WHERE, "--positive", "compliant", "--position", "last", "--sites",
                              "resid_post.2", "--orders", "1")),
    "probes recall": ("probes", ("cache", *WHERE, "--positive", "compliant", "--position", "last")),
    "steer fit": ("directions", ("cache", *WHERE, "--toward", "noncompliant", "--away", "compliant",
                                 "--no-sign-check")),
    "oracle train": ("training", ()),
    "cot": ("tracking b-tracking", (*CHECKPOINT, "--label", "tracking")),
    "study run": ("heads engaged mean", ()),
}  # fmt: skip
"""Command -> the loop that its first line is about, and its arguments."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("commands")
    done = CliRunner().invoke(main, ["cache", "extract", *COMMANDS["cache extract"][1], "--out", str(root / "cache")])
    assert done.exit_code == 0, done.output
    return root


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "now", Clock(per_look=1.0))
    monkeypatch.setattr(progress, "EVERY", 0.0)


def run(name: str, folder: Path, out: Path, *more: str) -> Result:
    words = [str(folder / word) if word == "cache" else word for word in COMMANDS[name][1]]
    ends = {"steer fit": out / "d.safetensors", "probes mdl": out / "t.csv", "probes recall": out / "t.csv"}
    out.mkdir(exist_ok=True)
    if name == "oracle train":
        words = [str(write_recipe(out))]
    elif name == "cot":
        write_recipe(out)
        words += ["--data", str(out / "cot.jsonl")]
    elif name == "study run":
        words = [str(write_study(out)), *("--only", "heads")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        at = str(ends.get(name, out / "out"))
        return CliRunner().invoke(main, [*name.split(), *words, "--out", at, *more])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_long_command_prints_steps_and_time_left(name: str, folder: Path, tmp_path: Path, ticking: None) -> None:
    done = run(name, folder, tmp_path)
    assert done.exit_code == (1 if name == "cot" else 0), done.output  # labels of random weights fail an audit
    shown = [line for line in done.stderr.splitlines() if LINE.search(line)]
    assert [line for line in shown if line.startswith(f"{COMMANDS[name][0]}: ")], done.stderr
    assert len(shown) >= 2, "a line moves between the first step and the last"
    for loop in {line.split(":")[0] for line in shown}:
        shares = [int(re.findall(r"(\d+)%", line)[0]) for line in shown if line.startswith(f"{loop}:")]
        assert shares == sorted(shares)


@pytest.mark.parametrize("name", ["eval run", "heads sweep"])
def test_quiet_commands_print_no_progress(name: str, folder: Path, tmp_path: Path, ticking: None) -> None:
    done = run(name, folder, tmp_path, "--quiet")
    assert done.exit_code == 0, done.output
    assert not LINE.search(done.stderr)
