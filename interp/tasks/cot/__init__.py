"""Chains of thought: corpora with sentence records, the eight classes, label audits, importance by suppression."""

from interp.tasks.cot.audits import AUDITS, Finding, Item, audit
from interp.tasks.cot.importance import TIERS, answer_kl, answer_tier, percentile_tiers
from interp.tasks.cot.loader import GROUP, examples, read_items
from interp.tasks.cot.suppression import check_mask, masked_logp, sentence_importance, suppression_mask
from interp.tasks.cot.taxonomy import CLASSES, OTHER_SPELLING, class_of

__all__ = [
    "AUDITS", "CLASSES", "GROUP", "OTHER_SPELLING", "TIERS", "Finding", "Item", "answer_kl", "answer_tier", "audit",
    "check_mask", "class_of", "examples", "masked_logp", "percentile_tiers", "read_items", "sentence_importance",
    "suppression_mask",
]  # fmt: skip
