"""What was planted in a pair, declared as data, compared with what a run of it claims.

declared    a truth: sentence, planted or not, what decides it      compare    truths and claims -> outcomes
step        the step of a study: `tables/known_truth`               show       rows and counts
"""

from study.known_truth.declared import InLedger, InTable, Truth

__all__ = ["InLedger", "InTable", "Truth"]
