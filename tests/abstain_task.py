"""A task whose model answers in two items of two stories and abstains in the others, for the tests of dose studies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from interp.prompt import Example
from steering.outcomes import Score
from tests.steer_task import GROUP, examples, labels, parse, score

__all__ = ["CHOICE_METRICS", "GROUP", "choice_columns", "examples", "labels", "parse", "score"]

CHOICE_METRICS = {
    "coverage": Score(lambda s: s["a_committed"] / s["a_n"], ("a_n",), (0.0, 1.0)),
    "amb_commit_bias": Score(lambda s: 2 * s["a_biased"] / s["a_committed"] - 1, ("a_committed",), (-1.0, 1.0)),
}


def choice_columns(examples: Sequence[Example], logp: np.ndarray) -> dict[str, np.ndarray]:
    """Items 0 and 1 commit in every run, to the likelier label."""
    answers = np.array([int(e.id.rpartition("-")[2]) < 2 for e in examples])[:, None]
    committed = np.broadcast_to(answers, logp.shape[:2]).astype(float)
    return {"a_n": np.ones(logp.shape[:2]), "a_committed": committed, "a_biased": committed * logp.argmax(axis=2)}
