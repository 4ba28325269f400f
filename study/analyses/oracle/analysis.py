"""The analysis `oracle`, as the registry names it."""

from __future__ import annotations

from study.analyses.base import Analysis
from study.analyses.oracle.claims import oracle as claims
from study.analyses.oracle.claims import placebos
from study.analyses.oracle.figures import figures
from study.analyses.oracle.options import OracleOptions
from study.analyses.oracle.step import STEP

ANALYSIS = Analysis(
    name="oracle",
    options=OracleOptions,
    step=STEP,
    help="Ask an oracle about activations; every answer comes with its control.",
    title="Oracle",
    question="Does the oracle use the activations?",
    figures=figures,
    claims=claims,
    placebos=placebos,
)
