"""The analysis `along`, as the registry names it."""

from __future__ import annotations

from study.analyses.along.figures import figures
from study.analyses.along.options import AlongOptions
from study.analyses.along.show import shown
from study.analyses.along.step import STEP
from study.analyses.base import Analysis

ANALYSIS = Analysis(
    name="along",
    options=AlongOptions,
    step=STEP,
    help="Score probes at every token of the members' own replies.",
    title="Along the replies",
    question="How far into its own reply does a member hold the label?",
    figures=figures,
    shown=shown,
)
