"""Steering: directions, their orthogonalization, operators on the residual stream, and weight edits."""

from __future__ import annotations

from steering.context import OtherCheckpointWarning, steer, steering_edits
from steering.difference import SignNotConfirmedWarning, difference_of_means, within_covariance
from steering.direction import UNITS, Direction, Directions, DirectionStats
from steering.moments import Moments, pooled_covariance
from steering.operators import OPS, AddVector, KeepNorm, RemoveSpan, SetCoordinate, eraser, make_edit, orthonormal_rows
from steering.orthogonal import orthogonalize
from steering.residue import Residue, ShortResidueWarning, remove_span
from steering.weights import WeightEdit, edit_weights

__all__ = [
    "OPS",
    "UNITS",
    "AddVector",
    "Direction",
    "DirectionStats",
    "Directions",
    "KeepNorm",
    "Moments",
    "OtherCheckpointWarning",
    "RemoveSpan",
    "Residue",
    "SetCoordinate",
    "ShortResidueWarning",
    "SignNotConfirmedWarning",
    "WeightEdit",
    "difference_of_means",
    "edit_weights",
    "eraser",
    "make_edit",
    "orthogonalize",
    "orthonormal_rows",
    "pooled_covariance",
    "remove_span",
    "steer",
    "steering_edits",
    "within_covariance",
]
