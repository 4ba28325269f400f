"""Heads of one folder matched with heads of another by what they do to the same items, as the table of figure 09."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from interp.heads import HeadEffects, HeadId, Matching, match_heads
from interp.remedy import did_you_mean, remedy
from study.analyses.heads.show import sweeps
from study.rows import Row

if TYPE_CHECKING:
    import pandas as pd


def read_sweeps(where: str, *, at: str | None = None) -> dict[str, HeadEffects]:
    """Sweeps of one member at one decision site by kind, from FOLDER, or FOLDER:MEMBER where the folder holds several.

    Args:
        at: the decision site; None: the only one.
    Raises:
        ValueError: no such member or site, several and none named, or nothing there.
    """
    folder, _, member = where.partition(":") if not Path(where).exists() else (where, "", "")
    members: dict[str, dict[str, HeadEffects]] = {}
    sites: dict[str, None] = {}
    for name, _, effects in sweeps(Path(folder)):
        sites[effects.decision_site] = None
        if at in (None, effects.decision_site):
            members.setdefault(name, {})[effects.plan.kind] = effects
    if (at is None and len(sites) > 1) or (at is not None and at not in sites):
        raise ValueError(
            f"{where}: sweeps at {', '.join(sites) or 'none'}; {remedy('name one of them with {at}.')}"
            f"{did_you_mean(at or '', sites)}"
        )
    if not member and len(members) == 1:
        return next(iter(members.values()))
    if member not in members:
        raise ValueError(f"{where}: expected FOLDER:MEMBER with a member of {', '.join(sorted(members))}.")
    return members[member]


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
    head that must have a counterpart gets.

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
    match = partial(match_heads, window=window, n_permutations=n_permutations, seed=seed)
    matching = match([a[k] for k in kinds], [b[k] for k in kinds])
    own = match([a[k] for k in kinds], [control[k] for k in kinds])
    if own.names_a != own.names_b:
        raise ValueError("match: the control has different heads from A. Give another checkpoint of a's base.")
    selves = pd.DataFrame({"arm": "self", "r": np.diag(own.similarity)}).dropna()
    rows = _nearest(matching, {str(unit[0]) for effects in a.values() for unit in effects.named})
    null = pd.DataFrame({"arm": "permuted", "r": matching.maxima})
    table = pd.concat([rows, null, selves], ignore_index=True)
    shared = {
        "self_match_r": float(selves["r"].median()),
        "null_max95": matching.threshold,
        "n": matching.n,
        "n_groups": matching.n_groups,
        "checkpoint_a": names[0],
        "checkpoint_b": names[1],
        "self_label": f"{names[0]} vs {names[2]}",
    }
    return table.assign(**shared)


def _nearest(matching: Matching, named: set[str]) -> pd.DataFrame:
    """One row per head of a that has heads of b within the window."""
    import pandas as pd

    layers = [1 + max(HeadId.parse(name).layer for name in names) for names in (matching.names_a, matching.names_b)]
    mutual, rows = matching.mutual, []
    for i, name in enumerate(matching.names_a):
        similar = matching.similarity[i]
        if np.isnan(similar).all():
            continue
        j = int(np.nanargmax(similar))
        others = np.delete(similar, j)
        second = np.nanmax(others) if not np.isnan(others).all() else similar[j]
        ids = HeadId.parse(name), HeadId.parse(matching.names_b[j])
        row: Row = {
            "arm": "match",
            "r": similar[j],
            "margin": similar[j] - second,
            "p": matching.p[i, j],
            "mutual": bool(mutual[i, j]),
            "named": name in named,
        }
        for side, one, n_layers in zip("ab", ids, layers, strict=True):
            row |= {f"layer_{side}": one.layer, f"head_{side}": one.head, f"depth_{side}": (one.layer + 0.5) / n_layers}
        rows.append(row)
    return pd.DataFrame(rows)


def match_lines(table: pd.DataFrame) -> str:
    """The mutual pairs of heads that are more alike than the largest of a permutation, the most alike first."""
    beyond = table[(table["arm"] == "match") & table["mutual"].eq(True) & (table["r"] > table["null_max95"])]
    columns = ["layer_a", "head_a", "layer_b", "head_b", "r", "margin", "p", "n"]
    shown = beyond.sort_values("r", ascending=False)[columns]
    if not len(shown):
        return "No mutual pair is more alike than the largest of a permutation."
    return shown.head(12).to_string(index=False, float_format=lambda v: f"{v:.3g}")
