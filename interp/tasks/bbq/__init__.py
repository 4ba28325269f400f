"""BBQ: the official files as examples, their replies, and every official score with its interval.

    loader     files -> examples, seed prompt, orders of the options        rows, targets, published: what files say
    replies    a reply -> letter                                            metrics: answers -> scores
    tables     scores of one system per cell                                changes: the difference of two
    choices    letter probabilities -> scores, of many runs at once
    splits     sides that share no story                                    answer_file: somebody else's answers

Data: nyu-mll/BBQ (Parrish et al. 2022, CC-BY-4.0), one JSONL file per category, beside a folder `templates`.
"""

from interp.tasks.bbq.changes import compare
from interp.tasks.bbq.loader import examples, seed_prompt
from interp.tasks.bbq.metrics import (
    CARD,
    CHOICE_METRICS,
    METRICS,
    PROMPT_BASELINE,
    Items,
    choice_columns,
    scores,
    sides,
)
from interp.tasks.bbq.replies import MAX_NEW_TOKENS, TOGETHER, labels, parse, read, read_answers, score, spellings
from interp.tasks.bbq.splits import split_by_story
from interp.tasks.bbq.tables import GROUP, averaged, items_of, report, score_report

__all__ = [
    "CARD", "CHOICE_METRICS", "GROUP", "MAX_NEW_TOKENS", "METRICS", "PROMPT_BASELINE", "TOGETHER", "Items",
    "averaged", "choice_columns", "compare", "examples", "items_of", "labels", "parse", "read", "read_answers", 
    "report", "score", "score_report", "scores", "seed_prompt", "sides", "spellings", "split_by_story",
]  # fmt: skip
