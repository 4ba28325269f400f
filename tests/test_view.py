"""Coloured tokens: what the page holds, that text in it is inert, and that numbers are those of the models."""

from __future__ import annotations

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from interp.checkpoint import Checkpoint
from interp.loading import load
from interp.model import Model
from interp.oracle import Choices, Features
from interp.oracle.controls import HEADLINE
from interp.oracle.features import Slot
from interp.prompt import Example, render_all
from probes.watch import monitor
from study.cli import main
from study.pages.text import is_hidden
from study.view import Item, Track, View, of_choices, of_lens, of_monitor, of_pattern, of_replies
from study.view.data import Values
from study.view.page import LEVELS, level_of, visible
from tests.tiny import save_checkpoint
from tests.view_kit import HIDDEN, HOSTILE, SCORE, made_up, write_along

CELLS = ("baseline_compliant", "adversarial_surface_noncompliant")


class _Tags(HTMLParser):
    """Names and attributes of every tag, and the text of the data."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.data = ""
        self._in_data = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._in_data = tag == "script" and dict(attrs).get("id") == "data"

    def handle_data(self, data: str) -> None:
        self.data += data if self._in_data else ""

    def handle_endtag(self, tag: str) -> None:
        self._in_data = False


def test_text_of_a_model_is_data_and_what_cannot_be_seen_is_written_out() -> None:
    page = made_up().html()
    read = _Tags(page)
    names = [name for name, _ in read.tags]
    assert names.count("script") == 2 and "img" not in names
    assert not any(key.startswith("on") for _, attributes in read.tags for key in attributes)
    assert not any(is_hidden(one) for one in page)
    data = json.loads(read.data)
    strip = data["items"][0]["strips"][0]
    assert (
        strip["tokens"][:3] == [HOSTILE, "a⟦U+202E⟧b⟦U+200B⟧⟦U+2028⟧", " line\n"]
        and visible(HIDDEN) == strip["tokens"][1]
    )
    assert strip["prompt"] == f"Prompt {HOSTILE}" and strip["spans"] == {"3": "step_lookup"}
    assert page == made_up().html(), "the same view, the same bytes"
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")


def test_numbers_of_the_page_are_those_of_the_view_to_four_digits() -> None:
    view = made_up()
    strip = json.loads(_Tags(view.html()).data)["items"][1]["strips"][0]
    of_view = view.items[1].strips[0].values
    scores, pattern = strip["values"]
    np.testing.assert_allclose(scores["score"], np.asarray(of_view[0].score, float), rtol=1e-3)
    assert scores["rank"] == [1] * 12 and scores["controls"] == 19
    assert [len(row) for row in pattern["score"]] == list(range(1, 13))


def test_forty_items_of_two_replies_of_300_tokens_are_less_than_three_megabytes() -> None:
    view = made_up(40, 300)
    of_scores = [Item(one.id, [replace(s, values=s.values[:1]) for s in one.strips], one.cell) for one in view.items]
    assert len(View("Scores", [SCORE], of_scores).html().encode()) < 3e6


def test_colours_are_centred_and_full_at_the_reach() -> None:
    track = Track("t", "u", 1.0, 2.0, "high", "low")
    levels = [level_of(x, track) for x in (1.0, 3.0, 99.0, -1.0, 2.0, float("nan"))]
    assert levels == [0, LEVELS, LEVELS, -LEVELS, LEVELS // 2, 0]
    assert level_of(-5.0, Track("t", "u", 0.0, 1.0, "high")) == 0


def test_numbers_that_do_not_fit_the_tokens_are_refused() -> None:
    view = made_up(1)
    strip = view.items[0].strips[0]
    for values, words in (([Values([1.0])], "2"), ([Values([1.0]), strip.values[1]], "1 of score for 12 tokens")):
        with pytest.raises(ValueError, match=words):
            View("x", view.tracks, [Item("a", [replace(strip, values=values)])])
    with pytest.raises(ValueError, match="at least one item"):
        View("x", view.tracks, [])
    with pytest.raises(ValueError, match="reach"):
        Track("t", "u", 0.0, 0.0, "high")


def test_a_folder_of_scores_becomes_both_members_side_by_side(tmp_path: Path) -> None:
    tokens, replies = write_along(tmp_path)
    view = of_replies(tmp_path, n=4)
    assert [item.id for item in view.items] == [one for one in dict.fromkeys(replies["item"]) if one in
                                                {item.id for item in view.items}]  # fmt: skip
    assert sorted(item.cell for item in view.items) == ["often", "often", "rare", "rare"] and view.n_left_out == 2
    assert view.tracks[0].centre == 0.25 and view.tracks[0].high == "yes"
    spread = np.abs(tokens["score"] - 0.25)
    assert view.tracks[0].reach == pytest.approx(np.quantile(spread, 0.98))
    for item in view.items:
        assert [strip.member for strip in item.strips] == ["engaged", "heuristic"]
        for strip in item.strips:
            mine = tokens[(tokens["item"] == item.id) & (tokens["member"] == strip.member)]
            assert list(strip.values[0].score) == mine["score"].tolist() and strip.first == -1
            assert strip.is_right is (None if item.id == "i0" else False) and "read by" not in strip.facts
    with pytest.raises(ValueError, match="at least 1"):
        of_replies(tmp_path, n=0)


def test_the_command_says_what_it_needs(tmp_path: Path) -> None:
    write_along(tmp_path / "along")
    run = lambda *words: CliRunner().invoke(main, ["view", *map(str, words)])  # noqa: E731
    done = run(tmp_path / "along", "--n", 2, "--out", tmp_path / "t.html")
    assert done.exit_code == 0 and "2 items, 4 replies" in done.output and (tmp_path / "t.html").is_file()
    for words, said in (
        ((tmp_path,), "`diptych probes along"),
        ((tmp_path / "along", "--pair", "embedded"), "only with --head or --lens"),
        ((tmp_path / "along", "--head", "L0.H0"), "name the task"),
        ((tmp_path, "--head", "L0.H0", "--lens", "1", "--task", "interp.tasks.procedural"), "one of the two"),
    ):
        refused = run(*words)
        assert refused.exit_code != 0 and said in refused.output, (refused.output, refused.exception)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(Checkpoint("m", str(save_checkpoint(tmp_path_factory.mktemp("base")))), dtype="float32")


@pytest.fixture(scope="module")
def prompts(model: Model) -> list[Any]:
    return render_all([Example("a", text="step one is right"), Example("b", text="so no")], model.tokenizer)


def test_a_monitor_becomes_a_strip_for_each_reply(model: Model) -> None:
    weights = torch.arange(model.d_model, dtype=torch.float32)
    ids = torch.tensor([model.tokenizer.encode("step one"), model.tokenizer.encode("step two")])
    with monitor(model, (weights, 0.5), site="resid_post.1") as seen:
        model.causal_lm.generate(ids, max_new_tokens=5, do_sample=False, eos_token_id=None)
    view = of_monitor(seen, model.tokenizer)
    assert len(view.items) == 2 and view.tracks[0].centre == pytest.approx(np.median(np.concatenate(seen.scores)))
    for item, reply in zip(view.items, seen.replies, strict=True):
        (strip,) = item.strips
        assert list(strip.values[0].score) == reply.scores.tolist()
        assert "".join(strip.tokens[1:]) == model.tokenizer.decode([int(one or 0) for one in reply.ids[1:]])
    assert "<iframe" in view._repr_html_() and "<script" not in view._repr_html_()


def test_a_pattern_is_that_of_a_plain_forward_pass(model: Model, prompts: list[Any]) -> None:
    view = of_pattern(model, "L1.H1", prompts)
    assert [item.id for item in view.items] == ["a", "b"] and view.tracks[0].is_pattern
    for item, prompt in zip(view.items, prompts, strict=True):
        (strip,) = item.strips
        assert "".join(strip.tokens) == prompt.text and strip.member == model.name
        before = model.causal_lm.config._attn_implementation
        model.causal_lm.set_attn_implementation("eager")
        plain = model.causal_lm(torch.tensor([prompt.ids]), output_attentions=True).attentions[1][0]
        model.causal_lm.set_attn_implementation(before)
        for q, row in enumerate(strip.values[0].score):
            np.testing.assert_allclose(row, plain[1, q, : q + 1].detach().numpy(), atol=1e-6)
            others = (plain[:, q].sum(0) - plain[1, q]) / (len(plain) - 1)
            assert f"{float(others[: q + 1].max()):.2f}" in strip.values[0].notes[q]
    with pytest.raises(ValueError, match="L9"):
        of_pattern(model, "L9.H0", prompts)
    with pytest.raises(ValueError, match="no prompts"):
        of_pattern(model, "L0.H0", [])


def test_the_lens_of_the_last_layer_is_the_model_itself(model: Model, prompts: list[Any]) -> None:
    view = of_lens(model, prompts, layers=[0, 2])
    for item, prompt in zip(view.items, prompts, strict=True):
        first, last = item.strips[0].values
        logp = torch.log_softmax(model.causal_lm(torch.tensor([prompt.ids])).logits[0].float(), -1)
        plain = logp[:-1].gather(-1, torch.tensor(prompt.ids[1:])[:, None])[:, 0].detach().numpy()
        np.testing.assert_allclose(np.asarray(last.score, float)[:-1], plain, atol=1e-5)
        np.testing.assert_allclose(np.asarray(first.reference, float)[:-1], plain, atol=1e-5)
        assert np.abs(np.asarray(first.score, float)[:-1] - plain).max() > 1e-3
        best = [repr(model.tokenizer.decode([int(one)])) for one in logp.argmax(-1)]
        assert [note.startswith(word) for note, word in zip(last.notes, best, strict=True)] == [True] * len(best)


@pytest.mark.slow
def test_own_replies_are_read_by_the_member_that_wrote_them(tmp_path: Path) -> None:
    """Attention along the replies of an evaluation: whole texts, right and wrong, both members of the shipped pair."""
    chosen = ["--task", "interp.tasks.procedural", "--per-cell", "2", "--task-option", f"cells={','.join(CELLS)}"]
    run = lambda *words: CliRunner().invoke(main, [*map(str, words)])  # noqa: E731
    done = run("eval", "--pair", "embedded", *chosen, "--out", tmp_path / "e", "--max-new-tokens", 120)
    assert done.exit_code == 0, (done.output, done.exception)
    asks = ("view", tmp_path / "e", "--pair", "embedded", *chosen, "--n", 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("study.view.own.models_that_read", lambda *_: pytest.fail("weights were read"))
        for words, said in ((("--head", "L9.H0"), "L9"), (("--head", "x"), "'x'"), (("--lens", "99"), "layer 99")):
            refused = run(*asks, *words)
            assert refused.exit_code == 1 and said in refused.output, (refused.output, refused.exception)
    shown = run(*asks, "--head", "L1.H0", "--out", tmp_path / "h")
    assert shown.exit_code == 0 and "2 items, 4 replies" in shown.output, (shown.output, shown.exception)
    items = json.loads(_Tags((tmp_path / "h").read_text()).data)["items"]
    assert {item["cell"] for item in items} == set(CELLS)
    for item in items:
        assert [strip["member"] for strip in item["strips"]] == ["engaged", "heuristic"]
        engaged, heuristic = ("".join(strip["tokens"]) for strip in item["strips"])
        asked = heuristic.rindex("assistant")
        assert engaged[:asked] == heuristic[:asked] and len(engaged) > len(heuristic)
        right = [strip["right"] for strip in item["strips"]]
        assert right == [True, item["cell"] != "adversarial_surface_noncompliant"]


def test_answers_of_an_oracle_stand_at_the_positions_that_it_read() -> None:
    texts = {"a@0": "Go", "a@1": "Go on", "b@0": "No"}
    slots = tuple(Slot(item, 2, int(item[-1])) for item in texts)
    feats = Features(torch.ones(3, 4), slots, {"a@0": "a", "a@1": "a", "b@0": "b"}, texts)
    logp = np.log([[0.6, 0.4], [0.9, 0.1], [0.5, 0.5]])
    null = np.log([[[0.7, 0.3], [0.5, 0.5], [0.5, 0.5]], [[0.5, 0.5], [0.3, 0.7], [0.5, 0.5]]])
    one = Choices(tuple(texts), ("a", "a", "b"), "Which?", ("yes", "no"), logp, np.ones(2), {HEADLINE: null})
    view = of_choices({"engaged": one, "heuristic": one}, feats)
    assert [item.id for item in view.items] == ["a", "b"] and [t.name for t in view.tracks] == ["p(yes)", "p(no)"]
    strip = view.items[0].strips[1]
    assert strip.member == "heuristic" and strip.tokens == ["Go", " on"]
    yes = strip.values[0]
    np.testing.assert_allclose(np.asarray(yes.score, float), [0.6, 0.9])
    np.testing.assert_allclose(yes.reference, [0.6, 0.4])  # means over two shuffles
    assert list(yes.rank) == [2, 1] and yes.n_controls == 2 and yes.notes[0] == "best answer: yes"
    with pytest.raises(ValueError, match="no source"):
        of_choices({}, feats)
    with pytest.raises(ValueError, match="other readings"):
        of_choices({"x": one, "y": replace(one, choices=("yes", "maybe"))}, feats)
