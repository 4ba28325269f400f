"""The frame of figures: one check, one order of captions, and a new figure as one file and one line."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pandas as pd
import pytest

from study import figures
from study.figures.drawn import Drawn
from study.figures.feed import Feed, draw_feeds
from study.figures.frame import SPECS, Caption, Roles, spec_of
from study.figures.save import save_all
from study.schema import COLUMNS
from tests.figure_tables import DRAW as DRAW_1
from tests.figure_tables import forest_table
from tests.probe_figure_tables import DRAW as DRAW_2
from tests.steering_figure_tables import DRAW as DRAW_3

ROLES = Roles(
    "cell member value lo hi n metric",
    finite="value lo hi n",
    mark="cell member",
    same="metric",
    known={"member": ("engaged", "heuristic")},
    within={"value": (0, 1)},
)


def rows(**changed: object) -> pd.DataFrame:
    row = {"cell": "a", "member": "engaged", "value": 0.5, "lo": 0.4, "hi": 0.6, "n": 20, "metric": "accuracy"}
    return pd.DataFrame([row, {**row, "cell": "b", **changed}])


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (rows().drop(columns=["lo", "n"]), "lacks columns lo, n"),
        (rows().head(0), "no rows"),
        (rows(hi=float("nan")), r"column 'hi' is NaN or infinite in 1 of 2 rows, first in row 1 \(cell b"),
        (rows(value="many"), "column 'value' must hold numbers"),
        (rows(lo=0.7), r"lo > hi in row 1 \(cell b"),
        (rows(n=0), r"n is below 1 in row 1 \(cell b"),
        (rows(cell="a"), "repeats cell, member"),
        (rows(metric="ece"), "column 'metric' must hold one value, it holds accuracy, ece"),
        (rows(member="teacher"), "unknown member teacher. Known: engaged, heuristic"),
        (rows(value=1.2, hi=1.3), r"column 'value' must lie in 0 to 1 \(the estimate\), found 0.5 to 1.2"),
    ],
    ids=["column", "empty", "nan", "text", "order", "n", "twice", "varies", "unknown", "bounds"],
)  # fmt: skip
def test_the_check_names_what_is_wrong_and_where(table: pd.DataFrame, words: str) -> None:
    ROLES.check(rows(), figure="x")
    with pytest.raises(ValueError, match=rf"figure 'x'.*{words}"):
        ROLES.check(table, figure="x")


def test_a_caption_runs_from_what_is_drawn_to_the_models() -> None:
    caption = Caption(
        notes="Note",
        control=["Grey: the null", "Filled: beyond it"],
        interval="Bars: 95 % Wilson",
        n="n = 20 items",
        reading="",
        what="Accuracy of both",
        last="Not for clinical use.",
    )
    table = rows().assign(model=["A-7B", "B-7B"], dtype="float32")
    assert caption.text(table) == (
        "Accuracy of both. n = 20 items. Bars: 95 % Wilson. Grey: the null. Filled: beyond it. Note. "
        "engaged: A-7B; engaged: B-7B; float32. Not for clinical use."
    )


def test_every_public_figure_has_a_specification_and_a_place_of_its_own() -> None:
    drawn = [name for name in figures.__all__ if name in SPECS]
    assert set(drawn) == set(SPECS) and len(drawn) == 20
    assert len({spec.rank for spec in SPECS.values()}) == len(SPECS)
    words = [word for spec in SPECS.values() for word in (spec.word or spec.name).split()]
    assert len(words) == len(set(words))


def test_columns_of_figures_of_a_run_are_those_of_the_schema() -> None:
    from study.analyses.heads.figures import FEEDS as HEADS
    from study.analyses.oracle.figures import FEEDS as ORACLE
    from study.analyses.steering.figures import FEEDS as STEERING

    run = [feed for feed in (*HEADS, *ORACLE, *STEERING) if feed.table not in ("cosines", "plane")]
    assert len(run) == 7
    for feed in run:
        needed = SPECS[feed.draw.__name__].roles.needed.split()
        assert [name for name in needed if name not in COLUMNS] == [], feed.table
    for name in ("dumbbell", "forest", "probe_by_layer", "selectivity", "transfer", "reliability", "probe_cohorts"):
        assert [column for column in SPECS[name].roles.needed.split() if column not in COLUMNS] == [], name


def test_every_figure_says_its_n_and_ends_its_sentences() -> None:
    for name, draw in {**DRAW_1, **DRAW_2, **DRAW_3}.items():
        one = draw()
        assert "n = " in one.caption, name
        assert any(digit in one.alt for digit in "0123456789") and one.alt.endswith("."), name


def test_files_belong_to_the_figure_whose_word_stands_last_in_their_name() -> None:
    for stem, name in [
        ("heads-engaged-mean-map", "head_map"),
        ("heads_difference-mean", "head_difference"),
        ("steering-engaged-resid_post.2-plane", "bias_plane"),
        ("steering-engaged-resid_post.2", "dose_response"),
        ("steering-cosines", "cosines"),
        ("probes-layers-label-last-resid_post", "probe_by_layer"),
        ("rules-direct", "forest"),
    ]:
        spec = spec_of(stem)
        assert spec is not None and spec.name == name, stem
    assert spec_of("prompt_length") is None


NEW = """
from study.figures import canvas, checks
from study.figures.frame import Caption, FigureSpec, Roles
from study.figures.marks import triple
from study.figures.numbers import estimate_of


