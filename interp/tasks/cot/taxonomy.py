"""The eight classes of a reasoning sentence, in their two spellings."""

from __future__ import annotations

import re

CLASSES = (
    "problem_setup",
    "plan_generation",
    "fact_retrieval",
    "active_computation",
    "uncertainty_management",
    "result_consolidation",
    "self_checking",
    "final_answer",
)
"""As in the activation-oracle v2 corpora; one class per sentence."""
OTHER_SPELLING = {name: name for name in CLASSES} | {"final_answer": "final_answer_emission"}
"""As in thought-anchors, which is multi-label and also has `unknown`."""


def class_of(text: str) -> str | None:
    """The class that a label names, in either spelling, with any case and separators; None for `unknown` or no class.

    The longest class whose words begin the text wins: "Active computation. The model computes." is a label too.
    """
    words = re.findall(r"[a-z0-9]+", text.casefold())
    known = {tuple(name.split("_")): c for c, other in OTHER_SPELLING.items() for name in (c, other)}
    fits = [key for key in known if tuple(words[: len(key)]) == key]
    return known[max(fits, key=len)] if fits else None
