"""Text of models and figures in the page: shown, inert, bounded."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from study import figures
from study.figures.save import svg
from study.pages.text import inert, is_hidden, plain
from study.report.vector import inline
from tests.figure_tables import DRAW


class Read(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def read(markup: str) -> Read:
    reader = Read()
    reader.feed(str(markup))
    reader.close()
    return reader


ANY = st.text(st.characters(codec=None), max_size=300)


@given(ANY)
@example("<script>alert(1)</script> &lt;b&gt; <img src=x onerror=y>")
@example("a\u202e<b>")
def test_any_text_gives_no_element_but_chips_and_cuts(text):
    found = read(inert(text))
    assert {tag for tag, _ in found.tags} <= {"span"}
    assert {attributes["class"] for _, attributes in found.tags} <= {"chip", "cut"}
    assert not any(is_hidden(c) for c in inert(text))


@example("<\u115f")
@example("<b> & &amp; \"'")
@given(st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), max_size=150))
def test_plain_text_comes_back_as_it_was(text):
    shown = "".join(f"U+{ord(c):04X}" if is_hidden(c) else c for c in text)
    assert read(inert(text, word=1000)).text == shown


@pytest.mark.parametrize("number", [0x00, 0x1B, 0x0D, 0x7F, 0x85, 0x200B, 0x200E, 0x202E, 0x2066, 0x2028, 0xFEFF, 0xAD,
                                    0xE0041, 0xD800, 0xFE0F, 0x3164])  # fmt: skip
def test_a_character_that_cannot_be_seen_becomes_its_number(number):
    assert read(inert(f"a{chr(number)}b")).text == f"aU+{number:04X}b"
    assert plain(f"a{chr(number)}b") == f"aU+{number:04X}b"


def test_a_line_feed_stays_and_a_tab_is_shown():
    assert inert("a\nb") == "a\nb"
    assert "U+0009" in inert("a\tb")


def test_a_megabyte_of_one_word_is_cut_where_it_is_seen_and_counted():
    shown = inert("x" * 1_000_000)
    assert len(shown) < 500
    assert read(shown).text == "x" * 200 + "… 999,800 characters not shown"
    many = inert("word " * 200_000)
    assert read(many).text.endswith("… 996,000 characters not shown")


@pytest.mark.parametrize("name", DRAW)
def test_an_inline_figure_keeps_its_marks_and_takes_the_page_s_colours(name):
    drawn = DRAW[name]()
    text = inline(svg(drawn), prefix="f9-", alt=drawn.alt)
    found = read(text)
    ids = [a["id"] for _, a in found.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert all(one.startswith("f9-") for one in ids)
    for _, attributes in found.tags:
        for key in ("href", "clip-path"):
            target = attributes.get(key, "")
            if "#" in target:
                assert target.split("#")[1].rstrip(")") in ids, target
    assert found.tags[0][1]["aria-label"] == drawn.alt
    assert "var(--ink)" in text
    for role in ("engaged", "heuristic", "ink", "grid"):
        assert figures.style.colour(role).lower() not in text.lower(), role
    assert "DejaVu" not in text
    assert sum(tag == "title" for tag, _ in found.tags) == len(drawn.titles)
    assert sum(tag == "text" for tag, _ in found.tags) == svg(drawn).count("<text")


def test_marks_on_a_heat_map_keep_their_colours_on_a_dark_page():
    """Cells do not change with the theme, so what is drawn on them must not either."""
    text = inline(svg(DRAW["head_map"]()), prefix="f-", alt="a").lower()
    boxed = text.split('id="f-', 1)[1]
    assert figures.style.colour("on_heatmap_dark").lower() in boxed
    assert "stroke: var(--ink); stroke-width: 1.1" not in text


def test_a_figure_of_somebody_else_cannot_run_or_call_home():
    head = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 9 9">'
    hostile = inline(
        head + '<script>alert(1)</script><style>@import "//x"</style><foreignObject><body/></foreignObject>'
        '<g id="a" onload="alert(1)"><a xlink:href="javascript:alert(1)"><text>hi &lt;b&gt;</text></a>'
        '<animate attributeName="href"/><path d="M0 0" onclick="x"/></g></svg>',
        prefix="p-", alt='x" onload="y',
    )  # fmt: skip
    found = read(hostile)
    assert [tag for tag, _ in found.tags] == ["svg", "g", "path"]
    assert not any(key.startswith("on") for _, attributes in found.tags for key in attributes)
    for bad in (
        '<image xlink:href="http://x/y.png"/>',
        '<use href="other.svg#a"/>',
        '<image href="data:text/html,x"/>',
    ):
        with pytest.raises(ValueError, match="outside the file"):
            inline(f"{head}{bad}</svg>", prefix="p-", alt="")
    with pytest.raises(ValueError, match="not an SVG document"):
        inline("<svg", prefix="p-", alt="")
