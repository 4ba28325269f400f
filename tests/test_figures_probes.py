"""Probe figures: refused without interval or null, one meaning per mark, texts apart, the same bytes."""

from __future__ import annotations

import re
from collections.abc import Callable

import pandas as pd
import pytest

from study import figures
from study.figures import canvas, style
from study.figures.depth import curves_of, with_layers
from study.figures.multiples import fitted_titles, padded
from study.figures.save import pdf, png, svg
from tests.figure_kit import (
    assert_files_are_clean,
    assert_marks_have_words,
    assert_same_bytes_elsewhere,
    assert_texts_are_clear,
)
from tests.probe_figure_tables import (
    COHORTS,
    DRAW,
    KIND,
    ODD,
    cohort_table,
    cosine_table,
    layer_table,
    reliability_table,
    selectivity_table,
    transfer_table,
)

TABLES: dict[str, Callable[[], pd.DataFrame]] = {
    "probe_by_layer": layer_table,
    "selectivity": selectivity_table,
    "transfer": lambda: transfer_table(4),
    "reliability": reliability_table,
    "probe_cohorts": cohort_table,
}


@pytest.fixture(scope="module")
def drawn() -> dict[str, figures.Drawn]:
    return {name: draw() for name, draw in DRAW.items()}


@pytest.fixture(scope="module")
def files(drawn: dict[str, figures.Drawn]) -> dict[str, dict[str, bytes]]:
    return {name: {"pdf": pdf(one), "svg": svg(one).encode(), "png": png(one, dpi=100)} for name, one in drawn.items()}


def end_of(name: str, column: str) -> str:
    """The column of an end of the interval: of the value, or of the selectivity."""
    return f"selectivity_{column}" if name == "selectivity" and column in ("lo", "hi") else column


# refusal


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("column", ["lo", "hi", "n", "n_groups", "interval"])
def test_a_table_without_its_interval_is_refused_by_name(name: str, column: str) -> None:
    column = end_of(name, column)
    if (name, column) == ("selectivity", "interval"):
        return  # the column says it of `value`
    with pytest.raises(ValueError, match=rf"'{name}': the table lacks column {column};"):
        getattr(figures, name)(TABLES[name]().drop(columns=column))


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("probe_by_layer", "null_max95"), ("probe_by_layer", "null_hi"), ("selectivity", "selectivity_null_hi"),
        ("transfer", "chance"), ("reliability", "null_hi"), ("probe_cohorts", "null_lo"), ("cosines", "random_hi"),
    ],
)  # fmt: skip
def test_a_table_without_its_null_is_refused(name: str, column: str) -> None:
    table = cosine_table() if name == "cosines" else TABLES[name]()
    with pytest.raises(ValueError, match=rf"'{name}': the table lacks column {column};"):
        getattr(figures, name)(table.drop(columns=column))


@pytest.mark.parametrize("name", TABLES)
def test_nan_crossed_bounds_and_repeated_marks_are_refused(name: str) -> None:
    draw, table = getattr(figures, name), TABLES[name]()
    broken = table.copy()
    lo, hi = end_of(name, "lo"), end_of(name, "hi")
    broken.loc[2, hi] = float("nan")
    with pytest.raises(ValueError, match=f"column '{hi}' is NaN or infinite in 1 of"):
        draw(broken)
    with pytest.raises(ValueError, match="lo > hi"):
        draw(table.assign(**{lo: table[hi] + 0.001}))
    with pytest.raises(ValueError, match="repeats"):
        draw(pd.concat([table, table.tail(1)], ignore_index=True))
    with pytest.raises(ValueError, match="no rows"):
        draw(table.head(0))


def test_two_probes_are_not_drawn_as_one_line() -> None:
    table = layer_table()
    table.loc[0, "target"] = "surface tone"
    with pytest.raises(ValueError, match="column 'target' must hold one value"):
        figures.probe_by_layer(table)


