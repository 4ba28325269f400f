"""Per-layer linear probes with their controls. Names are loaded on first use, so that options need no torch.

No module has the name of a function of this list: importing it would replace the function by the module.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

_EXPORTS = {
    "KINDS": "probes.kinds",
    "Kind": "probes.kinds",
    "Probe": "probes.estimator",
    "Split": "probes.splits",
    "SweepConfig": "probes.config",
    "SweepDesign": "probes.design",
    "SweepResult": "probes.result",
    "check_leaks": "probes.splits",
    "compare_scores": "probes.compare",
    "cosines": "probes.compare",
    "erase_check": "probes.erase",
    "fit_eraser": "probes.erase",
    "group_split": "probes.splits",
    "mdl": "probes.code_length",
    "monitor": "probes.watch",
    "recall_at_fpr": "probes.metrics",
    "row_split": "probes.splits",
    "solve": "probes.solver",
    "surface_features": "probes.controls",
    "sweep": "probes.run",
    "sweep_design": "probes.design",
    "transfer": "probes.across",
    "unite_groups": "probes.splits",
}

__all__ = list(_EXPORTS)

if TYPE_CHECKING:
    from probes.across import transfer as transfer
    from probes.code_length import mdl as mdl
    from probes.compare import compare_scores as compare_scores
    from probes.compare import cosines as cosines
    from probes.config import SweepConfig as SweepConfig
    from probes.controls import surface_features as surface_features
    from probes.design import SweepDesign as SweepDesign
    from probes.design import sweep_design as sweep_design
    from probes.erase import erase_check as erase_check
    from probes.erase import fit_eraser as fit_eraser
    from probes.estimator import Probe as Probe
    from probes.kinds import KINDS as KINDS
    from probes.kinds import Kind as Kind
    from probes.metrics import recall_at_fpr as recall_at_fpr
    from probes.result import SweepResult as SweepResult
    from probes.run import sweep as sweep
    from probes.solver import solve as solve
    from probes.splits import Split as Split
    from probes.splits import check_leaks as check_leaks
    from probes.splits import group_split as group_split
    from probes.splits import row_split as row_split
    from probes.splits import unite_groups as unite_groups
    from probes.watch import monitor as monitor


def __getattr__(name: str) -> object:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'probes' has no attribute {name!r}; it has: {', '.join(__all__)}")
    value = getattr(importlib.import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value
