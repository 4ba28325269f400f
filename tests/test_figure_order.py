"""The figures that a block shows first are those of its best claims, not those whose file names come first."""

from __future__ import annotations

import random
from dataclasses import dataclass

from study.ledger import VERDICTS, Claim, Verdict
from study.report.figure_order import best_verdicts, ranked
from study.report.run_folder import SavedFigure


@dataclass(frozen=True)
class Judged(Claim):
    """A claim whose verdict is given."""

    given: Verdict = "not tested"

    @property
    def verdict(self) -> Verdict:
        return self.given


def judged(**verdicts: Verdict) -> list[Claim]:
    keys = {name: name.replace("__", "/") for name in verdicts}
    return [Judged(key, "decodable", "x", key=f"x/{key}", given=verdicts[name]) for name, key in keys.items()]


def drawn(*stems: str) -> list[SavedFigure]:
    return [SavedFigure(stem, "x", "", "", "", "") for stem in random.Random(0).sample(stems, len(stems))]


HEADS = [
    f"heads-{member}-{site}-mean-{sort}"
    for member, sites in {"engaged": ("label", "step_lookup"), "heuristic": ("label",)}.items()
    for site in sites
    for sort in ("map", "top")
]


def test_heads_open_with_the_member_and_site_of_the_supported_claim() -> None:
    claims = judged(
        necessary__L1_H0__label__engaged="not supported",
        necessary__L1_H0__step_lookup__engaged="supported",
        necessary__L1_H0__label__heuristic="not supported",
    )
    first, folded = ranked(drawn(*HEADS, "heads_difference-label-mean"), claims)
    shown = [figure.stem for figure in first]
    # the difference has no claim of its own, so that it stands last; by rank alone it would open the block
    assert shown == [
        "heads-engaged-step_lookup-mean-map",
        "heads-engaged-step_lookup-mean-top",
        "heads_difference-label-mean",
    ]
    assert sorted([*shown, *(figure.stem for figure in folded)]) == sorted([*HEADS, "heads_difference-label-mean"])


def test_with_the_verdicts_exchanged_the_other_member_opens() -> None:
    claims = judged(necessary__label__engaged="not supported", necessary__label__heuristic="qualified")
    assert [figure.stem for figure in ranked(drawn(*HEADS), claims)[0]] == [
        "heads-heuristic-label-mean-map",
        "heads-heuristic-label-mean-top",
    ]


def test_a_target_comes_before_its_shuffled_copy() -> None:
    real, shuffled = "probes-layers-tone_formal-last-resid_post", "probes-layers-tone.shuffled_formal-last-resid_post"
    claims = [
        Judged("real", "decodable", "probes", key="probes/decodable/tone/engaged", given="qualified"),
        Judged("shuffled", "decodable", "probes", key="probes/decodable/tone.shuffled/engaged", given="not testable"),
    ]
    assert best_verdicts([real, shuffled], claims) == {
        real: VERDICTS.index("qualified"),
        shuffled: VERDICTS.index("not testable"),
    }
    assert ranked(drawn(real, shuffled), claims)[0][0].stem == real
    assert sorted([real, shuffled])[0] == shuffled, "by name it would be the copy"


def test_without_claims_the_main_kind_of_the_engaged_member_opens() -> None:
    first, folded = ranked(drawn("steering-heuristic-resid_post.3", "steering-engaged-resid_post.3"), [])
    assert [figure.stem for figure in first] == ["steering-engaged-resid_post.3"]
    assert [figure.stem for figure in folded] == ["steering-heuristic-resid_post.3"]
