"""Figures from tidy tables: `Drawn = f(table)`, refused where an estimate lacks its interval, n or null."""

from study.figures.drawn import Drawn
from study.figures.dumbbell import dumbbell
from study.figures.head_ablation import cumulative_ablation
from study.figures.head_forest import top_heads
from study.figures.heads import head_difference, head_map
from study.figures.numbers import format_estimate, format_p
from study.figures.save import save

__all__ = [
    "Drawn",
    "cumulative_ablation",
    "dumbbell",
    "format_estimate",
    "format_p",
    "head_difference",
    "head_map",
    "save",
    "top_heads",
]
