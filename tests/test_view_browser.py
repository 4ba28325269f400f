"""The page of coloured tokens in headless Chromium: nothing of its text runs, and its controls do what they say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.chromium import NAMES, Page, chromium, executable
from tests.test_report_browser import CONTRAST
from tests.view_kit import made_up

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(executable() is None, reason=f"no {', '.join(NAMES)}; test_view reads the same page"),
]
STRIPS = "document.querySelectorAll('.strip').length"
NAME = "document.getElementById('name').textContent"
KEY = "document.body.dispatchEvent(new KeyboardEvent('keydown', {{key: '{}', bubbles: true}}))"


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_up(4, 40).save(tmp_path_factory.mktemp("view") / "tokens.html")


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with chromium() as tab:
        yield tab


def set_to(name: str, value: str) -> str:
    return (
        f"(() => {{ const s = document.getElementById('{name}'); s.value = '{value}'; "
        "s.dispatchEvent(new Event('change')); s.dispatchEvent(new Event('input')); })()"
    )


@pytest.mark.parametrize("look", [{}, {"dark": True}, {"width": 390, "height": 844}, {"print_": True, "width": 720}])
def test_it_renders_without_a_complaint_a_request_or_a_sideways_scroll(page: Page, view: Path, look: dict) -> None:
    page.show(**look)
    page.problems.clear()
    page.requests.clear()
    page.open(view)
    assert page.problems == [] and page.requests == [view.as_uri()]
    assert page.run("document.documentElement.scrollWidth") <= look.get("width", 1280)
    assert page.run("window.hit === undefined") and page.run(STRIPS) == 2
    if not look.get("print_"):
        assert page.run(CONTRAST) == []


def test_keys_filters_search_and_a_chosen_token(page: Page, view: Path) -> None:
    page.show()
    page.open(view)
    assert page.run(NAME) == "item-0 · cell 0"
    page.run(KEY.format("j"))
    assert page.run(NAME) == "item-1 · cell 1"
    page.run(KEY.format("k"))
    page.run(set_to("right", "apart"))
    assert page.run("document.getElementById('count').textContent") == "1 of 2 items"
    page.run(set_to("right", ""))
    page.run(set_to("cell", "cell 1"))
    assert page.run("document.getElementById('item').length") == 2
    page.run(set_to("search", "word7"))
    assert page.run("document.querySelectorAll('.tokens .hit').length") == 2
    page.run("document.querySelectorAll('.tokens span')[10].click()")
    rows = page.run("[...document.querySelectorAll('#near tbody tr')].map(r => r.cells[0].textContent)")
    assert rows == [str(k) for k in range(4, 15)] and page.run("document.querySelector('#near .here').rowIndex") == 6
    page.run(KEY.format("ArrowRight"))
    assert page.run("document.querySelector('#near h3').textContent") == "engaged, around token 10"
    page.run(KEY.format("Escape"))
    assert page.run("document.getElementById('near').hidden")


def test_a_pattern_is_coloured_from_the_token_that_is_chosen(page: Page, view: Path) -> None:
    page.show()
    page.open(view)
    page.run(set_to("track", "1"))
    coloured = "[...document.querySelector('.tokens').children].filter(s => !/\\bp0\\b/.test(s.className)).length"
    page.run("document.querySelectorAll('.tokens span')[1].click()")
    assert page.run(coloured) == 2, "each of two tokens has half of the attention"


def test_answers_are_filtered_only_where_some_are_known(page: Page, view: Path, tmp_path: Path) -> None:
    shown = "document.getElementById('right').getClientRects().length"
    page.open(view)
    assert page.run(shown) == 1
    made = made_up(1)
    unknown = [replace(item, strips=[replace(one, is_right=None) for one in item.strips]) for item in made.items]
    page.open(replace(made, items=unknown).save(tmp_path / "unknown.html"))
    assert page.run(shown) == 0 and page.run(STRIPS) == 2


def test_without_its_script_the_first_item_is_there(page: Page, view: Path) -> None:
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        page.show()
        page.open(view)
        assert page.run(STRIPS) == 2 and page.run(NAME) == "item-0"
        assert page.run("document.getElementById('bar').hidden")
        assert page.run("document.querySelectorAll('.tokens span:not(.p0)').length") > 10
    finally:
        page.call("Emulation.setScriptExecutionDisabled", value=False)
