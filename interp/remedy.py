"""What to do, in the words of the user: an option is named as it is called where the user came in.

The library knows its arguments by one name. In Python they are `min_groups=`, on the command line `--min-groups`, in
a study file `steering.min_groups`; each of these doors says so while it is `entered`, and error texts ask:

    raise ValueError(f"... {remedy('Ask for less with {min_items} and {min_groups}.')}")
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches

Door = Callable[[str, "str | None"], "str | None"]
"""(name of an argument, value or None) -> how it is written there; None where there is no such option."""

_OPTION = re.compile(r"\{([a-z_]+(?:\.[a-z_]+)?)(?::([^{}]*))?\}")
_LITERAL = re.compile(r"-?\d+(\.\d+)?|True|False|None")

_PYTHON = {"probes.where": "keep", "probes.unite": "groups"}
"""Arguments that Python calls otherwise than the two other doors."""


def python(name: str, value: str | None) -> str:
    """`name=`, or `name='value'`; the part before a dot (task.permute, probes.perm) says whose option it is."""
    called = _PYTHON.get(name, name.rpartition(".")[2])
    shown = "" if value is None else value if _LITERAL.fullmatch(value) else repr(value)
    return f"{called}={shown}"


_DOOR: ContextVar[Door] = ContextVar("door", default=python)


@contextmanager
def entered(door: Door) -> Iterator[None]:
    """Options are named as `door` names them, inside the block."""
    token = _DOOR.set(door)
    try:
        yield
    finally:
        _DOOR.reset(token)


def remedy(*texts: str) -> str:
    """The first text all of whose options exist where the user came in, with their names there; "" where none does.

        remedy("Ask for less with {min_groups}.")       Ask for less with steering.min_groups.
        remedy("Set {control_tokens:text}.")            Set --control-tokens text.

    Args:
        texts: options in braces by the name of the argument, with a value after a colon; those of a task are
            `{task.permute:cyclic}`, those of another step `{probes.perm}`.
    """
    door = _DOOR.get()
    for text in texts:
        names = {found[0]: door(found[1], found[2]) for found in _OPTION.finditer(text)}
        if None not in names.values():
            return _OPTION.sub(lambda found, names=names: str(names[found[0]]), text)
    return ""


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """ " Did you mean 'x'?" for the choice nearest to a misspelled name; "" where none is near.

    Example:
        >>> did_you_mean("adpater", ["adapter", "base"])
        " Did you mean 'adapter'?"
    """
    near = get_close_matches(name, list(choices), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
