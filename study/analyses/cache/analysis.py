"""The analysis `cache`, as the registry names it."""

from __future__ import annotations

from study.analyses.base import Analysis
from study.analyses.cache.options import CacheOptions
from study.analyses.cache.step import STEP

ANALYSIS = Analysis(
    name="cache",
    options=CacheOptions,
    step=STEP,
    help="Record activations once and keep them on disk.",
)
