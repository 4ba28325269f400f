"""The parts of a verdict: p of an interval, the smallest effect of interest, correction over the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from interp.stats.power import StudySize
from study.designs import of_mean
from study.ledger import SEVERITY, VERDICTS, interval_p
from study.reach import Design, Reach
from study.report.claims import Above, Below, Claim, Control, Measured, SmallestEffects, Within, claims, correct, judge
from tests.report_tables import all_tables, eval_table, heads_tables, pair_table

PASSED = Control("c", "passed")


def t_interval(x: np.ndarray) -> Measured:
    half = scipy_stats.t.isf(0.025, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x))
    return Measured(float(x.mean()), float(x.mean() - half), float(x.mean() + half), len(x))


def p_of(x: np.ndarray, mean: float, side: str = "two-sided") -> float:
    found: Any = scipy_stats.ttest_1samp(x, mean, alternative=side)
    return float(found.pvalue)


@pytest.mark.parametrize("seed", range(4))
def test_the_p_of_a_t_interval_is_that_of_the_t_test(seed):
    x = np.random.default_rng(seed).normal(0.4, 1, 12)
    m = t_interval(x)
    assert interval_p(m, Above()) == pytest.approx(p_of(x, 0.0))
    assert interval_p(Measured(-m.value, -m.hi, -m.lo, m.n), Below()) == pytest.approx(interval_p(m, Above()))
    lower = p_of(x, -0.9, "greater")
    upper = p_of(x, 0.9, "less")
    assert interval_p(m, Within(0.9)) == pytest.approx(max(lower, upper)), "two one-sided tests"


@given(st.tuples(*[st.floats(-1, 1)] * 3).map(sorted), st.integers(3, 200))
def test_p_is_below_five_percent_exactly_where_the_interval_excludes_the_null(ends, n):
    lo, value, hi = ends
    if not lo < value < hi or min(abs(lo), abs(hi)) < 1e-9:
        return
    assert (interval_p(Measured(value, lo, hi, n), Above()) < 0.05) == (lo > 0 or hi < 0)


def test_an_interval_without_width_is_no_evidence():
    """Six of six groups alike give an interval of no width by a bootstrap: nothing is known of a seventh."""
    flat = Measured(1.0, 1.0, 1.0, 6, 6)
    assert interval_p(flat, Above()) == 1.0
    assert Claim("x", "behaviour", "eval", measured=flat, controls=(PASSED,)).verdict == "not supported"


@pytest.mark.parametrize(
    ("lo", "hi", "verdict"),
    [
        (0.12, 0.30, "supported"),  # the whole interval is of interest
        (0.04, 0.30, "qualified"),  # an effect, which may be smaller
        (0.01, 0.08, "not supported"),  # an effect, and none of interest
        (-0.01, 0.30, "not supported"),
    ],
)
@pytest.mark.parametrize("null", [0.0, 0.5])
def test_an_effect_has_to_be_one_of_interest(lo, hi, verdict, null):
    m = Measured(null + (lo + hi) / 2, null + lo, null + hi, 100)
    mirrored = Measured(-m.value, -m.hi, -m.lo, 100)
    for estimate, asserts in ((m, Above(null)), (mirrored, Below(-null))):
        claim = Claim("x", "necessary", "heads", asserts, estimate, (PASSED,), smallest=0.1)
        assert claim.verdict == verdict


def test_a_study_sets_its_smallest_effects():
    tables = {"pair": pair_table(), "eval": eval_table()}
    assert claims(tables)[0].verdict == "supported", "+0.47 [+0.41, +0.53]"
    for size, verdict in ((0.45, "qualified"), (0.6, "not supported")):
        assert claims(tables, smallest=SmallestEffects(accuracy=size))[0].verdict == verdict


@pytest.mark.parametrize(
    ("interval", "outcome"),
    [((0.1, 0.4), "passed"), ((-5.0, 6.0), "undecided"), ((-0.4, -0.1), "failed"), (None, "not run")],
)
def test_a_control_passes_only_with_its_own_interval_never_by_ignorance(interval, outcome):
    assert Control.at_least("c", interval).outcome == outcome
    inside = None if interval is None else (interval[0] / 10, interval[1] / 10)
    held = {(0.1, 0.4): "passed", (-5.0, 6.0): "undecided", (-0.4, -0.1): "passed", None: "not run"}
    assert Control.within("c", inside, (-0.05, 0.05)).outcome == held[interval]


def of(question: str, p: float) -> Claim:
    return Claim("x", "decodable", question, Above(), Measured(0.5, 0.4, 0.6, 100), (PASSED,), tests=(p,))


def test_the_verdict_uses_the_correction_over_the_whole_report():
    """Benjamini & Bogomolov by hand: question a has (0.004, 0.6), b (0.04,), c (0.03, 0.9, 0.9).

    BH inside a question: a (0.008, 0.6), b (0.04), c (0.09, 0.9, 0.9); over the questions' smallest (0.008, 0.04,
    0.09): 0.024, 0.06, 0.09. So only the first claim of a is found at 5 %, and 0.04 is not: alone, it would be.
    """
    found = correct([of("a", 0.004), of("a", 0.6), of("b", 0.04), *(of("c", p) for p in (0.03, 0.9, 0.9))])
    assert [c.verdict for c in found] == ["supported", *["not supported"] * 5]
    assert found[0].corrected is not None and found[2].corrected is not None
    assert found[0].corrected.fdr == pytest.approx(0.024) and found[2].corrected.fdr == pytest.approx(0.06)
    assert found[0].corrected.holm == pytest.approx(0.004 * 3 * 2)
    assert (found[0].corrected.n_claims, found[0].corrected.n_questions) == (6, 3)
    assert correct([of("b", 0.04)])[0].verdict == "supported"


def test_a_claim_needs_all_of_its_tests_and_its_interval():
    wide = Claim("x", "decodable", "a", Above(), Measured(0.5, -0.1, 1.1, 100), (PASSED,), tests=(0.001, 0.01))
    assert wide.p == pytest.approx(interval_p(Measured(0.5, -0.1, 1.1, 100), Above())) and (wide.p or 0) > 0.05
    assert of("a", 0.01).p == 0.01
    assert Claim("x", "decodable", "a").p is None


def test_a_failed_test_of_the_null_is_not_supported_whatever_the_interval():
    """The demo's "transfers ... qualified" at 0.0010 logits, p = 0.54."""
    tables = heads_tables()
    for name in ("heads", "heads_selected", "heads_difference"):
        tables[name] = tables[name].assign(p_adjusted=0.54)
    found = [c for c in claims(tables) if c.analysis == "heads" and c.measured]
    assert found and {c.verdict for c in found if "L1.H1" in c.text} == {"not supported"}, "0.62 [0.56, 0.68]"
    # 0.07 [0.01, 0.13] of 41 units: se = 0.06/t_40 = 0.06/2.021 = 0.0297; over 8 heads t_40 at 1 - 0.025/8 = 2.88;
    # 80 % takes (2.88 + 0.87)·0.0297 = 0.111 logits, and 0.1 is of interest
    small = [c for c in found if "L1.H3" in c.text]
    assert small and {c.verdict for c in small} == {"not testable"}
    assert small[0].reach is not None and small[0].reach.smallest_detectable == pytest.approx(0.1115, abs=0.002)


