"""The analysis `eval`, as the registry names it."""

from __future__ import annotations

from study.analyses.base import Analysis
from study.analyses.eval.claims import behaviour as claims
from study.analyses.eval.figures import figures
from study.analyses.eval.headline import scores
from study.analyses.eval.options import EvalOptions
from study.analyses.eval.step import STEP

ANALYSIS = Analysis(
    name="eval",
    options=EvalOptions,
    step=STEP,
    help="Evaluate a checkpoint, or both members of a pair, on a task.",
    title="Behaviour",
    question="Where do the members differ?",
    figures=figures,
    claims=claims,
    shown=scores,
)