def test_test_is_scored_only_where_the_layer_was_selected() -> None:
    table = layer_table({"engaged": (4, 0.3, 900)})
    moved = table.assign(
        layer=[0 if split == "test" else layer for split, layer in zip(table.split, table.layer, strict=True)]
    )
    with pytest.raises(ValueError, match="the test row of engaged is at layer 0, selected on DEV: 2"):
        figures.probe_by_layer(moved)
    with pytest.raises(ValueError, match="selected on DEV: none"):
        figures.probe_by_layer(table.assign(selected=False))


def test_a_depth_that_is_not_layer_plus_half_over_layers_is_refused() -> None:
    table = layer_table({"engaged": (6, 0.3, 900)})
    for wrong in (table["layer"] / 6, (table["layer"] + 1) / 6, table["depth"] ** 2):
        with pytest.raises(ValueError, match=r"depths of engaged are not \(layer \+ ½\)/L"):
            figures.probe_by_layer(table.assign(depth=wrong))


def test_transfer_between_widths_or_bases_is_refused() -> None:
    table = transfer_table(4)
    table.loc[table["test_checkpoint"] == "engaged", "test_d_feature"] = 5120
    with pytest.raises(ValueError, match="base has d_model 3584, engaged has 5120"):
        figures.transfer(table)
    table = transfer_table(4).assign(train_base="A-7B", test_base="B-7B")
    with pytest.raises(ValueError, match="has base A-7B, .* has B-7B"):
        figures.transfer(table)
    table = transfer_table(4)
    with pytest.raises(ValueError, match="no rows for engaged → base"):
        figures.transfer(table[(table["train_checkpoint"] == "base") | (table["test_checkpoint"] == "engaged")])


def test_one_colour_is_one_model() -> None:
    named = cohort_table().replace({"member": {"heuristic": "teacher"}})
    four = pd.concat([layer_table({name: (4, 0.1, 90)}) for name in ("engaged", "heuristic", "base", "teacher")])
    with pytest.raises(ValueError, match=r"4 checkpoints .*teacher.* at most 3"):
        figures.probe_by_layer(four)
    assert [(one.name, one.role) for one in curves_of(named, figure="x")] == [
        ("engaged", "engaged"),
        ("teacher", "heuristic"),
    ]
    assert "heuristic" not in figures.probe_cohorts(named).caption


def test_cohorts_are_read_at_one_layer_that_was_chosen_before() -> None:
    table = cohort_table()
    table.loc[1, "layer"] = 3
    with pytest.raises(ValueError, match="engaged has rows at layers 3, 22"):
        figures.probe_cohorts(table)


def test_values_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="'cosine' must lie in -1 to 1"):
        figures.cosines(cosine_table().assign(cosine=1.2))
    with pytest.raises(ValueError, match="15 pairs"):
        figures.cosines(cosine_table([(f"a{i}", "b") for i in range(15)], n_layers=2))
    with pytest.raises(ValueError, match="'p_mean' must lie in 0 to 1"):
        figures.reliability(reliability_table().assign(p_mean=lambda t: t.p_mean + 0.2))
    table = reliability_table()
    with pytest.raises(ValueError, match="repeats member"):
        figures.reliability(pd.concat([table, table[table["metric"] == "ece"]]))
    with pytest.raises(ValueError, match="'ece' is NaN"):
        figures.reliability(table[table["metric"] != "ece"])
    with pytest.raises(ValueError, match="'depth' must lie in 0 to 1"):
        figures.selectivity(selectivity_table().assign(depth=lambda t: t.layer + 1.0))
    cosine = cosine_table().assign(lo=-1.0, hi=1.0)
    with pytest.raises(ValueError, match="lacks columns n, interval"):
        figures.cosines(cosine)


# what the marks mean


def test_the_number_of_layers_follows_from_depth() -> None:
    table = layer_table({"engaged": (1, 0.3, 9), "heuristic": (48, 0.3, 9), "base": (28, 0.3, 9)}, test=False)
    found = with_layers(curves_of(table, figure="x"), table, figure="x")
    assert {one.name: one.n_layers for one in found} == {"engaged": 1, "heuristic": 48, "base": 28}


