"""Head effects of two checkpoints on the same items: per head where heads correspond, per cell where sizes differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from interp import stats
from interp.heads.effects import HeadEffects
from interp.heads.estimates import means_and_p
from interp.heads.ids import HeadId, Unit, layers_of
from interp.heads.metrics import METRICS

if TYPE_CHECKING:
    import pandas as pd

CELLS = ("engaged", "engaged_base", "heuristic", "heuristic_base")


def paired_rows(a: HeadEffects, b: HeadEffects) -> tuple[list[int], list[int]]:
    """Rows of both sweeps that are the same item, by id, in a's order.

    Raises:
        ValueError: fewer than two items in common, or a sweep of another kind or at other positions.
    """
    for name in ("kind", "positions", "effect"):
        left, right = getattr(a.plan, name), getattr(b.plan, name)
        if left != right:
            raise ValueError(
                f"contrast: {name} is {left!r} on one side and {right!r} on the other; sweep both with the same "
                "settings."
            )
    where = {pair.id: index for index, pair in enumerate(b.pairs)}
    common = [(i, where[pair.id]) for i, pair in enumerate(a.pairs) if pair.id in where]
    if len(common) < 2:
        raise ValueError(f"contrast: the sweeps share {len(common)} items of {len(a.pairs)} and {len(b.pairs)}.")
    return [i for i, _ in common], [j for _, j in common]


def contrast(engaged: HeadEffects, heuristic: HeadEffects, *, metric: str | None = None) -> pd.DataFrame:
    """Engaged minus heuristic for every head, paired over the same items, for two checkpoints of one architecture.

        diff_h = mean_i( effect_engaged[i, h] - effect_heuristic[i, h] )

    p over all heads (`interp.stats.mean_test`), intervals by the items' groups: `lo, hi` of a head that was named
    beforehand, `band_lo, band_hi` of whichever is the largest (`interp.stats.simultaneous_band`).

    Returns:
        Columns of `study.figures.head_difference`: layer, head, value, lo, hi, band_lo, band_hi, p_adjusted,
        null_max95, named, n, n_groups, the two means, and `same_input`: the share of items whose prompts are the same
        tokens.
    Raises:
        ValueError: different heads (see `match_heads`), other kinds or positions, fewer than two common items.
    """
    import pandas as pd

    if engaged.plan.units != heuristic.plan.units:
        raise ValueError(
            f"contrast: {len(engaged.units)} units on one side, {len(heuristic.units)} on the other. Heads of "
            "different architectures do not correspond by number; use match_heads and four_cells."
        )
    rows = paired_rows(engaged, heuristic)
    sides = [part.per_example(metric)[index] for part, index in zip((engaged, heuristic), rows, strict=True)]
    groups = [engaged.groups[index] for index in rows[0]]
    found = means_and_p(sides[0] - sides[1], groups=groups, sampling=engaged.sampling)
    band = stats.simultaneous_band(sides[0] - sides[1], groups=groups, sampling=engaged.sampling)
    same = [engaged.pairs[i].exp_ids == heuristic.pairs[j].exp_ids for i, j in zip(*rows, strict=True)]
    name = metric or engaged.main
    named = (*engaged.named, *heuristic.named)
    table = pd.DataFrame(
        {
            "layer": layers_of(engaged.units),
            "head": engaged.names,
            "value": found.estimates.value,
            "lo": found.estimates.lo,
            "hi": found.estimates.hi,
            "band_lo": band.lo,
            "band_hi": band.hi,
            "engaged": sides[0].mean(axis=0),
            "heuristic": sides[1].mean(axis=0),
            "p_adjusted": found.p,
            "null_max95": found.null_max95,
            "named": [unit in named for unit in engaged.units],
        }
    )
    members = [part.plan.adapter or part.plan.model for part in (engaged, heuristic)]
    return table.assign(
        n=len(groups),
        n_groups=len(set(groups)),
        metric=name,
        metric_unit=METRICS[name].unit,
        unit="pairs",
        kind=engaged.plan.kind,
        positions=engaged.plan.positions,
        same_input=float(np.mean(same)),
        n_perm=found.n_flips,
        model=" and ".join(members),
    )


def four_cells(
    cells: Mapping[str, HeadEffects],
    heads: Mapping[str, HeadId | str | Unit],
    *,
    sampling: stats.Sampling = stats.Sampling(),
) -> pd.DataFrame:
    """Training against size: (engaged - its base) - (heuristic - its base), in units that do not depend on size.

        share_c = mean(effect_c) / mean(whole_c)        cma_frac or abl_frac of the cell's head
        contrast = (share_engaged - share_engaged_base) - (share_heuristic - share_heuristic_base)
        percentile_c = share of the cell's heads whose mean |effect| is smaller

    All cells are resampled together over the items that they share.

    Args:
        cells: engaged, engaged_base, heuristic, heuristic_base; the bases are those of the members' own sizes.
        heads: the head of each cell; of two sizes, matched ones (`match_heads`).
    Returns:
        A row per cell, one per difference, one for the contrast: value, lo, hi, n, n_groups, percentile, refused.
    Raises:
        ValueError: a cell is missing, or the cells share fewer than two items.
    """
    import pandas as pd

    missing = [name for name in CELLS if name not in cells or name not in heads]
    if missing:
        raise ValueError(
            f"four_cells: {', '.join(missing)} is missing; expected sweeps and heads of {', '.join(CELLS)}."
        )
    ids, groups = _common([cells[name] for name in CELLS])
    columns, facts = [], []
    for name in CELLS:
        effects = cells[name]
        where = {pair.id: index for index, pair in enumerate(effects.pairs)}
        index, rows = effects.index(heads[name]), [where[item] for item in ids]
        top, whole = effects.per_example()[rows][:, index], effects.whole[rows]
        columns += [top, whole]
        sizes = np.abs(effects.per_example()[rows].mean(axis=0))
        facts.append(
            {
                "head": effects.names[index],
                "percentile": float((sizes < sizes[index]).mean()),
                "refused": stats.cluster_t(whole, groups=groups).includes(0.0),
            }
        )
    draws = stats.resample_sums(np.column_stack(columns), _shares, groups=groups, sampling=sampling)
    found = draws.estimates()
    made: list[dict[str, Any]] = [{"cell": cell, **fact} for cell, fact in zip(CELLS, facts, strict=True)]
    refused = any(fact["refused"] for fact in facts)
    made += [
        {"cell": cell, "head": "", "percentile": np.nan, "refused": refused}
        for cell in ("engaged - base", "heuristic - base", "contrast")
    ]
    table = pd.DataFrame(made).assign(
        value=found.value, lo=found.lo, hi=found.hi, n=len(ids), n_groups=len(set(groups))
    )
    table.loc[table["refused"], ["value", "lo", "hi"]] = np.nan
    return table.assign(metric="cma_frac" if cells["engaged"].main == "cma" else "abl_frac")


def _shares(sums: np.ndarray) -> np.ndarray:
    share = sums[..., ::2] / sums[..., 1::2]
    engaged, heuristic = share[..., 0] - share[..., 1], share[..., 2] - share[..., 3]
    return np.concatenate([share, np.stack([engaged, heuristic, engaged - heuristic], axis=-1)], axis=-1)


def _common(sweeps: list[HeadEffects]) -> tuple[list[str], list[str]]:
    """(ids that every sweep has, their groups), in the order of the first."""
    shared = set.intersection(*({pair.id for pair in sweep.pairs} for sweep in sweeps))
    kept = [pair for pair in sweeps[0].pairs if pair.id in shared]
    if len(kept) < 2:
        raise ValueError(f"four_cells: the cells share {len(kept)} items; sweep them on the same pairs.")
    return [pair.id for pair in kept], [pair.unit for pair in kept]
