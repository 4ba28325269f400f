"""Sets of heads changed together: more than random sets of the same layers, and more than their heads one by one.

The effect of one head says nothing of a head that another one can replace. A set is necessary as a set if changing it
does more than changing each of its heads alone, added up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from interp import stats
from interp.heads.effects import HeadEffects
from interp.heads.estimates import means_and_p
from interp.heads.ids import HeadId, Unit, unit_name

if TYPE_CHECKING:
    import pandas as pd

N_RANDOM = 5
TRIES = 20


def random_sets(
    sets: Sequence[Unit], every: Sequence[HeadId], *, n_random: int = N_RANDOM, seed: int = 0
) -> dict[Unit, tuple[Unit, ...]]:
    """For each set up to `n_random` others with as many heads per layer, without its heads where a layer has enough.

    A layer that is smaller than twice the set gives heads of the set as well; fewer sets where there are no more.
    """
    dice, out = Random(seed), {}
    for unit in sets:
        pools = {}
        for layer, n in Counter(head.layer for head in unit).items():
            own = [head for head in every if head.layer == layer]
            others = [head for head in own if head not in unit]
            pools[layer] = (others if len(others) >= n else own, n)
        found: dict[Unit, None] = {}
        for _ in range(TRIES * n_random):
            drawn = tuple(sorted(head for pool, n in pools.values() for head in dice.sample(pool, n)))
            if drawn != unit:
                found[drawn] = None
            if len(found) == n_random:
                break
        out[unit] = tuple(found)
    return out


def together_table(joint: HeadEffects, single: HeadEffects, others: Mapping[Unit, Sequence[Unit]]) -> pd.DataFrame:
    """One row per set: its effect, what is left of it without random sets, and without its heads one by one.

        value               mean over pairs of e(set)
        control_difference  mean of e(set) - mean over random sets of e(random set)
        parts_difference    mean of e(set) - sum over its heads of e(head)            e: the main effect, in logits

    Intervals are paired and respect the groups of the pairs; `p_adjusted` is max-|t| over the sets. A set that is all
    the heads of its layers has no random set, and its control is blank.

    Args:
        joint: the sweep over the sets and their random sets.
        single: the sweep over single heads, of the same pairs.
        others: set -> its random sets (`random_sets`).
    Raises:
        ValueError: other pairs, or another definition of the effect.
    """
    import pandas as pd

    if [pair.id for pair in joint.pairs] != [pair.id for pair in single.pairs] or joint.main != single.main:
        raise ValueError("together: expected sweeps of the same pairs under the same kind.")
    effects, alone = joint.per_example(), single.per_example()
    sets = list(others)
    own = np.column_stack([effects[:, joint.index(unit)] for unit in sets])
    has_random = np.array([bool(others[unit]) for unit in sets])
    random = np.column_stack([_mean_of(effects, joint, others[unit]) for unit in sets])
    parts = np.column_stack([sum(alone[:, single.index(head)] for head in unit) for unit in sets])
    options = {"groups": joint.groups, "sampling": joint.sampling}
    tested = means_and_p(own, **options)
    control, left = (stats.cluster_means(own - part, **options) for part in (random, parts))
    value, lo, hi = (np.where(has_random, part, np.nan) for part in (control.value, control.lo, control.hi))
    control = stats.Estimates(value, lo, hi, control.n, control.n_groups)
    columns = {
        "head": [unit_name(unit) for unit in sets],
        "value": tested.estimates.value, "lo": tested.estimates.lo, "hi": tested.estimates.hi,
        "n": tested.estimates.n, "n_groups": tested.estimates.n_groups, "p_adjusted": tested.p,
        "null_max95": tested.null_max95, "n_perm": tested.n_flips,
        "control_value": np.where(has_random, random.mean(axis=0), np.nan), "parts_value": parts.mean(axis=0),
        "k": [len(unit) for unit in sets],
    }  # fmt: skip
    for name, estimates in (("control_difference", control), ("parts_difference", left)):
        columns |= {name: estimates.value, f"{name}_lo": estimates.lo, f"{name}_hi": estimates.hi}
    return pd.DataFrame(columns).assign(**joint.provenance(joint.main))


def _mean_of(effects: np.ndarray, joint: HeadEffects, units: Sequence[Unit]) -> np.ndarray:
    """Mean effect of the random sets of one set on every pair; 0 where there is no other set."""
    if not units:
        return np.zeros(len(effects))
    return effects[:, [joint.index(unit) for unit in units]].mean(axis=1)