def test_equal_depths_share_integer_layers_and_others_relative_depth_with_a_ruler_each() -> None:
    same = figures.probe_by_layer(layer_table({"engaged": (28, 0.3, 900), "base": (28, 0.2, 900)})).figure.axes[0]
    apart = figures.probe_by_layer(layer_table()).figure.axes[0]
    assert (same.get_xlabel(), same.get_xlim()) == ("layer", (-0.5, 27.5))
    assert (apart.get_xlabel()[:14], apart.get_xlim()) == ("relative depth", (0, 1))
    ruler = [text for text in apart.texts if text.get_text().isdigit()]
    engaged = {int(t.get_text()): t.get_position()[0] for t in ruler if t.get_color() == style.colour("engaged")}
    heuristic = {
        int(t.get_text()): t.get_position()[0] for t in ruler if t.get_color() == style.text_colour("heuristic")
    }
    assert engaged[4] == pytest.approx(4.5 / 28) and heuristic[8] == pytest.approx(8.5 / 48)
    assert max(engaged) < 28 and max(heuristic) < 48


def test_points_stay_where_the_layers_are() -> None:
    one = figures.probe_by_layer(layer_table())
    lines = {line.get_gid(): line for line in one.figure.axes[0].lines if str(line.get_gid()).startswith("mark-oof")}
    assert lines["mark-oof-engaged"].get_xdata() == pytest.approx([(i + 0.5) / 28 for i in range(28)])
    assert lines["mark-oof-heuristic"].get_xdata() == pytest.approx([(i + 0.5) / 48 for i in range(48)])


def test_more_than_two_checkpoints_or_unequal_n_get_a_panel_each() -> None:
    members = {"engaged": (8, 0.3, 900), "heuristic": (8, 0.2, 900), "base": (8, 0.1, 900)}
    titles = lambda table: [ax.get_title("left") for ax in figures.probe_by_layer(table).figure.axes]  # noqa: E731
    assert titles(layer_table(members)) == ["engaged", "heuristic", "base"]
    assert titles(layer_table({"engaged": (8, 0.3, 900), "heuristic": (8, 0.2, 400)})) == ["engaged", "heuristic"]
    assert titles(layer_table({"engaged": (8, 0.3, 900), "heuristic": (8, 0.2, 900)})) == [""]


def faces(one: figures.Drawn, pattern: str) -> dict[str, bool]:
    """Filled or hollow by the id of the mark."""
    paper = style.colour("paper")
    return {
        str(line.get_gid()): line.get_markerfacecolor() != paper
        for ax in one.figure.axes
        for line in ax.lines
        if re.fullmatch(f"mark-{pattern}", str(line.get_gid()))
    }


def test_hollow_means_not_beyond_the_null() -> None:
    table = layer_table({"engaged": (8, 0.3, 900)})
    assert faces(figures.probe_by_layer(table), "test-.*") == {"mark-test-engaged": True}
    assert faces(figures.probe_by_layer(table.assign(null_hi=0.9)), "test-.*") == {"mark-test-engaged": False}
    assert faces(figures.probe_by_layer(table.assign(p=0.3)), "test-.*") == {"mark-test-engaged": False}  # p decides
    cohort = cohort_table(("engaged",))
    expected = {f"mark-engaged-{row.Index}": bool(row.lo > row.null_hi) for row in cohort.itertuples()}
    assert faces(figures.probe_cohorts(cohort), "engaged-.*") == expected and set(expected.values()) == {True, False}
    bins = reliability_table(("heuristic",))
    drawn = bins[bins["metric"] == "reliability"]
    inside = {f"mark-heuristic-{row.Index}": not row.lo <= row.p_mean <= row.hi for row in drawn.itertuples()}
    assert faces(figures.reliability(bins), "heuristic-.*") == inside
    signed = cosine_table(n_layers=12)
    last = signed[(signed["b"] == "steering") & (signed["a"] == "mass mean")].reset_index()
    beyond = faces(figures.cosines(signed), "cosine2-.*")
    assert beyond == {f"mark-cosine2-{i}": abs(c) > 0.0327 for i, c in enumerate(last["cosine"])}
    assert last["cosine"].min() < -0.3  # a direction against another counts like one along it


