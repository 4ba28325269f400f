"""Two sweeps, or two sets of directions, compared: scores of the same rows, and cosines next to random directions."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from math import pi, sqrt
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.stats import FewGroupsWarning, Sampling, compare_paired
from probes.metrics import area_difference
from probes.result import Key, SweepResult

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

    Example:
        >>> cosines(swept, {("axis 0", "resid_post.0"): torch.eye(8)[0]})[["b", "d"]].values.tolist()
        [['axis 0', 8]]
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
                        "site": site,
                        "a": name_a,
                        "b": name_b,
                        "cosine": _cosine(a, b, None, site),
                        "cosine_data": float("nan") if sigma is None else _cosine(a, b, sigma.double(), site),
                        "random_mean": sqrt(2 / (pi * len(a))),
                        "random_hi": 1.96 / sqrt(len(a)),
                        "d": len(a),
                    }
                )
    return pd.DataFrame(rows)


def _cosine(a: Tensor, b: Tensor, sigma: Tensor | None, site: str) -> float:
    left, right = (a, b) if sigma is None else (sigma @ a, sigma @ b)
    size = torch.sqrt((a @ left) * (b @ right))
    if not size > 0:
        raise ValueError(f"site {site!r}: a direction has length 0, so it has no cosine. Leave it out.")
    return float((a @ right) / size)


def compare_scores(
    a: SweepResult, b: SweepResult, *, kind: str, target: str | None = None, seed: int = 0
) -> pd.DataFrame:
    """Compare two sweeps of the same rows by their scores alone: the widths may differ.

    One row per split: correlation of scores (Spearman), both AUROCs, their paired difference, exact McNemar and
    group p of decisions, and the relative depth of both selected layers.

    Raises:
        ValueError: the ids, labels or splits differ.
    Source: `interp.stats.compare_paired`, `auroc_difference`.
    """
    import pandas as pd
    from scipy.stats import rankdata

    first, second = a.pick(kind=kind, target=target), b.pick(kind=kind, target=target)
    if a.ids != b.ids or not np.array_equal(a.split.fold_of, b.split.fold_of):
        raise ValueError("compare_scores: expected the same rows and splits; sweep both with the same rows and seed.")
    y, group, fold, rows = a.labels[first.target], a.split.group, a.split.fold_of, []
    for name, where in (("oof", a.split.is_dev), ("test", a.split.is_tested)):
        if not where.any():
            continue
        s, t = (
            (one.scores[cell.key] if name == "oof" else one.tested(cell))[where]
            for one, cell in ((a, first), (b, second))
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FewGroupsWarning)
            gap = area_difference(s, t, y[where], groups=group[where], strata=fold[where])
            decisions = compare_paired(
                (s > 0) == y[where], (t > 0) == y[where], groups=group[where], sampling=Sampling(seed=seed)
            )
        rows.append(
            {
                "split": name,
                "kind": kind,
                "site_a": first.site,
                "site_b": second.site,
                "depth_a": _depth(a, first.key),
                "depth_b": _depth(b, second.key),
                "spearman": float(np.corrcoef(rankdata(s), rankdata(t))[0, 1]),
                "auroc_difference": gap.value,
                "lo": gap.lo,
                "hi": gap.hi,
                "accuracy_a": decisions.a.value,
                "accuracy_b": decisions.b.value,
                "mcnemar_p": decisions.test.p,
                "group_p": decisions.p_groups,
                "n": gap.n,
                "n_groups": gap.n_groups,
            }
        )
    return pd.DataFrame(rows)


def _depth(result: SweepResult, key: Key) -> float:
    t = result.table
    return float(t[(t.site == key[2]) & (t.kind == key[3])]["depth"].iloc[0])
