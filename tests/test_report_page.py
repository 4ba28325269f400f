"""The whole page: what it says, what it never holds, and that the same folder gives the same bytes."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from study.analyses.base import ShownTable
from study.analyses.registry import analyses
from study.cli import main
from study.report import claims, render, write_report
from study.report.run_folder import draw_examples
from tests.faults.kit import signed
from tests.report_kit import DRAWN, HOSTILE, write_run
from tests.report_tables import all_tables
from tests.test_report_text import Read, read


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "whole")


@pytest.fixture(scope="module")
def page(run) -> str:
    return render(run)


@pytest.fixture(scope="module")
def found(page) -> Read:
    return read(page)


def test_a_moved_run_gives_the_same_bytes(run, page, tmp_path):
    moved = tmp_path / "else" / "where"
    shutil.copytree(run, moved)
    path = write_report(moved)
    assert path.read_text(encoding="utf-8") == page
    before = path.stat().st_mtime_ns
    assert write_report(moved).stat().st_mtime_ns == before, "what has these bytes already is left alone"
    names, before = ({p.name for p in folder.iterdir() if p.name != ".tmp"} for folder in (moved, run))
    assert names == before | {"report.html"}


def test_it_holds_no_path_host_user_or_date(run, page):
    import getpass
    import socket

    for word in (str(run), "/tmp", "/home", str(Path.cwd()), socket.gethostname()):
        assert word not in page
    assert not re.search(r"\b20\d\d-\d\d-\d\d\b", page)
    assert f"/{getpass.getuser()}/" not in page


def test_nothing_in_it_asks_for_the_network_and_only_its_own_script_may_run(page, found):
    policy = next(a["content"] for tag, a in found.tags if a.get("http-equiv") == "Content-Security-Policy")
    script = re.search(r"<script>(.*?)</script>", page, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert sum(tag == "script" for tag, _ in found.tags) == 1
    for tag, attributes in found.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base", "form", "foreignObject"), tag
        assert not any(key.startswith("on") for key in attributes), (tag, attributes)
        for key in ("src", "href", "action", "xlink:href"):
            value = attributes.get(key, "#")
            assert value.startswith(("#", "data:text/csv", "data:image/png")), (tag, value)
    assert "url(http" not in page
    assert "@import" not in page


def test_every_link_leads_to_something_in_the_page_and_ids_are_unique(found):
    ids = [a["id"] for _, a in found.tags if "id" in a]
    assert len(ids) == len(set(ids))
    links = [a["href"][1:] for tag, a in found.tags if tag == "a" and a["href"].startswith("#")]
    assert len(links) > 20
    assert set(links) <= set(ids)
    named = [a[key] for _, a in found.tags for key in ("for", "aria-labelledby", "data-filter") if key in a]
    assert set(named) <= set(ids)


def test_hostile_replies_are_shown_as_text(page, found):
    assert "<script>window.hit" not in page
    assert '<script>window.hit=1;alert("x")</script><img src=x onerror="window.hit=1">' in found.text
    assert "{{ 7*7 }}" in found.text
    assert "</pre></article><h1>out</h1>" in found.text
    assert sum(tag == "h1" for tag, _ in found.tags) == 1
    for number in ("U+001B", "U+202E", "U+202C", "U+200B"):
        assert number in found.text
    for character in "\x1b\u202e\u200b":
        assert character not in page
    assert "characters not shown" in found.text
    assert len(page) < 1_500_000
    assert HOSTILE.count("../") == found.text.count("../") // max(1, found.text.count("etc/passwd"))


def test_what_the_claims_say_stands_in_the_page(page, found):
    for words in (
        "The pair separates on adversarial surface cells",
        "+0.47 [+0.41, +0.53]",
        "141 items, 47 procedures",
    ):
        assert words in found.text
    assert re.search(r'data-kind="contradicted" id="C\d+"><details><summary><span class="cid">C\d+</span>', page)
    assert "7B against 14B" in found.text
    assert "differences elsewhere may be differences in skill" in found.text
    for reading in ("consistent", "differs", "not comparable", "change not established", "not run"):
        assert f">{reading}</span>" in page
    row = read(page.split("Training accuracy, engaged 7B, sampled")[1].split("</tr>")[0]).text
    assert "decoding: eval.temperature is not given here, 0.1 there" in row and "data: another split" in row
    assert "0.70" not in row, "a number that is not comparable is not shown next to the published one"


def test_the_page_opens_with_what_was_found_then_the_figure_then_the_claims(page):
    places = [page.index(f'<section id="{name}"') for name in ("found", "headline", "claims", "table")]
    assert places == sorted(places)
    first = read(page[places[0] : places[1]]).text
    assert "Where the surface misleads, the engaged member is right more often than the heuristic" in first
    assert first.index("supported") < first.index("qualified")
    links = re.findall(r'href="#(C\d+)"', page[places[0] : places[1]])
    assert links and all(f'id="{link}"' in page[places[2] :] for link in links)


def test_headings_go_down_one_level_at_a_time_and_every_fold_has_a_label(page):
    levels = [int(level) for level in re.findall(r"<h([1-6])[ >]", page)]
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    folds = re.findall(r"<details[^>]*>(.*?)</summary>", page, re.DOTALL)
    assert len(folds) == page.count("<details")
    assert all(fold.lstrip().startswith("<summary>") and read(fold).text.strip() for fold in folds)


def test_every_claim_is_one_fold_with_all_its_controls_by_evidence(page):
    ledger = claims(all_tables())
    part = page.split('<div id="ledger">')[1].split("Nothing was registered")[0]
    items = part.split('<li class="claim"')[1:]
    assert len(items) == len(ledger)
    by_text = {claim.text: claim for claim in ledger}
    for item in items:
        line, more = item.split("</summary>")[:2]  # the last item of a group is followed by the fold of the next one
        what = re.search(r'<span class="what">(.*?)(<small|</span>)', line)
        assert what is not None
        claim = by_text[read(what[1]).text.strip()]
        assert claim.verdict in line
        assert claim.measured is None or claim.measured.shown in read(line).text
        text = read(more).text
        for control in claim.checks:
            assert f"{control.outcome}: {control.name}" in text
        if claim.measured is not None:
            assert f"n = {claim.measured.size}" in text
        if claim.corrected is not None:
            assert "FDR" in text and "Holm" in text
    names = re.findall(r'<h3 id="ev-([a-z]+)">', part)
    assert names == ["behaviour", "decodable", "reads", "necessary", "sufficient", "transfers"]


def test_what_was_not_tested_is_folded_below_all_others(tmp_path):
    page = render(write_run(tmp_path, failed={"heads": "out of memory"}, drawn={"dumbbell": "eval"}))
    part = page.split('<div id="ledger">')[1]
    last = part.split('<details class="group last"><summary>')[1].split("Nothing was registered")[0]
    assert set(re.findall(r'data-kind="([^"]+)"', last)) == {"not testable", "not tested"}
    above = part.split('<details class="group last">')[0]
    assert 'data-kind="not tested"' not in above and 'data-kind="not testable"' not in above
    assert re.match(r"<span>\d+ not testable</span> · <span>\d+ not tested</span>", last)


def test_a_run_with_nothing_supported_says_so_first(tmp_path):
    write_run(tmp_path, tables={}, drawn={}, study="name: bare\n")
    text = read(render(tmp_path).split('<section id="found">')[1]).text
    assert text.split("\n")[0].startswith("What was found") and "No claim of this run is supported." in text
    assert "nothing was measured" in text


def test_an_analysis_may_show_a_table_right_after_what_was_found(run, monkeypatch):
    known = analyses()
    table = ShownTable("2 found, 1 missed.", ("claim", "planted", "verdict"),
                       (("L1.H0 <b>", "yes", "found"), ("tone", "yes", "missed")), verdict="verdict")  # fmt: skip
    first = replace(known["oracle"], shown=lambda tables: table if "oracle" in tables else None, is_first=True)
    monkeypatch.setattr("study.report.blocks.analyses", lambda: known | {"oracle": first})
    page = render(run)
    block = page.index('<section id="oracle"')
    assert page.index('<section id="found"') < block < page.index('<section id="headline"')
    shown = page[block : page.index("</table>", block)]
    assert '<span class="v v-missed">missed</span>' in shown
    assert "2 found, 1 missed." in shown and "L1.H0 &lt;b&gt;" in shown
    assert page.count('<section id="oracle"') == 1
    folded = replace(first, shown=lambda _: replace(table, fold="All 2"))
    monkeypatch.setattr("study.report.blocks.analyses", lambda: known | {"oracle": folded})
    assert '<details class="data"><summary>All 2</summary><div class="tw"' in render(run)


def test_the_headline_table_prints_the_table_s_own_numbers(page):
    body = page.split('<table id="ht"')[1].split("</table>")[0]
    rows = {read(row).text.split("\n")[0]: row for row in re.findall(r"<tr data-kind.*?</tr>", body, re.DOTALL)}
    row = next(row for name, row in rows.items() if name.startswith("adversarial surface compliant"))
    cells = [read(cell).text.strip() for cell in re.findall(r"<td.*?</td>", row, re.DOTALL)]
    assert cells == ["112 in 37", "0.70 [0.61, 0.78]", "0.19 [0.13, 0.27]", "+0.51 [+0.46, +0.57]", "59 / 3", "< 0.001",
                     "< 0.001"]  # fmt: skip
    assert 'data-v="0.51' in row
    assert next(iter(rows)).startswith("training distributionnot equivalent at margin 0.05")
    assert "72.3 % accept rate at construction" in page


def test_every_figure_has_its_number_caption_alt_and_rows(run, page, found):
    labels = [a for tag, a in found.tags if tag == "svg"]
    assert len(labels) == len(DRAWN)
    assert all(a["role"] == "img" and a["aria-label"] for a in labels)
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page, re.DOTALL)
    numbers = [int(n) for n in re.findall(r"<b>Figure (\d+)\.", page)]
    assert sorted(numbers) == list(range(1, len(DRAWN) + 1))
    for caption in captions:
        plain = read(caption).text
        assert re.search(r"\bn = \d", plain), plain
        assert re.search(r"95 %|bootstrap|Wilson", plain), plain
    link = re.search(r'href="data:text/csv;charset=utf-8;base64,([^"]+)" download="dumbbell.csv"', page)
    assert link is not None
    assert base64.b64decode(link[1]) == (run / "figures" / "dumbbell.csv").read_bytes()


def test_a_failed_step_is_named_with_its_cause_and_the_rest_is_there(tmp_path):
    cause = "CUDA out of memory <b>at layer 3</b>"
    found = read(render(write_run(tmp_path, failed={"heads": cause}, drawn={"dumbbell": "eval"})))
    assert f"Step heads did not finish. {cause}" in found.text
    assert f"the step failed: {cause}" in found.text
    assert "The pair separates on adversarial surface cells" in found.text
    assert "b" in {tag for tag, _ in found.tags}
    assert sum(tag == "section" for tag, _ in found.tags) >= 6


def test_a_run_with_nothing_but_its_record_gives_a_page_that_says_so(tmp_path):
    write_run(tmp_path, tables={}, drawn={}, study="name: bare\n")
    shutil.rmtree(tmp_path / "steps")
    text = read(render(tmp_path)).text
    assert "not tested" in text
    assert "no head sweep in this study" in text
    assert "Headline table" not in text


def test_a_figure_that_cannot_be_shown_is_named(tmp_path):
    write_run(tmp_path, tables=all_tables(), drawn={"dumbbell": "eval"})
    (tmp_path / "figures" / "broken.svg").write_text("<svg", encoding="utf-8")
    (tmp_path / "figures" / "calls.svg").write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><image href="https://example.org/x.png"/></svg>'
    )
    text = read(render(tmp_path)).text
    assert "figure broken: not an SVG document" in text
    assert "figure calls: the figure refers to" in text
    assert "https://example.org/x.png" in text  # as words


def test_published_values_that_cannot_be_read_do_not_stop_the_page(tmp_path):
    write_run(tmp_path, tables={}, drawn={}, study="name: x\npublished: [{name: a, value: [1, 2]}]\n")
    assert "published, entry 1: value [1, 2] is not a number" in read(render(tmp_path)).text
    (tmp_path / "study.yaml").write_text("a: [", encoding="utf-8")
    assert "study.yaml is not YAML" in read(render(tmp_path)).text


def test_names_and_titles_of_the_run_are_text_too(tmp_path):
    write_run(tmp_path, tables={}, drawn={}, name="</title><script>alert(1)</script>")
    record = json.loads((tmp_path / "run.json").read_text())
    record["checkpoints"]["engaged"]["adapter"] = 'x"><img src=x onerror=alert(1)>\u202e'
    (tmp_path / "run.json").write_text(json.dumps(signed(record, "sha256")))
    found = read(render(tmp_path))
    assert sum(tag == "script" for tag, _ in found.tags) == 1
    assert "img" not in {tag for tag, _ in found.tags}


def test_the_command_writes_it_and_says_where(run, tmp_path):
    out = tmp_path / "page.html"
    done = CliRunner().invoke(main, ["report", str(run), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert str(out) in done.output
    assert out.read_text(encoding="utf-8") == render(run)
    refused = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert refused.exit_code == 1
    assert "no run of a study" in refused.output


def test_replies_of_a_single_checkpoint_are_drawn_by_whether_they_are_right(tmp_path):
    folder = tmp_path / "steps" / "eval" / "smollm2"
    folder.mkdir(parents=True)
    same = {"cell": "all", "gold": "A", "text": ""}
    rows = {"id": list("abcd"), "label": list("ABBA"), "score.correct": [1, 0, 0, 1], **same}
    pd.DataFrame(rows).to_parquet(folder / "answers.parquet")
    shown = draw_examples(tmp_path, ["smollm2"], seed=0)
    assert [one.outcome for one in shown] == ["right", "wrong"]
    assert [[reply.member for reply in one.replies] for one in shown] == [["smollm2"]] * 2
    assert shown[0].id in "ad" and shown[1].id in "bc"
    assert draw_examples(tmp_path, ["engaged"], seed=0) == []


def test_labels_that_were_scored_leave_no_empty_box_and_an_empty_reply_does(tmp_path):
    write_run(tmp_path)
    answers = list((tmp_path / "steps").glob("*/*/answers.parquet"))
    assert answers
    for text, boxes in ((None, False), ("", True)):
        for path in answers:
            pd.read_parquet(path).assign(text=text).to_parquet(path)
        examples = render(tmp_path).split('<section id="examples">')[1].split("</section>")[0]
        assert ("no reply: its labels were scored" in examples) is not boxes
        assert ('<pre dir="auto"' in examples) is boxes
