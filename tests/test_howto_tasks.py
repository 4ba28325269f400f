"""Every command of docs/howto/tasks.md exists with the options that it is given."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from pathlib import Path

import click
import pytest

from interp.tasks.protocol import load_task
from study.cli import main

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "howto" / "tasks.md").read_text()
LINES = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.S) for line in block.splitlines() if line]


@pytest.mark.parametrize("line", LINES)
def test_the_command_takes_its_options(line: str) -> None:
    program, name, *rest = shlex.split(line)
    assert program == "diptych"
    context = click.Context(main)
    command = main.get_command(context, name)
    if isinstance(command, click.Group):
        chosen = rest[0] if rest[0] in command.commands else "run"
        rest = rest[1:] if chosen == rest[0] else rest
        command = command.commands[chosen]
    assert command is not None
    command.make_parser(context).parse_args(list(rest))  # an unknown option or a missing value raises
    for option, value in pairwise(rest):
        if option == "--task":
            load_task(value)


def test_the_page_has_a_command_for_each_task_and_is_short() -> None:
    assert len(LINES) >= 10
    assert len(PAGE.splitlines()) < 120
    assert {"interp.tasks.bbq", "interp.tasks.esi", "interp.tasks.cot"} <= set(re.findall(r"interp\.tasks\.\w+", PAGE))
