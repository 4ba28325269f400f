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
from study.figures.save import pdf, png, save, svg
from tests.figure_kit import assert_files_are_clean, assert_same_bytes_elsewhere, assert_texts_are_clear
from tests.figure_tables import CELLS, DRAW, ablation_table, forest_table, head_table, pair_table


@pytest.fixture(scope="module")
def drawn() -> dict[str, figures.Drawn]:
    return {name: draw() for name, draw in DRAW.items()}


@pytest.fixture(scope="module")
def files(drawn: dict[str, figures.Drawn]) -> dict[str, dict[str, bytes]]:
    return {name: {"pdf": pdf(one), "svg": svg(one).encode(), "png": png(one, dpi=100)} for name, one in drawn.items()}


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
        ("dumbbell", r"mark-\d+", 2 * len(CELLS)),
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
    """With the base model, a control that differs by cell, two named models and unequal n."""
    table = pair_table()
    base = table[table["member"] == "engaged"].assign(member="base", value=0.5, lo=0.42, hi=0.58, n=99)
    control = table["cell"].map({"baseline": 1.0}).fillna(0.5)
    both = pd.concat([table.assign(control_value=control), base], ignore_index=True)
    return both.assign(model=both["member"].map({"base": "org/A-7B"}).fillna("org/A-7B-Instruct"))


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
    "nothing found": lambda: figures.head_difference(head_table(28, 28, named=(), strong={})),
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
    forest = figures.top_heads(forest_table().assign(named=lambda rows: rows["head"].isin(["L19.H17", "L0.H4"])))
    names = {text.get_text(): text for text in forest.figure.axes[0].texts if text.get_text().startswith("L")}
    assert {name: text.get_fontweight() for name, text in names.items() if text.get_bbox_patch() is not None} == {
        "L19.H17": "bold", "L0.H4": "normal",
    }  # fmt: skip
    assert not [name for name in ("L22.H5", "L17.H3") if names[name].get_fontweight() == "bold"]
    boxes = {tuple(patch.get_xy()): patch.get_linewidth() for patch in ax.patches if not patch.get_fill()}
    assert boxes[(-0.5, -0.5)] > 2 * boxes[(2.5, 0.5)]


def test_the_label_of_the_control_line_stays_on_one_side_of_it_in_a_narrow_panel() -> None:
    with style.styled():
        figure = canvas.new_figure(4, 3)
        ax = canvas.axes_in(figure, 2.4, 0.5, 1.2, 2.2)
        figures.dumbbell(pair_table().assign(control_value=0.61, control="always answers one label, all cells"), ax=ax)
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
    two = figures.head_difference(head_table(), ax=below)
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
        rows = pd.read_csv(paths["csv"]).fillna({"cell_role": ""})  # a blank text
        pd.testing.assert_frame_equal(rows, table, check_dtype=False)
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
