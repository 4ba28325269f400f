"""Read activations in words: norm-matched injection into an oracle adapter, every answer with its control."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

_EXPORTS = {
    "norm_matched_injection": "interp.injection",
    "inject": "interp.oracle.injection",
    "OracleSpec": "interp.oracle.spec",
    "OraclePrompt": "interp.oracle.prompt",
    "render_question": "interp.oracle.prompt",
    "Features": "interp.oracle.features",
    "Slot": "interp.oracle.features",
}

__all__ = list(_EXPORTS)

if TYPE_CHECKING:
    from interp.injection import norm_matched_injection as norm_matched_injection
    from interp.oracle.features import Features as Features
    from interp.oracle.features import Slot as Slot
    from interp.oracle.injection import inject as inject
    from interp.oracle.prompt import OraclePrompt as OraclePrompt
    from interp.oracle.prompt import render_question as render_question
    from interp.oracle.spec import OracleSpec as OracleSpec


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'interp.oracle' has no attribute {name!r}; it has: {', '.join(__all__)}")
    value = getattr(importlib.import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
