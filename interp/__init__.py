"""Record, store and change what happens inside checkpoint pairs. Names are loaded on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

_EXPORTS = {
    "Checkpoint": "interp.checkpoint",
    "CheckpointPair": "interp.checkpoint",
    "Site": "interp.site",
    "Example": "interp.prompt",
    "Message": "interp.prompt",
    "Prompt": "interp.prompt",
    "render": "interp.prompt",
    "Positions": "interp.positions",
    "Last": "interp.positions",
    "Answer": "interp.positions",
    "Span": "interp.positions",
    "SentenceEnds": "interp.positions",
    "Stride": "interp.positions",
    "All": "interp.positions",
    "At": "interp.positions",
    "From": "interp.positions",
    "Generated": "interp.positions",
    "PromptTokens": "interp.positions",
    "Family": "interp.family",
    "Model": "interp.model",
    "load": "interp.loading",
    "load_pair": "interp.loading",
    "load_members": "interp.loading",
    "record": "interp.hooks",
    "edit": "interp.hooks",
    "Edit": "interp.edits",
    "Add": "interp.edits",
    "ProjectOut": "interp.edits",
    "Replace": "interp.edits",
    "InjectNormMatched": "interp.edits",
    "extract": "interp.cache",
    "extract_pair": "interp.cache",
    "ActivationCache": "interp.cache",
    "read_examples": "interp.tasks.records",
}

__all__ = list(_EXPORTS)

if TYPE_CHECKING:
    from interp.cache import ActivationCache as ActivationCache
    from interp.cache import extract as extract
    from interp.cache import extract_pair as extract_pair
    from interp.checkpoint import Checkpoint as Checkpoint
    from interp.checkpoint import CheckpointPair as CheckpointPair
    from interp.edits import Add as Add
    from interp.edits import Edit as Edit
    from interp.edits import InjectNormMatched as InjectNormMatched
    from interp.edits import ProjectOut as ProjectOut
    from interp.edits import Replace as Replace
    from interp.family import Family as Family
    from interp.hooks import edit as edit
    from interp.hooks import record as record
    from interp.loading import load as load
    from interp.loading import load_members as load_members
    from interp.loading import load_pair as load_pair
    from interp.model import Model as Model
    from interp.positions import All as All
    from interp.positions import Answer as Answer
    from interp.positions import At as At
    from interp.positions import From as From
    from interp.positions import Generated as Generated
    from interp.positions import Last as Last
    from interp.positions import Positions as Positions
    from interp.positions import PromptTokens as PromptTokens
    from interp.positions import SentenceEnds as SentenceEnds
    from interp.positions import Span as Span
    from interp.positions import Stride as Stride
    from interp.prompt import Example as Example
    from interp.prompt import Message as Message
    from interp.prompt import Prompt as Prompt
    from interp.prompt import render as render
    from interp.site import Site as Site
    from interp.tasks.records import read_examples as read_examples


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'interp' has no attribute {name!r}; it has: {', '.join(__all__)}")
    value = getattr(importlib.import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
