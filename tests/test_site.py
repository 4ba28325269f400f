"""Site strings: what parses, what is refused and with which words."""

from __future__ import annotations

import pytest

from interp.family import Layout
from interp.site import SITE_KINDS, Site, expand_sites, format_ranges
from tests.tiny import tiny


@pytest.fixture(scope="module")
def hybrid() -> Layout:
    return Layout(tiny("qwen3_5").get_decoder())


@pytest.mark.parametrize("text", ["L19.H17", "19.17", "L=19 H=17", "z.19.17", "L19H17", "l19.h17", "L=19, H=17"])
def test_every_spelling_of_a_head_is_the_same_site(text: str) -> None:
    assert Site.parse(text) == Site("z", 19, 17)


def test_base_one_shifts_layer_and_head_and_refuses_zero() -> None:
    assert Site.parse("L20 H17", base=1) == Site("z", 19, 16)
    assert Site.parse("resid_post.1", base=1) == Site("resid_post", 0)
    with pytest.raises(ValueError, match="base=1 says that counting starts at 1"):
        Site.parse("L0.H3", base=1)


@pytest.mark.parametrize("kind", SITE_KINDS)
def test_string_form_round_trips(kind: str) -> None:
    row = SITE_KINDS[kind]
    site = Site(kind, 3 if row.per_layer else None, 1 if row.heads else None)
    assert Site.parse(str(site)) == site


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("resid_pots.3", "Did you mean 'resid_post'"),
        ("resid_post", "needs a layer"),
        ("logits.3", "has no layers"),
        ("resid_post.3.1", "has no heads"),
        ("resid_post.-1", "is not a site"),
        ("hidden", "known kinds: embed"),
    ],
)
def test_a_bad_site_says_what_was_expected(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Site.parse(text)


def test_globs_take_only_layers_that_have_the_site(hybrid: Layout) -> None:
    assert [str(s) for s in expand_sites("pattern.*", hybrid)] == ["pattern.3"]
    assert [str(s) for s in expand_sites("z.*", hybrid)] == ["z.0", "z.1", "z.2", "z.3"]
    assert [str(s) for s in expand_sites("k.3.*", hybrid)] == ["k.3.0", "k.3.1"]


def test_slices_are_pythons_and_repeats_are_dropped(hybrid: Layout) -> None:
    got = expand_sites(["resid_post.1:4:2, resid_post.3", Site("embed"), "logits"], hybrid)
    assert [str(s) for s in got] == ["resid_post.1", "resid_post.3", "embed", "logits"]


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("resid_post.4", r"4 layers \(0-3\)"),
        ("q.0", r"layer 0 is of kind 'linear_attention' and has no 'q'. Layers with 'q': 3"),
        ("k.3.2", r"2 key-value heads \(0-1\)"),
        ("z.3.4", r"4 heads \(0-3\)"),
        ("resid_post.9:", "selects nothing"),
        ("nonsense.*", "is not a site pattern"),
        ("z.x:y", "neither a number"),
        ([], "no sites were named"),
    ],
)
def test_a_site_that_the_model_does_not_have_is_refused_with_the_choices(hybrid: Layout, pattern, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        expand_sites(pattern, hybrid)


def test_ranges_read_as_a_person_writes_them() -> None:
    assert format_ranges([7, 0, 1, 2]) == "0-2, 7"
    assert format_ranges([]) == ""
