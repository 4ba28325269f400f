"""Functions named by an import path, `module:function`: found, and refused before the call where they do not fit."""

from __future__ import annotations

import importlib
import inspect
from typing import Any


def imported(path: str) -> Any:
    """The object at an import path `module:name`.

    Raises:
        ValueError: no such module, or no such name in it.

    Example:
        >>> imported("math:hypot")(3, 4)
        5.0
    """
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ValueError(f"{path!r}: expected the import path 'module:function' of a function ({error}).") from None


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
