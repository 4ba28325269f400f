"""Splits by group: DEV folds and one TEST set, chosen once; shared text joins groups; a leak is an error."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from interp.stats._check import Groups, Values, group_codes

TEST = -1
"""Value of `Split.fold_of` for rows of the TEST set."""


class RowSplitWarning(UserWarning):
    """Rows were split one by one although a grouping of them was named."""


@dataclass(frozen=True, eq=False)
class Split:
    """Where each row goes: fold_of [example] is 0 .. n_folds-1 inside DEV, -1 in TEST.

    Attributes:
        group:  group of each row as an integer [example].
        reason: why rows are independent, where groups=None; "" otherwise.
    """

    fold_of: np.ndarray
    group: np.ndarray
    n_folds: int
    reason: str = ""

    @property
    def is_test(self) -> np.ndarray:
        return self.fold_of == TEST

    @property
    def is_dev(self) -> np.ndarray:
        return self.fold_of != TEST

    @property
    def n_groups(self) -> int:
        return len(np.unique(self.group))

    def strata(self) -> list[np.ndarray]:
        """Rows of each fold and of TEST: labels may be exchanged only inside these."""
        return [np.flatnonzero(self.fold_of == f) for f in np.unique(self.fold_of)]


def group_split(
    labels: Values,
    *,
    groups: Groups,
    i_know: str = "",
    n_folds: int = 5,
    test_share: float = 0.25,
    seed: int,
) -> Split:
    """Whole groups into TEST and n_folds DEV folds, with every class near its overall share in each.

    Groups are shuffled, then placed largest first, each where the squared error of the class counts ends smallest.

    Args:
        labels: class of each row.
        groups: independent unit of each row (template, procedure, subject). None says that rows are independent,
            and then `i_know` must say why.
        test_share: share of rows for TEST; 0 for none.
    Raises:
        ValueError: groups=None without a reason; one group; more folds than groups; a class missing from TEST or
            from the training rows of a fold, with the counts.
    Source: the greedy rule of StratifiedGroupKFold, with an unequal part for TEST.
    """
    labels = np.asarray(labels)
    if groups is None and not i_know.strip():
        raise ValueError(
            "groups=None: expected the independent unit of each row (groups=[...] or a column's name), because rows of "
            "one template in both train and test give accuracy without signal. If rows are independent, say why: "
            'i_know="each row is another patient".'
        )
    if n_folds < 2 or not 0 <= test_share < 1:
        raise ValueError(f"expected n_folds >= 2 and 0 <= test_share < 1, got {n_folds} and {test_share}.")
    codes = group_codes(groups, len(labels))
    n_parts = n_folds + (test_share > 0)
    if codes.n_groups < n_parts:
        raise ValueError(
            f"groups: expected at least {n_parts} groups for {n_folds} folds{' and TEST' if test_share else ''}, got "
            f"{codes.n_groups}. Use fewer folds, no TEST set (test_share=0), or a finer grouping that is independent."
        )
    classes, y = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"labels: expected at least 2 classes, got only {classes.tolist()!r}.")
    counts = codes.sums(np.eye(len(classes))[y])
    shares = np.full(n_parts, (1 - test_share) / n_folds)
    if test_share:
        shares[-1] = test_share
    part = _place(counts, shares, np.random.default_rng(seed))
    part[part == n_folds] = TEST
    split = Split(part[codes.code], codes.code, n_folds, i_know if groups is None else "")
    _check_classes(split, y, classes)
    return split


def _place(counts: np.ndarray, shares: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Part of each group: greedy, largest first, ties at random; no part stays empty."""
    target = shares[:, None] * counts.sum(axis=0)
    scale = np.maximum(counts.sum(axis=0), 1.0)
    order = rng.permutation(len(counts))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    filled, part = np.zeros_like(target), np.zeros(len(counts), dtype=int)
    for place, g in enumerate(order):
        error = (((filled + counts[g] - target) / scale) ** 2 - ((filled - target) / scale) ** 2).sum(axis=1)
        is_empty = filled.sum(axis=1) == 0
        if is_empty.sum() >= len(order) - place:
            error = np.where(is_empty, error, np.inf)
        best = np.flatnonzero(error <= error.min() + 1e-12)
        part[g] = rng.choice(best)
        filled[part[g]] += counts[g]
    return part


