"""What a study of a given size can show, and the size that an effect takes: planned before any data.

Each kind of claim knows the rule by which the report calls it shown, and the probability that a true effect passes
that rule: `MeanClaim` (slopes, gaps), `FamilyClaim` (heads, `mean_test`), `RateClaim`, `DifferenceClaim` and
`EquivalenceClaim` (cells), `AurocClaim` (probes). `smallest_detectable` and `n_needed` invert it in both directions.
"""

from interp.stats.power.areas import AurocClaim
from interp.stats.power.means import FamilyClaim, MeanClaim
from interp.stats.power.rates import DifferenceClaim, EquivalenceClaim, RateClaim
from interp.stats.power.size import Detectable, StudySize, n_needed, smallest_detectable

__all__ = [
    "AurocClaim", "Detectable", "DifferenceClaim", "EquivalenceClaim", "FamilyClaim", "MeanClaim", "RateClaim",
    "StudySize", "n_needed", "smallest_detectable",
]  # fmt: skip
