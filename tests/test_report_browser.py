"""The report in headless Chromium: it renders, nothing runs that should not, controls do what they say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from study.report import write_report
from tests.chromium import NAMES, Page, chromium, executable
from tests.report_kit import write_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(executable() is None, reason=f"no {', '.join(NAMES)}; test_report_page reads the same page"),
]


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    return write_report(write_run(tmp_path_factory.mktemp("browser")))


@pytest.fixture(scope="module")
def page(report) -> Iterator[Page]:
    with chromium() as tab:
        yield tab


@pytest.mark.parametrize("look", [{}, {"dark": True}, {"width": 390, "height": 844}, {"print_": True, "width": 720}])
def test_it_renders_without_a_complaint_a_request_or_a_sideways_scroll(page, report, look):
    page.show(**look)
    page.problems.clear()
    page.requests.clear()
    page.open(report)
    assert page.problems == []
    assert page.requests == [report.as_uri()]
    width = look.get("width", 1280)
    assert page.run("document.documentElement.scrollWidth") <= width
    assert page.run("window.hit === undefined")
    assert page.run("document.querySelectorAll('figure svg').length") == 8
    heights = page.run("[...document.querySelectorAll('figure svg')].map(s => s.getBoundingClientRect().height)")
    assert min(heights) > 60
    dark = page.run("getComputedStyle(document.body).backgroundColor")
    assert dark == ("rgb(20, 23, 28)" if look.get("dark") else "rgb(255, 255, 255)")


def test_text_and_marks_stand_out_from_their_ground_in_both_themes(page, report):
    """Contrast of every text element that is seen, WCAG 2: at least 4.5."""
    for dark in (False, True):
        page.show(dark=dark)
        page.open(report)
        low = page.run(CONTRAST)
        assert low == [], low[:5]


CONTRAST = """(() => {
  const lum = c => { const f = c.map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * f[0] + .7152 * f[1] + .0722 * f[2]; };
  const rgb = t => (t.match(/[\\d.]+/g) || []).map(Number);
  const ground = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] === 1) return c; } return [255, 255, 255]; };
  const out = [];
  for (const e of document.querySelectorAll('main *:not(svg *), header *, nav *')) {
    if (!e.getClientRects().length || ![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
    if (e.closest('.vh')) continue;
    const [a, b] = [lum(rgb(getComputedStyle(e).color)), lum(ground(e))].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    if (ratio < 4.5) out.push([ratio.toFixed(2), e.className, e.textContent.slice(0, 30)]);
  }
  return out;
})()"""


def test_the_table_sorts_and_the_ledger_filters(page, report):
    page.show()
    page.open(report)
    first = "document.querySelector('#ht tbody tr th').textContent.trim()"
    click = "document.querySelectorAll('#ht thead button')[{}].click()"
    assert page.run(first).startswith("training distribution")
    page.run(click.format(4))
    values = page.run("[...document.querySelectorAll('#ht tbody tr')].map(r => +r.cells[4].dataset.v)")
    assert values == sorted(values)
    assert page.run("document.querySelectorAll('#ht [aria-sort]').length") == 1
    page.run(click.format(4))
    again = page.run("[...document.querySelectorAll('#ht tbody tr')].map(r => +r.cells[4].dataset.v)")
    assert again == sorted(values, reverse=True)
    page.run(
        "(() => { const s = document.getElementById('verdicts'); s.value = 'supported'; "
        "s.dispatchEvent(new Event('change')); })()"
    )
    rows = "[...document.querySelectorAll('#ledger .claim')]"
    shown = f"{rows}.filter(r => r.getClientRects().length).map(r => r.dataset.kind)"
    assert set(page.run(shown)) == {"supported"}
    assert page.run("document.querySelector('#verdicts ~ .count').textContent") == "5 of 14 rows"


def test_a_line_opens_to_its_controls_and_a_link_to_it_opens_it(page, report):
    page.show()
    page.open(report)
    seen = "document.querySelector('#{} .ctl').checkVisibility()"
    assert not page.run(seen.format("C1"))
    page.run("document.querySelector('#C1 summary').click()")
    assert page.run(seen.format("C1"))
    page.run("document.querySelector('.found a[href$=C2]').click()")
    page.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert page.run(seen.format("C2"))


def test_without_its_script_the_page_prints_the_controls_of_every_claim(page, report):
    hidden = "[...document.querySelectorAll('#ledger .ctl li')].filter(e => !e.checkVisibility()).length"
    tools = "[...document.querySelectorAll('.tools')].filter(e => e.getClientRects().length).length"
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        counts = {}
        for medium in (False, True):
            page.show(print_=medium, width=690)
            page.open(report)
            counts[medium] = page.run(hidden)
            assert page.run(tools) == 0, "what needs the script is not there without it"
        heights = page.run("[...document.querySelectorAll('#ledger .ctl')].map(e => e.getBoundingClientRect().height)")
    finally:
        page.call("Emulation.setScriptExecutionDisabled", value=False)
    assert counts[False] > 30 and counts[True] == 0
    assert min(heights) > 8


def test_the_theme_button_turns_the_page_and_links_arrive(page, report):
    page.show()
    page.open(report)
    page.run("document.getElementById('theme').click()")
    assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 28)"
    page.run("document.getElementById('theme').click()")
    page.run("document.querySelector('nav a[href$=provenance]').click()")
    page.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert page.run("location.hash") == "#provenance"
    assert page.run("document.getElementById('provenance').getBoundingClientRect().top < innerHeight")


def test_a_script_that_somebody_adds_is_refused(page, report, tmp_path):
    changed = tmp_path / "changed.html"
    text = report.read_text(encoding="utf-8")
    changed.write_text(text.replace("<footer", "<script>window.hit=1</script><footer"), encoding="utf-8")
    page.problems.clear()
    page.open(changed)
    assert page.run("window.hit === undefined")
    assert page.problems, "the browser says that it refused"


def test_it_prints_with_every_fold_open(page, report, tmp_path):
    page.show(print_=True)
    page.open(report)
    page.pdf(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    assert page.run("[...document.querySelectorAll('details')].every(d => d.open)")
