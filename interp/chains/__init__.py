"""Chains of thought on a model: what it answers so far, which sentences matter, and how it goes on without them."""

from interp.chains.importance import Importance, Resampled, resampling_importance, suppression_importance
from interp.chains.rollouts import Rollout, continuations
from interp.chains.tracking import Tracked, track_answers

__all__ = [
    "Importance", "Resampled", "Rollout", "Tracked", "continuations", "resampling_importance",
    "suppression_importance", "track_answers",
]  # fmt: skip
