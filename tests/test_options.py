"""Options are declared once: a command, a study file and Python have the same defaults, bounds and words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import click
import pytest
from click.testing import CliRunner
from pydantic import Field
from pydantic.dataclasses import dataclass

from study.cli import main
from study.cli.common import takes
from study.option_types import Where
from study.options import STRICT, command_options, default_of, option, options_from


@dataclass(frozen=True, config=STRICT)
class Scan:
    target: str = option(help="Column of the label.")
    n: Annotated[int, Field(ge=4)] = option(48, "Items.")
    share: Annotated[float, Field(ge=0, lt=1)] = option(0.25, "Held out.", flag="--test-share")
    kinds: tuple[Literal["ridge", "logistic"], ...] = option(("ridge",), "Probes.")
    cs: tuple[float, ...] = option((0.1, 1.0), "Inverse penalties.")
    mode: Literal["fast", "exact"] = option("fast", "How.")
    balanced: bool = option(False, "Weigh classes equally.")
    thinking: bool | None = option(None, "Passed to the template.")
    layer: int | str = option("50%", "A block or a percent of depth.")
    where: Where = option({}, "Rows that are kept.")
    hidden: Mapping[str, Any] = option({}, "Of study files alone.", is_command=False)


def run(*words: str) -> tuple[Any, Any]:
    chosen: list[Any] = []

    @click.command()
    @command_options(Scan)
    def scan(**values: Any) -> None:
        chosen.append(options_from(Scan, values))

    done = CliRunner().invoke(scan, list(words))
    return (chosen or [None])[0], done


def test_a_command_without_options_has_the_defaults_of_the_class() -> None:
    chosen, done = run("--target", "label")
    assert done.exit_code == 0, done.output
    assert chosen == Scan(target="label")


def test_every_option_is_read_with_its_type() -> None:
    words = (
        "--target x --n 5 --test-share 0.5 --kinds logistic,ridge --cs 1e-3,2 --mode exact --balanced --no-thinking "
        "--layer 3 --where a=1 --where b<2"
    )
    chosen, done = run(*words.split())
    assert done.exit_code == 0, done.output
    assert chosen == Scan(
        target="x", n=5, share=0.5, kinds=("logistic", "ridge"), cs=(0.001, 2.0), mode="exact", balanced=True,
        thinking=False, layer=3, where=("a=1", "b<2"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--n", "3"], "--n"),
        (["--test-share", "1"], "--test-share"),
        (["--kinds", "ridge,lasso"], "--kinds"),
        (["--mode", "slow"], "--mode"),
        ([], "--target"),
    ],
)
def test_a_value_that_the_class_refuses_is_refused_at_its_flag(words: list[str], names: str) -> None:
    required = [] if not words else ["--target", "x"]
    _, done = run(*required, *words)
    assert done.exit_code != 0 and names in done.output


def test_help_gives_every_sentence_default_and_bound() -> None:
    _, done = run("--help")
    text = " ".join(done.output.split())
    for part in ("Column of the label.", "[required]", "default: 48; x>=4", "default: 0.25; 0<=x<1", "default: ridge",
                 "default: 0.1,1", "[fast|exact]", "--thinking / --no-thinking", "--where CONDITION"):  # fmt: skip
        assert part in text, part
    assert "hidden" not in text


def test_help_of_every_group_gives_the_first_sentence_of_its_commands_in_full() -> None:
    def check(command: click.Command, path: str) -> None:
        if not isinstance(command, click.Group):
            return
        context = click.Context(command, info_name=path)
        text = " ".join(command.get_help(context).split())
        assert command.list_commands(context), path
        for name in command.list_commands(context):
            member = command.get_command(context, name)
            assert member is not None, f"{path} {name}"
            sentence = " ".join((member.help or "").split("\n\n")[0].split()).split(". ")[0].rstrip(".")
            if path != "diptych":  # its own lines are in COMMANDS, so that no command is imported for them
                assert sentence and sentence in text, f"{path} {name}: {sentence}"
            check(member, f"{path} {name}")

    check(main, "diptych")


@pytest.mark.parametrize(
    ("words", "known", "near"), [(("caches",), "steer", "cache"), (("probes", "sweeps"), "transfer", "sweep")]
)
def test_a_misspelled_command_is_an_error_with_the_known_ones(words: tuple[str, ...], known: str, near: str) -> None:
    refused = CliRunner().invoke(main, words)
    assert refused.exit_code == 2
    assert f"no command {words[-1]!r}" in refused.output and known in refused.output
    assert refused.output.rstrip().endswith(f"Did you mean {near!r}?")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Files:
    folder: Path = option(is_argument=True)
    more: tuple[str, ...] = option((), "Further ones.", is_repeated=True)
    n: int = option(3, "Not this one: the first class that has it makes the option.")
    equal: bool = option(True, "As long.", flag="--equal/--unequal")
    dtype: str = option("auto", "Of the files.", param="file_dtype", flag="--file-dtype")
    out: Annotated[Path, click.Path(dir_okay=False, path_type=Path)] | None = option(None, "Where to.")


def test_options_of_two_classes_and_arguments_reach_their_objects() -> None:
    chosen: list[Any] = []

    @click.command()
    @takes(Scan, Files)
    def scan(scan: Scan, files: Files) -> None:
        chosen.extend([scan, files])

    words = ["here", "--target", "x", "--n", "7", "--more", "a", "--more", "b,c", "--unequal", "--file-dtype", "half"]
    done = CliRunner().invoke(scan, words)
    assert done.exit_code == 0, done.output
    expected = Files(folder=Path("here"), more=("a", "b,c"), n=7, equal=False, dtype="half")
    assert chosen == [Scan(target="x", n=7), expected]
    refused = CliRunner().invoke(scan, [*words, "--out", "."])
    assert refused.exit_code == 2 and "--out" in refused.output
    assert "FOLDER" in CliRunner().invoke(scan, ["--help"]).output


def test_what_the_class_alone_refuses_is_a_message_of_the_command() -> None:
    @click.command()
    @takes(Scan)
    def scan(scan: Scan) -> None:
        raise AssertionError("never called")

    done = CliRunner().invoke(scan, ["--target", "x", "--where", "<3"])
    assert done.exit_code == 1 and "--where" in done.output and "Traceback" not in done.output


def test_python_is_refused_the_same_values_and_errors_name_the_field() -> None:
    with pytest.raises(ValueError, match=r"n=: .*got 3"):
        options_from(Scan, {"target": "x", "n": 3})
    with pytest.raises(ValueError, match="n"):
        Scan(target="x", n=3)


def test_defaults_are_read_off_the_fields() -> None:
    import dataclasses

    defaults = {one.name: default_of(one) for one in dataclasses.fields(Scan)}
    assert defaults["n"] == 48 and defaults["where"] == {} and defaults["target"] is dataclasses.MISSING