def _check_classes(split: Split, y: np.ndarray, classes: np.ndarray) -> None:
    for f in np.unique(split.fold_of):
        held = split.fold_of == f
        where, rows = ("TEST", held) if f == TEST else (f"the training rows of fold {f}", split.is_dev & ~held)
        have = np.bincount(y[rows], minlength=len(classes))
        if (have == 0).any():
            table = ", ".join(f"{name!r}: {n}" for name, n in zip(classes.tolist(), have.tolist(), strict=True))
            raise ValueError(
                f"{where} holds rows of one class missing ({table}) after splitting {split.n_groups} groups. Use fewer "
                "folds or a larger test_share, drop the rare class, or add groups that hold it."
            )


def row_split(labels: Values, *, groups: Groups, n_folds: int = 5, test_share: float = 0.25, seed: int) -> Split:
    """Rows split one by one, for showing what it does: rows of a group land on both sides.

    Warns:
        RowSplitWarning: some group has rows in training and in a held-out set (always, for useful groups).
    """
    split = group_split(
        labels, groups=None, i_know="demonstration of a row split", n_folds=n_folds, test_share=test_share, seed=seed
    )
    codes = group_codes(groups, len(split.fold_of))
    n_torn = sum(len(np.unique(split.fold_of[codes.code == g])) > 1 for g in range(codes.n_groups))
    if n_torn:
        warnings.warn(
            f"row split: {n_torn} of {codes.n_groups} groups have rows on both sides of a split, so a probe can score "
            "by recognising the group. Use group_split(groups=...) for any number that is reported.",
            RowSplitWarning,
            stacklevel=2,
        )
    return Split(split.fold_of, codes.code, n_folds, "")


def unite_groups(*keys: Sequence[Hashable | None]) -> np.ndarray:
    """Smallest grouping in which rows that share a value of any key are together: group code [example].

    A story group joins templates that share question text or context: `unite_groups(template, question, context)`.
    None joins nothing. Codes are numbered by first appearance.

    Raises:
        ValueError: no keys, or keys of different lengths.
    Source: union-find; specs of the bias task, "template-disjoint as commonly done leaks".
    """
    lengths = {len(key) for key in keys}
    if len(lengths) != 1:
        raise ValueError(f"keys: expected at least one, all of one length; got lengths {sorted(lengths)}.")
    parent = list(range(lengths.pop()))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for key in keys:
        first: dict[Hashable, int] = {}
        for i, value in enumerate(key):
            if value is not None:
                a, b = root(i), root(first.setdefault(value, i))
                parent[max(a, b)] = min(a, b)
    roots = [root(i) for i in range(len(parent))]
    number = {r: n for n, r in enumerate(dict.fromkeys(roots))}
    return np.array([number[r] for r in roots])


def check_leaks(split: Split, *, ids: Sequence[str], contents: Sequence[str] | None) -> None:
    """Refuse a split in which a row, or the same content, sits on two sides.

    Args:
        ids: row ids, unique.
        contents: text or hash of each row (the prompt's SHA-256); None where it is not known.
    Raises:
        ValueError: repeated ids, or equal contents in two groups, showing both rows.
    """
    _refuse_repeats("id", list(ids), ids, split, across="any")
    if contents is not None:
        _refuse_repeats("content", list(contents), ids, split, across="group")


def _refuse_repeats(what: str, values: list[str], ids: Sequence[str], split: Split, *, across: str) -> None:
    first: dict[str, int] = {}
    for i, value in enumerate(values):
        j = first.setdefault(value, i)
        if j != i and (across == "any" or split.group[i] != split.group[j]):
            side = ["TEST" if split.fold_of[k] == TEST else f"fold {split.fold_of[k]}" for k in (j, i)]
            raise ValueError(
                f"leak: rows {j} and {i} have the same {what} {value[:60]!r}: {ids[j]!r} (group {split.group[j]}, "
                f"{side[0]}) and {ids[i]!r} (group {split.group[i]}, {side[1]}). Join their groups with "
                "unite_groups(groups, contents), or drop one of them."
            )
