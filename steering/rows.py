"""The examples of a contrast and their weights: classes, strata, groups, and random halves of the groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np

from interp.remedy import remedy

Balance = Literal["none", "classes", "strata"]
Weighting = Literal["harmonic", "uniform"]
BALANCES: tuple[Balance, ...] = ("none", "classes", "strata")
UNUSED = -1
N_PARTS = 8


class NoDirectionError(ValueError):
    """The rows hold no direction between the two classes: one of them is missing, or held-out rows contradict it."""


@dataclass(frozen=True, eq=False)
class ContrastRows:
    """The examples of a contrast, all arrays [example] in the order of the cache.

    Attributes:
        klass:   index into `classes`, -1 for an example of no class of the contrast.
        classes: names, those of `toward` first; n_toward_classes of them.
        stratum: code, -1 where the example has none (it is left out when strata balance).
        group:   code of the independent unit.
        is_fit:  the example is used for fitting; others of a class are held out.
        part:    random part of the fitting groups, 0 .. n_parts-1.
    """

    klass: np.ndarray
    classes: tuple[str, ...]
    n_toward_classes: int
    stratum: np.ndarray
    group: np.ndarray
    is_fit: np.ndarray
    part: np.ndarray
    balance: Balance
    weighting: Weighting

    @property
    def sign(self) -> np.ndarray:
        """+1 for examples of `toward`, -1 for `away_from`, 0 for the rest."""
        return np.where(self.klass < 0, 0, np.where(self.klass < self.n_toward_classes, 1, -1))

    @property
    def n_parts(self) -> int:
        return int(self.part.max(initial=-1)) + 1

    def only(self, keep: np.ndarray) -> ContrastRows:
        """The contrast on some of the fitting examples."""
        return replace(self, is_fit=self.is_fit & keep)

    def held_out(self) -> ContrastRows:
        """The contrast on the examples that were not used for fitting."""
        return replace(self, is_fit=~self.is_fit)

    def weights(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Weight of each example in the mean of either side (each sums to 1), or None where a side has no example.

            mu_side = Σ_s w_s (1/K) Σ_c mean of class c in stratum s       over the K classes of the side
            w_s ∝ 1 / (v_s+ + v_s-), v_side = Σ_c 1/n_sc / K²  (harmonic: n+ n- / (n+ + n-) for one class a side)

        balance "none" pools the classes of a side and has one stratum; "classes" weighs them equally; "strata" does so
        within each stratum, leaving out strata that lack a class.
        """
        klass = self._pooled()
        stratum = self.stratum if self.balance == "strata" else np.zeros_like(self.stratum)
        use = self.is_fit & (klass >= 0) & (stratum >= 0)
        n_sides = np.array([1, 1]) if self.balance == "none" else np.array(self._sizes())
        counts = np.zeros((stratum.max(initial=0) + 1, n_sides.sum()))
        np.add.at(counts, (stratum[use], klass[use]), 1)
        complete = (counts > 0).all(axis=1)
        if not complete.any():
            return None
        inverse = 1 / np.where(counts > 0, counts, np.inf)
        side = np.repeat([0, 1], n_sides)
        variance = sum(inverse[:, side == s].sum(axis=1) / n_sides[s] ** 2 for s in (0, 1))
        share = np.where(complete, 1.0 if self.weighting == "uniform" else 1 / np.where(complete, variance, 1.0), 0.0)
        share = share / share.sum()
        each = share[:, None] * inverse / n_sides[side]
        row = np.where(use, each[np.maximum(stratum, 0), np.maximum(klass, 0)], 0.0)
        return np.where(self.sign > 0, row, 0.0), np.where(self.sign < 0, row, 0.0)

    def n_strata(self) -> tuple[int, int]:
        """(strata with every class, strata that were left out); (0, 0) unless strata balance."""
        if self.balance != "strata":
            return 0, 0
        use = self.is_fit & (self.klass >= 0) & (self.stratum >= 0)
        classes_of = {s: set(self.klass[use & (self.stratum == s)].tolist()) for s in np.unique(self.stratum[use])}
        n_complete = sum(len(classes) == len(self.classes) for classes in classes_of.values())
        return n_complete, len(classes_of) - n_complete

    def halvings(self) -> Iterator[tuple[ContrastRows, ContrastRows]]:
        """Every way of putting half of the parts on either side, each once."""
        parts = range(self.n_parts)
        size = self.n_parts // 2
        for chosen in combinations(parts, size) if size else ():
            if 2 * size == self.n_parts and 0 not in chosen:
                continue  # its mirror image has been seen
            inside = np.isin(self.part, chosen)
            yield self.only(inside), self.only(~inside)

    def _pooled(self) -> np.ndarray:
        if self.balance != "none":
            return self.klass
        return np.where(self.sign > 0, 0, np.where(self.sign < 0, 1, UNUSED))

    def _sizes(self) -> tuple[int, int]:
        return self.n_toward_classes, len(self.classes) - self.n_toward_classes


