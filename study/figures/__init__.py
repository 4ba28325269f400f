"""Figures from tidy tables: `Drawn = f(table)`, refused where an estimate lacks its interval, n or null."""

from study.figures.bias_plane import bias_plane
from study.figures.cohorts import probe_cohorts
from study.figures.cosine_layers import cosines
from study.figures.decodable import decodable
from study.figures.dose import dose_response
from study.figures.drawn import Drawn
from study.figures.dumbbell import dumbbell
from study.figures.esi import esi
from study.figures.forest import forest
from study.figures.head_ablation import cumulative_ablation
from study.figures.head_forest import top_heads
from study.figures.heads import head_difference, head_map
from study.figures.layer_selection import layer_selection
from study.figures.match import match_heads
from study.figures.numbers import format_estimate, format_p
from study.figures.oracle import oracle
from study.figures.oracle_confusion import oracle_confusion
from study.figures.probe_layers import probe_by_layer
from study.figures.reliability import reliability
from study.figures.save import save
from study.figures.selectivity import selectivity
from study.figures.transfer import transfer

__all__ = [
    "Drawn",
    "bias_plane",
    "cosines",
    "cumulative_ablation",
    "decodable",
    "dose_response",
    "dumbbell",
    "esi",
    "forest",
    "format_estimate",
    "format_p",
    "head_difference",
    "head_map",
    "layer_selection",
    "match_heads",
    "oracle",
    "oracle_confusion",
    "probe_by_layer",
    "probe_cohorts",
    "reliability",
    "save",
    "selectivity",
    "top_heads",
    "transfer",
]
