"""The analysis `probes`, as the registry names it."""

from __future__ import annotations

from study.analyses.base import Analysis
from study.analyses.probes.claims import probes as claims
from study.analyses.probes.figures import figures
from study.analyses.probes.options import ProbesOptions
from study.analyses.probes.step import STEP

ANALYSIS = Analysis(
    name="probes",
    options=ProbesOptions,
    step=STEP,
    help="Fit linear probes per layer of a cache, with their controls.",
    title="Probes",
    question="Which facts are linearly decodable, and more so than a control label?",
    figures=figures,
    claims=claims,
)
