"""Steering: directions, their orthogonalization, operators on the residual stream, and weight edits."""

from __future__ import annotations

from steering.difference import SignNotConfirmedWarning, difference_of_means, within_covariance
from steering.direction import UNITS, Direction, Directions, DirectionStats
from steering.moments import Moments, pooled_covariance
from steering.orthogonal import orthogonalize
from steering.residue import Residue, ShortResidueWarning, remove_span

__all__ = [
    "UNITS",
    "Direction",
    "DirectionStats",
    "Directions",
    "Moments",
    "Residue",
    "ShortResidueWarning",
    "SignNotConfirmedWarning",
    "difference_of_means",
    "orthogonalize",
    "pooled_covariance",
    "remove_span",
    "within_covariance",
]
