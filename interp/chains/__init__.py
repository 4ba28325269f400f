"""Chains of thought on a model: answer tracking, importance of sentences, and rollouts."""

from interp.chains.importance import (
    Importance,
    Resampled,
    Rollout,
    continuations,
    resampling_importance,
    suppression_importance,
)
from interp.chains.tracking import Tracked, track_answers

__all__ = [
    "Importance", "Resampled", "Rollout", "Tracked", "continuations", "resampling_importance",
    "suppression_importance", "track_answers",
]  # fmt: skip
