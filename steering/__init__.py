"""Steering: directions, their orthogonalization, operators on the residual stream, and weight edits."""

from __future__ import annotations

from steering.context import OtherCheckpointWarning, steer, steering_edits
from steering.difference import SignNotConfirmedWarning, difference_of_means, direction_along, within_covariance
from steering.direction import UNITS, Direction, Directions, DirectionStats
from steering.export import export_gguf, export_hf
from steering.moments import Moments, pooled_covariance
from steering.operators import OPS, AddVector, KeepNorm, RemoveSpan, SetCoordinate, eraser, make_edit, orthonormal_rows
from steering.orthogonal import orthogonalize
from steering.probe_vectors import read_probe_vector
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
    "direction_along",
    "edit_weights",
    "eraser",
    "export_gguf",
    "export_hf",
    "make_edit",
    "orthogonalize",
    "orthonormal_rows",
    "pooled_covariance",
    "read_probe_vector",
    "remove_span",
    "steer",
    "steering_edits",
    "within_covariance",
]