def test_selectivity_is_marked_only_where_the_interval_clears_the_null() -> None:
    table = selectivity_table(("gold label",), layers=(12, 12))
    marked = faces(figures.selectivity(table), r"gold_label-\w+-\d+")
    cleared = {f"mark-gold_label-{row.member}-{row.Index}" for row in table.itertuples() if row.selectivity_lo > 0.03}
    assert set(marked) <= cleared and marked and all(marked.values())
    assert faces(figures.selectivity(selectivity_table(scale=0.0)), r"\w+-\w+-\d+") == {}
    assert "No interval clears that null" in figures.selectivity(selectivity_table(scale=0.0)).caption


def test_cells_at_or_below_chance_have_no_colour() -> None:
    table = transfer_table(6, names=("engaged",))
    reads = {f"mark-block0-{r.train_layer}-{r.test_layer}" for r in table.itertuples() if r.lo > 0.5}
    one = figures.transfer(table)
    assert set(one.titles) == reads and 0 < len(reads) < 36
    assert figures.transfer(table.assign(value=0.3, lo=0.2, hi=0.4)).titles == {}  # beyond chance on the wrong side
    assert one.figure.axes[-1].get_ylim()[0] == 0.5  # the colour bar starts at chance


def test_the_whole_stands_first_and_cohorts_run_by_value() -> None:
    one = figures.probe_cohorts(cohort_table())
    texts = {text.get_text(): text.xy[1] for text in one.figure.axes[0].texts if text.get_text() in COHORTS}
    by_place = sorted(texts, key=lambda name: texts[name])
    assert by_place == [
        "all",
        "paraphrase",
        "adversarial surface",
        "exception trigger",
        "step deletion",
        "reordered steps",
    ]


# words


def test_captions_say_n_interval_and_null(drawn: dict[str, figures.Drawn]) -> None:
    for name, null in [
        ("probe_by_layer", "95 % of the null per layer (permuted groups, 999 draws); dotted: 95 % of its maximum"),
        ("selectivity", "95 % of control minus control"),
        ("transfer", "includes chance (.50)"),
        ("reliability", "null: a calibrated probe stays below 0.038"),
        ("probe_cohorts", "95 % of the null of each row"),
    ]:
        caption = drawn[name].caption
        assert null in caption, name
        assert re.search(r"n = \d+", caption) and "groups" in caption, name
        kind = "score intervals over groups, squared and added" if name == "selectivity" else KIND
        assert f"95 % {kind}" in caption, name
    assert "n = 900 items, 80 groups; large marks: TEST" in drawn["probe_by_layer"].caption
    assert "the null, 95 % of random directions" in drawn["cosines"].caption
    assert "has no interval" in drawn["cosines"].caption
    assert "mean to 95 %" in figures.probe_by_layer(layer_table(null_lo=False)).caption
    assert (
        "No TEST score: engaged" in figures.probe_by_layer(layer_table({"engaged": (4, 0.1, 90)}, test=False)).caption
    )


def test_alt_text_states_the_finding(drawn: dict[str, figures.Drawn]) -> None:
    assert (
        "engaged (28 layers): the interval clears the max-over-layers null from layer 11 on"
        in drawn["probe_by_layer"].alt
    )
    assert "at no layer" in figures.probe_by_layer(layer_table({"engaged": (8, 0.0, 900)})).alt
    assert "gold label, heuristic: 0 of 48 layers beyond the null" in drawn["selectivity"].alt
    assert "engaged to base:" in drawn["transfer"].alt and "cells above chance" in drawn["transfer"].alt
    assert "heuristic: 6 of 10 bins off" in drawn["reliability"].alt
    assert "lowest adversarial surface 0.38 [0.31, 0.45]" in drawn["probe_cohorts"].alt
    assert "probe and mass mean: beyond the random band at" in drawn["cosines"].alt


