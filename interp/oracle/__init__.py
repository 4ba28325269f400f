"""Oracles: adapters that answer questions about activations, injected norm-matched; every answer with its control."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

_EXPORTS = {
    "norm_matched_injection": "interp.injection",
    "inject": "interp.oracle.injection",
    "OracleSpec": "interp.oracle.spec",
    "AssumedSpecWarning": "interp.oracle.spec",
    "OraclePrompt": "interp.oracle.prompt",
    "render_question": "interp.oracle.prompt",
    "Features": "interp.oracle.features",
    "Slot": "interp.oracle.features",
    "join": "interp.oracle.features",
    "collect": "interp.oracle.collection",
    "features_from_cache": "interp.oracle.collection",
    "Decoding": "interp.oracle.engine",
    "Oracle": "interp.oracle.reader",
    "OffDistributionWarning": "interp.oracle.features",
    "Answer": "interp.oracle.answers",
    "Answers": "interp.oracle.answers",
    "Choices": "interp.oracle.answers",
    "Likelihoods": "interp.oracle.answers",
    "PairedReading": "interp.oracle.paired",
    "compare": "interp.oracle.paired",
    "SelfTest": "interp.oracle.wiring",
    "selftest": "interp.oracle.wiring",
    "context_items": "interp.oracle.wiring",
    "TAXONOMY8": "interp.oracle.cot_items",
    "train_oracle": "interp.oracle.train",
    "Trained": "interp.oracle.train",
    "Recipe": "interp.oracle.recipe",
    "TrainItem": "interp.oracle.items",
    "Mixture": "interp.oracle.items",
    "mix": "interp.oracle.items",
}

__all__ = list(_EXPORTS)

if TYPE_CHECKING:
    from interp.injection import norm_matched_injection as norm_matched_injection
    from interp.oracle.answers import Answer as Answer
    from interp.oracle.answers import Answers as Answers
    from interp.oracle.answers import Choices as Choices
    from interp.oracle.answers import Likelihoods as Likelihoods
    from interp.oracle.collection import collect as collect
    from interp.oracle.collection import features_from_cache as features_from_cache
    from interp.oracle.cot_items import TAXONOMY8 as TAXONOMY8
    from interp.oracle.engine import Decoding as Decoding
    from interp.oracle.features import Features as Features
    from interp.oracle.features import OffDistributionWarning as OffDistributionWarning
    from interp.oracle.features import Slot as Slot
    from interp.oracle.features import join as join
    from interp.oracle.injection import inject as inject
    from interp.oracle.items import Mixture as Mixture
    from interp.oracle.items import TrainItem as TrainItem
    from interp.oracle.items import mix as mix
    from interp.oracle.paired import PairedReading as PairedReading
    from interp.oracle.paired import compare as compare
    from interp.oracle.prompt import OraclePrompt as OraclePrompt
    from interp.oracle.prompt import render_question as render_question
    from interp.oracle.reader import Oracle as Oracle
    from interp.oracle.recipe import Recipe as Recipe
    from interp.oracle.spec import AssumedSpecWarning as AssumedSpecWarning
    from interp.oracle.spec import OracleSpec as OracleSpec
    from interp.oracle.train import Trained as Trained
    from interp.oracle.train import train_oracle as train_oracle
    from interp.oracle.wiring import SelfTest as SelfTest
    from interp.oracle.wiring import context_items as context_items
    from interp.oracle.wiring import selftest as selftest


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'interp.oracle' has no attribute {name!r}; it has: {', '.join(__all__)}")
    value = getattr(importlib.import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
