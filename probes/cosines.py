"""Cosines between probe directions and any others, beside what random directions of that width would give."""

from __future__ import annotations

from collections.abc import Mapping
from math import pi, sqrt
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from probes.result import SweepResult

if TYPE_CHECKING:
    import pandas as pd


def cosines(
    result: SweepResult,
    others: Mapping[tuple[str, str], Float[Tensor, "_"]] | None = None,
    *,
    covariance: Mapping[str, Float[Tensor, "_ _"]] | None = None,
) -> pd.DataFrame:
    """Raw-space cosine of every pair of directions at one site: probes of each kind, and the named others.

        cos(u, v) = u·v / (‖u‖ ‖v‖);   random: E|cos| = sqrt(2/(pi d)), 95 % of |cos| below 1.96/sqrt(d)
        with a covariance also  uᵀΣv / sqrt(uᵀΣu · vᵀΣv), the correlation of the two scores over the data

    Args:
        others: (name, site) -> direction [d_feature], such as steering vectors.
        covariance: site -> covariance of its activations.
    Raises:
        ValueError: a site whose directions differ in width, or a direction of length 0.
    Source: random band: a coordinate of a uniform unit vector is N(0, 1/d) for large d.
    """
    import pandas as pd

    named: dict[str, list[tuple[str, Tensor]]] = {}
    for (target, position, site, kind), direction in result.directions.items():
        named.setdefault(site, []).append((f"{kind}:{target}@{position}", direction.unit.double()))
    for (name, site), vector in (others or {}).items():
        named.setdefault(site, []).append((name, vector.double()))
    rows = []
    for site, vectors in named.items():
        for i, (name_a, a) in enumerate(vectors):
            for name_b, b in vectors[i + 1 :]:
                if len(a) != len(b):
                    raise ValueError(f"site {site!r}: {name_a!r} has {len(a)} features, {name_b!r} has {len(b)}.")
                sigma = None if covariance is None else covariance.get(site)
                rows.append(
                    {
                        "site": site, "a": name_a, "b": name_b, "cosine": _cosine(a, b, None, site),
                        "cosine_data": float("nan") if sigma is None else _cosine(a, b, sigma.double(), site),
                        "random_mean": sqrt(2 / (pi * len(a))), "random_hi": 1.96 / sqrt(len(a)), "d": len(a),
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)


def _cosine(a: Tensor, b: Tensor, sigma: Tensor | None, site: str) -> float:
    left, right = (a, b) if sigma is None else (sigma @ a, sigma @ b)
    size = torch.sqrt((a @ left) * (b @ right))
    if not size > 0:
        raise ValueError(f"site {site!r}: a direction has length 0, so it has no cosine. Leave it out.")
    return float((a @ right) / size)