def test_every_mark_has_its_words_and_the_svg_stands_inline(drawn: dict[str, figures.Drawn]) -> None:
    for one in drawn.values():
        assert_marks_have_words(one, prefix="f2-")


def test_colours_come_from_the_tokens_alone(drawn: dict[str, figures.Drawn]) -> None:
    light = {value.lower() for value in style.tokens()["light"].values()}
    for name, one in drawn.items():
        text = re.sub(r'<g id="mark-block.*?</g>', "", svg(one), flags=re.DOTALL)  # cells: the colour map
        found = {
            value.lower()
            for value in re.findall(r"#[0-9a-fA-F]{6}\b", re.sub(r"<image.*?/>", "", text, flags=re.DOTALL))
        }
        ends = {style.tokens()["maps"]["sequential"][end].lower() for end in (0, -1)} if name == "transfer" else set()
        assert found <= light | ends, (name, found - light)


# layout and files


@pytest.mark.parametrize("name", [*DRAW, *(name for name in ODD if name not in ("transfer, 28", "transfer, 48"))])
def test_no_text_leaves_the_page_or_covers_another(name: str) -> None:
    assert_texts_are_clear({**DRAW, **ODD}[name])


def test_figures_are_made_at_the_width_of_the_page() -> None:
    for width, inches in (("icml", 3.25), ("full", 6.75)):
        for name, table in TABLES.items():
            assert getattr(figures, name)(table(), width=width).figure.get_size_inches()[0] == inches, name
    assert figures.probe_by_layer(layer_table(), width="neurips").figure.get_size_inches()[0] == 5.5


def test_panels_of_a_composite_draw_on_the_axes_they_are_given() -> None:
    figure = canvas.new_figure(6.75, 6)
    axes = [canvas.axes_in(figure, 0.6 + 2.1 * k, 0.5 + 1.9 * j, 1.4, 1.1) for j in range(3) for k in range(3)]
    one = figures.selectivity(selectivity_table(), ax=axes[:3])
    two = figures.reliability(reliability_table(), ax=axes[3:5])
    three = figures.probe_by_layer(layer_table({"engaged": (8, 0.3, 900)}), ax=axes[6])
    four = figures.cosines(cosine_table((("a", "b"),)), ax=axes[7])
    five = figures.probe_cohorts(cohort_table(), ax=axes[8])
    assert one.figure is two.figure is three.figure is four.figure is five.figure is figure
    assert tuple(figure.get_size_inches()) == (6.75, 6) and len(figure.axes) == 9
    assert axes[5].lines == () or len(axes[5].lines) == 0
    with pytest.raises(ValueError, match="3 panels .* need as many axes, got 2"):
        figures.selectivity(selectivity_table(), ax=axes[:2])


def test_saved_rows_are_the_rows_passed(drawn: dict[str, figures.Drawn]) -> None:
    for name, table in TABLES.items():
        if name != "transfer":
            pd.testing.assert_frame_equal(drawn[name].rows, table())


def test_titles_shrink_before_they_break_and_ranges_are_not_blown_up() -> None:
    assert fitted_titles(["short"], 2.0) == (7.5, ["short"])
    size, words = fitted_titles(["a much longer title of a panel"], 0.8)
    assert size == 6.5 and "\n" in words[0]
    low, high = padded([0.5, 0.51], least=0.2)
    assert (low, high) == pytest.approx((0.41, 0.60), abs=0.006)


def test_files_hold_no_date_no_type3_font_and_no_path(files: dict[str, dict[str, bytes]]) -> None:
    assert_files_are_clean(files)


def test_another_process_writes_the_same_bytes(files: dict[str, dict[str, bytes]]) -> None:
    assert_same_bytes_elsewhere(files, "tests.probe_figure_tables")
