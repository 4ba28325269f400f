"""The fast engine: all interventions on a prompt as rows of one pass that share the clean prefix."""

from interp.sweep.engine import SweepItem, SweepResult, sweep, sweep_all
from interp.sweep.intervention import Change, Intervention

__all__ = ["Change", "Intervention", "SweepItem", "SweepResult", "sweep", "sweep_all"]
