"""Splits by group: folds, and a TEST set that is held out or crossed; shared text joins groups; a leak is an error."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from interp.remedy import remedy
from interp.stats.check import FEW_GROUPS, Groups, Values, group_codes
from interp.where import some

TEST = -1
"""Value of `Split.fold_of` for rows of the TEST set."""
HELD_OUT_SHARE = 0.25
HELD_OUT_FROM = int(FEW_GROUPS / HELD_OUT_SHARE)
"""Groups from which "auto" holds a TEST set out: below, it would hold fewer than 20 groups."""
DRAWS = 20
"""Splits of which the one with the most even numbers of rows is taken."""

TestShare: TypeAlias = float | Literal["auto", "crossed"]


class RowSplitWarning(UserWarning):
    """Rows were split one by one although groups were named."""


@dataclass(frozen=True, eq=False)
class Split:
    """Where each row goes: fold_of [example] is 0 .. n_folds-1 inside DEV, -1 in TEST.

    Attributes:
        group:      group of each row as an integer [example].
        reason:     why rows are independent, where groups=None; "" otherwise.
        is_crossed: every fold is TEST once, for what was fitted and selected on the other folds; all rows are DEV.
    """

    fold_of: np.ndarray
    group: np.ndarray
    n_folds: int
    reason: str = ""
    is_crossed: bool = False

    @property
    def is_test(self) -> np.ndarray:
        return self.fold_of == TEST

    @property
    def is_dev(self) -> np.ndarray:
        return self.fold_of != TEST

    @property
    def is_tested(self) -> np.ndarray:
        """Rows that are TEST in one of the `looks`."""
        return self.is_dev if self.is_crossed else self.is_test

    @property
    def n_groups(self) -> int:
        return len(np.unique(self.group))

    def strata(self) -> list[np.ndarray]:
        """Rows of each fold and of TEST: labels may be exchanged only inside these."""
        return [np.flatnonzero(self.fold_of == f) for f in np.unique(self.fold_of)]

    def looks(self) -> list[Split]:
        """Splits with a TEST set: this one, or where TEST is crossed one per fold, whose other folds are its DEV."""
        if not self.is_crossed:
            return [self] if self.is_test.any() else []
        out = []
        for f in range(self.n_folds):
            rest = self.fold_of - (self.fold_of > f)
            out.append(Split(np.where(self.fold_of == f, TEST, rest), self.group, self.n_folds - 1, self.reason))
        return out


def group_split(
    labels: Values,
    *,
    groups: Groups,
    i_know: str = "",
    n_folds: int = 5,
    test_share: TestShare = "auto",
    seed: int,
) -> Split:
    """Assign whole groups to folds and TEST: equal numbers of groups of each kind first, even numbers of rows second.

    The kind of a group is the set of labels that it contains. Within a kind, groups go to folds at random, whatever
    their sizes and label counts. Labels that were permuted inside a fold, or inside a group, would therefore have been
    split the same way, which makes the permutation null exact. Of 20 such splits, the one with the most even numbers of
    rows is used.

    Args:
        labels: class of each row.
        groups: independent unit of each row (template, procedure, subject). None says that rows are independent,
            and then `i_know` must say why.
        n_folds: largest number of folds; fewer if a class is in fewer than 2 n_folds groups, so that a fold holds two
            of each, but 2, or 3 where TEST is crossed.
        test_share: "crossed": every fold is TEST once, so that every group is tested; a number: this share of the
            groups is held out as TEST, 0 for none; "auto": crossed below 80 groups, else 0.25.
    Raises:
        ValueError: groups=None without a reason; too few groups, or too few that hold a class, with the counts.
    Source: restricted randomisation; AUROC inside folds, Forman & Scholz, SIGKDD Explor. 12 (2010) 49.

    Example:
        >>> groups = np.repeat(np.arange(24), 4)
        >>> split = group_split(groups % 2, groups=groups, seed=0)
        >>> split.n_folds, split.is_crossed
        (5, True)
    """
    labels = np.asarray(labels)
    if groups is None and not i_know.strip():
        raise ValueError(
            "groups=None: expected the independent unit of each row (groups=[...] or a column's name), because rows of "
            "one template in both train and test give accuracy without signal. If rows are independent, say why: "
            'i_know="each row is a different patient".'
        )
    if isinstance(test_share, str) and test_share not in ("auto", "crossed"):
        raise ValueError(f"test_share: expected 'auto', 'crossed' or a share, got {test_share!r}.")
    if n_folds < 2 or (not isinstance(test_share, str) and not 0 <= test_share < 1):
        raise ValueError(f"expected n_folds >= 2 and 0 <= test_share < 1, got {n_folds} and {test_share}.")
    codes = group_codes(groups, len(labels))
    classes, y = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"labels: expected at least 2 classes, got only {classes.tolist()!r}.")
    if test_share == "auto":
        test_share = "crossed" if codes.n_groups < HELD_OUT_FROM else HELD_OUT_SHARE
    counts, is_crossed = codes.sums(np.eye(len(classes))[y]), test_share == "crossed"
    share = 0.0 if isinstance(test_share, str) else test_share
    n_folds = _folds(counts, classes, n_folds, is_crossed, share)
    quotas = _quotas(codes.n_groups, n_folds, share)
    part = _place(counts, quotas, n_folds, is_crossed, classes, np.random.default_rng(seed))
    part[part == n_folds] = TEST
    return Split(part[codes.code], codes.code, n_folds, i_know if groups is None else "", is_crossed)


def _folds(counts: np.ndarray, classes: np.ndarray, n_folds: int, is_crossed: bool, share: float) -> int:
    """Folds such that each has two groups with each class, if that leaves enough folds."""
    holding, least = (counts > 0).sum(axis=0), 3 if is_crossed else 2
    fewest = int(holding.argmin())
    in_dev = holding[fewest] - round(share * holding[fewest])
    if min(len(counts), holding[fewest]) < least + (share > 0):
        raise ValueError(
            f"groups: expected each class in at least {least + (share > 0)} "
            f"groups{' for a TEST set next to ' + str(least) + ' folds' if share else ''}, got {len(counts)} "
            f"groups, of which {holding[fewest]} contain {classes.tolist()[fewest]!r}. Add groups that hold it, "
            "leave the class out, or " + remedy("use no TEST set ({probes.test_share:0}).")
        )
    return max(least, min(n_folds, int(in_dev // 2)))


def _quotas(n_groups: int, n_folds: int, share: float) -> np.ndarray:
    """Groups of each fold, then of TEST."""
    n_test = min(max(1, round(share * n_groups)), n_groups - n_folds) if share else 0
    folds = np.full(n_folds, (n_groups - n_test) // n_folds)
    folds[: (n_groups - n_test) % n_folds] += 1
    return np.append(folds, n_test) if share else folds


def _place(
    counts: np.ndarray,
    quotas: np.ndarray,
    n_folds: int,
    is_crossed: bool,
    classes: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Fold of each group: of the draws that leave every class in every training set, the one with the most even numbers
    of rows."""
    kinds = np.unique(counts > 0, axis=0, return_inverse=True)[1].reshape(-1)
    sizes, best, part, lacking = counts.sum(axis=1), np.inf, None, ""
    for _ in range(DRAWS):
        drawn, filled = _deal(kinds, quotas, rng), np.zeros((len(quotas), len(classes)))
        np.add.at(filled, drawn, counts)
        lacking = _lacking(filled, n_folds, is_crossed) or lacking
        uneven = float(np.square(filled.sum(axis=1) / sizes.sum() - quotas / len(counts)).sum())
        if uneven < best and not _lacking(filled, n_folds, is_crossed):
            best, part = uneven, drawn
    if part is None:
        n_parts = (counts > 0).sum(axis=0).tolist()
        raise ValueError(
            f"{lacking} one class missing in each of {DRAWS} splits of {len(counts)} groups; groups that hold "
            f"{some(f'{c!r}: {n}' for c, n in zip(classes.tolist(), n_parts, strict=True))}. Use fewer folds, leave "
            "the rare class out, or add groups that hold it."
        )
    return part


