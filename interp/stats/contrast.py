"""A weighted sum of rates on parts of the same examples, with an interval that knows they share groups."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

import numpy as np

from interp.stats._check import Groups, Values, binary, same_length
from interp.stats.clustered import rate_on
from interp.stats.estimate import Estimate, Sampling
from interp.stats.resample import resample_sums

Part = tuple[Values, float]


def rate_contrast(
    event: Values,
    parts: Sequence[Part],
    *,
    groups: Groups,
    sampling: Sampling = Sampling(),
) -> Estimate:
    """Sum of rates of an event on parts of the examples, each with its weight.

        value = sum_k w_k · mean(event on part k)

    All parts are left out together, group by group, so that examples of one group stay together even where they lie
    in different parts. Where a rate is 0 or 1 the sample shows too little spread: then the union with the MOVER
    interval of the parts' clustered Wilson intervals, half width sqrt(sum_k (w_k · half_k)²).

    Args:
        event: 0/1 [example].
        parts: (0/1 membership [example], weight); parts may not be empty.
        groups: independent unit of each example, or None.
    Raises:
        ValueError: an empty part, lengths differ, one group, values other than 0/1.
    Source: `interp.stats.jackknife`; Zou & Donner, Stat. Med. 27 (2008) 1693.
    """
    happened = binary("event", event)
    masks, weights = [binary("part", mask) for mask, _ in parts], np.array([weight for _, weight in parts])
    for k, mask in enumerate(masks):
        same_length(event=happened, part=mask)
        if not mask.any():
            raise ValueError(f"parts: part {k} has no examples, so it has no rate. Leave it out.")
    columns = np.column_stack([column for mask in masks for column in (happened & mask, mask)]).astype(np.float64)
    draws = resample_sums(
        columns,
        lambda s: (s[..., 0::2] / s[..., 1::2]) @ weights,
        groups=groups,
        sampling=sampling,
        counts=np.abs(weights) @ np.array(masks, dtype=np.float64),
        bounds=(float(np.minimum(weights, 0).sum()), float(np.maximum(weights, 0).sum())),
    )
    found = draws.estimate()
    rates = [rate_on(happened, mask, groups=groups, confidence=sampling.confidence) for mask in masks]
    if all(rate.value not in (0.0, 1.0) for rate in rates):
        return found
    sides = [(w * (r.lo - r.value), w * (r.hi - r.value)) for w, r in zip(weights, rates, strict=True)]
    below = sqrt(sum(min(side) ** 2 for side in sides))
    above = sqrt(sum(max(side) ** 2 for side in sides))
    value = found.value
    return Estimate(value, min(found.lo, value - below), max(found.hi, value + above), found.n, found.n_groups)
