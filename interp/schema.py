"""Content of files checked against a declared type, with every fault in one line that names its place."""

from __future__ import annotations

import inspect
from typing import Any

_SHOWN = 3


def checked(kind: Any, content: object, where: str, do: str = "Correct the file, or write it anew.") -> Any:
    """`content` as `kind` (a dataclass, TypedDict or annotation), its types checked.

    Raises:
        ValueError: starts with `where`; names the first faults, each by its path.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc']))[:200] or 'content'}: {fault['msg'].removeprefix('Value error, ')}, "
            f"got {fault['input']!r:.60}"
            for fault in error.errors()
        ]
        more = f" ... and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise ValueError(f"{where}: {'; '.join(faults[:_SHOWN])}{more}. {do}") from None
    except RecursionError:
        raise ValueError(f"{where}: nested too deeply to be read; is it the file that was meant?") from None


def function_for(found: object, path: str, *arguments: str) -> Any:
    """`found` as a function of Python that takes `arguments` (by position, or by name after a "="), not yet called.

    Raises:
        ValueError: it is no function written in Python, or takes other arguments.
    """
    if not (inspect.isfunction(found) or inspect.ismethod(found)):
        raise ValueError(
            f"{path!r}: expected a function({', '.join(arguments)}) written in Python, got {type(found).__name__}; it "
            f"was not called."
        )
    positional = [name for name in arguments if not name.endswith("=")]
    named = {name.rstrip("="): None for name in arguments if name.endswith("=")}
    try:
        inspect.signature(found).bind(*positional, **named)
    except TypeError as error:
        raise ValueError(
            f"{path!r}: expected a function({', '.join(arguments)}), got {inspect.signature(found)} ({error}); it was "
            f"not called."
        ) from None
    return found
