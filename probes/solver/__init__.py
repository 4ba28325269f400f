"""Linear probes as one batch of convex problems over one activation matrix. Sees tensors only."""

from probes.solver.closed import LeaveOut, Linear, lda, leave_out_ridge, mass_mean, ridge
from probes.solver.solve import Fit, NotConvergedWarning, choose_backend, solve
from probes.solver.spaces import centred, inverse_std

__all__ = [
    "Fit",
    "LeaveOut",
    "Linear",
    "NotConvergedWarning",
    "centred",
    "choose_backend",
    "inverse_std",
    "lda",
    "leave_out_ridge",
    "mass_mean",
    "ridge",
    "solve",
]
