"""The models of a study, one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from interp.checkpoint import Checkpoint, CheckpointPair
from interp.loading import load, load_members
from interp.loading.fingerprint import fingerprint_module
from interp.model import Model

Loading = Mapping[str, Any]
"""Arguments of `interp.load`."""


def models_of(what: Checkpoint | CheckpointPair, loading: Loading) -> Iterable[tuple[tuple[str, ...], Model]]:
    """(roles, model) for a checkpoint or a pair; members of one base share its weights."""
    if isinstance(what, CheckpointPair):
        return load_members(what, **loading)
    model = load(what, **loading)
    return [((what.name,), model)]


def weights_of(model: Model) -> str:
    """Digest of the loaded weights and the active adapter."""
    whole = model.fingerprint or fingerprint_module(model.module, tokenizer=model.tokenizer)
    return (whole if whole.merged else whole.select(model.adapters.active)).sha256
