"""Splits: groups stay whole, classes stay balanced, leaks show the two rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency

from interp.stats import group_sizes
from probes.splits import RowSplitWarning, check_leaks, group_split, row_split, unite_groups


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(24, 60), st.floats(0.3, 0.7), st.sampled_from([0.25, "crossed"]))
def test_no_group_is_on_two_sides_and_each_side_has_its_share_of_groups(
    seed: int, n_groups: int, rate: float, test_share
) -> None:
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), rng.integers(1, 30, n_groups))
    labels = (rng.random(n_groups) < rate)[groups].astype(int)
    if min(len(np.unique(groups[labels == c])) for c in (0, 1)) < 4:
        return
    split = group_split(labels, groups=groups, n_folds=5, test_share=test_share, seed=seed)
    assert all(len(np.unique(split.fold_of[groups == g])) == 1 for g in range(n_groups))
    per_fold = [len(np.unique(groups[rows])) for rows in split.strata()]
    if split.is_crossed:
        assert not split.is_test.any() and max(per_fold) - min(per_fold) <= 1
    else:
        assert per_fold[0] == round(0.25 * n_groups) and max(per_fold[1:]) - min(per_fold[1:]) <= 1
    for side in (0, 1):  # groups of each label are spread as evenly as a count allows, whatever their sizes
        held = np.array([len(np.unique(groups[rows][labels[rows] == side])) for rows in split.strata()])
        due = np.array(per_fold) * len(np.unique(groups[labels == side])) / n_groups
        assert (np.abs(held - due) < 2).all()


@pytest.mark.parametrize("n_groups", [8, 12, 20])
def test_the_size_of_a_group_does_not_decide_whether_it_is_tested(n_groups: int) -> None:
    sizes = np.array(group_sizes(n_groups, 8, equal=False))
    groups = np.repeat(np.arange(n_groups), sizes)
    labels = (np.arange(n_groups) % 2)[groups]
    splits = [group_split(labels, groups=groups, test_share=0.25, n_folds=3, seed=seed) for seed in range(200)]
    tested = np.array([np.isin(np.arange(n_groups), groups[split.is_test]) for split in splits])
    assert (tested.sum(axis=1) == round(0.25 * n_groups)).all()
    small, large = tested[:, : n_groups // 2].mean(), tested[:, n_groups // 2 :].mean()
    assert abs(small - large) < 0.2  # sizes are sorted: large groups first would give 0 and 0.5


def test_labels_that_change_places_inside_a_fold_would_have_been_split_the_same_way() -> None:
    # the condition under which permutation inside folds is exact: P(split | labels) = P(split | labels exchanged)
    labels = np.array([1, 1, 1, 0, 0, 0, 0, 0])
    exchanged = labels[[3, 1, 2, 0, 4, 5, 6, 7]]
    counts = {}
    for which, y in enumerate((labels, exchanged)):
        for seed in range(4000):
            fold_of = group_split(y, groups=np.arange(8), n_folds=2, test_share=0.0, seed=seed).fold_of
            if fold_of[0] == fold_of[3]:  # they change places inside one fold
                counts.setdefault(tuple(fold_of), [0, 0])[which] += 1
    table = np.array(list(counts.values()))
    assert table.sum() > 3000 and chi2_contingency(table).pvalue > 0.001


def test_every_group_is_tested_once_below_80_groups_and_a_quarter_above() -> None:
    groups = np.repeat(np.arange(79), 2)
    split = group_split(groups % 2, groups=groups, seed=0)
    looks = split.looks()
    assert split.is_crossed and split.is_tested.all() and len(looks) == 5
    assert (np.sum([look.is_test for look in looks], axis=0) == 1).all()
    for f, look in enumerate(looks):
        assert np.array_equal(look.is_test, split.fold_of == f) and look.n_folds == 4
        assert set(look.fold_of[look.is_dev]) == {0, 1, 2, 3}
    groups = np.repeat(np.arange(80), 2)
    split = group_split(groups % 2, groups=groups, seed=0)
    assert not split.is_crossed and len(np.unique(groups[split.is_test])) == 20 and split.looks() == [split]
    assert group_split(groups % 2, groups=groups, test_share=0.0, seed=0).looks() == []


@pytest.mark.parametrize(("n_groups", "n_folds"), [(6, 3), (10, 3), (16, 4), (20, 5), (60, 5)])
def test_a_fold_holds_two_groups_of_each_class_where_that_leaves_three_folds(n_groups: int, n_folds: int) -> None:
    split = group_split(np.arange(n_groups) % 2, groups=np.arange(n_groups), seed=0)
    assert split.n_folds == n_folds


def test_large_data_is_stratified_closely_and_the_seed_decides() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(200), 5)
    labels = (rng.random(200) < 0.3)[groups].astype(int)
    a = group_split(labels, groups=groups, seed=1)
    assert np.array_equal(a.fold_of, group_split(labels, groups=groups, seed=1).fold_of)
    assert not np.array_equal(a.fold_of, group_split(labels, groups=groups, seed=2).fold_of)
    for rows in a.strata():
        assert abs(labels[rows].mean() - labels.mean()) < 0.04
    assert a.is_test.mean() == 0.25


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
        (np.arange(20) % 2, np.arange(20) // 10, "at least 3 groups, got 2 groups"),
        (np.zeros(20), np.arange(20), "at least 2 classes, got only"),
        (np.arange(20) == 3, np.arange(20), "got 20 groups, of which 1 contain True"),
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


def test_labels_of_a_data_frame_are_named_in_the_error() -> None:
    """Columns of a data frame are arrays of Python objects, whose entries are plain strings."""
    labels = np.array(["yes", "yes", "no", "no"], dtype=object)
    with pytest.raises(ValueError, match="of which 2 contain 'no'"):
        group_split(labels, groups=np.arange(4), seed=0)
