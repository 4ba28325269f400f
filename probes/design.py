"""The design of a sweep, before anything is fitted: split, exchanges of the null, the smallest reachable p."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, Shaped

from interp.remedy import remedy
from interp.stats import ALPHA, FewGroupsWarning, rejects
from interp.stats.check import FEW_GROUPS, Groups
from interp.where import Condition, is_missing, some
from probes.config import SweepConfig
from probes.null import Exchange, exchange, smallest_reachable_p
from probes.source import Source
from probes.splits import Split, group_split

MOVES = {
    "group": "labels of whole groups are permuted inside a fold",
    "unit": "labels of units are permuted inside a group",
    "between": "label vectors of groups of equal size are permuted inside a fold",
    "within": "labels of single rows are permuted inside a group or unit",
}


MOST_CLASSES = 20
"""Different numbers that may be classes; more are a measurement."""


class OutOfReachWarning(UserWarning):
    """The permutations cannot give a p of 0.05 for any data."""


class ExchangeableRowsWarning(UserWarning):
    """The null assumes that rows of a group are exchangeable, because no unit was named and group sizes differ."""


@dataclass(frozen=True, eq=False)
class SweepDesign:
    """Split and exchanges of a sweep.

    Attributes:
        labels:    target -> 0/1 [example]: one for two values, one against the rest for several.
        exchanges: target -> how its labels move under the null; empty if no kind has a null.
        smallest:  target -> smallest p that the permutations can give, after Holm over targets.
        n_perm:    the most permutations of any kind.
    """

    split: Split
    labels: Mapping[str, Int[np.ndarray, " example"]]
    exchanges: Mapping[str, Exchange]
    smallest: Mapping[str, float]
    n_perm: int

    @property
    def sentences(self) -> tuple[str, ...]:
        """The design in words, one sentence for each target."""
        return tuple(self._sentence(name) for name in self.labels)

    def _sentence(self, name: str) -> str:
        y, split = self.labels[name], self.split
        sides = [len(np.unique(split.group[y == side])) for side in (1, 0)]
        test = f"every group is TEST once, in {split.n_folds} folds" if split.is_crossed else "no TEST"
        if split.is_test.any():
            test = f"TEST holds out {len(np.unique(split.group[split.is_test]))} groups"
        text = f"{name!r}: {split.n_groups} groups, {sides[0]} with it and {sides[1]} without; {test}"
        if name not in self.exchanges:
            return f"{text}; no null."
        one = self.exchanges[name]
        ways, p = one.n_ways(y), self.smallest[name]
        out = "" if rejects(p) else f": none of {ALPHA:g} can be reached, so nothing can be claimed"
        many = f"{ways:,.0f}" if ways < 1e6 else f"{ways:.0e}"
        return f"{text}; null: {MOVES[one.scheme]}, in {many} ways; the smallest possible p is {p:.2g}{out}."

    def warn(self) -> None:
        """Warn of what the design cannot show, and of what it assumes."""
        n_dev = len(np.unique(self.split.group[self.split.is_dev]))
        if n_dev < FEW_GROUPS:
            text = (
                f"{n_dev} groups (fewer than {FEW_GROUPS}) to fit and select on: intervals are wide. Judge p "
                "together with them."
            )
            warnings.warn(text, FewGroupsWarning, stacklevel=4)
        for name, one in self.exchanges.items():
            if not rejects(self.smallest[name]):
                remedy = f"{self._sentence(name)} Use more groups, more permutations, or another scheme."
                warnings.warn(remedy, OutOfReachWarning, stacklevel=4)
            if one.scheme == "within" and not one.has_units:
                warnings.warn(
                    f"{name!r}: the null permutes the labels of single rows inside groups. This is valid only if the "
                    "rows of a group are exchangeable. If they come in units (twins, scenarios, samples), name the "
                    "unit, or use groups of equal size.",
                    ExchangeableRowsWarning,
                    stacklevel=4,
                )


def sweep_design(
    values: Shaped[np.ndarray, " example"],
    *,
    groups: Groups,
    i_know: str = "",
    positive: object = None,
    unit: Shaped[np.ndarray, " example"] | None = None,
    config: SweepConfig,
) -> SweepDesign:
    """The split of a sweep, and how labels move under its null.

    Args:
        values: the target of each row.  groups, i_know, positive, config: as `probes.sweep`.
        unit: sub-unit of each row inside its group (twins, scenarios, samples); None if there is none.
    Raises:
        ValueError: as `group_split` and `exchange`; a missing label; no fold in which two classes could be compared.
    """
    labels = targets(values, positive)
    split = group_split(
        values, groups=groups, i_know=i_know, n_folds=config.n_folds, test_share=config.test_share, seed=config.seed
    )
    for name, y in labels.items():
        if not any(len(np.unique(y[rows])) == 2 for rows in split.strata()):
            raise ValueError(f"{name!r}: no fold holds both classes, so nothing can be compared. Use fewer folds.")
    n_perm = max(config.permutations(kind) for kind in config.table)
    moves = {n: exchange(y, split, scheme=config.scheme, unit=unit) for n, y in labels.items()} if n_perm else {}
    smallest = {n: min(1.0, len(labels) * smallest_reachable_p(one, labels[n], n_perm)) for n, one in moves.items()}
    return SweepDesign(split, labels, moves, smallest, n_perm)


def targets(values: np.ndarray, positive: object) -> dict[str, np.ndarray]:
    """0/1 labels by name: one for two values, one against the rest for several; for a named value, only that value
    against the rest.

    Raises:
        ValueError: a missing label; an unknown one; numbers or names that are not classes.
    """
    missing = [i for i, value in enumerate(values.tolist()) if is_missing(value)]
    if missing:
        raise ValueError(
            f"target: {len(missing)} of {len(values)} rows have no label, first row {missing[0]}. "
            + remedy("Leave them out with {probes.where}, or fill them in.")
        )
    names = np.unique(values).tolist()
    if positive is not None and positive not in names:
        raise ValueError(f"positive={positive!r}: not a label. Labels: {some(names)}.")
    _check_classes(values, names)
    if len(names) == 2:
        one = names[1] if positive is None else positive
        return {str(one): (values == one).astype(np.int64)}
    positives = names if positive is None else [positive]
    return {str(name): (values == name).astype(np.int64) for name in positives}


def _check_classes(values: np.ndarray, names: list[Any]) -> None:
    """Refuse values that are not classes: measurements, and names shared by hardly any rows."""
    if len(names) <= MOST_CLASSES:
        return
    if all(isinstance(name, int | float) for name in names):
        raise ValueError(
            f"target: {len(names)} different numbers, from {names[0]} to {names[-1]}, in {len(values)} rows: a "
            f"probe separates classes, and a column of numbers may have at most {MOST_CLASSES}. "
            + remedy("Cut it in two with {probes.positive:>=X}, or into classes in a column of its own.")
        )
    if len(names) > len(values) / 2:
        raise ValueError(
            f"target: {len(names)} different values in {len(values)} rows ({some(names)}): names of rows, not classes. "
            + remedy("Name a column that several rows share, or keep the rows of a few values with {probes.where}.")
        )


def positive_of(values: np.ndarray, positive: str | None, *, option: str = "positive") -> tuple[np.ndarray, object]:
    """Labels, and the one that counts as 1, from the text of an option: a label, or a bound such as >=0.5.

    Under a bound the labels are the bound and "otherwise"; a missing value stays missing.

    Args:
        positive: None if none was named.
    Raises:
        ValueError: no such label; a bound that is not a number.
    """
    if positive is None:
        return values, None
    if positive.lstrip()[:1] in ("<", ">"):
        bound = Condition.parse(f"label{positive}")
        named = [None if is_missing(v) else positive if bound.holds(v) else "otherwise" for v in values.tolist()]
        return np.array(named, dtype=object), positive
    by_name = {str(value): value for value in dict.fromkeys(values.tolist()) if not is_missing(value)}
    if positive not in by_name:
        raise ValueError(f"{option} {positive}: not a label. Labels: {some(sorted(by_name, key=str))}.")
    return values, by_name[positive]


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
        f"leak: rows {j} and {i} ({source.ids[j]!r}, {source.ids[i]!r}) have the same activations at every site, "
        f"in groups {split.group[j]} and {split.group[i]}; {n} different rows are repeated in this way. Join "
        "their groups with unite_groups(groups, ...), or drop the copies."
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
