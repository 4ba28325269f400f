"""Procedural compliance: does a scenario follow a procedure? Generated instances, an engine, user data.

Names are loaded on first use, so that the generator can be used without the rest of the library. No exported name is
also the name of a module here: importing that module would replace it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_EXPORTS = {
    "examples": "task",
    "load_records": "task",
    "parse": "task",
    "prompt": "task",
    "score": "task",
    "labels": "reporting",
    "decision_prefix": "reporting",
    "counterfactuals": "reporting",
    "GROUP": "reporting",
    "MAX_NEW_TOKENS": "reporting",
    "notes": "reporting",
    "report": "reporting",
    "LABELS": "vocabulary",
    "twin_examples": "swap_examples",
    "word_list": "vocabulary",
    "CELLS": "cells",
    "CELL_ROLES": "cells",
    "grid": "cells",
    "PERTURBATIONS": "perturb",
    "generate_records": "dataset",
    "audit_records": "audit",
    "check_leakage": "splits",
}
__all__ = list(_EXPORTS)

if TYPE_CHECKING:
    from interp.tasks.procedural.audit import audit_records as audit_records
    from interp.tasks.procedural.cells import CELL_ROLES as CELL_ROLES
    from interp.tasks.procedural.cells import CELLS as CELLS
    from interp.tasks.procedural.cells import grid as grid
    from interp.tasks.procedural.dataset import generate_records as generate_records
    from interp.tasks.procedural.perturb import PERTURBATIONS as PERTURBATIONS
    from interp.tasks.procedural.reporting import GROUP as GROUP
    from interp.tasks.procedural.reporting import MAX_NEW_TOKENS as MAX_NEW_TOKENS
    from interp.tasks.procedural.reporting import counterfactuals as counterfactuals
    from interp.tasks.procedural.reporting import decision_prefix as decision_prefix
    from interp.tasks.procedural.reporting import labels as labels
    from interp.tasks.procedural.reporting import notes as notes
    from interp.tasks.procedural.reporting import report as report
    from interp.tasks.procedural.splits import check_leakage as check_leakage
    from interp.tasks.procedural.swap_examples import twin_examples as twin_examples
    from interp.tasks.procedural.task import examples as examples
    from interp.tasks.procedural.task import load_records as load_records
    from interp.tasks.procedural.task import parse as parse
    from interp.tasks.procedural.task import prompt as prompt
    from interp.tasks.procedural.task import score as score
    from interp.tasks.procedural.vocabulary import LABELS as LABELS
    from interp.tasks.procedural.vocabulary import word_list as word_list


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)
