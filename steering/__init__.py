"""Steering: directions, their orthogonalization, operators on the residual stream, and weight edits."""

from __future__ import annotations

from steering.arms import Arm, complement_arms, protocol_arms, random_arms, shuffled_arms
from steering.difference import (
    SignNotConfirmedWarning,
    confirmed,
    difference_of_means,
    direction_along,
    within_covariance,
)
from steering.direction import UNITS, Direction, Directions, DirectionStats
from steering.dose import DoseItem
from steering.export import export_gguf, export_hf
from steering.operators import (
    OPS,
    AddVector,
    KeepNorm,
    OtherCheckpointWarning,
    RemoveSpan,
    SetCoordinate,
    eraser,
    make_edit,
    orthonormal_rows,
    steer,
    steering_edits,
)
from steering.orthogonal import orthogonalize
from steering.outcomes import Outcomes
from steering.pair import direction_agreement, pair_cosines
from steering.residue import Moments, Residue, ShortResidueWarning, pooled_covariance, remove_span
from steering.response import DoseResult, dose_response
from steering.select import Objective, rank_candidates, shrinkage, split_by_group
from steering.store import read_probe_vector
from steering.strengths import DosePlan, parse_alphas
from steering.weights import WeightEdit, edit_weights

__all__ = [
    "OPS",
    "UNITS",
    "AddVector",
    "Arm",
    "Direction",
    "DirectionStats",
    "Directions",
    "DoseItem",
    "DosePlan",
    "DoseResult",
    "KeepNorm",
    "Moments",
    "Objective",
    "OtherCheckpointWarning",
    "Outcomes",
    "RemoveSpan",
    "Residue",
    "SetCoordinate",
    "ShortResidueWarning",
    "SignNotConfirmedWarning",
    "WeightEdit",
    "complement_arms",
    "confirmed",
    "difference_of_means",
    "direction_agreement",
    "direction_along",
    "dose_response",
    "edit_weights",
    "eraser",
    "export_gguf",
    "export_hf",
    "make_edit",
    "orthogonalize",
    "orthonormal_rows",
    "pair_cosines",
    "parse_alphas",
    "pooled_covariance",
    "protocol_arms",
    "random_arms",
    "rank_candidates",
    "read_probe_vector",
    "remove_span",
    "shrinkage",
    "shuffled_arms",
    "split_by_group",
    "steer",
    "steering_edits",
    "within_covariance",
]
