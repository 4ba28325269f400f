"""Probes of a sweep that can score an item without having seen its label, and what its replies are scored next to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from interp.progress import parts
from interp.where import is_missing
from probes.across import joined, look_of
from probes.controls import confound_matrix
from probes.kinds import kind_of
from probes.null import exchange, null_labels
from probes.result import RawDirection, Selected, SweepResult
from probes.source import Data
from probes.splits import Split

LEAST_OF_A_KIND = 5
"""Replies that share a value for it to be a confound of its own; rarer values are one, "other"."""
OTHER = "other"


@dataclass(frozen=True, eq=False)
class HeldOutProbe:
    """What one look at TEST scores with: the probe that it fitted on its DEV rows, and controls fitted there.

    Attributes:
        site:     the site that the look chose.
        controls: the same fit of shuffled labels, the choice of C repeated.
    """

    site: str
    direction: RawDirection
    controls: tuple[RawDirection, ...]


def held_out_probes(
    result: SweepResult, cell: Selected, data: Data, *, n_controls: int, seed: int
) -> tuple[HeldOutProbe, ...]:
    """The probe of every look at TEST, and `n_controls` probes of shuffled labels next to each.

    Labels are shuffled as in the null of the sweep (`probes.null`, scheme "auto"): inside folds, groups or units.

    Args:
        cell: one selected cell of the sweep.
        data: what was swept, with the rows of the sweep.
    Raises:
        ValueError: a sweep without a TEST set; rows of the sweep that `data` lacks; as `exchange`.

    Example:
        >>> rng, groups = np.random.default_rng(0), np.repeat(np.arange(24), 4)
        >>> feats = {"resid_post.0": rng.normal(size=(96, 8)) + 2 * (groups % 2)[:, None]}
        >>> from probes import SweepConfig, sweep
        >>> result = sweep(feats, target=groups % 2, groups=groups, kinds=["ridge"], config=SweepConfig(n_perm=99))
        >>> made = held_out_probes(result, result.pick(), feats, n_controls=3, seed=0)
        >>> len(made), made[0].site, len(made[0].controls)
        (5, 'resid_post.0', 3)
    """
    looks = result.split.looks()
    if not looks:
        raise ValueError("the sweep has no TEST set, so no item is held out. Sweep with test_share auto or crossed.")
    y = result.labels[cell.target]
    own = data if not isinstance(data, Mapping) else dict(data)
    source, order = joined(result, own, None if not isinstance(data, Mapping) else result.ids, "")
    fakes = null_labels(y, exchange(y, result.split, scheme="auto", unit=None), n=n_controls, seed=seed)
    out = []
    for i, (key, part) in parts(list(enumerate(zip(cell.looks, looks, strict=True)))):
        feats, kind = source.read(key[2], key[1])[order], kind_of(key[3])
        controls = tuple(look_of(result, kind, feats, fake, part).direction for fake in fakes)
        out.append(HeldOutProbe(key[2], result.looks[key][i].direction, controls))
    return tuple(out)


def token_scores(
    feats: Float[np.ndarray, "token d_feature"], directions: Sequence[RawDirection]
) -> Float[np.ndarray, "direction token"]:
    """score = feats · (unit · norm) + bias of every token under every direction, in float64."""
    weights = np.stack([d.unit.double().numpy() * d.norm for d in directions])
    bias = np.array([d.bias for d in directions])
    return weights @ feats.astype(np.float64).T + bias[:, None]


def split_of(result: SweepResult, rows: Int[np.ndarray, " reply"]) -> Split:
    """Fold and group of replies, those of their items.

    Args:
        rows: row of the sweep that each reply belongs to.
    """
    split = result.split
    return Split(split.fold_of[rows], split.group[rows], split.n_folds, split.reason, split.is_crossed)


def reply_confounds(
    lengths: Int[np.ndarray, " reply"], words: Mapping[str, Sequence[object]]
) -> tuple[Float[np.ndarray, "reply confound"], tuple[str, ...]]:
    """Length of the replies (tokens, and their logarithm) and columns of words as numbers, and the names of those used.

    A value that fewer than five replies share is "other"; a column with one value is left out.

    Args:
        words: name -> value of each reply: its source, its first token.

    Example:
        >>> reply_confounds(np.arange(1, 13), {"source": ["a", "b"] * 6, "first_token": ["x"] * 12})[1]
        ('length', 'source')
    """
    columns: dict[str, np.ndarray] = {}
    used: list[str] = []
    if len(np.unique(lengths)) > 1:
        columns |= {"length": lengths.astype(float), "log_length": np.log(np.maximum(lengths, 1))}
        used.append("length")
    for name, values in words.items():
        texts = np.array(["none" if is_missing(value) else str(value) for value in values], dtype=object)
        kinds, code, counts = np.unique(texts.astype(str), return_inverse=True, return_counts=True)
        merged = np.where(counts < LEAST_OF_A_KIND, OTHER, kinds)[code.reshape(-1)]
        if len(np.unique(merged)) > 1:
            columns[name] = merged
            used.append(name)
    matrix = confound_matrix(columns) if columns else np.empty((len(lengths), 0))
    return matrix, tuple(used)
