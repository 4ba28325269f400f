"""Scores of held-out probes along replies: pooled over what was read so far, next to the null and the confounds.

A reply is scored by the look whose TEST holds its group, so no probe saw its label. Pooling is chosen by each look on
its DEV replies, by the AUROC of the whole replies, and the null repeats the choice for every permuted label.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int

from interp.stats import Estimate, Sampling
from probes.config import CS
from probes.controls import residualise
from probes.kinds import score_labels
from probes.metrics import area, area_difference, auroc_many, layer_bands, pairs_won
from probes.null import Areas, NullSummary, summarise
from probes.rows import spread
from probes.splits import Split

POOLS = ("max", "mean", "last")
SELECTED = "selected"
FRACTIONS = tuple(k / 10 for k in range(11))
TOKENS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


@dataclass(frozen=True)
class Axis:
    """How far replies are read.

    Attributes:
        name: "fraction": shares of the tokens of each reply; "tokens": numbers of tokens, at most those that it has;
            "decision": places that each reply has of its own.
        at:   ascending places; 0 is the last token of the prompt.
        read: number of tokens read at each place, for each reply, where the replies say it themselves (decisions).
    Raises:
        ValueError: no places, places out of order, or shares outside [0, 1].

    Example:
        >>> Axis("fraction", (0, 0.25, 1)).counts(0, 10)
        [0, 3, 10]
        >>> Axis("tokens", (0, 4, 16)).counts(0, 10)
        [0, 4, 10]
    """

    name: Literal["fraction", "tokens", "decision"]
    at: tuple[float, ...]
    read: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        top = 1 if self.name == "fraction" else math.inf
        if not self.at or list(self.at) != sorted(set(self.at)) or not 0 <= self.at[0] <= self.at[-1] <= top:
            raise ValueError(f"{self.name}: expected ascending numbers from 0 to {top:g}, each once, got {self.at}.")

    def counts(self, reply: int, n_tokens: int) -> list[int]:
        """Number of tokens of a reply that are read at each place: ceil(share * n), or min(number, n)."""
        if self.read:
            return list(self.read[reply])
        if self.name == "tokens":
            return [min(int(k), n_tokens) for k in self.at]
        return [math.ceil(share * n_tokens - 1e-9) for share in self.at]


def pooled(
    scores: Float[np.ndarray, "look token"], counts: Sequence[int], pool: str
) -> Float[np.ndarray, "look place"]:
    """Scores of the first `counts` tokens of a reply as one number: their maximum, their mean, or the last of them.

    Args:
        scores: column 0 is the last token of the prompt, whose score is taken where no token has been read.
        pool:   one of `POOLS`.
    Raises:
        ValueError: an unknown pool, or more tokens than the reply has.

    Example:
        >>> pooled(np.array([[5.0, 1.0, 4.0, 2.0]]), [0, 1, 3], "max").tolist()
        [[5.0, 1.0, 4.0]]
    """
    n = scores.shape[1] - 1
    if pool not in POOLS:
        raise ValueError(f"pool {pool!r}: expected one of {', '.join(POOLS)}.")
    if max(counts) > n:
        raise ValueError(f"counts: {max(counts)} tokens of a reply that has {n}.")
    rest = scores[:, 1:]
    if pool == "max":
        rest = np.maximum.accumulate(rest, axis=1)
    elif pool == "mean":
        rest = np.cumsum(rest, axis=1) / np.arange(1, n + 1)
    return np.concatenate([scores[:, :1], rest], axis=1)[:, list(counts)]


@dataclass(frozen=True, eq=False)
class Traces:
    """Scores of one kind of probe along the replies of one member.

    Attributes:
        scores: of each reply [look, token], column 0 the last token of the prompt.
        labels: 0/1 [reply].
        split:  fold and group of each reply, those of its item in the sweep.
        null:   permuted labels [permutation, reply], of `probes.null.null_labels`; none for no null.
        controls: of each reply [control, token]: probes fitted on shuffled labels, in the look that tests the reply.
    """

    scores: Sequence[Float[np.ndarray, "look token"]]
    labels: Int[np.ndarray, " reply"]
    split: Split
    null: Int[np.ndarray, "permutation reply"]
    controls: Sequence[Float[np.ndarray, "control token"]] = ()

    @cached_property
    def everything(self) -> Int[np.ndarray, "label reply"]:
        """The real labels, then the permuted ones."""
        return np.concatenate([self.labels[None], self.null])

    @property
    def lengths(self) -> Int[np.ndarray, " reply"]:
        """Number of tokens of each reply."""
        return np.array([one.shape[1] - 1 for one in self.scores])

    def stack(self, axis: Axis, pools: Sequence[str]) -> Float[np.ndarray, "pool place look reply"]:
        """Pooled scores of every reply under every look."""
        lengths = self.lengths.tolist()
        counts = [axis.counts(k, n) for k, n in enumerate(lengths)]
        rows = [[pooled(one, read, pool) for one, read in zip(self.scores, counts, strict=True)] for pool in pools]
        return np.array(rows).transpose(0, 3, 2, 1)

    def __post_init__(self) -> None:
        n = len(self.scores)
        if not n == len(self.labels) == len(self.split.fold_of) == self.null.shape[1]:
            raise ValueError(
                f"traces: {n} replies, {len(self.labels)} labels, {len(self.split.fold_of)} rows of the split and "
                f"permuted labels of {self.null.shape[1]} rows. Give one of each for every reply."
            )


@dataclass(frozen=True, eq=False)
class Curve:
    """How well held-out scores separate the labels after each part of a reply.

    Attributes:
        pooling:   one of `POOLS`, or "selected": the one that each look chose on DEV.
        chosen:    pooling of each look.
        scores:    held-out pooled scores [place, tested reply].
        labels, groups, strata: of the tested replies; strata say which look scored them.
        areas:     AUROC of the real label (first) and of each permuted one [label, place].
        estimates: AUROC at each place with its interval.
        band_lo, band_hi: simultaneous 95 % band over the places.
        null:      of `probes.null.summarise`, places in the role of layers; None without permutations.
    """

    axis: Axis
    pooling: str
    chosen: tuple[str, ...]
    scores: Float[np.ndarray, "place tested"]
    labels: Int[np.ndarray, " tested"]
    groups: Int[np.ndarray, " tested"]
    strata: Int[np.ndarray, " tested"]
    areas: Float[np.ndarray, "label place"]
    estimates: tuple[Estimate, ...]
    band_lo: Float[np.ndarray, " place"]
    band_hi: Float[np.ndarray, " place"]
    null: NullSummary | None


def curves(
    traces: Traces,
    axis: Axis,
    *,
    pools: Sequence[str] = POOLS,
    confounds: Float[np.ndarray, "reply confound"] | None = None,
    sampling: Sampling = Sampling(),
) -> dict[str, Curve]:
    """The curve of every pooling, and of the "selected" one.

    Args:
        confounds: columns whose linear prediction is removed from the pooled scores, fitted on each look's DEV replies.
    Raises:
        ValueError: no TEST replies, one class or one group among them; as `pooled` and `residualise`.

    Example:
        >>> rng, labels = np.random.default_rng(0), np.arange(40) % 2
        >>> replies = [rng.normal(size=(1, 6)) + 3 * y * (np.arange(6) > 3) for y in labels]
        >>> split = Split(np.where(np.arange(40) < 20, 0, -1), np.arange(40), 1)
        >>> made = curves(Traces(replies, labels, split, labels[None][:0]), Axis("tokens", (0, 5)), pools=["last"])
        >>> made["last"].estimates[1].value > 0.9
        True
    """
    looks = traces.split.looks()
    _check(traces, looks)
    stack, final = traces.stack(axis, pools), traces.stack(Axis("fraction", (1.0,)), pools)
    if confounds is not None:
        # the whole replies are read for the choice, so they lose the confounds too
        both = _residuals(np.concatenate([stack, final], axis=1), confounds, looks)
        stack, final = both[:, :-1], both[:, -1:]
    cells = _cells(stack, final[:, 0], traces.everything, looks)
    out: dict[str, Curve] = {}
    for name in (*pools, SELECTED) if len(pools) > 1 else pools:
        own = range(len(pools)) if name == SELECTED else [pools.index(name)]
        at_place = [Areas.stack([cells[m][p] for m in own]) for p in range(len(axis.at))]
        choice = at_place[0].choice
        areas = np.stack([cell.tested(choice) for cell in at_place], axis=1)
        chosen = tuple(pools[own[int(k)]] for k in choice[:, 0])
        out[name] = _curve(traces, axis, name, chosen, stack, areas, pools, sampling)
    return out


def _check(traces: Traces, looks: Sequence[Split]) -> None:
    tested = traces.split.is_tested
    if not looks or not tested.any():
        raise ValueError(
            "no reply is of an item that was held out: the sweep has no TEST set. Sweep with test_share auto or "
            "crossed."
        )
    n_pos, n_groups = int(traces.labels[tested].sum()), len(np.unique(traces.split.group[tested]))
    if not 0 < n_pos < tested.sum() or n_groups < 2:
        raise ValueError(
            f"{int(tested.sum())} held-out replies: {n_pos} positive, in {n_groups} groups. Expected both classes and "
            "two groups or more: read more replies."
        )


def _residuals(stack: np.ndarray, confounds: np.ndarray, looks: Sequence[Split]) -> np.ndarray:
    out = np.empty_like(stack)
    for i, part in enumerate(looks):
        rows = torch.from_numpy(stack[:, :, i].reshape(-1, stack.shape[3]).T.copy())
        left = residualise(rows, confounds, part.is_dev)
        out[:, :, i] = left.numpy().T.reshape(stack.shape[0], stack.shape[1], -1)
    return out


def _cells(stack: np.ndarray, final: np.ndarray, everything: np.ndarray, looks: Sequence[Split]) -> list[list[Areas]]:
    """`Areas` of each pool at each place; what a look selects by is the AUROC of its whole DEV replies."""
    out = []
    for m in range(len(stack)):
        inner = np.stack([_auroc(final[m, i, part.is_dev], everything[:, part.is_dev]) for i, part in enumerate(looks)])
        row = []
        for p in range(stack.shape[1]):
            pairs = [_pairs(stack[m, p, i, part.is_test], everything[:, part.is_test]) for i, part in enumerate(looks)]
            won, of = (np.stack(one) for one in zip(*pairs, strict=True))
            row.append(Areas(inner[0], inner, won, of))
        out.append(row)
    return out


def _auroc(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return auroc_many(np.broadcast_to(scores, labels.shape), labels)


def _pairs(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return pairs_won(np.broadcast_to(scores, labels.shape), labels, np.zeros(len(scores)))


def _curve(
    traces: Traces,
    axis: Axis,
    name: str,
    chosen: tuple[str, ...],
    stack: np.ndarray,
    areas: np.ndarray,
    pools: Sequence[str],
    sampling: Sampling,
) -> Curve:
    split, tested = traces.split, traces.split.is_tested
    merged = np.zeros((len(axis.at), len(traces.scores)))
    for i, part in enumerate(split.looks()):
        merged[:, part.is_test] = stack[pools.index(chosen[i]), :, i][:, part.is_test]
    scores, y, groups, strata = merged[:, tested], traces.labels[tested], split.group[tested], split.fold_of[tested]
    least = [spread(areas[:, p]) for p in range(len(axis.at))]
    estimates = tuple(
        area(s, y, groups=groups, strata=strata, least_se=se) for s, se in zip(scores, least, strict=True)
    )
    if all(np.isfinite(e.value) for e in estimates):
        lo, hi = layer_bands(scores, y, groups=groups, strata=strata, least_se=least, sampling=sampling)
    else:
        lo = hi = np.full(len(axis.at), np.nan)
    null = summarise(areas, None) if len(areas) > 1 and np.isfinite(areas).all() else None
    return Curve(axis, name, chosen, scores, y, groups, strata, areas, estimates, lo, hi, null)


def control_areas(traces: Traces, curve: Curve) -> Float[np.ndarray, "control place"]:
    """AUROC of the real labels under probes that were fitted on shuffled ones, pooled as the curve is.

    A reply in which the label can be read off any direction (the label is written there) lifts these as well.
    """
    split, n = traces.split, len(traces.controls[0])
    scores = np.zeros((len(curve.axis.at), n, len(traces.controls)))
    for i, part in enumerate(split.looks()):
        for row in np.flatnonzero(part.is_test):
            one = traces.controls[int(row)]
            scores[:, :, row] = pooled(one, curve.axis.counts(int(row), one.shape[1] - 1), curve.chosen[i]).T
    tested = split.is_tested
    labels = np.broadcast_to(curve.labels, (n, len(curve.labels)))
    return np.stack([auroc_many(at[:, tested], labels, curve.strata) for at in scores], axis=1)


def confound_scores(
    confounds: Float[np.ndarray, "reply confound"], labels: Int[np.ndarray, " reply"], split: Split
) -> Float[np.ndarray, " tested"]:
    """Held-out scores of a ridge probe on the confounds alone, fitted and tested as the probe was."""
    feats, out = torch.from_numpy(confounds).float(), np.zeros(len(labels))
    for part in split.looks():
        scored = score_labels("ridge", feats, torch.from_numpy(labels[None]), part, Cs=CS)
        out[part.is_test] = scored.scores[0, part.is_test]
    return out[split.is_tested]


def over_confounds(curve: Curve, alone: Float[np.ndarray, " tested"]) -> tuple[Estimate, list[Estimate]]:
    """AUROC of the confounds alone, and at each place the AUROC of the probe minus it, paired over groups."""
    groups, strata = curve.groups, curve.strata
    gains = [area_difference(scores, alone, curve.labels, groups=groups, strata=strata) for scores in curve.scores]
    return area(alone, curve.labels, groups=groups, strata=strata), gains
