"""What changes places under the null of a probe: blocks stay whole, and the number of ways is the counted one."""

from __future__ import annotations

from itertools import permutations
from math import comb

import numpy as np
import pytest

from probes import SweepConfig, sweep, sweep_design
from probes.design import ExchangeableRowsWarning, OutOfReachWarning
from probes.null import Areas, exchange, nested_unit, null_labels, summarise
from probes.splits import Split


def split_of(groups: np.ndarray, fold_of: np.ndarray | None = None) -> Split:
    fold_of = np.zeros(len(groups), dtype=int) if fold_of is None else fold_of
    return Split(fold_of, groups, int(fold_of.max()) + 1)


def ways(labels: np.ndarray, moves, n: int = 4000) -> set[tuple[int, ...]]:
    return {tuple(row) for row in null_labels(labels, moves, n=n, seed=0)}


def test_group_labels_change_places_inside_a_fold_in_as_many_ways_as_there_are() -> None:
    sizes = np.array([1, 3, 2, 2, 4, 1])
    groups, fold = np.repeat(np.arange(6), sizes), np.repeat([0, 0, 0, 1, 1, 1], sizes)
    labels = np.repeat([1, 0, 0, 1, 1, 0], sizes)
    moves = exchange(labels, split_of(groups, fold), scheme="auto", unit=None)
    found = ways(labels, moves)
    assert moves.scheme == "group" and len(found) == moves.n_ways(labels) == comb(3, 1) * comb(3, 2)
    for row in found:
        per_group = [set(np.array(row)[groups == g]) for g in range(6)]
        assert all(len(s) == 1 for s in per_group)
        assert sum(s == {1} for s in per_group[:3]) == 1 and sum(s == {1} for s in per_group[3:]) == 2


def test_units_stay_whole_inside_their_group_and_vectors_move_among_units_of_one_size() -> None:
    # group 0: units of 2, 2 and 1 rows with one label each; group 1: twins whose two rows differ
    groups = np.array([0] * 5 + [1] * 4)
    unit = np.array([0, 0, 1, 1, 2, 3, 3, 4, 4])
    constant = np.array([1, 1, 0, 0, 1, 0, 0, 1, 1])
    moves = exchange(constant, split_of(groups), scheme="unit", unit=unit)
    assert ways(constant, moves) == {
        tuple(np.array([*p[:3], *q])[unit]) for p in set(permutations([1, 0, 1])) for q in set(permutations([0, 1]))
    }
    twins = np.array([1, 1, 0, 0, 1, 0, 1, 1, 0])
    moves = exchange(twins, split_of(groups), scheme="unit", unit=unit)
    found = ways(twins, moves)
    assert all(row[4] == 1 for row in found)  # the unit of one row has none to change with
    assert {row[5:] for row in found} == {(0, 1, 1, 0), (1, 0, 0, 1)}
    assert len(found) == moves.n_ways(twins) == 4


def test_whole_label_vectors_move_among_groups_of_one_size() -> None:
    groups = np.array([0, 0, 1, 1, 2, 2, 3, 3, 3])
    labels = np.array([1, 0, 0, 0, 0, 1, 1, 0, 1])
    moves = exchange(labels, split_of(groups), scheme="between", unit=None)
    found = ways(labels, moves)
    assert found == {(*a, *b, *c, 1, 0, 1) for a, b, c in permutations([(1, 0), (0, 0), (0, 1)])}
    assert moves.moving(labels) == pytest.approx(6 / 9)


@pytest.mark.parametrize(
    ("sizes", "with_unit", "scheme"),
    [((4,) * 12, False, "between"), ((2, 3, 4, 5, 6, 7, 8, 9, 10, 11), False, "within"), ((4,) * 12, True, "unit")],
)
def test_auto_takes_units_where_named_then_groups_of_one_size_then_rows(sizes, with_unit: bool, scheme: str) -> None:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    labels = np.random.default_rng(0).integers(0, 2, len(groups))
    unit = np.arange(len(groups)) // 2 if with_unit else None
    assert exchange(labels, split_of(groups), scheme="auto", unit=unit).scheme == scheme
    # fixed twins: no vector can move, so the rows of a twin change places
    fixed = np.tile([0, 1], len(groups) // 2)
    if with_unit:
        moves = exchange(fixed, split_of(groups), scheme="auto", unit=unit)
        assert moves.scheme == "within" and moves.has_units
        assert all(np.array(row)[unit == 0].sum() == 1 for row in ways(fixed, moves, 50))


def test_rows_that_are_groups_by_themselves_change_places_inside_their_fold() -> None:
    groups = np.array([0, 0, 0, 1, 1, 1, 2, 3, 4, 5, 6, 7])
    fold = np.array([0, 0, 0, 1, 1, 1, 0, 0, 0, -1, -1, -1])
    labels = np.array([1, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0])
    moves = exchange(labels, split_of(groups, fold), scheme="within", unit=None)
    found = ways(labels, moves)
    assert len(found) == moves.n_ways(labels) == 3**4 and moves.moving(labels) == 1.0
    assert all(sum(row[part]) == 1 for row in found for part in (slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 12)))