def test_a_slope_that_its_controls_have_too_is_not_supported_and_not_untestable():
    """More items would not help: 0.85 [0.57, 1.00], and a quarter of the random directions do as much."""
    row = {"value": 0.85, "lo": 0.57, "hi": 1.0, "n": 60, "n_groups": 17}
    null = Control("beyond random directions", "failed", sort="null")
    plan = of_mean(row, 0.1)
    assert plan is not None and not plan.reach().suffices, "0.15/t_16 = 0.0708; 0.0708·(2.12 + 0.88 + skew) > 0.2"
    for ends, verdict in (((0.57, 1.0), "not supported"), ((-0.1, 1.8), "not testable")):
        m = Measured(0.85, *ends, 60, 17)
        assert Claim("x", "sufficient", "steering", Above(), m, (null,), smallest=0.1, design=plan).verdict == verdict


def test_a_test_of_the_null_that_was_not_run_leaves_the_claim_untested():
    tables = all_tables()
    tables["steering_slopes"] = tables["steering_slopes"].assign(p=np.nan, p_shuffled=np.nan)
    steered = [c for c in claims(tables) if c.analysis == "steering"]
    assert {c.verdict for c in steered} == {"not tested"}


def test_claims_depend_on_roles_and_never_on_the_names_of_cells():
    named = pair_table()
    renamed = named.assign(cell=named["cell"].str.replace("adversarial_surface", "misleading_surface"))
    same = [claims({"pair": table, "eval": eval_table()}) for table in (named, renamed)]
    assert [c.verdict for c in same[0]] == [c.verdict for c in same[1]]
    assert [c.text for c in same[0]] == [c.text for c in same[1]]
    without = claims({"pair": named.assign(cell_role=""), "eval": eval_table()})
    assert without[0].text.startswith("The members differ on") and without[1].measured is None
    reworded = named.assign(verdict=named["verdict"].str.replace("margin 0.05", "a margin of 0.05"))
    assert claims({"pair": reworded})[1] == claims({"pair": named})[1]


