"""Chains of thought: a corpus as a task, its sentences, the eight classes, label audits, importance and tiers.

loader     rows -> examples (the question alone)             chains: the same with the chain teacher-forced
replies    a reply -> answer                                 taxonomy: the eight classes in two spellings
context    questions about neighbouring tokens               audits: faults of label sets
importance statistics of resampled chains, tiers             suppression: attention that cannot see a sentence
What needs a model is in `interp.chains`.
"""

from interp.tasks.cot.audits import AUDITS, CLASSES, OTHER_SPELLING, Finding, Item, audit, class_of
from interp.tasks.cot.chains import ChainSentence, ContextItem, chain_sentences, context_items
from interp.tasks.cot.importance import (
    TIERS,
    RolloutImportance,
    answer_kl,
    answer_tier,
    percentile_tiers,
    rollout_importance,
    says_something_else,
)
from interp.tasks.cot.loader import GROUP, chain_examples, examples, read_items
from interp.tasks.cot.replies import MAX_NEW_TOKENS, parse, read, same_answer, score
from interp.tasks.cot.suppression import check_mask, masked_logp, sentence_importance, suppression_mask

__all__ = [
    "AUDITS", "CLASSES", "GROUP", "MAX_NEW_TOKENS", "OTHER_SPELLING", "TIERS", "ChainSentence", "ContextItem",
    "Finding", "Item", "RolloutImportance", "answer_kl", "answer_tier", "audit", "chain_examples", "chain_sentences",
    "check_mask", "class_of", "context_items", "examples", "masked_logp", "parse", "percentile_tiers", "read",
    "read_items", "rollout_importance", "same_answer", "says_something_else", "score", "sentence_importance",
    "suppression_mask",
]  # fmt: skip