def contrast_rows(
    labels: Sequence[object] | np.ndarray,
    *,
    toward: Sequence[str],
    away_from: Sequence[str],
    groups: Sequence[object] | np.ndarray | None,
    strata: Sequence[object] | np.ndarray | None = None,
    is_fit: Sequence[bool] | np.ndarray | None = None,
    balance: Balance = "none",
    weighting: Weighting = "harmonic",
    seed: int = 0,
) -> ContrastRows:
    """The examples of a contrast.

    Args:
        labels: class of each example, compared as text; other classes and None are left out.
        toward, away_from: class names of either side; several make a side of their mean.
        groups: independent unit of each example that has a class; None says that examples are independent.
        strata: of each example, for balance="strata"; None in it leaves the example out.
        is_fit: which examples to fit on; None is all.
    Raises:
        ValueError: a class that no fitting example has (the classes that exist are listed), the same class on both
            sides, fewer than 2 examples of a side, strata missing or not asked for, no stratum with every class.
    """
    _check_choice(toward, away_from, strata, balance, weighting)
    classes, n = (*toward, *away_from), len(labels)
    fit = np.ones(n, bool) if is_fit is None else np.asarray(is_fit, bool)
    klass = _klass(labels, classes, fit)
    rows = ContrastRows(
        klass=klass,
        classes=classes,
        n_toward_classes=len(toward),
        stratum=_codes(strata, n),
        group=_codes(groups, n, needed=klass >= 0),
        is_fit=fit,
        part=np.full(n, UNUSED),
        balance=balance,
        weighting=weighting,
    )
    rows = replace(rows, part=_parts(rows, seed))
    for side, names in ((1, toward), (-1, away_from)):
        if (n_rows := int((fit & (rows.sign == side)).sum())) < 2:
            raise ValueError(f"{'+'.join(names)}: expected at least 2 examples to fit on, got {n_rows}.")
    if rows.weights() is None:
        raise ValueError(
            f"balance='strata': none of {len(np.unique(rows.stratum))} strata holds every class {classes}."
        )
    return rows


def _check_choice(
    toward: Sequence[str], away_from: Sequence[str], strata: object, balance: Balance, weighting: Weighting
) -> None:
    if len({*toward, *away_from}) != len(toward) + len(away_from) or not toward or not away_from:
        raise ValueError(
            f"toward={list(toward)}, away_from={list(away_from)}: expected different class names on the two sides."
        )
    if balance not in BALANCES or weighting not in ("harmonic", "uniform"):
        raise ValueError(
            f"balance: expected one of {', '.join(BALANCES)} and weighting harmonic or uniform, got {balance!r}, "
            f"{weighting!r}."
        )
    if strata is None and balance == "strata":
        named = remedy("{strata}", "strata")
        raise ValueError(f"balance strata needs {named}: a column; the classes are compared within each of its values.")
    if strata is not None and balance != "strata":
        raise ValueError(f"balance={balance!r} takes no strata; leave them out, or balance over them.")


def _klass(labels: Sequence[object] | np.ndarray, classes: tuple[str, ...], fit: np.ndarray) -> np.ndarray:
    """Index of each example's class, -1 for other classes and missing labels; classes are compared as text."""
    names = np.array([None if _is_missing(v) else str(v) for v in np.asarray(labels, dtype=object)], dtype=object)
    klass = np.full(len(names), UNUSED)
    for number, name in enumerate(classes):
        klass[names == name] = number
        if not (fit & (klass == number)).any():
            raise NoDirectionError(f"class {name!r} has no example to fit on. Classes: {_counted(names[fit])}.")
    return klass


def _parts(rows: ContrastRows, seed: int) -> np.ndarray:
    """Random part of each fitting group, as equal in groups as can be; -1 for examples outside."""
    used = rows.is_fit & (rows.klass >= 0)
    groups = np.unique(rows.group[used])
    order = np.random.default_rng(seed).permutation(len(groups))
    part_of = np.full(rows.group.max(initial=0) + 1, UNUSED)
    part_of[groups[order]] = np.arange(len(groups)) % min(N_PARTS, max(len(groups), 1))
    return np.where(used, part_of[rows.group], UNUSED)


def _codes(values: Sequence[object] | np.ndarray | None, n: int, *, needed: np.ndarray | None = None) -> np.ndarray:
    """Codes of groups, which the `needed` examples must have, or of strata, which any may lack (-1)."""
    if values is None:
        return np.zeros(n, int) if needed is None else np.arange(n)
    array = np.asarray(values, dtype=object)
    if array.shape != (n,):
        raise ValueError(f"expected one group or stratum per example, shape ({n},), got {array.shape}.")
    missing = np.array([_is_missing(v) for v in array])
    if needed is not None and (lacking := missing & needed).any():
        raise ValueError(
            f"groups: {int(lacking.sum())} of {n} examples have none (first at index {lacking.argmax()}). "
            + remedy("Leave them out with {where}, or name another column with {groups}.")
        )
    _, codes = np.unique([repr(v) for v in array], return_inverse=True)
    return codes.reshape(-1) if needed is not None else np.where(missing, UNUSED, codes.reshape(-1))


def _is_missing(value: object) -> bool:
    return value is None or type(value).__name__ in ("NAType", "NaTType") or bool(value != value)


def _counted(names: np.ndarray) -> str:
    values, counts = np.unique([str(n) for n in names if n is not None], return_counts=True)
    listed = [f"{name!r} ({n})" for name, n in zip(values.tolist(), counts.tolist(), strict=True)]
    return ", ".join(listed[:12]) + (", ..." if len(listed) > 12 else "") or "none"
