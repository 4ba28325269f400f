"""The analysis `cache`, as the registry names it."""

from __future__ import annotations

from study.analyses.base import Analysis
from study.analyses.cache.step import STEP
from study.config.sections import CacheSection

ANALYSIS = Analysis(
    name="cache",
    options=CacheSection,
    step=STEP,
    help="Record activations once and keep them on disk.",
)
