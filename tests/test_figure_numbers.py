"""Figures: numbers as they are printed, and tables that no figure is drawn from."""

from __future__ import annotations

import pandas as pd
import pytest

from study import figures
from study.figures.head_grid import neat_ceiling
from study.figures.numbers import decimals, fixed, format_estimate, format_p, format_value, plural, short
from tests.figure_tables import ablation_table, forest_table, head_table, pair_table


@pytest.mark.parametrize(
    ("value", "lo", "hi", "text"),
    [
        (0.70, 0.61, 0.78, "0.70 [0.61, 0.78]"),  # w = .085, k = 8: 2 + 0
        (0.912, 0.900, 0.924, "0.912 [0.900, 0.924]"),  # w = .012, k = 1: 2 + 1
        (0.5, 0.2, 0.8, "0.5 [0.2, 0.8]"),  # w = .3: 1 + 0
        (0.5, 0.3, 0.7, "0.50 [0.30, 0.70]"),  # w = .2, k = 2: 1 + 1
        (-0.22, -0.31, -0.13, "−0.22 [−0.31, −0.13]"),
        (12.3, 9.0, 15.6, "12 [9, 16]"),  # w = 3.3: 0 + 0
        (120.0, 80.0, 160.0, "120 [80, 160]"),  # w = 40: clamped at 0
        (0.12344, 0.12343, 0.12346, "0.1234 [0.1234, 0.1235]"),  # w = 1.5e-5: clamped at 4
        (2.1e-5, 1.0e-5, 3.4e-5, "2.1e-05 [1.0e-05, 3.4e-05]"),  # 0.0000 [0.0000, 0.0000] would have no width
        (0.0, -1.0e-6, 2.0e-6, "0.0000 [−1.0e-06, 2.0e-06]"),
        (0.50001, 0.500005, 0.500012, "0.5000100 [0.5000050, 0.5000120]"),
    ],
)
def test_an_estimate_has_the_decimals_of_its_interval(value: float, lo: float, hi: float, text: str) -> None:
    assert format_estimate(value, lo, hi) == text


def test_a_difference_carries_its_sign_and_zero_does_not() -> None:
    assert format_estimate(0.51, 0.42, 0.60, signed=True) == "+0.51 [+0.42, +0.60]"
    assert format_value(-0.04, -0.12, 0.04, signed=True) == "−0.04"
    assert format_value(-0.0004, -0.05, 0.05, signed=True) == "0.00"
    assert fixed(-0.0, 2) == "0.00"
    assert (short(0.5), short(-0.05), short(1.0)) == (".50", "−.05", "1.00")
    assert [plural(w) for w in ("procedure", "story", "groups")] == ["procedures", "stories", "groups"]


def test_an_interval_of_no_width_is_a_count_with_the_exact_bound() -> None:
    assert format_estimate(1.0, 1.0, 1.0, n=36) == "36/36 (≥ 0.92)"  # 0.05^(1/36) = 0.9201
    assert format_estimate(0.0, 0.0, 0.0, n=36) == "0/36 (≤ 0.08)"
    assert format_value(1.0, 1.0, 1.0, n=36, signed=True) == "+36/36"
    assert format_estimate(0.031, 0.031, 0.031, n=36) == "0.0310 [0.0310, 0.0310]"  # no whole number of 36


@pytest.mark.parametrize(
    ("p", "text"),
    [(0.0499, "0.050"), (0.5, "0.50"), (0.00123, "0.0012"), (0.0009, "< 0.001"), (0.0, "< 0.001"), (1.0, "1.0"),
     (0.996, "1.0"), (0.001, "0.0010")],
)  # fmt: skip
def test_p_has_two_significant_digits(p: float, text: str) -> None:
    assert format_p(p) == text


def test_a_permutation_p_below_its_floor_is_an_error() -> None:
    assert format_p(1 / 200, permutations=199) == "0.0050"
    with pytest.raises(ValueError, match=r"smallest possible is 1/200"):
        format_p(0.0, permutations=199)


def test_numbers_refuse_what_is_no_estimate() -> None:
    with pytest.raises(ValueError, match="lo <= hi"):
        format_estimate(0.5, 0.6, 0.4)
    with pytest.raises(ValueError, match="finite"):
        format_estimate(float("nan"), 0.1, 0.2)
    with pytest.raises(ValueError, match="positive"):
        decimals(0.0)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        format_p(1.2)


