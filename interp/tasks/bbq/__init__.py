"""BBQ: the official files as examples, their replies, and every official score with its interval.

    loader     files -> examples, seed prompt, orders of the options
    targets    templates -> who is stereotyped, which items tell one story, splits by story
    replies    a reply, or a file of answers -> letters
    metrics    answers, or letter probabilities -> scores
    tables     scores of one system per cell                changes    the difference between two systems

Data: nyu-mll/BBQ (Parrish et al. 2022, CC-BY-4.0), one JSONL file per category, next to a folder `templates`.
"""

from interp.tasks.bbq.changes import compare
from interp.tasks.bbq.loader import examples, seed_prompt
from interp.tasks.bbq.metrics import (
    CARD,
    CHOICE_METRICS,
    HEADLINE,
    METRICS,
    PROMPT_BASELINE,
    Items,
    choice_columns,
    scores,
    sides,
)
from interp.tasks.bbq.replies import (
    DECISION_SITES,
    MAX_NEW_TOKENS,
    TOGETHER,
    decision_sites,
    labels,
    parse,
    read,
    read_answers,
    score,
    spellings,
)
from interp.tasks.bbq.tables import GROUP, averaged, items_of, report, score_report
from interp.tasks.bbq.targets import split_by_story

__all__ = [
    "CARD", "CHOICE_METRICS", "DECISION_SITES", "GROUP", "HEADLINE", "MAX_NEW_TOKENS", "METRICS", "PROMPT_BASELINE",
    "TOGETHER", "Items", "averaged", "choice_columns", "compare", "decision_sites", "examples", "items_of", "labels",
    "parse", "read", "read_answers", "report", "score", "score_report", "scores", "seed_prompt", "sides", "spellings",
    "split_by_story",
]  # fmt: skip
