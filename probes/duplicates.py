"""Duplicate rows in two groups: a probe trained on one knows the label of the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from probes.source import Source
from probes.splits import Split


def refuse_duplicates(source: Source, sites: Sequence[str], positions: Sequence[str], split: Split) -> None:
    """Refuse rows of two groups whose activations are equal to the last bit at every site and position.

    The deepest site is checked first; only rows that agree there are compared elsewhere. Whole numbers and single
    features are not checked: they are equal by chance.

    Raises:
        ValueError: two such rows, naming them.
    """
    code = np.zeros(len(source), dtype=np.int64)
    for position in positions:
        for site in reversed(sites):
            feats = source.read(site, position)
            if feats.shape[1] < 2 or not bool((feats != feats.round()).any()):
                return
            both = np.column_stack([code, _fingerprints(feats)])
            code = np.unique(both, axis=0, return_inverse=True)[1].reshape(-1)
            if _across(code, split.group) is None:
                return
    pair = _across(code, split.group)
    if pair is None:
        return
    j, i = pair
    n = sum(len(np.unique(split.group[code == c])) > 1 for c in np.unique(code))
    raise ValueError(
        f"leak: rows {j} and {i} ({source.ids[j]!r}, {source.ids[i]!r}) have the same activations at every site, in "
        f"groups {split.group[j]} and {split.group[i]}; {n} different rows are so repeated. Join their groups with "
        "unite_groups(groups, ...), or drop the copies."
    )


def _fingerprints(feats: torch.Tensor) -> np.ndarray:
    """A number for each row that rows with the same bytes share [example]."""
    rows = np.ascontiguousarray(feats.float().cpu().numpy())
    return np.array([hash(row.tobytes()) for row in rows])


def _across(code: np.ndarray, group: np.ndarray) -> tuple[int, int] | None:
    """Two rows of one code in different groups."""
    first = np.unique(code, return_index=True)[1][code]
    there = np.flatnonzero(group[first] != group)
    return (int(first[there[0]]), int(there[0])) if len(there) else None
