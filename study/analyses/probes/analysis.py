"""The analysis `probes`, as the registry names it."""

from __future__ import annotations

from study.analyses.base import Analysis
from study.analyses.probes.claims import probes as claims
from study.analyses.probes.figures import figures
from study.analyses.probes.step import STEP
from study.config.sections import ProbesSection

ANALYSIS = Analysis(
    name="probes",
    options=ProbesSection,
    step=STEP,
    help="Linear probes per layer of a cache, with their controls.",
    title="Probes",
    question="Which facts are linearly decodable, and more so than a control label?",
    figures=figures,
    claims=claims,
)
