"""The analysis `steering`, as the registry names it."""

from __future__ import annotations

from study.analyses.base import Analysis
from study.analyses.steering.claims import placebos
from study.analyses.steering.claims import steering as claims
from study.analyses.steering.figures import figures
from study.analyses.steering.options import SteeringOptions
from study.analyses.steering.step import STEP

ANALYSIS = Analysis(
    name="steering",
    options=SteeringOptions,
    step=STEP,
    help="Fit, steer and export directions.",
    title="Steering",
    question="Does one direction move its target and nothing else?",
    figures=figures,
    claims=claims,
    placebos=placebos,
)