def test_judge_without_controls_is_at_most_qualified():
    assert judge(Measured(0.2, 0.1, 0.3, 100), Above(), ()) == "qualified"


MASSES = [(0.9, "supported"), (0.5, "supported"), (0.3, "qualified"), (0.05, "not tested")]


@pytest.mark.parametrize(("mass", "verdict"), MASSES)
def test_little_label_mass_marks_a_claim_and_less_than_the_floor_refuses_it(mass: float, verdict: str) -> None:
    tables = {name: table.copy() for name, table in all_tables().items()}
    before = {c.key: c for c in claims(tables)}
    tables["heads"]["label_mass"] = mass
    after = {c.key: c for c in claims(tables)}
    key = next(k for k, c in before.items() if c.analysis == "heads" and c.verdict == "supported")
    assert after[key].verdict == verdict
    if verdict == "not tested":
        assert f"the labels hold {mass:.2f}" in after[key].why and "min_label_mass 0.1" in after[key].why
        assert {c.key: c.verdict for c in claims(tables, min_label_mass=0.04)}[key] == "qualified"
    others = [k for k, c in before.items() if c.analysis not in ("heads",)]
    assert others and all(after[k].controls == before[k].controls for k in others)


def test_a_difference_has_the_smaller_label_mass_of_its_members_in_its_cell() -> None:
    from study.report.mass import with_masses

    own = pd.DataFrame({"member": ["engaged", "heuristic"] * 2, "cell": ["a", "a", "b", "b"],
                        "label_mass": [0.9, 0.4, 0.8, 0.7], "value": 1.0})  # fmt: skip
    pair = pd.DataFrame({"member": ["engaged - heuristic", "engaged - heuristic", "engaged"], "cell": ["a", "b", "a"]})
    filled = with_masses({"eval": own, "pair": pair, "probes": pair})
    assert filled["pair"]["label_mass"].tolist() == [0.4, 0.7, 0.9]
    assert "label_mass" not in filled["probes"]
    assert "label_mass" not in with_masses({"eval": own.drop(columns="label_mass"), "pair": pair})["pair"]


@dataclass(frozen=True)
class Bar:
    """A claim of which every effect from `smallest` on is shown, and at which n the effect is shown."""

    smallest: float

    @property
    def largest(self) -> float:
        return 1.0

    def power(self, effect: float, size: StudySize) -> float:
        return float(effect >= self.smallest * np.sqrt(30 / size.n))


