"""The ledger's rule, and which claims the tables give."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t

from study.report.claims import Above, Below, Claim, Control, Measured, Within, claims, judge
from study.report.published import Published, beside, parse_published
from tests.report_tables import CELLS, all_tables, eval_table, heads_tables, pair_table, probes_table

OUTCOMES_ALL = ("passed", "failed", "undecided", "not run")
PASSED, FAILED, UNDECIDED, NOT_RUN = (Control("c", outcome) for outcome in OUTCOMES_ALL)
NO_EFFECT, NULL_UNDECIDED, NULL_NOT_RUN = (
    Control("c", outcome, sort="null") for outcome in ("failed", "undecided", "not run")
)


def at(lo: float, hi: float) -> Measured:
    return Measured((lo + hi) / 2, lo, hi, 100)


@pytest.mark.parametrize(
    ("lo", "hi", "asserts", "controls", "verdict"),
    [
        (0.1, 0.3, Above(), (PASSED,), "supported"),
        (0.1, 0.3, Above(), (PASSED, FAILED), "qualified"),
        (0.1, 0.3, Above(), (PASSED, NOT_RUN), "qualified"),
        (0.1, 0.3, Above(), (PASSED, UNDECIDED), "qualified"),
        (0.1, 0.3, Above(), (PASSED, NO_EFFECT), "not supported"),
        (0.1, 0.3, Above(), (PASSED, NULL_UNDECIDED), "not supported"),
        (0.1, 0.3, Above(), (PASSED, NULL_NOT_RUN), "not tested"),
        (0.1, 0.3, Above(), (NO_EFFECT, NULL_NOT_RUN), "not supported"),
        (0.1, 0.1, Above(), (PASSED,), "not supported"),
        (-0.1, -0.1, Above(), (PASSED,), "not supported"),
        (0.1, 0.3, Above(), (), "qualified"),
        (-0.1, 0.3, Above(), (PASSED,), "not supported"),
        (0.0, 0.3, Above(), (PASSED,), "not supported"),
        (-0.3, -0.1, Above(), (PASSED,), "contradicted"),
        (0.55, 0.7, Above(0.5), (PASSED,), "supported"),
        (0.3, 0.4, Above(0.5), (PASSED,), "contradicted"),
        (-0.3, -0.1, Below(), (PASSED,), "supported"),
        (0.1, 0.3, Below(), (PASSED,), "contradicted"),
        (-0.02, 0.03, Within(0.05), (PASSED,), "supported"),
        (-0.02, 0.06, Within(0.05), (PASSED,), "not supported"),
        (-0.17, -0.06, Within(0.05), (FAILED,), "contradicted"),
        (0.06, 0.17, Within(0.05), (FAILED,), "contradicted"),
        (0.02, 0.04, Within(0.05), (PASSED,), "supported"),
    ],
)
def test_the_verdict_follows_from_the_interval_and_the_controls_alone(lo, hi, asserts, controls, verdict):
    assert judge(at(lo, hi), asserts, controls) == verdict
    assert judge(None, asserts, controls) == "not tested"


BOUNDS = st.tuples(*[st.floats(-1, 1)] * 2).map(sorted)
OUTCOMES = st.lists(st.sampled_from([PASSED, FAILED, UNDECIDED, NOT_RUN, NO_EFFECT, NULL_NOT_RUN]), max_size=4)


@given(BOUNDS, OUTCOMES, st.floats(-0.5, 0.5))
def test_below_mirrors_above(bounds, controls, null):
    lo, hi = bounds
    assert judge(at(lo, hi), Above(null), controls) == judge(at(-hi, -lo), Below(-null), controls)


@given(BOUNDS, OUTCOMES, st.sampled_from([Above(), Below(), Within(0.1)]))
def test_a_control_that_did_not_pass_leaves_a_claim_at_most_qualified(bounds, controls, asserts):
    before, after = (judge(at(*bounds), asserts, c) for c in (controls, [*controls, FAILED]))
    assert after != "supported"
    assert before == after or (before == "supported" and after == "qualified")
    refuted = judge(at(*bounds), asserts, [*controls, NO_EFFECT])
    assert refuted in ("not supported", "contradicted"), "without an effect nothing is qualified"


def by_text(found: tuple[Claim, ...], part: str) -> Claim:
    chosen = [claim for claim in found if part in claim.text]
    assert len(chosen) == 1, (part, [claim.text for claim in found])
    return chosen[0]


def test_the_ledger_of_the_synthetic_study():
    found = claims(all_tables())
    verdicts = {claim.text: claim.verdict for claim in found}
    assert verdicts["The pair separates on adversarial surface cells"] == "supported"
    assert verdicts["Training-distribution accuracy is equivalent"] == "contradicted"
    assert verdicts["“gold label” is linearly decodable in the engaged member"] == "qualified"  # not beyond words
    assert verdicts["“gold label” is linearly decodable in the heuristic member"] == "not supported"
    assert verdicts["L1.H1 is necessary for the answer of the engaged member"] == "supported"
    assert verdicts["What L1.H1 carries transfers to the other answer in the engaged member"] == "supported"
    steered = "Adding “v_bias” at resid_post.2"
    assert verdicts[f"{steered} raises the margin toward anti_stereotype in the engaged member"] == "supported"
    assert verdicts[f"{steered} lowers commit bias in the engaged member"] == "qualified"  # coverage falls with it
    assert (
        verdicts["The oracle reads step type from activations of the engaged member"] == "qualified"
    )  # a linear probe is better
    # 0.01 [-0.03, 0.05] of 120 problems: se = 0.04/1.980 = 0.0202; 80 % takes (1.980 + 0.845)·0.0202 = 0.057 nats
    assert verdicts["The oracle reads answer correct from activations of the engaged member"] == "not testable"


def test_a_claim_about_every_adversarial_cell_rests_on_the_weakest():
    claim = claims({"pair": pair_table()})[0]
    assert claim.measured is not None
    assert claim.measured.value == pytest.approx(0.47)
    worse = [
        (c, n, 0.3 if c.endswith("noncompliant") and "adv" in c else e, h, p, v, t) for c, n, e, h, p, v, t in CELLS
    ]
    # 141 items, 3 of them right in the heuristic member alone: d = (1.96 + 0.84)·sqrt((7/142 + d)/141) = 0.09 > 0.05
    assert claims({"pair": pair_table(worse)})[0].verdict == "not testable"


def test_the_weakest_adversarial_cell_is_the_one_of_the_worst_verdict():
    cells = [("adversarial_a", 100, 0.6, 0.4, 0.004, "", ""), ("adversarial_b", 100, 0.7, 0.4, 0.22, "", "")]
    table = pair_table(cells)
    table.loc[(table["cell"] == "adversarial_b") & (table["member"] == "engaged - heuristic"), ["lo", "hi"]] = (
        -0.05,
        0.65,
    )
    claim = claims({"pair": table, "eval": eval_table()})[0]
    assert claim.verdict == "not testable", "half-width 0.35: no difference of 0.05 is shown"
    assert claim.measured is not None
    assert claim.measured.value == pytest.approx(0.3)


def test_equivalence_is_of_every_training_cell():
    cells = [
        ("training_a", 433, 0.70, 0.70, 0.9, "equivalent", ""),
        ("training_b", 433, 0.82, 0.70, 0.01, "not equivalent", ""),
    ]
    assert by_text(claims({"pair": pair_table(cells, margin=0.06)}), "equivalent").verdict == "contradicted"
    assert by_text(claims({"pair": pair_table(cells[:1], margin=0.06)}), "equivalent").verdict == "supported"


def test_without_adversarial_cells_the_largest_difference_is_claimed_in_its_own_direction():
    cells = [("a", 100, 0.5, 0.9, 0.001, "", ""), ("b", 100, 0.6, 0.5, 0.2, "", "")]
    claim = claims({"pair": pair_table(cells)})[0]
    assert claim.text == "The members differ on a"
    assert claim.asserts == Below()
    assert claim.measured is not None
    assert claim.measured.value == pytest.approx(-0.4)
    df = claim.measured.n_groups - 1  # type: ignore[operator]
    wider = float(t.isf(0.025 / 2, df) / t.isf(0.025, df))
    assert claim.measured.lo == pytest.approx(-0.4 - 0.055 * wider), "holds for whichever of two cells is largest"


def test_what_was_not_run_is_a_row_and_names_a_failed_step():
    found = claims({}, failed={"heads": "out of memory"})
    assert {claim.verdict for claim in found} == {"not tested"}
    assert {claim.evidence for claim in found} == {
        "behaviour",
        "decodable",
        "necessary",
        "transfers",
        "sufficient",
        "reads",
    }
    assert {claim.why for claim in found if claim.analysis == "heads"} == {"the step failed: out of memory"}
    assert all(claim.why for claim in found)


def test_a_probe_without_its_controls_is_at_most_qualified():
    table = probes_table()
    ends = [f"text_difference{end}" for end in ("", "_lo", "_hi")]
    for lost in (ends, ["selectivity_lo"]):
        kept = table.assign(**dict.fromkeys(lost, float("nan")))
        claim = by_text(claims({"probes": kept}), "decodable in the engaged member")
        assert claim.verdict == "qualified"
        assert "not run" in {control.outcome for control in claim.controls}
    point = table.assign(value=table["value"].where(table["site"] != "surface", 0.6))
    claim = by_text(claims({"probes": point}), "decodable in the engaged member")
    assert claim.verdict == "qualified", "only the interval of the paired difference passes, no point does"
    beaten = table.assign(**dict(zip(ends, (0.2, 0.1, 0.3), strict=True)))
    assert by_text(claims({"probes": beaten}), "decodable in the engaged member").verdict == "supported"


def test_a_named_head_is_claimed_before_the_largest():
    tables = heads_tables()
    table = tables["heads"]
    tables["heads"] = table.assign(named=table["head"] == "L0.H1")
    found = [claim for claim in claims(tables) if "necessary for the answer of the engaged member" in claim.text]
    assert [claim.text.split()[0] for claim in found] == ["L0.H1", "L1.H1"]
    assert [claim.verdict for claim in found] == ["not supported", "supported"]
    tables["heads"] = table.assign(named=table["head"] == "L1.H1")
    claim = by_text(claims(tables), "necessary for the answer of the engaged member")
    assert claim.measured is not None
    assert claim.measured.n == 96, "a named head is reported on all pairs"


def test_a_head_whose_same_answer_twins_move_as_much_does_not_carry_the_answer():
    tables = heads_tables()
    table = tables["heads_selected"]
    flip = table["pairs"] == "flip"
    tables["heads_selected"] = table.assign(keep_difference_hi=table["keep_difference_hi"].where(~flip, -0.1),
                                   keep_difference_lo=table["keep_difference_lo"].where(~flip, -0.3))  # fmt: skip
    claim = by_text(claims(tables), "transfers to the other answer in the engaged member")
    assert claim.verdict == "qualified"
    assert any("same-answer" in control.name and control.outcome == "failed" for control in claim.controls)


SAME = dict.fromkeys(("model", "prompt", "decoding", "data", "metric"), "same")


def test_published_values_are_read_beside_ours():
    tables = {"pair": pair_table()}
    own = dict(member="engaged", cell="training_distribution")
    change = dict(member="engaged - heuristic", cell="baseline_compliant")

    def read(**kwargs) -> str:
        return beside(Published("q", table="pair", **{**SAME, **kwargs}), tables).reading

    assert read(value=0.68, where=own) == "consistent"
    assert read(value=0.90, where=own) == "differs"
    assert read(value=0.68, where=own, not_comparable="another model") == "not comparable"
    assert read(value=0.333, before=0.279, where=change) == "change not established"
    assert read(value=0.9, before=0.4, where={**change, "cell": "exception_trigger"}) == "differs"
    assert read(value=0.76, before=0.4, where={**change, "cell": "exception_trigger"}) == "consistent"
    assert read(value=0.68, where={**own, "cell": "nowhere"}) == "not run"
    assert beside(Published("q", 1.0), tables).reading == "not run"
    two = beside(Published("q", 0.6, table="pair", where=dict(member="engaged")), tables)
    assert (two.reading, two.why) == ("not run", "5 rows of pair fit")


def test_a_published_value_of_which_ours_is_undefined_says_why():
    table = pair_table().assign(note="")
    own = dict(member="engaged", cell="training_distribution")
    keep = (table["member"] == own["member"]) & (table["cell"] == own["cell"])
    assert keep.sum() == 1
    table.loc[keep, ["value", "lo", "hi"]] = float("nan")
    table.loc[keep, "note"] = "undefined: no reply named a person"
    found = beside(Published("q", 0.3, table="pair", where=own, **SAME), {"pair": table})
    assert (found.reading, found.why) == ("not run", "undefined: no reply named a person")
    assert beside(Published("q", 0.3, table="pair", where={"nothing": 1}), {"pair": table}).why == "no rows of pair fit"


@pytest.mark.parametrize(
    ("changed", "study", "differs"),
    [
        ({}, {}, ()),
        ({"prompt": ""}, {}, ("prompt: not stated",)),
        ({"data": "another split", "metric": ""}, {}, ("data: another split", "metric: not stated")),
        ({"decoding": {"eval.temperature": 0.1}}, {"eval": {"temperature": 0.1}}, ()),
        ({"decoding": {"eval.temperature": 0.1}}, {"eval": {"temperature": 0}},
         ("decoding: eval.temperature is 0 here, 0.1 there",)),
        ({"decoding": {"eval.samples": 5}}, {}, ("decoding: eval.samples is not given here, 5 there",)),
        ({"data": {"task.data": "MIETIC.csv"}}, {"task": {"data": "../mine/MIETIC.csv"}}, ()),
        ({"model": ""}, {}, ("model: not stated",)),
        ({"model": {"pair.engaged.base": "Qwen/Qwen2.5-3B"}}, {"pair": {"engaged": {"base": "./real/Qwen2.5-3B"}}}, ()),
        ({"model": {"pair.engaged.base": "Qwen/Qwen2.5-3B"}}, {"pair": {"engaged": {"base": "./smollm2"}}},
         ("model: pair.engaged.base is smollm2 here, Qwen2.5-3B there",)),
        ({"n": 36}, {}, ("data: n = 36 there, 433 here",)),
        ({"n": 433}, {}, ()),
    ],
)  # fmt: skip
def test_ours_is_comparable_only_where_model_prompt_decoding_data_and_metric_are_the_source_s(changed, study, differs):
    own = dict(member="engaged", cell="training_distribution")
    found = beside(Published("q", 0.68, table="pair", where=own, **{**SAME, **changed}), {"pair": pair_table()}, study)
    assert found.differs == differs
    assert found.comparable == (not differs)
    assert found.reading == ("not comparable" if differs else "consistent")


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ("x", "expected a list"),
        ([{"value": 1}], "entry 1: expected a mapping with name"),
        ([{"name": "a", "value": 1}, {"name": "b", "value": "x"}], "entry 2: value 'x' is not a number"),
        ([{"name": "a", "value": 1, "omit": "n"}], "unknown key 'omit'"),
    ],
)
def test_published_entries_that_cannot_be_read_are_named(entries, words):
    with pytest.raises(ValueError, match=words):
        parse_published(entries)


def test_rows_of_a_blank_table_claim_nothing():
    empty = {name: table.iloc[:0] for name, table in all_tables().items()}
    assert {claim.verdict for claim in claims(empty)} == {"not tested"}
    assert all(isinstance(table, pd.DataFrame) for table in empty.values())


def test_a_single_checkpoint_has_the_claims_that_a_member_has() -> None:
    """Its tables carry its own name, not a role of a pair; the base of a pair has no claims of its own."""

    def of(claim_tables: dict[str, pd.DataFrame]) -> dict[str, str]:
        found = claims(claim_tables)
        return {c.key: c.verdict for c in found if c.analysis in ("heads", "probes") and c.measured is not None}

    pair = {**heads_tables(), "probes": probes_table()}
    engaged = {name: table[table["member"] == "engaged"] for name, table in pair.items()}
    engaged = {name: table for name, table in engaged.items() if len(table)}
    alone = {name: table.assign(member="smollm2") for name, table in engaged.items()}
    assert of(alone) == {key.replace("engaged", "smollm2"): verdict for key, verdict in of(engaged).items()}
    assert any(key.startswith("heads/necessary") for key in of(alone))
    with_base = {name: pd.concat([t, t.assign(member="base")]) for name, t in engaged.items()}
    assert of(with_base) == of(engaged)
