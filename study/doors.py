"""How options are called at the two doors of a study: on the command line and in a study file (`interp.remedy`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cache, partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import click

    from interp.remedy import Door

_FLAGS = {"dtype": "load_dtype", "path": "task"}
"""Field -> parameter of a command, where another class of the command has a field of this name."""
_TASK_OPTIONS = "options"
_TOP = ("seed", "claim_margin")


def command_door(parameters: Sequence[click.Parameter]) -> Door:
    """Options as the command that runs takes them.

    Args:
        parameters: those of a click command.
    """
    flags = {p.name: p for p in parameters if getattr(p, "opts", None) and p.opts[-1].startswith("--")}
    return partial(_flag, flags)


def _flag(flags: Mapping[str, click.Parameter], name: str, value: str | None) -> str | None:
    section, _, key = name.rpartition(".")
    if section == "task" and key not in flags:
        return f"--task-option {key}={'...' if value is None else value}" if _TASK_OPTIONS in flags else None
    given = flags.get(key) or flags.get(_FLAGS.get(key, ""))
    if given is None:
        return f"--{key.replace('_', '-')}" if section not in ("", "task") else None
    flag = max(given.opts, key=len)
    return flag if value is None or getattr(given, "is_flag", False) else f"{flag} {value}"


def study_door(section: str | None = None) -> Door:
    """Options as keys of a study file; those of `section` come before the ones that all steps share."""
    return partial(_key, section)


def _key(section: str | None, name: str, value: str | None) -> str | None:
    owner, _, key = name.rpartition(".")
    if owner == "task" and key not in _keys("task"):
        return f"task.options: {{{key}: {'...' if value is None else value}}}"
    wanted = (owner,) if owner else (section, "load", "task")
    found = next((one for one in wanted if one and key in _keys(one)), None)
    if found is None and key not in _TOP:
        return None
    path = key if found is None else f"{found}.{key}"
    return path if value is None else f"{path}: {value.lower() if value in ('True', 'False') else value}"


@cache
def _keys(section: str) -> frozenset[str]:
    """Keys of a section of the study file; none of a name that is no section."""
    from typing import get_args, get_type_hints

    from study.analyses import registry
    from study.config.sections import Study

    if section in registry.added():
        return frozenset(field.name for field in fields(registry.analysis(section).options))  # pyright: ignore[reportArgumentType]
    hint = get_type_hints(Study).get(section)
    kinds: list[Any] = [kind for kind in (hint, *get_args(hint)) if hasattr(kind, "__dataclass_fields__")]
    return frozenset(field.name for kind in kinds for field in fields(kind))