def design(smallest: float | None, interest: float) -> Design | None:
    return None if smallest is None else Design(Bar(smallest), StudySize(30), interest)


UNSHOWN, SHOWN, OPPOSITE, TRIFLING = ((-0.1, 0.3), (0.12, 0.3), (-0.3, -0.05), (-0.02, 0.08))


@pytest.mark.parametrize(
    ("ends", "smallest_detectable", "verdict"),
    [
        (UNSHOWN, 0.25, "not testable"),  # an effect of 0.1 is of interest, one of 0.25 is the least that is shown
        (UNSHOWN, float("inf"), "not testable"),
        (UNSHOWN, 0.09, "not supported"),  # it would have been shown
        (UNSHOWN, None, "not supported"),
        (SHOWN, 0.25, "supported"),
        (OPPOSITE, 0.25, "contradicted"),
        (TRIFLING, 0.25, "not supported"),  # whatever was planned, this study excludes 0.1
    ],
)
def test_a_claim_that_is_not_shown_is_not_testable_where_its_n_could_not_show_what_is_of_interest(
    ends, smallest_detectable, verdict
) -> None:
    lo, hi = ends
    m = Measured((lo + hi) / 2, lo, hi, 30)
    claim = Claim("x", "necessary", "heads", Above(), m, (PASSED,), smallest=0.1,
                  design=design(smallest_detectable, 0.1))  # fmt: skip
    assert claim.verdict == verdict
    assert claim.why_not_testable.startswith("not testable at n = 30, ") == (verdict == "not testable")


@pytest.mark.parametrize("asserts", [Above(), Below()])
@pytest.mark.parametrize("smallest", [0.1, 0.0])
def test_an_interval_on_the_other_side_is_not_supported_even_if_a_test_of_the_null_fails(asserts, smallest) -> None:
    """The interval excludes every effect of interest, so the n was large enough, whatever p is."""
    lo, hi = OPPOSITE if isinstance(asserts, Above) else (-OPPOSITE[1], -OPPOSITE[0])
    m, null = Measured((lo + hi) / 2, lo, hi, 30), Control("max-|t|", "failed", sort="null")
    claim = Claim("x", "necessary", "heads", asserts, m, (null,), smallest=smallest, design=design(0.25, 0.1))
    assert (claim.verdict, claim.is_small) == ("not supported", True)


def test_equivalence_is_not_testable_where_the_n_cannot_show_it_at_the_margin() -> None:
    m = Measured(0.01, -0.1, 0.12, 30)
    of_n = [Claim("x", "behaviour", "eval", Within(0.05), m, (PASSED,), design=design(d, 0.05)) for d in (0.2, 0.04)]
    assert [claim.verdict for claim in of_n] == ["not testable", "not supported"]
    assert of_n[0].reach is not None and of_n[0].reach.n_needed == 480, "0.2·sqrt(30/n) = 0.05"


def test_the_sentence_gives_the_smallest_effect_and_the_n_that_is_needed() -> None:
    reach = Reach(0.248, 1474, 30, 0.05, given="at the spread observed")
    assert reach.sentence == (
        "at n = 30, effects of 0.25 or more are shown in 80 % of studies; of interest are 0.05 or more, "
        "which takes n = 1,474 (at the spread observed)"
    )
    equal = Reach(0.11, 474, 30, 0.05, is_equivalence=True)
    assert equal.sentence == (
        "at n = 30, equal members are shown to be equal within 0.11 in 80 % of studies; "
        "the margin is 0.05, which takes n = 474"
    )
    assert Reach(0.04, 20, 30, 0.05).sentence.endswith("of interest are 0.05 or more")
    assert "no effect, however large" in Reach(float("inf"), None, 4, 0.05).sentence


def test_severity_orders_the_same_verdicts() -> None:
    """A claim about several cells: one that is not supported outweighs one that is not testable."""
    assert sorted(SEVERITY) == sorted(VERDICTS)
    assert SEVERITY.index("not supported") > SEVERITY.index("not testable") > SEVERITY.index("qualified")
