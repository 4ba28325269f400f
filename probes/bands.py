"""Simultaneous bands of AUROC over layers: where the whole curve lies, for whoever looks for its highest point."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from interp.stats import Sampling, auroc
from interp.stats.jackknife import Jackknife, effective_groups, max_t_quantile
from interp.stats.ranking import auroc_left_out
from probes.area import Binary, Strata


def layer_bands(
    scores: Float[np.ndarray, "layer example"],
    labels: Binary,
    *,
    groups: np.ndarray,
    strata: Strata,
    least_se: Sequence[float],
    sampling: Sampling = Sampling(),
) -> tuple[Float[np.ndarray, " layer"], Float[np.ndarray, " layer"]]:
    """(lo, hi) of the AUROC of each layer, such that all of them hold at once with the confidence of `sampling` (95 %).

        c = 95 % quantile of max over layers |t*| over resampled groups, from leave-one-group-out values, at most
            Bonferroni's;  t = Student's quantile of one layer alone, on the effective groups
        band: the interval of `interp.stats.auroc` at the confidence whose normal quantile is 1.96 · max(1, c/t)

    Args:
        scores: held-out, one row for each layer.  strata: which probe scored each row.
        least_se: standard error of each layer's permutation null, see `interp.stats.auroc`.
    Raises:
        ValueError: as `auroc`.
    Source: Montiel Olea & Plagborg-Møller, J. Appl. Econom. 34 (2019) 1; see `interp.stats.band_of`.
    """
    from scipy.special import ndtr, ndtri

    options = dict(groups=groups, strata=strata)
    left_out = np.stack([auroc_left_out(s, labels, **options) for s in scores], axis=1)
    sizes = np.unique(groups, return_counts=True)[1]
    knife = Jackknife.of(left_out, effective_groups(sizes.astype(float)))
    moving, level = knife.se > 0, sampling.confidence
    confidence = level
    if moving.any():
        alone = float(np.max(knife.quantile(level)))
        bonferroni = float(np.max(knife.quantile(1 - (1 - level) / int(moving.sum()))))
        c = min(bonferroni, max_t_quantile(knife.deviation[:, moving], sampling))
        confidence = min(1 - 1e-9, float(2 * ndtr(ndtri(0.5 + level / 2) * max(1.0, c / alone)) - 1))
    found = [
        auroc(s, labels, least_se=float(se), confidence=confidence, **options)
        for s, se in zip(scores, least_se, strict=True)
    ]
    return np.array([e.lo for e in found]), np.array([e.hi for e in found])
