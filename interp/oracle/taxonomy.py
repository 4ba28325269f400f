"""The eight classes of a reasoning sentence, as choices for a question."""

from interp.tasks.cot.audits import CLASSES

TAXONOMY8 = CLASSES
QUESTION = "Which kind of reasoning step is this?"
