"""Figures: numbers as the design writes them, refusal without interval, same bytes, every mark with its words."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest

from study import figures
from study.figures import canvas, style
from study.figures.dumbbell_rows import rows_of
from study.figures.head_grid import neat_ceiling
from study.figures.numbers import decimals, fixed, format_estimate, format_p, format_value, plural, short
from study.figures.save import pdf, png, save, svg
from tests.figure_kit import assert_files_are_clean, assert_same_bytes_elsewhere, assert_texts_are_clear
from tests.figure_tables import CELLS, DRAW, ablation_table, forest_table, head_table, pair_table


@pytest.fixture(scope="module")
def drawn() -> dict[str, figures.Drawn]:
    return {name: draw() for name, draw in DRAW.items()}


@pytest.fixture(scope="module")
def files(drawn: dict[str, figures.Drawn]) -> dict[str, dict[str, bytes]]:
    return {name: {"pdf": pdf(one), "svg": svg(one).encode(), "png": png(one, dpi=100)} for name, one in drawn.items()}


# numbers


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


# refusal


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


@pytest.mark.parametrize("column", ["p_max_t", "null_max95", "n"])
def test_a_head_map_without_its_null_is_refused(column: str) -> None:
    with pytest.raises(ValueError, match=rf"lacks column {column}"):
        figures.head_map(head_table().drop(columns=column))
    with pytest.raises(ValueError, match=rf"lacks column {column}"):
        figures.head_difference(head_table(value="diff").drop(columns=column))


def test_nan_is_refused_with_its_column_and_row() -> None:
    table = pair_table()
    table.loc[3, "hi"] = float("nan")
    with pytest.raises(ValueError, match=r"column 'hi' is NaN or infinite in 1 of 10 rows, first in row 3 \(cell"):
        figures.dumbbell(table)
    table = pair_table()
    table.loc[0:1, "p_holm"] = float("nan")
    with pytest.raises(ValueError, match="column 'p_holm' is NaN"):
        figures.dumbbell(table)


def test_contradictory_tables_are_refused() -> None:
    table = pair_table()
    with pytest.raises(ValueError, match="repeats cell, member"):
        figures.dumbbell(pd.concat([table, table.tail(1)], ignore_index=True))
    with pytest.raises(ValueError, match="hold different differences"):
        figures.dumbbell(table.assign(diff=[0.1 * i for i in range(10)], diff_lo=-2.0, diff_hi=2.0))
    with pytest.raises(ValueError, match="carry a tost_verdict"):
        figures.dumbbell(table.assign(tost_verdict="equivalent at ±.05"))
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


# order and words


def test_rows_run_by_difference_below_the_training_distribution() -> None:
    rows, notes = rows_of(pair_table())
    assert [row.cell for row in rows] == [
        "training distribution", "adversarial surface", "exception trigger", "paraphrase", "baseline",
    ]  # fmt: skip
    assert rows[1].y - rows[0].y > rows[2].y - rows[1].y  # ruled off
    assert [row.significant for row in rows] == [True, True, True, False, False]
    assert notes == {"†": "72.3 % accept rate", "‡": "65.2 % accept rate"}
    assert [row.label[-1] for row in (rows[1], rows[4])] == ["†", "‡"]


def test_captions_say_n_and_the_kind_of_interval(drawn: dict[str, figures.Drawn]) -> None:
    for name, kind in [
        ("dumbbell", "95 % Wilson; differences: 95 % paired bootstrap by procedure"),
        ("top_heads", "95 % cluster bootstrap, B = 2000"),
        ("cumulative_ablation", "95 % cluster bootstrap, B = 2000"),
        ("head_map", "95 % max-|t| null"),
        ("head_difference", "95 % max-|t| null"),
    ]:
        assert kind in drawn[name].caption, name
        assert re.search(r"n = \d+", drawn[name].caption), name
    assert "n = 112–433 items" in drawn["dumbbell"].caption
    assert "n = 96 pairs, 41 procedures" in drawn["head_map"].caption
    assert "not equivalent at ±.05" in drawn["dumbbell"].caption


def test_alt_text_states_the_finding(drawn: dict[str, figures.Drawn]) -> None:
    alt = drawn["dumbbell"].alt
    assert "adversarial surface, engaged 0.70 [0.61, 0.78] against heuristic 0.19" in alt
    assert "difference +0.51" in alt
    assert "Of 4 differences 2 have Holm p ≤ .05: 2 with the engaged member better" in alt
    assert "L4.H1 (0.62, beyond the null): rank 1" in drawn["head_map"].alt
    assert "2 of 24 heads" in drawn["head_map"].alt
    assert "L19.H17 0.62 [0.56, 0.68]" in drawn["top_heads"].alt


def test_zero_width_intervals_are_counts_with_bounds_in_the_caption() -> None:
    cells = [("always right", 36, 1.0, 0.0, 0.0001, None, None)]
    caption = figures.dumbbell(pair_table(cells, width=0)).caption
    assert "always right, engaged 36/36 (≥ 0.92); always right, heuristic 0/36 (≤ 0.08)" in caption


# marks


def test_every_row_is_one_mark_with_its_words(drawn: dict[str, figures.Drawn]) -> None:
    for name, pattern, count in [
        ("dumbbell", r"mark-\d+", len(pair_table())),
        ("dumbbell", r"mark-diff-\d+", len(CELLS)),
        ("head_map", r"mark-L\d+H\d+", len(head_table())),
        ("head_difference", r"mark-L\d+H\d+", len(head_table())),
        ("top_heads", r"mark-\d+", len(forest_table())),
        ("cumulative_ablation", r"mark-top-\d+", 6),
        ("cumulative_ablation", r"mark-random-\d+", 5),
    ]:
        found = re.findall(rf'<g id="({pattern})"><title>[^<]+</title>', svg(drawn[name]))
        assert len(found) == len(set(found)) == count, (name, pattern)
    text = svg(drawn["dumbbell"])
    assert "<title>adversarial surface, heuristic: 0.19 [0.13, 0.27], n = 112</title>" in text
    assert "Holm p &lt; 0.001</title>" in text
    assert "<title>L4.H1: 0.62, p = 0.0010</title>" in svg(drawn["head_map"])


def test_svg_is_well_formed_and_can_stand_inline_with_others(drawn: dict[str, figures.Drawn]) -> None:
    for one in drawn.values():
        text = svg(one, prefix="f1-")
        root = ElementTree.fromstring(text.encode())
        assert root.get("role") == "img"
        assert root.get("aria-label") == one.alt
        ids = [element.get("id", "") for element in root.iter() if element.get("id")]
        assert len(ids) == len(set(ids))
        assert all(name.startswith("f1-") for name in ids)
        used = set(re.findall(r"url\(#([^)]+)\)", text)) | set(re.findall(r'href="#([^"]+)"', text))
        assert used <= set(ids)
        assert "<a " not in text


def test_colours_come_from_the_tokens_alone(drawn: dict[str, figures.Drawn]) -> None:
    light = {value.lower() for value in style.tokens()["light"].values()}
    for name, one in drawn.items():
        text = re.sub(r'<g id="mark-L\d+H\d+">.*?</g>', "", svg(one), flags=re.DOTALL)  # cells: the colour map
        text = re.sub(r"<image.*?/>", "", text, flags=re.DOTALL)
        found = {colour.lower() for colour in re.findall(r"#[0-9a-fA-F]{6}\b", text)}
        extend = {style.tokens()["maps"][key][end].lower() for key in style.tokens()["maps"] for end in (0, -1)}
        assert found <= light | (extend if name.startswith("head") else set()), (name, found - light)


def test_tokens_are_those_of_the_design(shared: Path) -> None:
    assert json.loads((shared / "design" / "tokens.json").read_text()) == style.tokens()


# layout


def three_members() -> pd.DataFrame:
    """With the base model, a chance level that differs by cell, named models and unequal n."""
    table = pair_table()
    base = table[table["member"] == "engaged"].assign(member="base", value=0.5, lo=0.42, hi=0.58, n=99)
    chance = table["cell"].map({"baseline": 1.0}).fillna(0.5)
    return pd.concat([table.assign(chance=chance), base], ignore_index=True).assign(model="org/A-7B-Instruct")


def small_composite() -> figures.Drawn:
    figure = canvas.new_figure(6.75, 2.4)
    axes = canvas.axes_in(figure, 1.75, 0.5, 1.5, 1.5), canvas.axes_in(figure, 3.6, 0.5, 0.75, 1.5)
    return figures.dumbbell(pair_table(), ax=axes)


LAYOUTS: dict[str, Callable[[], figures.Drawn]] = {
    **DRAW,
    "dumbbell, column": lambda: figures.dumbbell(pair_table(), width="icml"),
    "dumbbell, text width": lambda: figures.dumbbell(pair_table(), width="neurips"),
    "one cell": lambda: figures.dumbbell(pair_table(CELLS[:1])),
    "zeros and ones": lambda: figures.dumbbell(
        pair_table([(f"{e}{h}", 36, e, h, 0.001, None, None) for e in (0.0, 1.0) for h in (0.0, 1.0)], width=0)
    ),
    "no heuristic": lambda: figures.dumbbell(pair_table([(c, n, e, None, *rest) for c, n, e, _, *rest in CELLS])),
    "some heuristic": lambda: figures.dumbbell(
        pair_table([(c, n, e, h if i % 2 else None, *rest) for i, (c, n, e, h, *rest) in enumerate(CELLS)])
    ),
    "long names": lambda: figures.dumbbell(
        pair_table([(f"{'procedural_compliance/' * 3}{i} of many words", 99, 0.6, 0.4, 0.2, None, None) for i in "ab"]),
        width="icml",
    ),
    "twenty cells": lambda: figures.dumbbell(
        pair_table([(f"cell {i}", 100, 0.5 + 0.02 * i, 0.9 - 0.04 * i, 0.01, None, None) for i in range(20)])
    ),
    "two layers": lambda: figures.head_map(head_table(2, 4, named=((0, 0),), strong={(0, 0): 0.8})),
    "hybrid": lambda: figures.head_map(head_table(16, 16, named=(), gaps=(0, 1, 2, 4, 5, 6)), n_layers=20),
    "nothing found": lambda: figures.head_difference(head_table(28, 28, value="diff", named=(), strong={})),
    "corners": lambda: figures.head_map(head_table(28, 28, named=((0, 0), (27, 27)), strong={(27, 27): -0.4})),
    "three members": lambda: figures.dumbbell(three_members()),
    "composite": lambda: small_composite(),
    "forest, wide": lambda: figures.top_heads(forest_table(), width="full", k=1),
    "many draws": lambda: figures.cumulative_ablation(ablation_table(40), width="neurips"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_no_text_leaves_the_page_or_covers_another(name: str) -> None:
    assert_texts_are_clear(LAYOUTS[name])


def test_figures_are_made_at_the_width_of_the_page() -> None:
    for width, inches in (("icml", 3.25), ("neurips", 5.5), ("full", 6.75)):
        assert figures.dumbbell(pair_table(), width=width).figure.get_size_inches()[0] == inches
        assert figures.head_map(head_table(), width=width).figure.get_size_inches()[0] == inches
    with pytest.raises(ValueError, match="'column' is not one of 'icml'"):
        figures.top_heads(forest_table(), width="column")  # pyright: ignore[reportArgumentType]


def test_bold_ink_is_for_named_heads_beyond_the_null() -> None:
    drawn = figures.head_map(head_table(2, 4, named=((0, 0), (1, 3)), strong={(0, 0): 0.8}))
    (ax, *_) = drawn.figure.axes
    weights = {text.get_text(): text.get_fontweight() for text in ax.texts}
    assert weights == {"L0.H0": "bold", "L1.H3": "normal"}
    boxes = {tuple(patch.get_xy()): patch.get_linewidth() for patch in ax.patches if not patch.get_fill()}
    assert boxes[(-0.5, -0.5)] > 2 * boxes[(2.5, 0.5)]


def test_the_label_of_the_chance_line_stays_on_one_side_of_it_in_a_narrow_panel() -> None:
    with style.styled():
        figure = canvas.new_figure(4, 3)
        ax = canvas.axes_in(figure, 2.4, 0.5, 1.2, 2.2)
        figures.dumbbell(pair_table().assign(chance=0.61, chance_label="always answers one label, all cells"), ax=ax)
        (label,) = [text for text in ax.texts if "always" in text.get_text()]
        box, axes = label.get_window_extent(figure.canvas.get_renderer()), ax.get_window_extent()
    line = ax.transData.transform((0.61, 0))[0]
    assert box.x1 <= line and box.x0 >= axes.x0 - 1
    assert "\n" in label.get_text() and label.get_text().replace("\n", " ").endswith("all cells: .61")


def test_wrapping_keeps_every_character() -> None:
    text = "procedural_compliance/exception handled-with averyveryverylongwordwithoutanybreak † end"
    for inches in (0.4, 0.8, 1.6, 9.0):
        wrapped = canvas.wrap(text, size=7, max_in=inches)
        assert wrapped.replace("\n", "").replace(" ", "") == text.replace(" ", "")
        assert canvas.text_width(wrapped, size=7) <= inches + 1e-6


def test_panels_of_a_composite_draw_on_the_axes_they_are_given() -> None:
    figure = canvas.new_figure(6.75, 4.7)
    left, right = canvas.axes_in(figure, 2.0, 3.0, 2.0, 1.4), canvas.axes_in(figure, 4.6, 3.0, 1.4, 1.4)
    below, other = canvas.axes_in(figure, 0.6, 0.4, 2.0, 1.8), canvas.axes_in(figure, 4.0, 0.4, 2.2, 1.8)
    one = figures.dumbbell(pair_table(), ax=(left, right))
    two = figures.head_difference(head_table(value="diff"), ax=below)
    three = figures.cumulative_ablation(ablation_table(), ax=other)
    assert one.figure is two.figure is three.figure is figure
    assert tuple(figure.get_size_inches()) == (6.75, 4.7)
    assert {ax.get_xlabel() for ax in (left, right)} == {"accuracy", "engaged − heuristic"}
    alone = figures.top_heads(forest_table(), ax=canvas.axes_in(canvas.new_figure(4, 2), 0.8, 0.5, 1.4, 1.2))
    assert alone.titles == figures.top_heads(forest_table()).titles


# files


def test_saved_rows_are_the_rows_passed(tmp_path: Path, drawn: dict[str, figures.Drawn]) -> None:
    for name, table in (("dumbbell", pair_table()), ("top_heads", forest_table())):
        paths = save(drawn[name], tmp_path / "deep" / name)
        assert sorted(paths) == ["csv", "pdf", "png", "svg", "txt"]
        pd.testing.assert_frame_equal(pd.read_csv(paths["csv"]), table, check_dtype=False)
        text = paths["txt"].read_text()
        assert drawn[name].caption in text and drawn[name].alt in text
    with pytest.raises(ValueError, match="Pass 'x'"):
        save(drawn["dumbbell"], tmp_path / "x.pdf")


def test_files_hold_no_date_no_type3_font_and_no_path(files: dict[str, dict[str, bytes]]) -> None:
    assert_files_are_clean(files)


def test_another_process_writes_the_same_bytes(files: dict[str, dict[str, bytes]]) -> None:
    assert_same_bytes_elsewhere(files, "tests.figure_tables")


def test_a_users_settings_change_no_byte_and_are_left_alone(files: dict[str, dict[str, bytes]]) -> None:
    import matplotlib

    with matplotlib.rc_context({"font.size": 20, "svg.hashsalt": None, "axes.grid": True, "savefig.bbox": "tight"}):
        before = dict(matplotlib.rcParams)
        one = DRAW["dumbbell"]()
        assert svg(one).encode() == files["dumbbell"]["svg"]
        assert pdf(one) == files["dumbbell"]["pdf"]
        assert dict(matplotlib.rcParams) == before


def test_a_notebook_shows_the_picture_with_its_caption(drawn: dict[str, figures.Drawn]) -> None:
    one = drawn["dumbbell"]
    assert one._repr_png_().startswith(b"\x89PNG")
    page = one._repr_html_()
    assert "<figcaption>Accuracy of engaged" in page
    assert "<script" not in page
    assert "p ≤ .05" in page
    assert "a &lt; b" in replace(one, caption="a < b")._repr_html_()
    assert one.caption in repr(one)
