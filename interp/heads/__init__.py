"""Head effects: exact sweeps over heads, named definitions of the effect, contrasts between checkpoints."""

from interp.heads.attention import retrieval_score
from interp.heads.contrast import contrast, four_cells
from interp.heads.cumulative import cumulative_ablation
from interp.heads.decisions import decision_pairs
from interp.heads.effects import HeadEffects
from interp.heads.evidence import evidence
from interp.heads.ids import HeadId, expand_heads, kv_group, unit_name
from interp.heads.induction import induction_scores, prefix_matching
from interp.heads.kinds import Kind, KnockOut, Mean, Noise, Patch, Resample, UniformAttention, Zero, parse_kind
from interp.heads.match import Matching, match_heads
from interp.heads.metrics import METRICS, LabelAccuracy, LogitDiff, Metric, Prob
from interp.heads.order_swaps import identity_pairs, order_swap_table, swap_metrics, swap_pairs
from interp.heads.outcomes import Outcome, Plan
from interp.heads.pairs import TokenPair, text_pair
from interp.heads.sweep import HeadSweep, head_sweep

__all__ = [
    "METRICS",
    "HeadEffects",
    "HeadId",
    "HeadSweep",
    "Kind",
    "KnockOut",
    "LabelAccuracy",
    "LogitDiff",
    "Matching",
    "Mean",
    "Metric",
    "Noise",
    "Outcome",
    "Patch",
    "Plan",
    "Prob",
    "Resample",
    "TokenPair",
    "UniformAttention",
    "Zero",
    "contrast",
    "cumulative_ablation",
    "decision_pairs",
    "evidence",
    "expand_heads",
    "four_cells",
    "head_sweep",
    "identity_pairs",
    "induction_scores",
    "kv_group",
    "match_heads",
    "order_swap_table",
    "parse_kind",
    "prefix_matching",
    "retrieval_score",
    "swap_metrics",
    "swap_pairs",
    "text_pair",
    "unit_name",
]
