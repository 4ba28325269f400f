"""ESI triage: cases, dual-mode prompts, replies, and every score beside its constant readers. Not for clinical use.

schema     the columns of MIETIC, and those that leak the outcome       engine: the ESI v4 algorithm
loader     a MIETIC file, or synthetic cases -> examples                synthetic: pairs with known gold
triggers   trigger words and their polarity                             replies: a reply -> level
metrics    levels -> rates                                              tables: rows with intervals and controls
"""

from interp.tasks.esi.engine import Decision, Patient, danger_zone, triage
from interp.tasks.esi.loader import examples, read_cases
from interp.tasks.esi.replies import MAX_NEW_TOKENS, decision_prefix, labels, parse, read, score
from interp.tasks.esi.schema import BANNER, COLUMNS, LEAKS, LEVELS
from interp.tasks.esi.tables import GROUP, compare, mode_report, report
from interp.tasks.esi.triggers import Trigger, fires, rules

__all__ = [
    "BANNER", "COLUMNS", "GROUP", "LEAKS", "LEVELS", "MAX_NEW_TOKENS", "Decision", "Patient", "Trigger", "compare",
    "danger_zone", "decision_prefix", "examples", "fires", "labels", "mode_report", "parse", "read", "read_cases",
    "report", "rules", "score", "triage",
]  # fmt: skip