def _draw(page, table):
    ax = page.axes(lambda: canvas.axes_in(canvas.new_figure(page.total, 1.5), 0.5, 0.4, page.total - 0.7, 1.0))
    for y, row in enumerate(checks.records(table)):
        page.marks.estimate(ax, triple(row), y, "ink", f"{y}", f"{row.head}: {estimate_of(row)}", marker="o")
    return ax


def _caption(table):
    return Caption("Spread of heads", checks.sample_size(table, figure="spread"), "Bars: 95 % bootstrap", "Null: none")


def _alt(table):
    return [f"{len(table)} heads", f"Largest: {estimate_of(checks.records(table)[0])}"]


SPEC = FigureSpec("spread", Roles("head value lo hi n", finite="value lo hi n", mark="head"), _draw, _caption, _alt, rank=99)


def spread(table, *, width="icml", ax=None):
    return SPEC.drawn(table, width=width, ax=ax)
"""  # noqa: E501


def test_a_new_figure_is_one_file_and_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from study.analyses.heads import figures as heads

    (tmp_path / "spread_figure.py").write_text(NEW)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(SPECS, "spread", None)  # taken out again with the test
    spread = importlib.import_module("spread_figure").spread
    line = Feed("heads_selected", spread, "heads {member} spread")
    monkeypatch.setattr(heads, "FEEDS", (*heads.FEEDS, line))

    table = forest_table().assign(member="engaged", kind="mean", pairs="all", metric="abl_logit")
    made = dict(heads.figures({"heads_selected": table}))
    one = made["heads-engaged-spread"]
    assert isinstance(one, Drawn)
    assert one.caption == "Spread of heads. n = 96 items. Bars: 95 % bootstrap. Null: none."
    assert one.alt == "4 heads. Largest: 0.62 [0.56, 0.68]."
    assert one.titles["mark-3"] == "L0.H4: 0.08 [−0.02, 0.18]"
    paths, reasons = save_all([("heads-engaged-spread", one)], tmp_path / "out")
    assert [path.name for path in paths] == ["heads-engaged-spread.png"] and reasons == []
    spec = spec_of("heads-engaged-spread")
    assert spec is not None and spec.rank == 99
    refused = dict(draw_feeds((line,), {"heads_selected": table.drop(columns="lo")}))["heads-engaged-spread"]
    assert str(refused).startswith("figure 'spread': the table lacks column lo")
    sys.modules.pop("spread_figure")
