"""Minimum description length of labels given activations: an online code, whole groups at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from interp.progress import parts
from interp.stats import Estimate, permutation_p, ratio_of_means
from interp.stats.check import GroupCodes, Groups, group_codes
from probes.config import CS, LEAST_PERM
from probes.null import exchange, null_labels
from probes.solver import solve
from probes.splits import Split

PORTIONS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)
LABELS_AT_ONCE = 16


@dataclass(frozen=True)
class CodeLength:
    """Bits needed to send the labels to a receiver with the activations, compared with a receiver without them.

    Attributes:
        bits:        length of the mixture code that may use the activations, mean over orders.
        prior:       length of the code that uses only the label frequencies so far, same blocks and orders.
        uniform:     n·log2(classes): length of the code that knows nothing.
        compression: prior / bits with its interval over groups; 1 means that the activations do not help.
        control:     mean compression of permuted labels;  control_hi: the largest of them.
        p:           share of permuted labels that are compressed as much.
        portions:    share of rows after each block of the first order;  block_bits: bits of each of its blocks.
    """

    bits: float
    prior: float
    uniform: float
    compression: Estimate
    control: float
    control_hi: float
    p: float
    portions: tuple[float, ...]
    block_bits: tuple[float, ...]
    n: int
    n_groups: int


def mdl(
    feats: Float[Tensor, "example d_feature"],
    labels: Shaped[np.ndarray, " example"],
    *,
    groups: Groups,
    unit: Shaped[np.ndarray, " example"] | None = None,
    Cs: Sequence[float] = CS,  # noqa: N803
    portions: Sequence[float] = PORTIONS,
    n_orders: int = 3,
    n_shuffled: int = LEAST_PERM,
    seed: int = 0,
) -> CodeLength:
    """Online (prequential) code length of the labels with logistic probes, compared with the label frequencies alone.

        prior(y | prefix) = (n_y + 1/2) / (n + K/2);   probe_C(y | x, prefix): logistic probe fitted to the prefix
        L = -log2( 1/2 · prod_blocks prior + 1/2 · mean_C prod_blocks probe_C ),   compression = L_prior / L

    Groups are sent whole in a random order, so a block's end is the first end of a group at or after its portion. The
    mixture costs at most one bit more than the label frequencies alone, so that labels without signal have a
    compression of 1, whatever their shares: a code that must use the activations pays for what it overfits, and one
    that is compared with uniform labels is credited with the shares. While a prefix lacks a class, its next block is
    sent by frequencies. Prefixes, penalties and labels are rows of one batch.

    Args:
        unit: rows that move together inside a group when labels are permuted, as in `probes.sweep`.
        Cs: inverse penalties of the probes in the mixture.
        n_orders: random orders of the groups; bits are means over them.
        n_shuffled: permuted labels behind the control, 19 or more (see `probes.null` for what is permuted).
    Raises:
        ValueError: portions that do not rise to 1, one class, one group, fewer than 19 permutations.
    Source: Voita & Titov, arXiv 2003.12298, §2.2 (online code); Krichevsky & Trofimov, IEEE Trans. Inf. Theory 27
        (1981) 199 (frequencies); mixture of codes, Grünwald, *The Minimum Description Length Principle* (2007) §6.2.
    """
    if list(portions) != sorted(set(portions)) or portions[0] <= 0 or portions[-1] != 1:
        raise ValueError(f"portions: expected rising shares that end at 1, got {list(portions)}.")
    if n_shuffled < LEAST_PERM or n_orders < 1:
        raise ValueError(f"expected n_shuffled >= {LEAST_PERM} and n_orders >= 1, got {n_shuffled} and {n_orders}.")
    codes = group_codes(groups, len(labels))
    classes, y = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise ValueError("labels: expected at least 2 classes, got one. Describing it takes no bits.")
    moves = exchange(y, Split(np.zeros(len(y), dtype=int), codes.code, 1), scheme="auto", unit=unit)
    everything = np.concatenate([y[None], null_labels(y, moves, n=n_shuffled, seed=seed + 1)])
    rng, first = np.random.default_rng(seed), None
    prior = bits = np.zeros((len(everything), codes.n_groups))
    for _ in parts(range(n_orders)):
        order = _Order.of(rng.permutation(codes.n_groups), codes, portions)
        own_prior, own = _group_bits(feats, everything, len(classes), order, codes, Cs)
        prior, bits = prior + own_prior / n_orders, bits + own / n_orders
        first = (order, own[0]) if first is None else first
    assert first is not None
    ratios = prior.sum(axis=1) / bits.sum(axis=1)
    shares, blocks = first[0].blocks(first[1])
    return CodeLength(
        bits=float(bits[0].sum()),
        prior=float(prior[0].sum()),
        uniform=len(y) * log(len(classes), 2),
        compression=_ratio(prior[0], bits[0], codes),
        control=float(ratios[1:].mean()),
        control_hi=float(ratios[1:].max()),
        p=permutation_p(float(ratios[0]), ratios[1:]),
        portions=shares,
        block_bits=blocks,
        n=len(y),
        n_groups=codes.n_groups,
    )


@dataclass(frozen=True, eq=False)
class _Order:
    """One order of the groups: position of each group and block of each row."""

    position: np.ndarray
    block: np.ndarray
    group_block: np.ndarray
    cuts: tuple[int, ...]

    @classmethod
    def of(cls, position: np.ndarray, codes: GroupCodes, portions: Sequence[float]) -> _Order:
        n, ends = len(codes.code), np.cumsum(codes.sizes[np.argsort(position)]).astype(int)
        cuts = sorted({int(ends[np.searchsorted(ends, share * n - 1e-9)]) for share in portions})
        group_block = np.searchsorted(cuts, ends[position])
        return cls(position, group_block[codes.code], group_block, tuple(cuts))

    def blocks(self, per_group: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Share of rows after each block, and its bits."""
        shares = tuple(cut / self.cuts[-1] for cut in self.cuts)
        return shares, tuple(np.bincount(self.group_block, per_group, len(self.cuts)).tolist())


