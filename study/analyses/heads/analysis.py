"""The analysis `heads`, as the registry names it."""

from __future__ import annotations

from study.analyses.base import Analysis
from study.analyses.heads.claims import heads as claims
from study.analyses.heads.figures import figures
from study.analyses.heads.options import HeadsOptions
from study.analyses.heads.step import STEP

ANALYSIS = Analysis(
    name="heads",
    options=HeadsOptions,
    step=STEP,
    help="Effects of every attention head: sweep them, then show one.",
    title="Heads",
    question="Which heads carry the answer, and does it transfer to other prompts?",
    figures=figures,
    claims=claims,
)
