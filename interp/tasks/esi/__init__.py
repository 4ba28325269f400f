"""ESI triage: cases, prompts, replies, and every score with that of constant answers. Not for clinical use.

engine      the ESI v4 algorithm                     cases       columns of MIETIC, synthetic pairs with known gold
loader      a file, or synthetic cases -> examples   triggers    trigger words and their polarity
replies     a reply -> level                         tables      levels -> rates, with intervals and controls
"""

from interp.tasks.esi.cases import BANNER, COLUMNS, LEAKS, LEVELS
from interp.tasks.esi.engine import Decision, Patient, danger_zone, triage
from interp.tasks.esi.loader import examples, read_cases
from interp.tasks.esi.replies import (
    DECISION_SITES,
    MAX_NEW_TOKENS,
    decision_prefix,
    decision_sites,
    labels,
    parse,
    read,
    score,
)
from interp.tasks.esi.tables import GROUP, compare, mode_report, report
from interp.tasks.esi.triggers import Trigger, fires, rules

__all__ = [
    "BANNER", "COLUMNS", "DECISION_SITES", "GROUP", "LEAKS", "LEVELS", "MAX_NEW_TOKENS", "Decision", "Patient",
    "Trigger", "compare", "danger_zone", "decision_prefix", "decision_sites", "examples", "fires", "labels",
    "mode_report", "parse", "read", "read_cases", "report", "rules", "score", "triage",
]  # fmt: skip
