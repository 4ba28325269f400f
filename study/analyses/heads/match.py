"""Heads of one folder matched with heads of another by what they do to the same items, as the table of figure 09."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.heads import HeadEffects, HeadId, Matching, match_heads
from interp.remedy import remedy
from study.analyses.heads.show import sweeps

if TYPE_CHECKING:
    import pandas as pd


def read_sweeps(where: str) -> dict[str, HeadEffects]:
    """Sweeps of one member by kind, from FOLDER, or FOLDER:MEMBER where the folder holds several.

    Raises:
        ValueError: no such member, several and none named, or nothing there.
    """
    folder, _, member = where.partition(":") if not Path(where).exists() else (where, "", "")
    found: dict[str, dict[str, HeadEffects]] = {}
    for name, kind, effects in sweeps(Path(folder)):
        found.setdefault(name, {})[kind] = effects
    if not member and len(found) == 1:
        return next(iter(found.values()))
    if member not in found:
        raise ValueError(f"{where}: expected FOLDER:MEMBER with a member of {', '.join(sorted(found))}.")
    return found[member]


def match_table(
    a: dict[str, HeadEffects],
    b: dict[str, HeadEffects],
    control: dict[str, HeadEffects],
    *,
    names: tuple[str, str, str] = ("a", "b", "control"),
    window: float = 0.15,
    n_permutations: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """The nearest head of b for every head of a that has one, the null, and the self-match control.

    Rows of arm "match" are heads of a; of arm "permuted" one permutation's largest r each; of arm "self" the
    correlation of a head of a with the head of its own name in `control` (another checkpoint of a's base): what r a
    head that is known to be there gets.

    Args:
        a, b, control: sweeps by kind on the same items; kinds that all three have are averaged.
        names: what the figure calls them.
    Raises:
        ValueError: no common kind, a control of another shape; otherwise as `interp.heads.match_heads`.
    """
    import pandas as pd

    kinds = sorted(set(a) & set(b) & set(control))
    if not kinds:
        raise ValueError(
            f"match: expected a kind of sweep that all three have; found {', '.join(sorted(a))} | "
            f"{', '.join(sorted(b))} | {', '.join(sorted(control))}. "
            f"{remedy('Sweep the same {heads.kinds} everywhere.')}"
        )
    options: dict[str, Any] = dict(window=window, n_permutations=n_permutations, seed=seed)
    found = match_heads([a[k] for k in kinds], [b[k] for k in kinds], **options)
    own = match_heads([a[k] for k in kinds], [control[k] for k in kinds], **options)
    if own.names_a != own.names_b:
        raise ValueError("match: the control has other heads than a. Give another checkpoint of a's base.")
    selves = pd.DataFrame({"arm": "self", "r": np.diag(own.similarity)}).dropna()
    rows = _nearest(found, {str(unit[0]) for effects in a.values() for unit in effects.named})
    null = pd.DataFrame({"arm": "permuted", "r": found.maxima})
    table = pd.concat([rows, null, selves], ignore_index=True)
    shared = {"self_match_r": float(selves["r"].median()), "null_max95": found.threshold, "n": found.n,
              "n_groups": found.n_groups, "checkpoint_a": names[0], "checkpoint_b": names[1],
              "self_label": f"{names[0]} vs {names[2]}"}  # fmt: skip
    return table.assign(**shared)


def _nearest(found: Matching, named: set[str]) -> pd.DataFrame:
    """One row per head of a that has heads of b within the window."""
    import pandas as pd

    layers = [1 + max(HeadId.parse(name).layer for name in names) for names in (found.names_a, found.names_b)]
    mutual, rows = found.mutual, []
    for i, name in enumerate(found.names_a):
        similar = found.similarity[i]
        if np.isnan(similar).all():
            continue
        j = int(np.nanargmax(similar))
        others = np.delete(similar, j)
        second = np.nanmax(others) if not np.isnan(others).all() else similar[j]
        ids = HeadId.parse(name), HeadId.parse(found.names_b[j])
        row: dict[str, Any] = {"arm": "match", "r": similar[j], "margin": similar[j] - second, "p": found.p[i, j],
                               "mutual": bool(mutual[i, j]), "named": name in named}  # fmt: skip
        for side, one, n_layers in zip("ab", ids, layers, strict=True):
            row |= {f"layer_{side}": one.layer, f"head_{side}": one.head, f"depth_{side}": (one.layer + 0.5) / n_layers}
        rows.append(row)
    return pd.DataFrame(rows)
