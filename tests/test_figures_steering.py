"""Figures of matching, dose, bias plane and triage: refused without their controls, drawn with their warnings."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from study import figures
from study.figures import canvas, style
from study.figures.bias_plane import _ellipse, radius2
from study.figures.save import pdf, png, svg
from tests.figure_kit import (
    assert_files_are_clean,
    assert_marks_have_words,
    assert_same_bytes_elsewhere,
    assert_texts_are_clear,
)
from tests.steering_figure_tables import DRAW, METRICS, ODD, dose_table, esi_tables, match_table, plane_table


@pytest.fixture(scope="module")
def drawn() -> dict[str, figures.Drawn]:
    return {name: draw() for name, draw in DRAW.items()}


@pytest.fixture(scope="module")
def files(drawn: dict[str, figures.Drawn]) -> dict[str, dict[str, bytes]]:
    return {name: {"pdf": pdf(one), "svg": svg(one).encode(), "png": png(one, dpi=100)} for name, one in drawn.items()}


# refusal


@pytest.mark.parametrize("column", ["lo", "hi", "n", "null_lo", "null_hi", "p", "interval", "toward"])
def test_a_dose_curve_without_interval_null_or_sign_is_refused(column: str) -> None:
    with pytest.raises(ValueError, match=rf"'dose_response': the table lacks column {column};"):
        figures.dose_response(dose_table().drop(columns=column))


@pytest.mark.parametrize("column", ["null_max95", "margin", "self_match_r", "n", "named"])
def test_a_matching_without_its_null_or_control_is_refused(column: str) -> None:
    with pytest.raises(ValueError, match=rf"'match_heads': the table lacks column {column};"):
        figures.match_heads(match_table().drop(columns=column))


@pytest.mark.parametrize("column", ["cov_xx", "cov_xy", "cov_yy", "n", "interval"])
def test_a_plane_without_its_covariance_is_refused(column: str) -> None:
    with pytest.raises(ValueError, match=rf"'bias_plane': the table lacks column {column};"):
        figures.bias_plane(plane_table().drop(columns=column))


@pytest.mark.parametrize("column", ["lo", "hi", "n", "control_value", "interval"])
def test_triage_metrics_without_interval_or_baseline_are_refused(column: str) -> None:
    counts, metrics = esi_tables()
    with pytest.raises(ValueError, match=rf"'esi': the table lacks column {column};"):
        figures.esi(counts, metrics.drop(columns=column))


def test_a_direction_is_not_drawn_without_controls_or_start() -> None:
    table = dose_table(METRICS[:2])
    with pytest.raises(ValueError, match="coverage has no rows of arm control"):
        figures.dose_response(table[(table["arm"] != "control") | (table["metric"] != "coverage")])
    with pytest.raises(ValueError, match="commit bias lacks the direction at strength 0"):
        figures.dose_response(table[table["alpha_norm"] != 0])
    with pytest.raises(ValueError, match="unknown arm prompt"):
        figures.dose_response(table.replace({"arm": {"orthogonalized": "prompt"}}))
    with pytest.raises(ValueError, match="toward must name the class"):
        figures.dose_response(table.assign(toward=" "))
    blank = table.copy()
    blank.loc[(blank["arm"] == "direction") & (blank["alpha_norm"] == 0.3), "p"] = float("nan")
    with pytest.raises(ValueError, match="column 'p' is NaN"):
        figures.dose_response(blank)


def test_impossible_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="'r' must lie in -1 to 1"):
        figures.match_heads(match_table().assign(r=1.2))
    with pytest.raises(ValueError, match="depth_b is not"):
        figures.match_heads(match_table().assign(depth_b=lambda t: t.layer_b / 48))
    with pytest.raises(ValueError, match="cov_xx·cov_yy >= cov_xy² is needed"):
        figures.bias_plane(plane_table().assign(cov_xy=0.1))
    with pytest.raises(ValueError, match="'coverage' must lie in 0 to 1"):
        figures.bias_plane(plane_table().assign(coverage=1.2))
    with pytest.raises(ValueError, match="only controls"):
        figures.bias_plane(plane_table().assign(member="control"))


def test_one_triage_figure_is_one_model_and_its_counts_add_up() -> None:
    counts, metrics = esi_tables()
    with pytest.raises(ValueError, match="column 'member' must hold one value"):
        figures.esi(counts.assign(member=["engaged", "heuristic"] * 5), metrics)
    with pytest.raises(ValueError, match="n = 99, counts add up to 36"):
        figures.esi(counts, metrics.assign(n=99))
    with pytest.raises(ValueError, match="unknown gold level 6"):
        figures.esi(counts.assign(gold=lambda t: t.gold.where(t.gold < 5, 6)), metrics)
    with pytest.raises(ValueError, match="not a natural number"):
        figures.esi(counts.assign(count=0.5), metrics)
    with pytest.raises(ValueError, match="'icml' has no room"):
        figures.esi(counts, metrics, width="icml")


# what the marks mean


def faces(one: figures.Drawn, pattern: str) -> dict[str, bool]:
    paper = style.colour("paper")
    return {
        str(line.get_gid()): line.get_markerfacecolor() != paper
        for ax in one.figure.axes
        for line in ax.lines
        if re.fullmatch(f"mark-{pattern}", str(line.get_gid()))
    }


def test_doses_are_hollow_unless_beyond_the_controls_and_the_band_closes_at_zero() -> None:
    table = dose_table(METRICS[:1])
    main = table[table["arm"] == "direction"]
    one = figures.dose_response(table)
    assert faces(one, "dose0-.*") == {f"mark-dose0-{row.Index}": bool(row.p <= 0.05) for row in main.itertuples()}
    ax = one.figure.axes[0]
    band = next(c for c in ax.collections if c.get_alpha() == style.BAND_ALPHA).get_paths()[0].vertices
    at_zero = band[np.abs(band[:, 0]) < 1e-9, 1]
    assert np.ptp(at_zero) < 1e-9 and at_zero[0] == pytest.approx(0.31)
    at_end = band[np.abs(band[:, 0] - 0.3) < 1e-9, 1]
    assert np.ptp(at_end) == pytest.approx(2 * 0.14 * 0.3)


def test_at_most_thirty_single_controls_are_drawn_and_the_legend_says_so() -> None:
    one = figures.dose_response(dose_table(METRICS[:1], draws=40))
    thin = [line for line in one.figure.axes[0].lines if line.get_linewidth() == 0.4]
    words = [text.get_text() for text in one.figure.axes[0].get_legend().get_texts()]
    assert len(thin) == 30 and "single controls (30 of 40)" in words


def test_matches_are_filled_only_when_mutual_and_above_the_null() -> None:
    table = match_table()
    rows = table[table["arm"] == "match"]
    expected = {
        f"mark-match-L{int(r.layer_a)}-H{int(r.head_a)}": bool(r.r > 0.44) for r in rows.itertuples() if r.mutual
    }
    assert faces(figures.match_heads(table), "match-.*") == expected
    lonely = table.copy()
    lonely.loc[3, "mutual"] = False  # the named head stays, hollow
    one = figures.match_heads(lonely)
    assert faces(one, "match-L19-H17") == {"mark-match-L19-H17": False}
    assert "not mutual" in one.alt


def test_the_ellipse_holds_95_percent_of_the_bootstrap() -> None:
    assert radius2(10) == pytest.approx(10.03, abs=0.01)  # Hotelling, 2 · 9/8 · F(0.95; 2, 8) = 4.459
    covariance = np.array([[0.00025, 0.00012], [0.00012, 0.0006]])
    row = plane_table().iloc[0]
    contour = _ellipse(row) - row[["coverage", "commit_bias"]].to_numpy(dtype=float)
    distance = np.einsum("ki,ij,kj->k", contour, np.linalg.inv(covariance), contour)
    assert distance == pytest.approx(np.full(len(contour), 5.991), abs=2e-3)  # chi-squared table, 2 df
    draws = np.random.default_rng(0).multivariate_normal([0, 0], covariance, 20_000)
    inside = np.einsum("ki,ij,kj->k", draws, np.linalg.inv(covariance), draws) < distance[0]
    assert inside.mean() == pytest.approx(0.95, abs=0.005)  # 3 standard errors of 20 000 draws


def test_iso_lines_are_products_and_are_named_with_their_value() -> None:
    ax = figures.bias_plane(plane_table()).figure.axes[0]
    lines = [line for line in ax.lines if line.get_color() == style.colour("faint")]
    assert len(lines) >= 2
    levels = []
    for line in lines:
        product = np.asarray(line.get_xdata()) * np.asarray(line.get_ydata())
        assert np.ptp(product) < 1e-9
        levels.append(product[0])
    named = {float(text.get_text()) for text in ax.texts if re.fullmatch(r"\.\d+", text.get_text())}
    assert named <= {round(float(level), 6) for level in levels} and named


def test_red_frames_stand_on_critical_under_triage_alone() -> None:
    counts, metrics = esi_tables(unread=True)
    one = figures.esi(counts, metrics)
    frames = [p for p in one.figure.axes[0].patches if not p.get_fill()]
    places = {(round(p.get_y() + 0.46), round(p.get_x() + 0.46)): p.get_linestyle() for p in frames}
    assert set(places) == {(g, p) for g in (1, 2) for p in range(1, 7) if p > g}
    assert {place for place, kind in places.items() if kind in ("solid", "-")} == {(1, 2), (2, 3), (1, 6)}
    assert "critical under-triage, 6 of 27 cases" in one.caption  # 3 + 1 + 2 unread; 11 + 3 + 2 and 2 + 8 + 1
    assert "No level parsed: 3, counted as wrong" in one.caption
    recalls = [text.get_text() for text in one.figure.axes[0].texts]
    assert "0.69" in recalls  # 11 of 16 with gold 1


@pytest.mark.parametrize("name", ["esi", "esi, unread", "esi, perfect"])
def test_not_for_clinical_use_is_on_the_page_in_caption_and_alt(name: str) -> None:
    one = {**DRAW, **ODD}[name]()
    assert any(text.get_text().replace("\n", " ").endswith("Not for clinical use.") for text in one.figure.texts)
    assert one.caption.endswith("Not for clinical use.") and one.alt.endswith("Not for clinical use.")


# words


def test_captions_say_n_interval_and_null(drawn: dict[str, figures.Drawn]) -> None:
    for name, words in [
        ("dose_response", "95 % cluster bootstrap by story, B = 4000 of the paired change"),
        ("dose_response", "the null, 95 % of 25 random + shuffled controls"),
        ("dose_response", "Holm over 12 strengths"),
        ("dose_response", "n = 1200 items, 150 groups"),
        ("match_heads", "95 % limit of the null, the maximum over pairs with items permuted (200 draws)"),
        ("match_heads", "n = 433 items, 60 groups"),
        ("match_heads", "self-match, base vs tuned 7B: .97"),
        ("bias_plane", "joint 95 % region, cluster bootstrap by story"),
        ("bias_plane", "△ the null: 20 random directions"),
        ("bias_plane", "n = 1200 items, 150 groups"),
        ("esi", "n = 36 cases, 95 % Wilson; QWK: bootstrap"),
        ("esi", 'always says "ESI 2"'),
    ]:
        assert words in drawn[name].caption, (name, words)
    assert "No control directions" in figures.bias_plane(plane_table(controls=0)).caption


def test_alt_text_states_the_finding(drawn: dict[str, figures.Drawn]) -> None:
    assert "s_AMB: .10 unsteered" in drawn["dose_response"].alt
    assert "0 of 12 strengths beyond the controls" in drawn["dose_response"].alt
    assert "Named head L19.H17 → L32.H26, r .71, margin .24, mutual, above the null" in drawn["match_heads"].alt
    assert "base: coverage 0.360, commit bias 0.279, s_AMB 0.100" in drawn["bias_plane"].alt
    assert "28 exact, 4 of 25 with gold ≤ 2 critically under-triaged" in drawn["esi"].alt
    assert "adjacent ±1 36/36 (≥ 0.92) against 0.83 of a constant baseline" in drawn["esi"].alt


def test_every_mark_has_its_words_and_the_svg_stands_inline(drawn: dict[str, figures.Drawn]) -> None:
    for one in drawn.values():
        assert_marks_have_words(one, prefix="f3-")


def test_colours_come_from_the_tokens_alone(drawn: dict[str, figures.Drawn]) -> None:
    light = {value.lower() for value in style.tokens()["light"].values()}
    for name, one in drawn.items():
        found = {value.lower() for value in re.findall(r"#[0-9a-fA-F]{6}\b", svg(one))}
        assert found <= light, (name, found - light)


# layout and files


@pytest.mark.parametrize("name", [*DRAW, *ODD])
def test_no_text_leaves_the_page_or_covers_another(name: str) -> None:
    assert_texts_are_clear({**DRAW, **ODD}[name])


def test_panels_of_a_composite_draw_on_the_axes_they_are_given() -> None:
    figure = canvas.new_figure(6.75, 5)
    axes = [canvas.axes_in(figure, 0.6 + 1.6 * k, 0.5 + 2.4 * j, 1.0, 1.2) for j in range(2) for k in range(4)]
    one = figures.dose_response(dose_table(), ax=axes[:4])
    two = figures.match_heads(match_table(), ax=axes[4:6])
    three = figures.bias_plane(plane_table(), ax=axes[6])
    assert one.figure is two.figure is three.figure is figure
    assert len(figure.axes) == 8 and tuple(figure.get_size_inches()) == (6.75, 5)
    with pytest.raises(ValueError, match="4 panels .* need as many axes, got 1"):
        figures.dose_response(dose_table(), ax=axes[0])


def test_saved_rows_are_the_rows_passed(drawn: dict[str, figures.Drawn]) -> None:
    pd.testing.assert_frame_equal(drawn["dose_response"].rows, dose_table())
    pd.testing.assert_frame_equal(drawn["match_heads"].rows, match_table())
    assert len(drawn["esi"].rows) == sum(map(len, esi_tables()))


def test_files_hold_no_date_no_type3_font_and_no_path(files: dict[str, dict[str, bytes]]) -> None:
    assert_files_are_clean(files)


def test_another_process_writes_the_same_bytes(files: dict[str, dict[str, bytes]]) -> None:
    assert_same_bytes_elsewhere(files, "tests.steering_figure_tables")