def _group_bits(
    feats: Tensor, labels: np.ndarray, k: int, order: _Order, codes: GroupCodes, cs: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Bits of every group under the frequencies alone, and under the mixture [label, group]."""
    onehot = np.eye(k)[labels]
    before = np.stack([onehot[:, order.block < b].sum(axis=1) for b in range(len(order.cuts))])  # block, label, class
    share = (before + 0.5) / (before.sum(axis=2, keepdims=True) + k / 2)
    prior = np.log(np.einsum("lec,elc->le", onehot, share[order.block]))
    probes = np.repeat(prior[None], len(cs), axis=0)
    for start in parts(range(0, len(labels), LABELS_AT_ONCE)):
        part = slice(start, start + LABELS_AT_ONCE)
        _fill(probes[:, part], feats, labels[part], k, order, np.asarray((before[:, part] > 0).all(axis=2)), cs)
    every = np.concatenate([prior[None], probes])
    by_group = np.stack([codes.sums(member.T).T for member in every])  # member, label, group: log of its probability
    sequence = np.argsort(order.position)
    running = np.cumsum(by_group[:, :, sequence], axis=2)
    weights = np.log(np.r_[0.5, np.full(len(cs), 0.5 / len(cs))])[:, None, None]
    total = np.logaddexp.reduce(weights + running, axis=0)
    mixed = np.empty_like(total)
    mixed[:, sequence] = np.diff(total, axis=1, prepend=0.0)
    return -by_group[0] / log(2), -mixed / log(2)


def _fill(
    out: np.ndarray, feats: Tensor, labels: np.ndarray, k: int, order: _Order, usable: np.ndarray, cs: Sequence[float]
) -> None:
    """log p of each row under the probes of the prefix before its block, written where the prefix has every class.

    Args:
        out: [C, label, example].  usable: [block, label].
    """
    block_at, label_at = np.nonzero(usable[1:])  # the first block has no prefix
    if not len(block_at):
        return
    blocks, of = np.unique(block_at + 1, return_inverse=True)
    prefix = torch.stack([(torch.from_numpy(order.block) < int(b)).double() for b in blocks])
    onehot = torch.nn.functional.one_hot(torch.from_numpy(labels), k).transpose(1, 2).double()
    targets = (onehot[:, 1:] if k == 2 else onehot)[label_at].repeat(len(cs), 1, 1)
    set_of = torch.from_numpy(of).repeat(len(cs))
    weights = torch.tensor(cs, dtype=torch.float64).repeat_interleave(len(of))[:, None] * prefix[set_of]
    fit = solve(feats, targets, weights, scale_weights=prefix, scale_of=set_of, dtype=torch.float64)
    logits = fit.logits if k > 2 else torch.cat([torch.zeros_like(fit.logits), fit.logits], dim=1)
    gold = torch.from_numpy(labels)[label_at].repeat(len(cs), 1)[:, None]
    logp = logits.log_softmax(dim=1).gather(1, gold)[:, 0].view(len(cs), len(of), -1).numpy()
    for j, (b, label) in enumerate(zip(block_at + 1, label_at, strict=True)):
        rows = order.block == b
        out[:, label, rows] = logp[:, j, rows]


def _ratio(prior: np.ndarray, bits: np.ndarray, codes: GroupCodes) -> Estimate:
    """sum(prior)/sum(bits) over groups, each group's bits spread over its rows."""
    top, bottom = (per_group[codes.code] / codes.sizes[codes.code] for per_group in (prior, bits))
    return ratio_of_means(top, bottom, groups=codes.code).ratio
