"""Figure 14 composes whatever panels a study allows, and says in words what is missing."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from study.figures import canvas
from study.figures.drawn import Drawn
from study.figures.style import styled
from study.report import headline_figure as of
from study.report.draw import figures_of_run
from tests.report_tables import pair_table

WORDS = ("accuracy on the same items", "probes by layer", "head effects", "steering")


def panel(title: str, *, fails: str = "") -> Callable[[], of.Panel]:
    """A panel that writes its title beside its axes, and then may find that its table cannot be drawn."""

    def draw(ax: Any) -> Drawn:
        from study.figures import canvas

        ax.plot([0, 1], [0, 1])
        canvas.write(canvas.figure_of(ax), 0.1, 0.1, f"drawn {title}")
        if fails:
            raise ValueError(fails)
        return Drawn(canvas.figure_of(ax), pd.DataFrame({"of": [title]}), f"Caption of {title}.", f"alt of {title}.")

    return lambda: of.Panel(title, draw, ["a long name of a cell"] * 9 if title == WORDS[0] else ())


@pytest.mark.parametrize(
    "have", [c for n in range(5) for c in itertools.combinations(WORDS, n)], ids=lambda have: "+".join(have) or "none"
)
def test_any_subset_is_composed_without_a_hole(have: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    made = {words: [(words, panel(words, fails="" if words in have else "too few rows"))] for words in WORDS}
    monkeypatch.setattr(of, "_candidates", lambda tables: made)
    if len(have) < 2:
        with pytest.raises(ValueError, match="shows two analyses side by side") as refused:
            of.headline({})
        for words in set(WORDS) - set(have):
            assert f"{words} (too few rows)" in str(refused.value)
        return
    drawn = of.headline({})
    assert drawn.rows["of"].tolist() == list(have)
    assert drawn.rows["panel"].tolist() == list("ABCD"[: len(have)])
    texts = [text.get_text() for text in drawn.figure.texts]
    assert sorted(text for text in texts if text.startswith("drawn")) == sorted(f"drawn {words}" for words in have)
    boxes = [ax.get_position() for ax in drawn.figure.axes]
    assert len(boxes) == len(have)
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert all(box.x0 >= 0 and box.x1 <= 1 and box.y0 >= 0 and box.y1 <= 1 for box in boxes)
    for row in (boxes[:2], boxes[2:]):  # panels of one row stand on one line
        assert len({round(box.y0, 6) for box in row}) <= 1
    titles = [text.get_position()[1] for text in drawn.figure.texts if text.get_text() in have]
    assert len({round(y, 6) for y in titles}) == (len(have) + 1) // 2
    for words in set(WORDS) - set(have):
        assert f"{words} (too few rows)" in drawn.caption
    assert ("Not drawn" in drawn.caption) is (len(have) < 4)


def test_a_study_with_an_evaluation_alone_says_which_analyses_a_headline_would_need() -> None:
    with pytest.raises(ValueError, match=r"only accuracy on the same items can be drawn") as refused:
        of.headline({"pair": pair_table()})
    assert str(refused.value).endswith(
        "Missing: probes by layer (not in this study); head effects (not in this study); steering (not in this study)."
    )


def test_what_stands_in_for_steering_does_not_hide_that_there_is_none() -> None:
    found, missing = of._drawable({"pair": pair_table()})
    assert [one.title for one in found] == [WORDS[0]]
    assert missing["steering"] == "not in this study"


def test_a_run_without_a_headline_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr("study.schema.read_tables", lambda run, without=(): {"pair": pair_table().assign(mode="")})
    figures = dict(figures_of_run(tmp_path))
    assert isinstance(figures["headline"], str) and "Missing: probes by layer" in figures["headline"]


def test_a_long_title_ends_before_the_letter_of_the_next_panel() -> None:
    figure = canvas.new_figure(of.WIDTH, 2)
    title = "heads at a decision with a name that is far too long, engaged − heuristic"
    with styled():
        of._name(figure, of.Panel(title, lambda ax: None), (0.6, 0.5, 2.0, 1.0), "C")  # pyright: ignore[reportArgumentType]
        figure.canvas.draw()
        box = figure.texts[-1].get_window_extent()
    assert figure.texts[-1].get_text() == title and box.x1 / figure.dpi <= of._LETTER[1] - 0.05


def test_the_dose_curve_is_of_the_member_that_the_direction_moves_beyond_its_controls() -> None:
    """By p, then by the size of the change; the first member where nothing was tested."""

    def chosen(*points: tuple[str, str, float, float | None]) -> str:
        columns = ("member", "arm", "control_difference", "p")
        return of._moved_member(pd.DataFrame(points, columns=columns).astype({"p": float}))

    moved = [("engaged", "direction", 1.0, 0.2), ("heuristic", "direction", -6.5, 0.02)]
    assert chosen(*moved) == "heuristic" == chosen(*moved, ("engaged", "control", 9.0, 0.001))
    assert chosen(("engaged", "direction", 1.0, 0.02), ("heuristic", "direction", -6.5, 0.02)) == "heuristic"
    assert chosen(("engaged", "direction", 1.0, 0.01), ("heuristic", "direction", -6.5, 0.02)) == "engaged"
    assert chosen(("engaged", "direction", 0.0, None), ("heuristic", "direction", 3.0, None)) == "engaged"
