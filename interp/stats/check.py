"""Checks that every statistic makes before any arithmetic, and the types they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, SupportsIndex, TypeAlias, runtime_checkable

import numpy as np


@runtime_checkable
class HasArray(Protocol):
    """Anything numpy can read: arrays, torch tensors on the CPU, pandas columns."""

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray: ...


Values: TypeAlias = HasArray | Sequence[Any]
Groups: TypeAlias = HasArray | Sequence[Any] | None
Seed: TypeAlias = int | np.random.Generator
Real: TypeAlias = float | int

FEW_GROUPS = 20
"""Below this many groups a percentile interval is too narrow (Cameron, Gelbach & Miller 2008)."""
CHECKED_GROUPS = 6
"""Fewest groups with which tests/validity measures the coverage of the intervals."""


class FewGroupsWarning(UserWarning):
    """Fewer groups than the interval was checked with: 6, or 20 for the percentile and BCa bootstrap."""


class NoWidthWarning(UserWarning):
    """No group differs from another, so the data give no interval; it does not mean certainty."""


class UndefinedDrawsWarning(UserWarning):
    """Without some group, or on some resamples, the statistic has no value (0/0)."""


class UnstableRatioWarning(UserWarning):
    """The denominator of a ratio is not distinguishable from 0, so no ratio is given."""


@dataclass(frozen=True)
class GroupCodes:
    """Groups as integers: code[example] in 0 .. n_groups-1."""

    code: np.ndarray
    n_groups: int

    def sums(self, columns: np.ndarray) -> np.ndarray:
        """Sum of every column inside every group: [example, ...] -> [n_groups, ...], float64."""
        flat = columns.reshape(len(columns), -1).astype(np.float64, copy=False)
        if self.n_groups == len(flat) and np.array_equal(self.code, np.arange(self.n_groups)):
            return flat.reshape(columns.shape)
        order = np.argsort(self.code, kind="stable")
        starts = np.searchsorted(self.code[order], np.arange(self.n_groups))
        return np.add.reduceat(flat[order], starts, axis=0).reshape(self.n_groups, *columns.shape[1:])

    @property
    def sizes(self) -> np.ndarray:
        return np.bincount(self.code, minlength=self.n_groups).astype(np.float64)


def generator(seed: Seed) -> np.random.Generator:
    return seed if isinstance(seed, np.random.Generator) else np.random.default_rng(seed)


def numbers(name: str, values: Values, *, at_least: int = 1, ndim: int | None = 1) -> np.ndarray:
    """`values` as finite float64, or an error that names it.

    Raises:
        ValueError: not numeric, wrong number of axes, fewer than `at_least` examples, NaN or infinite.
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected numbers, got {values!r:.80}. Convert labels to 0/1 first.") from error
    if array.ndim == 0 or (ndim is not None and array.ndim != ndim):
        raise ValueError(f"{name}: expected {ndim or 'at least 1'} axis, got shape {array.shape}.")
    if len(array) < at_least:
        raise ValueError(
            f"{name}: expected at least {at_least} example(s), got {len(array)}. Drop the cell or add data."
        )
    if not np.isfinite(array).all():
        bad = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))
        raise ValueError(
            f"{name}: expected finite numbers, got NaN or infinity in {len(bad)} of {len(array)} examples "
            f"(first at index {bad[0]}). Decide what a missing value means: wrong, or excluded and counted."
        )
    return array


def binary(name: str, values: Values, *, at_least: int = 1) -> np.ndarray:
    """`values` as bool [example]; only True/False and 0/1 are taken."""
    array = numbers(name, values, at_least=at_least)
    if not np.isin(array, (0.0, 1.0)).all():
        bad = array[~np.isin(array, (0.0, 1.0))][0]
        raise ValueError(f"{name}: expected only 0/1 or True/False, got {bad:g}. Compare with the gold answer first.")
    return array.astype(bool)


def probabilities(name: str, values: Values) -> np.ndarray:
    array = numbers(name, values)
    if array.min() < 0 or array.max() > 1:
        raise ValueError(
            f"{name}: expected probabilities in [0, 1], got [{array.min():g}, {array.max():g}]. "
            "Pass the softmax or sigmoid of the logits, not the logits."
        )
    return array


def same_length(**arrays: np.ndarray) -> int:
    """The common number of examples of the named arrays."""
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        sizes = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise ValueError(f"expected the same examples in the same order, got {sizes}. Join both sides on the id first.")
    return next(iter(lengths.values()))


def group_codes(groups: Groups, n: int, *, at_least: int = 2) -> GroupCodes:
    """Integer codes of the groups; `None` where every example is independent of every other.

    Raises:
        ValueError: lengths differ, a group is missing (None or NaN), or fewer than `at_least` groups.
    """
    codes = GroupCodes(np.arange(n), n) if groups is None else _codes_of(np.asarray(groups), n)
    if codes.n_groups < at_least:
        raise ValueError(
            f"groups: expected at least {at_least} groups for an interval, got {codes.n_groups} for {n} example(s). "
            "Add groups, or choose a finer grouping that is still independent."
        )
    return codes


def _codes_of(array: np.ndarray, n: int) -> GroupCodes:
    if array.ndim != 1 or len(array) != n:
        raise ValueError(f"groups: expected one group per example, shape ({n},), got shape {array.shape}.")
    missing = np.array([g is None or g != g for g in array.tolist()], dtype=bool)
    if missing.any():
        raise ValueError(
            f"groups: expected a group for every example, {missing.sum()} of {n} have none "
            f"(first at index {np.flatnonzero(missing)[0]}). Give each of them its own id."
        )
    if array.dtype == object:
        array = np.array([repr(g) for g in array.tolist()])
    names, code = np.unique(array, return_inverse=True)
    return GroupCodes(code.reshape(-1), len(names))


def count(name: str, value: SupportsIndex, *, at_most: int | None = None) -> int:
    try:
        whole = value.__index__()
    except (AttributeError, TypeError) as error:
        raise ValueError(f"{name}: expected a whole number, got {value!r}. Pass the count, not the rate.") from error
    if whole < 0 or (at_most is not None and whole > at_most):
        limit = "" if at_most is None else f" and at most {at_most}"
        raise ValueError(f"{name}: expected at least 0{limit}, got {whole}.")
    return whole


def level(name: str, value: float) -> float:
    """A confidence level or a significance level: strictly between 0 and 1."""
    if not 0 < value < 1:
        raise ValueError(f"{name}: expected a number strictly between 0 and 1, got {value!r}. Write 0.95, not 95.")
    return float(value)


def choice(name: str, value: str, allowed: Sequence[str]) -> str:
    if value not in allowed:
        raise ValueError(f"{name}: expected one of {', '.join(allowed)}; got {value!r}.")
    return value
