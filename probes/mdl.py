"""Minimum description length of labels given activations: the online code, whole groups at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from interp.stats._check import Groups, group_codes
from probes.solver import solve

PORTIONS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class CodeLength:
    """Bits to send the labels to someone who has the activations.

    Attributes:
        bits:        online code length L.
        uniform:     n·log2(classes), the length without activations.
        compression: uniform / bits; 1 says that nothing was gained.
        portions:    share of rows after each block;  block_bits: bits of each block.
    """

    bits: float
    uniform: float
    compression: float
    portions: tuple[float, ...]
    block_bits: tuple[float, ...]
    n: int
    n_groups: int


def mdl(
    feats: Float[Tensor, "example d_feature"],
    labels: Shaped[np.ndarray, " example"],
    *,
    groups: Groups,
    C: float = 1.0,  # noqa: N803
    portions: Sequence[float] = PORTIONS,
    seed: int = 0,
) -> CodeLength:
    """Online (prequential) code length of the labels with a logistic probe.

        L = t_1·log2 K + sum_i -log2 p(y_{t_i+1..t_{i+1}} | probe fitted on rows 1..t_i)

    Groups are shuffled and sent whole, so a block's end is the first end of a group at or after its portion. While a
    prefix lacks a class its next block is sent with the uniform code. Prefixes are rows of weights of one batch.

    Raises:
        ValueError: portions that do not rise to 1, one class, one group.
    Source: Voita & Titov, arXiv 2003.12298, §2.2.
    """
    if list(portions) != sorted(set(portions)) or portions[0] <= 0 or portions[-1] != 1:
        raise ValueError(f"portions: expected rising shares that end at 1, got {list(portions)}.")
    codes = group_codes(groups, len(labels))
    classes, y = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise ValueError("labels: expected at least 2 classes, got one. Its description takes no bits.")
    place = np.random.default_rng(seed).permutation(codes.n_groups)[codes.code]
    order = np.argsort(place, kind="stable")
    ends = np.cumsum(np.bincount(place))
    cuts = sorted({int(ends[np.searchsorted(ends, share * len(y) - 1e-9)]) for share in portions})
    per_row = _row_bits(feats[torch.from_numpy(order)], y[order], len(classes), cuts, C)
    blocks = tuple(float(part.sum()) for part in np.split(per_row, cuts[:-1]))
    bits, uniform = float(per_row.sum()), len(y) * log(len(classes), 2)
    shares = tuple(cut / len(y) for cut in cuts)
    return CodeLength(bits, uniform, uniform / bits, shares, blocks, len(y), codes.n_groups)


def _row_bits(feats: Tensor, y: np.ndarray, k: int, cuts: Sequence[int], c: float) -> np.ndarray:
    """-log2 p of each row under the probe fitted to the cuts before it, log2 k where there is none."""
    out = np.full(len(y), log(k, 2))
    usable = [i for i, cut in enumerate(cuts[:-1]) if len(np.unique(y[:cut])) == k]
    if not usable:
        return out
    prefix = torch.stack([(torch.arange(len(y)) < cuts[i]).float() for i in usable])
    onehot = torch.nn.functional.one_hot(torch.from_numpy(y), k).T.float()
    targets = (onehot[1:] if k == 2 else onehot).expand(len(usable), -1, -1)
    fit = solve(
        feats, targets, c * prefix, scale_weights=prefix, scale_of=torch.arange(len(usable)), dtype=torch.float64
    )
    logits = fit.logits if k > 2 else torch.cat([torch.zeros_like(fit.logits), fit.logits], dim=1)
    nats = -logits.log_softmax(dim=1).gather(1, torch.from_numpy(y).expand(len(usable), 1, -1))[:, 0]
    for row, i in enumerate(usable):
        out[cuts[i] : cuts[i + 1]] = nats[row, cuts[i] : cuts[i + 1]].numpy() / log(2)
    return out