def _lacking(filled: np.ndarray, n_folds: int, is_crossed: bool) -> str:
    """Which part has no row of some class: TEST, or the remaining training rows; "" if there is none."""
    rest = filled[:n_folds].sum(axis=0) - filled[:n_folds]
    if len(filled) > n_folds and (filled[-1] == 0).any():
        return "TEST has"
    if (rest == 0).any():
        return f"the training rows of fold {int((rest == 0).any(axis=1).argmax())} have"
    inner = rest[:, None] - filled[None, :n_folds]
    inner[np.arange(n_folds), np.arange(n_folds)] = 1
    if is_crossed and (inner == 0).any():
        return "the training rows without two folds have"
    return ""


def _deal(kinds: np.ndarray, quotas: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Groups of one kind after another, each shuffled, dealt along a sequence of parts whose every stretch is even."""
    slots = np.concatenate([(np.arange(q) + rng.random()) / q for q in quotas])
    sequence = np.repeat(np.arange(len(quotas)), quotas)[np.argsort(slots, kind="stable")]
    order = np.lexsort((rng.random(len(kinds)), rng.permutation(kinds.max() + 1)[kinds]))
    part = np.empty(len(kinds), dtype=int)
    part[order] = sequence
    return part


def row_split(labels: Values, *, groups: Groups, n_folds: int = 5, test_share: float = 0.25, seed: int) -> Split:
    """Split rows one by one, to demonstrate the problem: rows of a group are on both sides.

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
    Source: union-find.
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
    """Refuse a split in which a row, or the same content, is on two sides.

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
                f"{side[0]}) and {ids[i]!r} (group {split.group[i]}, {side[1]}). "
                + remedy("Join their groups with {probes.unite:text_sha256}, or leave one out with {probes.where}.")
            )
