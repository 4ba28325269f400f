"""Splits: groups stay whole, classes stay balanced, leaks show the two rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.splits import RowSplitWarning, check_leaks, group_split, row_split, unite_groups


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(24, 60), st.floats(0.3, 0.7))
def test_no_group_is_on_two_sides_and_each_side_has_its_share(seed: int, n_groups: int, rate: float) -> None:
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), rng.integers(1, 8, n_groups))
    labels = (rng.random(n_groups) < rate)[groups].astype(int)
    if min(len(np.unique(groups[labels == c])) for c in (0, 1)) < 6:
        return
    split = group_split(labels, groups=groups, n_folds=5, test_share=0.25, seed=seed)
    assert all(len(np.unique(split.fold_of[groups == g])) == 1 for g in range(n_groups))
    assert set(np.unique(split.fold_of)) == {-1, 0, 1, 2, 3, 4}
    assert abs(split.is_test.mean() - 0.25) < 0.15
    assert abs(labels[split.is_test].mean() - labels.mean()) < 0.3


def test_large_data_is_stratified_closely_and_the_seed_decides() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(200), 5)
    labels = (rng.random(200) < 0.3)[groups].astype(int)
    a = group_split(labels, groups=groups, seed=1)
    assert np.array_equal(a.fold_of, group_split(labels, groups=groups, seed=1).fold_of)
    assert not np.array_equal(a.fold_of, group_split(labels, groups=groups, seed=2).fold_of)
    for rows in a.strata():
        assert abs(labels[rows].mean() - labels.mean()) < 0.03
    assert abs(a.is_test.mean() - 0.25) < 0.02


def test_groups_are_mandatory_unless_a_reason_is_given() -> None:
    labels = np.arange(40) % 2
    with pytest.raises(ValueError, match="i_know="):
        group_split(labels, groups=None, seed=0)
    split = group_split(labels, groups=None, i_know="each row is another patient", seed=0)
    assert split.reason == "each row is another patient" and split.n_groups == 40


@pytest.mark.parametrize(
    ("labels", "groups", "words"),
    [
        (np.arange(20) % 2, np.zeros(20), "at least 2 groups"),
        (np.arange(20) % 2, np.arange(20) // 5, "at least 6 groups for 5 folds and TEST, got 4"),
        (np.zeros(20), np.arange(20), "at least 2 classes, got only"),
        (np.arange(20) == 3, np.arange(20), "one class missing"),
        (np.arange(20) % 2, [None, *range(19)], "1 of 20 have none"),
    ],
)
def test_what_cannot_be_split_is_refused_in_words(labels, groups, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        group_split(labels, groups=groups, seed=0)


def test_a_row_split_of_grouped_data_warns() -> None:
    labels, groups = np.arange(60) % 2, np.arange(60) // 6
    with pytest.warns(RowSplitWarning, match="10 of 10 groups have rows on both sides"):
        split = row_split(labels, groups=groups, seed=0)
    assert np.array_equal(split.group, groups)


def test_groups_that_share_any_key_are_united_through_chains() -> None:
    template, question = ["a", "b", "c", "d", "e"], ["q1", "q1", "q2", None, None]
    context = [None, "x", "x", "y", "z"]
    assert unite_groups(template, question, context).tolist() == [0, 0, 0, 1, 2]
    assert unite_groups(template).tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="all of one length"):
        unite_groups([1, 2], [1])


def test_a_leak_shows_the_two_rows() -> None:
    labels, groups = np.arange(24) % 2, np.arange(24) // 2
    split = group_split(labels, groups=groups, n_folds=3, seed=0)
    ids = [f"row-{i}" for i in range(24)]
    check_leaks(split, ids=ids, contents=[f"text {i // 2}" for i in range(24)])  # equal inside a group is no leak
    with pytest.raises(ValueError, match="'row-3' .group 1, .* and 'row-20' .group 10,"):
        check_leaks(split, ids=ids, contents=["same" if i in (3, 20) else str(i) for i in range(24)])
    with pytest.raises(ValueError, match="same id 'row-0'"):
        check_leaks(split, ids=["row-0", "row-0", *ids[2:]], contents=None)
