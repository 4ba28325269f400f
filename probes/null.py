"""The permutation null of a whole sweep: permuted labels through the same pipeline, every choice repeated.

Which labels are exchanged:

    group    labels are constant in a group: group labels change places inside a fold
    unit     units (twins, scenarios, samples) lie inside groups: units of a group change places, the label of a unit
             where it has one, else its whole label vector with units of the same size
    between  labels vary in a group: whole label vectors change places among groups of one size inside a fold
    within   rows change places inside a unit where units are known, else inside a group; rows that are groups by
             themselves change places with each other, inside a fold

`group` and `between` only need independent groups. `unit` also needs exchangeable units inside a group, `within` needs
exchangeable rows: if rows of a group come in units that share anything, it has too many false positives.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int, Shaped

from interp.remedy import remedy
from interp.stats import max_null_p, smallest_p
from interp.stats.check import GroupCodes, Values, choice, group_codes
from interp.where import is_missing
from probes.splits import Split

SCHEMES = ("auto", "group", "unit", "between", "within")
LEAST_MOVING, LEAST_WAYS = 0.5, 20
"""`auto` takes a scheme if this share of the rows can move, in this many ways (then p = 0.05 can be reached)."""


@dataclass(frozen=True, eq=False)
class Exchange:
    """Blocks of rows that are permuted inside strata, for one label.

    Attributes:
        scheme:  as above, never "auto".
        block:   block of each row, 0 .. n_blocks - 1 [example].
        stratum: stratum of each block [block].
        is_constant: every block has one label; then blocks of different sizes may be exchanged.
        has_units:   units inside groups are known.
    """

    scheme: str
    block: Int[np.ndarray, " example"]
    stratum: Int[np.ndarray, " block"]
    is_constant: bool
    has_units: bool = False

    def rows(self, n: int, *, seed: int) -> Iterator[Int[np.ndarray, " example"]]:
        """`n` draws of the row whose label each row takes.

        Blocks are sorted by stratum once, and each draw sorts them by (stratum, random number): the block that comes
        out in a place gives its labels to the block that stood there.
        """
        rng, order = np.random.default_rng(seed), np.argsort(self.block, kind="stable")
        sizes = np.bincount(self.block)
        first = np.cumsum(sizes) - sizes
        offset = np.zeros(len(order), dtype=int)
        if not self.is_constant:
            offset[order] = np.arange(len(order)) - np.repeat(first, sizes)
        canonical, source = np.argsort(self.stratum, kind="stable"), np.empty(len(sizes), dtype=int)
        for _ in range(n):
            source[canonical] = np.lexsort((rng.random(len(sizes)), self.stratum))
            yield order[first[source[self.block]] + offset]

    def n_ways(self, labels: Shaped[np.ndarray, " example"]) -> float:
        """Number of different labellings, at most 1e300: the product over strata of k! / (numbers of equal blocks)!."""
        from scipy.special import gammaln

        total = sum(gammaln(kinds.sum() + 1) - gammaln(kinds + 1).sum() for kinds in self._kinds(labels))
        return float(np.rint(np.exp(min(total, 690.0))))

    def moving(self, labels: Shaped[np.ndarray, " example"]) -> float:
        """Share of the rows in strata whose blocks are not all labelled alike."""
        sizes = np.bincount(self.block)
        n = sum(sizes[self.stratum == s].sum() for s, kinds in enumerate(self._kinds(labels)) if len(kinds) > 1)
        return float(n / len(self.block))

    def _kinds(self, labels: np.ndarray) -> Iterator[np.ndarray]:
        """For each stratum, how many of its blocks have each different label vector."""
        order = np.argsort(self.block, kind="stable")
        parts = np.split(labels[order], np.cumsum(np.bincount(self.block))[:-1])
        names = np.array([part[:1].tobytes() if self.is_constant else part.tobytes() for part in parts], dtype=object)
        _, code = np.unique(names, return_inverse=True)
        for s in range(self.stratum.max() + 1):
            yield np.bincount(np.unique(code[self.stratum == s], return_inverse=True)[1])


def exchange(
    labels: Shaped[np.ndarray, " example"], split: Split, *, scheme: str, unit: Shaped[np.ndarray, " example"] | None
) -> Exchange:
    """How the labels change places under the null, with "auto" decided by their structure.

    "auto" is "group" where labels are constant in groups. Otherwise the first of these in which at least half of the
    rows can move, in 20 ways or more: "unit" (if units are named), "between", "within"; if there is none, the one
    that moves most.

    Args:
        unit: sub-unit of each row, inside its group; None where rows of a group are not in units.
    Raises:
        ValueError: unknown scheme; a unit in two groups; labels that vary under "group"; "unit" without units; nothing
            that can move.
    Source: exchangeability blocks at two levels, Winkler et al., NeuroImage 123 (2015) 253.
    """
    choice("scheme", scheme, SCHEMES)
    units = None if unit is None else _nested(unit, split)
    if scheme == "auto":
        candidates = [_make(name, labels, split, units) for name in _candidates(labels, split, units)]
        enough = (one for one in candidates if one.moving(labels) >= LEAST_MOVING and one.n_ways(labels) >= LEAST_WAYS)
        chosen = next(enough, None) or max(candidates, key=lambda one: one.moving(labels))
    else:
        _check(scheme, labels, split, units)
        chosen = _make(scheme, labels, split, units)
    if chosen.moving(labels) == 0:
        raise ValueError(
            f"null with scheme {chosen.scheme!r}: no labels can be permuted ({split.n_groups} groups, per fold "
            f"{[len(np.unique(split.group[rows])) for rows in split.strata()]}). Use fewer folds, or another "
            "scheme."
        )
    return chosen


def smallest_reachable_p(exchange: Exchange, labels: Shaped[np.ndarray, " example"], n_perm: int) -> float:
    """The smallest p that `n_perm` permutations of these labels can give; NaN without permutations."""
    return smallest_p(n_perm, n_arrangements=int(exchange.n_ways(labels))) if n_perm else float("nan")


def nested_unit(columns: Mapping[str, Values], groups: Shaped[np.ndarray, " example"]) -> str | None:
    """The column whose values are sub-units of the groups, the finest one of several; None where there is none.

    Args:
        columns: candidates; one with a missing value is none.
    """
    best, most, n_groups = None, 0, len(np.unique(groups))
    for name, column in columns.items():
        values = np.asarray(column)
        if any(map(is_missing, values.tolist())):
            continue
        code = np.unique(values.astype(str), return_inverse=True)[1].reshape(-1)
        n_units = int(code.max()) + 1
        if n_groups < n_units < len(code) and n_units > most and _is_constant(groups, code):
            best, most = name, n_units
    return best


def _candidates(labels: np.ndarray, split: Split, units: GroupCodes | None) -> tuple[str, ...]:
    if _is_constant(labels, split.group):
        return ("group",)
    return ("between", "within") if units is None else ("unit", "between", "within")


def _check(scheme: str, labels: np.ndarray, split: Split, units: GroupCodes | None) -> None:
    if scheme == "group" and not _is_constant(labels, split.group):
        raise ValueError("scheme 'group': expected one label per group, some groups have several. Use 'auto'.")
    if scheme == "unit" and units is None:
        raise ValueError(
            remedy("scheme 'unit': expected the unit of each row ({probes.unit}), got none. Name it, or use auto.")
        )


def _make(scheme: str, labels: np.ndarray, split: Split, units: GroupCodes | None) -> Exchange:
    if scheme == "group":
        return _blocks(scheme, split.group, split.fold_of, labels, needs_size=False)
    if scheme == "between":
        return _blocks(scheme, split.group, split.fold_of, labels, needs_size=True)
    if scheme == "unit":
        assert units is not None
        return _blocks(scheme, units.code, split.group, labels, needs_size=not _is_constant(labels, units.code))
    inside = split.group if units is None else units.code
    # a row that is a group by itself has nothing to change places with, and its label would stay right in every draw
    is_alone = np.bincount(split.group)[split.group] == 1
    inside = np.where(is_alone, inside.max() + 2 + split.fold_of, inside)  # fold_of is -1 in TEST
    blocks = _blocks(scheme, np.arange(len(labels)), inside, labels, needs_size=False)
    return replace(blocks, has_units=units is not None)


def _blocks(scheme: str, block: np.ndarray, outer: np.ndarray, labels: np.ndarray, *, needs_size: bool) -> Exchange:
    """Blocks change places inside `outer` (one value for all rows of a block), where sizes count only among equals."""
    _, first, code, sizes = np.unique(block, return_index=True, return_inverse=True, return_counts=True)
    keys = np.column_stack([outer[first], sizes if needs_size else np.zeros_like(sizes)])
    stratum = np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)
    return Exchange(scheme, code.reshape(-1), stratum, not needs_size)


def _is_constant(labels: np.ndarray, block: np.ndarray) -> bool:
    _, first, code = np.unique(block, return_index=True, return_inverse=True)
    return bool((labels[first][code.reshape(-1)] == labels).all())


def _nested(unit: np.ndarray, split: Split) -> GroupCodes:
    """Units as codes, each inside one group."""
    units = group_codes(unit, len(split.group), at_least=1)
    if not _is_constant(split.group, units.code):
        torn = [u for u in range(units.n_groups) if len(np.unique(split.group[units.code == u])) > 1]
        row = int(np.flatnonzero(units.code == torn[0])[0])
        raise ValueError(
            f"unit: expected units inside groups, {len(torn)} of {units.n_groups} lie in several (first: that of row "
            f"{row}, {np.asarray(unit).tolist()[row]!r}). "
            "Join groups that share a unit with unite_groups(groups, unit)."
        )
    return units


def null_labels(labels: Shaped[np.ndarray, " example"], exchange: Exchange, *, n: int, seed: int) -> np.ndarray:
    """Labels with no information left [permutation, example]: blocks exchanged inside folds, units or groups.

    The split gives each fold its number of groups of every kind (see `group_split`), and exchanges keep it: what was
    permuted would have been split as the data were.

    Source: restricted permutation, Good (2000) §3; Winkler et al., NeuroImage 123 (2015) 253.
    """
    rows = [labels[row] for row in exchange.rows(n, seed=seed)]
    return np.stack(rows) if rows else np.empty((0, len(labels)), dtype=labels.dtype)


@dataclass(frozen=True, eq=False)
class Areas:
    """AUROC of the real label (first) and the permuted ones at one cell, or at several stacked on the last axis.

    Attributes:
        dev:   out of fold on DEV [label].
        inner: out of fold on the DEV of each look at TEST, which is what the look selects by [look, label].
        won:   pairs won among the TEST rows of each look [look, label];  pairs: all of them.
    """

    dev: np.ndarray
    inner: np.ndarray
    won: np.ndarray
    pairs: np.ndarray

    @classmethod
    def stack(cls, parts: list[Areas]) -> Areas:
        """Cells along a new last axis."""
        return cls(*(np.stack([getattr(p, name) for p in parts], axis=-1) for name in ("dev", "inner", "won", "pairs")))

    @property
    def choice(self) -> np.ndarray:
        """Cell that each look selects for each label [look, label]; of stacked cells."""
        return np.where(np.isnan(self.inner), -np.inf, self.inner).argmax(axis=-1)

    def tested(self, choice: np.ndarray | None = None) -> np.ndarray:
        """AUROC on TEST at the cells that each look selects, pairs of all looks together [label]; of stacked cells."""
        at = (self.choice if choice is None else choice)[..., None]
        won, pairs = (np.take_along_axis(part, at, axis=-1)[..., 0].sum(axis=0) for part in (self.won, self.pairs))
        with np.errstate(invalid="ignore", divide="ignore"):
            return won / pairs


@dataclass(frozen=True, eq=False)
class NullSummary:
    """What the null says of each layer, and of TEST.

    Attributes:
        mean, hi:  mean and 95 % point of each layer's own null [layer].
        max_hi:    95 % point of the maximum over layers: the line that a best layer must pass.
        p, p_max:  p of each layer alone, and adjusted for the choice among layers (step-down max-T) [layer].
        p_test:    p of the TEST score of the selected layer against the TEST scores of each permutation's selected
            layer.
        test:      those scores, the observed one first [label]; empty without TEST.
    """

    mean: np.ndarray
    hi: np.ndarray
    max_hi: float
    p: np.ndarray
    p_max: np.ndarray
    p_test: float
    test: np.ndarray
    n: int


def summarise(dev: Float[np.ndarray, "label layer"], test: Float[np.ndarray, " label"] | None) -> NullSummary | None:
    """Entry 0 is the real label, the rest the null; None without a null.

    p_j = (1 + #{null_j >= observed_j}) / (1 + P);   p_max: Westfall & Young's step-down maximum over layers

    Args:
        test: TEST scores at the layer that each label selects.
    """
    observed, null = dev[0], dev[1:]
    if not len(null):
        return None
    is_tested = test is not None and bool(np.isfinite(test).all())
    return NullSummary(
        mean=null.mean(axis=0),
        hi=np.quantile(null, 0.95, axis=0),
        max_hi=float(np.quantile(null.max(axis=1), 0.95)),
        p=np.array([max_null_p([o], null[:, j])[0] for j, o in enumerate(observed)]),
        p_max=max_null_p(observed, null, step_down=True),
        p_test=float(max_null_p([test[0]], test[1:])[0]) if test is not None and is_tested else float("nan"),
        test=np.empty(0) if test is None else test,
        n=len(null),
    )
