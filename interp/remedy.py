"""Names of options in error texts, as the user writes them.

An argument has one name in the library. In Python the user writes `min_groups=`, on the command line `--min-groups`,
in a study file `steering.min_groups`; each of these doors sets its spelling (`entered`), and error texts use it:

    raise ValueError(f"... {remedy('Ask for less with {min_items} and {min_groups}.')}")
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches

Door = Callable[[str, "str | None"], "str | None"]
"""(name of an argument, value or None) -> its spelling; None if the door has no such option."""

_OPTION = re.compile(r"\{([a-z_]+(?:\.[a-z_]+)?)(?::([^{}]*))?\}")
_LITERAL = re.compile(r"-?\d+(\.\d+)?|True|False|None")

_PYTHON = {"probes.where": "keep", "probes.unite": "groups"}
"""Arguments with another name in Python than in the two other doors."""


def python(name: str, value: str | None) -> str:
    """`name=`, or `name='value'`; the part before a dot (task.permute, probes.perm) is the section."""
    called = _PYTHON.get(name, name.rpartition(".")[2])
    shown = "" if value is None else value if _LITERAL.fullmatch(value) else repr(value)
    return f"{called}={shown}"


_DOOR: ContextVar[Door] = ContextVar("door", default=python)


@contextmanager
def entered(door: Door) -> Iterator[None]:
    """Inside the block options are spelled as `door` spells them."""
    token = _DOOR.set(door)
    try:
        yield
    finally:
        _DOOR.reset(token)


def remedy(*texts: str) -> str:
    """The first text whose options all exist at the current door, with their spelling there; "" if there is none.

        remedy("Ask for less with {min_groups}.")       Ask for less with steering.min_groups.
        remedy("Set {control_tokens:text}.")            Set --control-tokens text.

    Args:
        texts: options in braces by the name of the argument, with a value after a colon; those of a task are
            `{task.permute:cyclic}`, those of another step `{probes.perm}`.
    """
    door = _DOOR.get()
    for text in texts:
        names = {match[0]: door(match[1], match[2]) for match in _OPTION.finditer(text)}
        if None not in names.values():
            return _OPTION.sub(lambda match, names=names: str(names[match[0]]), text)
    return ""


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """ " Did you mean 'x'?" for the choice nearest to a misspelled name; "" where none is near.

    Example:
        >>> did_you_mean("adpater", ["adapter", "base"])
        " Did you mean 'adapter'?"
    """
    near = get_close_matches(name, list(choices), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