def test_colour_limits_are_neat_and_never_below_the_values() -> None:
    assert [neat_ceiling(x) for x in (0.33, 0.4, 0.62, 7.1, 1e-4)] == pytest.approx([0.4, 0.4, 0.8, 8.0, 1e-4])


# tables that are refused


@pytest.mark.parametrize("column", ["lo", "hi", "n", "interval"])
def test_a_table_without_its_interval_is_refused_by_name(column: str) -> None:
    with pytest.raises(ValueError, match=rf"'dumbbell': the table lacks column {column};"):
        figures.dumbbell(pair_table().drop(columns=column))
    with pytest.raises(ValueError, match=rf"'top_heads': the table lacks column {column};"):
        figures.top_heads(forest_table().drop(columns=column))
    with pytest.raises(ValueError, match=rf"'cumulative_ablation': the table lacks column {column};"):
        figures.cumulative_ablation(ablation_table().drop(columns=column))


def test_all_missing_columns_are_named_at_once() -> None:
    with pytest.raises(ValueError, match="columns lo, hi, n"):
        figures.dumbbell(pair_table().drop(columns=["lo", "hi", "n"]))


@pytest.mark.parametrize("column", ["p_adjusted", "null_max95", "n"])
def test_a_head_map_without_its_null_is_refused(column: str) -> None:
    with pytest.raises(ValueError, match=rf"lacks column {column}"):
        figures.head_map(head_table().drop(columns=column))
    with pytest.raises(ValueError, match=rf"lacks column {column}"):
        figures.head_difference(head_table().drop(columns=column))


def test_nan_is_refused_with_its_column_and_row() -> None:
    table = pair_table()
    table.loc[3, "hi"] = float("nan")  # the third row of a member
    with pytest.raises(ValueError, match=r"column 'hi' is NaN or infinite in 1 of 10 rows, first in row 2 \(cell"):
        figures.dumbbell(table)
    table = pair_table()
    table.loc[2, "p_adjusted"] = float("nan")
    with pytest.raises(ValueError, match="column 'p_adjusted' is NaN"):
        figures.dumbbell(table)


def test_contradictory_tables_are_refused() -> None:
    table = pair_table()
    with pytest.raises(ValueError, match="repeats cell, member"):
        figures.dumbbell(pd.concat([table, table.tail(1)], ignore_index=True))
    with pytest.raises(ValueError, match="repeats cell, member"):
        figures.dumbbell(pd.concat([table, table[2:3].assign(value=0.1)], ignore_index=True))
    with pytest.raises(ValueError, match="have an equivalence verdict"):
        figures.dumbbell(table.assign(verdict="equivalent at ±.05", cell_role="training"))
    with pytest.raises(ValueError, match="a difference without the values of its members"):
        figures.dumbbell(table.drop(index=[0, 1]))
    with pytest.raises(ValueError, match="unknown member teacher"):
        figures.dumbbell(table.replace({"member": {"engaged": "teacher"}}))
    with pytest.raises(ValueError, match="lo > hi"):
        figures.dumbbell(table.assign(lo=2.0))
    with pytest.raises(ValueError, match="no rows"):
        figures.dumbbell(table.head(0))


def test_the_top_heads_are_not_drawn_without_random_heads() -> None:
    table = ablation_table()
    with pytest.raises(ValueError, match="no rows of arm random"):
        figures.cumulative_ablation(table[table["arm"] != "random"])


def test_heads_are_reported_where_they_were_not_chosen() -> None:
    table = forest_table()
    with pytest.raises(ValueError, match="no row of half 'report'"):
        figures.top_heads(table.assign(half="select"))
    with pytest.raises(ValueError, match="head in always= L9.H9"):
        figures.top_heads(table, always=["L9.H9"])
    select = table.assign(half="select", value=[0.01, 0.02, 0.03, 0.9], lo=-1.0, hi=1.0)
    drawn = figures.top_heads(pd.concat([table, select], ignore_index=True), k=1, always=["L22.H5"])
    # chosen by size on the other half, named before the sweep, asked for
    assert set(drawn.rows["head"]) == {"L0.H4", "L19.H17", "L22.H5"}
    assert set(drawn.rows["half"]) == {"report"}
    assert "chosen on the other half" in drawn.caption
