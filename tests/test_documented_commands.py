"""Every `diptych` line of the readme and the documentation exists with the options that it is given."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path

import click
import pytest

from interp.tasks.protocol import load_task
from study.cli import main

ROOT = Path(__file__).resolve().parent.parent
DEFAULTS = {"eval": "run", "heads": "sweep", "cache": "extract"}
"""What a group does when no sub-command is named."""


def lines() -> list[tuple[str, str]]:
    """(page, command line) of every bash block, continued lines joined."""
    found = []
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]:
        for block in re.findall(r"```bash\n(.*?)```", page.read_text(), re.S):
            text = block.replace("\\\n", " ")
            found += [(page.name, line) for line in text.splitlines() if line.strip().startswith("diptych ")]
    return found


def words_of(line: str) -> list[str]:
    """Arguments of the first command of a line: comments, redirections and what follows a `;` are the shell's."""
    words = shlex.split(re.sub(r"\s(;|&&|>)(\s|$)", r" \1 ", line), comments=True)
    ends = [i for i, word in enumerate(words) if word in (";", "&&", ">")]
    return words[1 : ends[0]] if ends else words[1:]


@pytest.mark.parametrize(("page", "line"), lines())
def test_the_command_takes_its_options(page: str, line: str) -> None:
    context, command, rest = click.Context(main), main, words_of(line)
    while isinstance(command, click.Group):
        chosen = command.get_command(context, rest[0]) if rest and not rest[0].startswith("-") else None
        if chosen is None:
            chosen = command.get_command(context, DEFAULTS[str(command.name)])
        else:
            rest = rest[1:]
        assert chosen is not None, f"{page}: no such command"
        command = chosen
    command.make_parser(context).parse_args(list(rest))  # an unknown option or a missing value raises
    for option, value in pairwise(rest):
        if option == "--task" and not value.startswith("my"):
            load_task(value)


def test_there_are_lines_of_every_analysis() -> None:
    named = {words_of(line)[0] for _, line in lines()}
    assert {"eval", "cache", "heads", "probes", "steer", "oracle", "study", "report", "audit", "cot"} <= named
    assert len(lines()) > 60