def test_what_cannot_move_and_units_across_groups_are_refused() -> None:
    groups = np.repeat(np.arange(4), 2)
    with pytest.raises(ValueError, match="row 1, 'u1'.*unite_groups"):
        exchange(np.arange(8) % 2, split_of(groups), scheme="auto", unit=np.array(["u0", "u1", "u1", *"abcde"]))
    with pytest.raises(ValueError, match="no labels can be permuted"):
        exchange(np.repeat([0, 1, 1, 1], 2), split_of(groups, np.repeat([0, 1, 2, 3], 2)), scheme="auto", unit=None)
    with pytest.raises(ValueError, match="scheme 'group': expected one label per group"):
        exchange(np.arange(8) % 2, split_of(groups), scheme="group", unit=None)
    with pytest.raises(ValueError, match="scheme 'unit': expected the unit"):
        exchange(np.arange(8) % 2, split_of(groups), scheme="unit", unit=None)


def test_the_finest_column_inside_the_groups_is_the_unit() -> None:
    groups = np.repeat(np.arange(3), 8)
    columns = {
        "template": np.arange(24) // 4, "quad": [f"q{i}" for i in np.arange(24) // 2], "cohort": ["a", "b"] * 12,
        "id": np.arange(24), "partly": [None, *range(23)], "groups": groups,
    }  # fmt: skip
    assert nested_unit(columns, groups) == "quad"
    assert nested_unit({"cohort": columns["cohort"]}, groups) is None


def test_the_smallest_p_in_reach_is_said_before_anything_is_fitted() -> None:
    groups = np.repeat(np.arange(8), 4)
    labels = (np.arange(8) % 2)[groups]
    config = SweepConfig(kinds=("massmean",), n_perm=99)
    design = sweep_design(labels, groups=groups, config=config)
    assert design.smallest["1"] == pytest.approx(1 / 18)  # folds of 3, 3 and 2 groups: 3 · 3 · 2 ways
    assert "the smallest possible p is 0.056: none of 0.05 can be reached" in design.sentences[0]
    feats = {"resid_post.0": np.random.default_rng(0).normal(size=(32, 3)) + 9 * labels[:, None]}
    with pytest.warns(OutOfReachWarning, match="0.056"):
        result = sweep(feats, target=labels, groups=groups, config=config)
    assert "is not shown to be" in result.sentences[0] and "none below 0.056 can be reached" in result.sentences[0]
    row = result.table[(result.table.split == "test") & (result.table.metric == "auroc")].iloc[0]
    assert row.p_least == design.smallest["1"] and row.value == 1.0
    more = sweep_design(
        (np.arange(12) % 2)[np.repeat(np.arange(12), 2)], groups=np.repeat(np.arange(12), 2), config=config
    )
    assert more.smallest["1"] == 0.01 and more.sentences[0].endswith("the smallest possible p is 0.01.")


def test_rows_that_are_taken_for_exchangeable_are_said() -> None:
    sizes = np.arange(3, 15)
    groups = np.repeat(np.arange(12), sizes)
    rng = np.random.default_rng(0)
    labels, unit = rng.integers(0, 2, len(groups)), np.arange(len(groups)) // 1
    config = SweepConfig(kinds=("massmean",), n_perm=19, n_seeds=1, n_boot=50)
    feats = {"resid_post.0": rng.normal(size=(len(groups), 3))}
    with pytest.warns(ExchangeableRowsWarning, match="name the unit"):
        sweep(feats, target=labels, groups=groups, config=config)
    named = sweep(feats, target=labels, groups=groups, unit=unit, config=config)
    assert named.settings["unit"] == "given as values" and set(named.table.scheme.dropna()) == {"unit"}


def test_looks_at_test_take_the_layer_that_each_selects() -> None:
    # two looks, two labels (the real one and one permuted), two layers
    areas = Areas(
        dev=np.array([[0.6, 0.7], [0.5, 0.4]]),
        inner=np.array([[[0.9, 0.1], [0.2, 0.3]], [[0.1, 0.8], [0.6, 0.5]]]),
        won=np.array([[[3.0, 0.0], [1.0, 2.0]], [[1.0, 4.0], [0.0, 5.0]]]),
        pairs=np.array([[[4.0, 4.0], [4.0, 4.0]], [[6.0, 6.0], [6.0, 6.0]]]),
    )
    assert areas.choice.tolist() == [[0, 1], [1, 0]]
    assert areas.tested().tolist() == [(3 + 4) / 10, (2 + 0) / 10]
    null = summarise(areas.dev, areas.tested())
    assert null is not None and null.p_test == 0.5 and null.p.tolist() == [0.5, 0.5]
