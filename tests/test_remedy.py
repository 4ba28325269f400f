"""Errors name the option of the door through which the user came: Python, the command line, or a study file."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

import click
import pytest

from interp.remedy import entered, remedy
from study.cli import main
from study.config.sections import SECTIONS, Study
from study.doors import command_door, study_door

ROOT = Path(__file__).resolve().parent.parent
FLAG = re.compile(r"(?<![\w`-])--[a-z][a-z-]+")
OPTION = re.compile(r"\{([a-z_]+(?:\.[a-z_]+)?)(?::[^{}]*)?\}")
AT_A_COMMAND = {"study/config/read.py", "study/demo.py", "study/doors.py", "study/run/digest.py", "study/run/power.py",
                "study/analyses/heads/show.py", "study/analyses/steering/show.py",
                "study/report/vector.py"}  # fmt: skip
"""Files whose flags are those of one command alone, or are no flags of ours."""


def command(*names: str) -> list[Any]:
    """Parameters of a command of the command line."""
    found: Any = main
    for name in names:
        found = found.get_command(click.Context(found), name)
    return found.params


@cache
def texts_of(path: Path) -> tuple[str, ...]:
    """Every string of a file that is no docstring."""
    tree = ast.parse(path.read_text())
    docs = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant)}
    strings = [n for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in docs]
    return tuple(node.value for node in strings if isinstance(node.value, str))


@cache
def names_by_remedy(path: Path) -> bool:
    return "remedy(" in path.read_text()


def library() -> list[Path]:
    found = [p for package in ("interp", "probes", "steering", "study") for p in (ROOT / package).rglob("*.py")]
    shown = [p for p in found if not {"cli", "embedded"} & set(p.relative_to(ROOT).parts)]
    return [p for p in shown if not p.name.endswith("options.py")]  # they declare the flags


def test_no_text_of_the_library_names_a_flag_by_itself() -> None:
    """A flag in a text reaches users of a study file or of Python too; `remedy` names it as they know it."""
    guilty = [
        f"{path.relative_to(ROOT)}: {text}" for path in library() if str(path.relative_to(ROOT)) not in AT_A_COMMAND
        for text in texts_of(path) if FLAG.search(text) and "diptych " not in text
    ]  # fmt: skip
    assert not guilty, "\n".join(guilty)


ASK = "Ask for less with {min_items} and {min_groups}."


def test_one_text_at_three_doors() -> None:
    assert remedy(ASK) == "Ask for less with min_items= and min_groups=."
    with entered(study_door("steering")):
        assert remedy(ASK) == "Ask for less with steering.min_items and steering.min_groups."
    with entered(command_door(command("steer", "dose"))):
        assert remedy(ASK) == "Ask for less with --min-class and --min-groups."
    assert remedy(ASK) == "Ask for less with min_items= and min_groups=."  # the doors are closed again


def test_values_are_written_as_each_door_reads_them() -> None:
    text = "{control_tokens:text}, {task.permute:cyclic}, {merge:True}"
    assert remedy(text) == "control_tokens='text', permute='cyclic', merge=True"
    text = text.replace("merge", "allow_closed_turn")
    with entered(study_door("eval")):
        assert remedy(text) == (
            "load.control_tokens: text, task.options: {permute: cyclic}, load.allow_closed_turn: true"
        )
    with entered(command_door(command("eval", "run"))):
        assert remedy(text) == "--control-tokens text, --task-option permute=cyclic, --allow-closed-turn"


def test_an_option_that_a_door_does_not_have_is_not_named_there() -> None:
    with entered(study_door("steering")):
        assert remedy("; {check_sign:False} keeps it") == ""
        assert remedy("Use {sites}.", "Use others.") == "Use others."
    with entered(command_door(command("study", "run"))):
        assert remedy("Load with {merge:True}.", "Leave it out.") == "Leave it out."


def test_the_error_of_a_step_names_its_own_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the runner, in the process of the step: the same text of the library in every section."""
    from study.config import read_study
    from study.run.runner import run_study
    from tests.fake_steps import install
    from tests.study_kit import write_study

    steps = install(monkeypatch)
    for name in ("eval", "cache", "probes"):
        steps.work[name] = lambda context: (_ for _ in ()).throw(ValueError(remedy("{boot}", "{max_bytes}", "{limit}")))
    text = "name: n\npair: embedded\ntask: {path: interp.tasks.procedural, per_cell: 2}\neval:\ncache:\nreport: false\n"
    study = read_study(write_study(tmp_path, text))
    failed = run_study(study, tmp_path / "run", say=lambda line: None).failed
    assert failed["eval"] == "eval.limit" and failed["cache"] == "cache.max_bytes"


def test_a_dose_curve_that_is_too_small_names_what_the_study_calls_it() -> None:
    from steering.response import check_size

    with (
        entered(study_door("steering")),
        pytest.raises(ValueError, match=r"steering\.min_items and steering\.min_groups"),
    ):
        check_size(["a"] * 3)
    with pytest.raises(ValueError, match="min_items= and min_groups="):
        check_size(["a"] * 3)


@pytest.mark.parametrize("section", SECTIONS)
def test_a_step_of_a_study_names_keys_of_the_study_alone(section: str) -> None:
    """Whatever a text asks for: at a study's door it is a key that the study file takes, or it is not named."""
    hints = get_type_hints(Study)
    with entered(study_door(section)):
        for path in library():
            for text in texts_of(path):
                for found in OPTION.finditer(text):
                    if names_by_remedy(path) and (named := remedy(found[0])):
                        key = named.split(":")[0]
                        owner, _, name = key.partition(".")
                        kinds = [
                            k for k in (hints[owner], *get_args(hints[owner])) if hasattr(k, "__dataclass_fields__")
                        ]
                        assert not name or name in kinds[0].__dataclass_fields__, named
                        assert "--" not in named and "=" not in key
