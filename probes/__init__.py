"""Per-layer linear probes with their controls.

Functions are imported here, not on first use, because several carry the name of their module. `Probe` alone waits
until it is asked for: it needs scikit-learn, nothing else does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from probes.area import recall_at_fpr
from probes.config import SweepConfig
from probes.controls import surface_features
from probes.cosines import cosines
from probes.design import SweepDesign, sweep_design
from probes.erase import erase_check, fit_eraser
from probes.mdl import mdl
from probes.result import SweepResult
from probes.solver import solve
from probes.splits import Split, check_leaks, group_split, row_split, unite_groups
from probes.sweep import sweep
from probes.transfer import compare_scores, transfer

if TYPE_CHECKING:
    from probes.estimator import Probe as Probe

__all__ = [
    "Probe",
    "Split",
    "SweepConfig",
    "SweepDesign",
    "SweepResult",
    "check_leaks",
    "compare_scores",
    "cosines",
    "erase_check",
    "fit_eraser",
    "group_split",
    "mdl",
    "recall_at_fpr",
    "row_split",
    "solve",
    "surface_features",
    "sweep",
    "sweep_design",
    "transfer",
    "unite_groups",
]


def __getattr__(name: str) -> object:
    if name == "Probe":
        from probes.estimator import Probe

        return Probe
    raise AttributeError(f"module 'probes' has no attribute {name!r}; it has: {', '.join(__all__)}")
