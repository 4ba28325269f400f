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


def function_for(function: object, path: str, *arguments: str) -> Any:
    """`function`, checked to be a Python function of `arguments`: by position, or by name where they end in "=".

    Raises:
        ValueError: it is not a function written in Python, or takes other arguments.
    """
    if not (inspect.isfunction(function) or inspect.ismethod(function)):
        raise ValueError(
            f"{path!r}: expected a function({', '.join(arguments)}) written in Python, got {type(function).__name__}; "
            f"it was not called."
        )
    positional = [name for name in arguments if not name.endswith("=")]
    named = {name.rstrip("="): None for name in arguments if name.endswith("=")}
    try:
        inspect.signature(function).bind(*positional, **named)
    except TypeError as error:
        raise ValueError(
            f"{path!r}: expected a function({', '.join(arguments)}), got {inspect.signature(function)} ({error}); "
            f"it was not called."
        ) from None
    return function
