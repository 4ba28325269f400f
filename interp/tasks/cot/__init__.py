"""Chains of thought: a corpus as a task, its sentences and their eight classes, label audits, importance and tiers.

    loader     rows -> examples (the question alone)    chains     with the chain, and questions about its tokens
    replies    a reply -> answer                        audits     classes of sentences, faults of label sets
    importance of sentences: resampled chains, suppressed attention, tiers
What needs a whole generation loop is in `interp.chains`.
"""

from interp.tasks.cot.audits import AUDITS, CLASSES, OTHER_SPELLING, Finding, Item, audit, class_of
from interp.tasks.cot.chains import ChainSentence, ContextItem, chain_sentences, context_items
from interp.tasks.cot.importance import (
    TIERS,
    RolloutImportance,
    answer_kl,
    answer_tier,
    check_mask,
    masked_logp,
    percentile_tiers,
    rollout_importance,
    says_something_else,
    sentence_importance,
    suppression_mask,
)
from interp.tasks.cot.loader import GROUP, chain_examples, examples, read_items
from interp.tasks.cot.replies import MAX_NEW_TOKENS, parse, read, same_answer, score

__all__ = [
    "AUDITS", "CLASSES", "GROUP", "MAX_NEW_TOKENS", "OTHER_SPELLING", "TIERS", "ChainSentence", "ContextItem",
    "Finding", "Item", "RolloutImportance", "answer_kl", "answer_tier", "audit", "chain_examples", "chain_sentences",
    "check_mask", "class_of", "context_items", "examples", "masked_logp", "parse", "percentile_tiers", "read",
    "read_items", "rollout_importance", "same_answer", "says_something_else", "score", "sentence_importance",
    "suppression_mask",
]  # fmt: skip
