"""Steering: directions, their orthogonalization, operators on the residual stream, and weight edits."""

from __future__ import annotations

from steering.direction import UNITS, Direction, Directions, DirectionStats
from steering.orthogonal import orthogonalize
from steering.residue import Residue, ShortResidueWarning, remove_span

__all__ = [
    "UNITS",
    "Direction",
    "DirectionStats",
    "Directions",
    "Residue",
    "ShortResidueWarning",
    "orthogonalize",
    "remove_span",
]
