"""The ledger's rule, and which claims the tables give."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import study
from steering.curves import MIN_NULL
from study.config.read import read_study
from study.report.claims import Above, Below, Claim, Control, Measured, Within, claims, judge
from study.report.published import Published, beside, parse_published
from study.steps.steering import _slopes
from study.tables import tidy
from tests.report_kit import (
    CELLS,
    all_tables,
    eval_table,
    heads_tables,
    oracle_table,
    pair_table,
    probes_table,
    slopes_table,
)

PASSED, FAILED, NOT_RUN = (Control("c", outcome) for outcome in ("passed", "failed", "not run"))


def at(lo: float, hi: float) -> Measured:
    return Measured((lo + hi) / 2, lo, hi, 100)


@pytest.mark.parametrize(
    ("lo", "hi", "asserts", "controls", "verdict"),
    [
        (0.1, 0.3, Above(), (PASSED,), "supported"),
        (0.1, 0.3, Above(), (PASSED, FAILED), "qualified"),
        (0.1, 0.3, Above(), (PASSED, NOT_RUN), "qualified"),
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
OUTCOMES = st.lists(st.sampled_from([PASSED, FAILED, NOT_RUN]), max_size=4)


@given(BOUNDS, OUTCOMES, st.floats(-0.5, 0.5))
def test_below_mirrors_above(bounds, controls, null):
    lo, hi = bounds
    assert judge(at(lo, hi), Above(null), controls) == judge(at(-hi, -lo), Below(-null), controls)


@given(BOUNDS, OUTCOMES, st.sampled_from([Above(), Below(), Within(0.1)]))
def test_a_control_that_did_not_pass_leaves_a_claim_at_most_qualified(bounds, controls, asserts):
    before, after = (judge(at(*bounds), asserts, c) for c in (controls, [*controls, FAILED]))
    assert after != "supported"
    assert before == after or (before == "supported" and after == "qualified")


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
    assert verdicts["The oracle reads step type from activations of engaged"] == "qualified"  # a linear probe is better
    assert verdicts["The oracle reads answer correct from activations of engaged"] == "not supported"


def test_a_claim_about_every_adversarial_cell_rests_on_the_weakest():
    claim = claims({"pair": pair_table()})[0]
    assert claim.measured is not None
    assert claim.measured.value == pytest.approx(0.47)
    worse = [
        (c, n, 0.3 if c.endswith("noncompliant") and "adv" in c else e, h, p, v, t) for c, n, e, h, p, v, t in CELLS
    ]
    assert claims({"pair": pair_table(worse)})[0].verdict == "not supported"


def test_the_weakest_adversarial_cell_is_the_one_of_the_worst_verdict():
    cells = [("adversarial_a", 100, 0.6, 0.4, 0.004, "", ""), ("adversarial_b", 100, 0.7, 0.4, 0.22, "", "")]
    table = pair_table(cells)
    table.loc[(table["cell"] == "adversarial_b") & (table["member"] == "engaged - heuristic"), ["lo", "hi"]] = (
        -0.05,
        0.65,
    )
    claim = claims({"pair": table, "eval": eval_table()})[0]
    assert claim.verdict == "not supported"
    assert claim.measured is not None
    assert claim.measured.value == pytest.approx(0.3)


def test_equivalence_is_of_every_training_cell():
    cells = [
        ("training_a", 433, 0.70, 0.70, 0.9, "equivalent at margin 0.06", ""),
        ("training_b", 433, 0.82, 0.70, 0.01, "not equivalent at margin 0.06", ""),
    ]
    assert by_text(claims({"pair": pair_table(cells)}), "equivalent").verdict == "contradicted"
    assert by_text(claims({"pair": pair_table(cells[:1])}), "equivalent").verdict == "supported"


def test_without_adversarial_cells_the_largest_difference_is_claimed_in_its_own_direction():
    cells = [("a", 100, 0.5, 0.9, 0.001, "", ""), ("b", 100, 0.6, 0.5, 0.2, "", "")]
    claim = claims({"pair": pair_table(cells)})[0]
    assert claim.text == "The members part on a"
    assert claim.asserts == Below()
    assert claim.measured is not None
    assert claim.measured.value == pytest.approx(-0.4)


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
    for drop in (table["site"] != "surface", slice(None)):
        kept = table[drop] if not isinstance(drop, slice) else table.assign(selectivity_lo=float("nan"))
        claim = by_text(claims({"probes": kept}), "decodable in the engaged member")
        assert claim.verdict == "qualified"
        assert "not run" in {control.outcome for control in claim.controls}
    beaten = table.assign(value=table["value"].where(table["site"] != "surface", 0.6))
    assert by_text(claims({"probes": beaten}), "decodable in the engaged member").verdict == "supported"


def test_a_probe_that_reads_the_other_member_needs_a_label_that_is_no_control_label():
    row = dict(
        target="gold_label",
        position="last",
        kind="logistic",
        train_checkpoint="engaged",
        variant="raw",
        test_checkpoint="heuristic",
        train_site="resid_post.3",
        test_site="resid_post.3",
        train_layer=3,
        metric="auroc",
        value=0.7,
        lo=0.6,
        hi=0.8,
        drop=-0.01,
        drop_lo=-0.04,
        drop_hi=0.02,
        n=162,
        n_groups=20,
    )
    same = dict(analysis="probes", member="engaged", model="tiny", adapter="none", interval="jackknife t")
    tables = {"probes": probes_table(), "probes_transfer": tidy([row], **same)}
    assert by_text(claims(tables), "fitted on engaged reads heuristic").verdict == "supported"
    short = dict(row, drop=-0.05, drop_lo=-0.1, drop_hi=0.01)  # no evidence of a loss is none of its absence
    assert (
        by_text(claims(tables | {"probes_transfer": tidy([short], **same)}), "reads heuristic").verdict == "qualified"
    )
    tables["probes"] = probes_table().assign(selectivity_lo=-0.1)
    assert by_text(claims(tables), "fitted on engaged reads heuristic").verdict == "qualified"

    blank = dict(row, drop=float("nan"), drop_lo=float("nan"))
    claim = by_text(claims(tables | {"probes_transfer": tidy([blank], **same)}), "reads heuristic")
    assert {c.name: c.outcome for c in claim.controls}["within 0.05 of the probe fitted there"] == "not run"
    tables["probes"] = probes_table()
    aligned = dict(row, variant="aligned")
    for control, outcome in (([], "not run"), ([(0.52, 0.45)], "passed"), ([(0.68, 0.6)], "failed")):
        rows = [aligned, *(dict(row, variant="aligned-shuffled", value=value, lo=lo) for value, lo in control)]
        claim = by_text(claims(tables | {"probes_transfer": tidy(rows, **same)}), "reads heuristic")
        assert {c.name: c.outcome for c in claim.controls}["the same map on shuffled pairs does not read it"] == outcome
        assert (claim.verdict == "supported") == (outcome == "passed")


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


def test_a_direction_that_moves_less_bias_by_committing_less_is_no_gain():
    claim = by_text(claims(all_tables()), "lowers commit bias")
    outcomes = {control.name: control.outcome for control in claim.controls}
    assert outcomes == {
        "beyond random and shuffled directions of equal norm": "passed",
        "still there without the other directions": "failed",
        "leaves coverage where equal-norm controls leave it": "failed",
        "leaves accuracy where equal-norm controls leave it": "passed",
    }


def slopes(member: str = "direction", metric: str = "margin", **changed: float) -> dict[str, pd.DataFrame]:
    table = slopes_table()
    table.loc[(table["arm"] == member) & (table["metric"] == metric), list(changed)] = list(changed.values())
    return {"steering_slopes": table}


def steered(tables: dict[str, pd.DataFrame], part: str) -> Control:
    claim = by_text(claims(tables), "raises the margin")
    return next(control for control in claim.controls if part in control.name)


def test_a_direction_is_beyond_its_controls_only_with_a_p_against_both_sorts():
    assert steered(slopes(), "beyond random").outcome == "passed"
    nan = float("nan")
    few = steered(slopes(p=nan, p_shuffled=nan), "beyond random")
    assert (few.outcome, few.detail) == ("not run", "too few shuffled directions for a p")
    assert steered(slopes(p=0.2), "beyond random").outcome == "failed"
    assert steered(slopes(null_lo=0.85, null_hi=0.9), "beyond random").outcome == "failed", "less than its controls"


def test_the_p_of_a_slope_is_none_where_one_sort_of_controls_has_none():
    rows = pd.DataFrame(
        dict(arm="direction", name="v", metric=["margin", "coverage"], slope=1.0, p=0.05,
             p_random=[0.05, 0.05], p_shuffled=[float("nan"), 0.4])
    )  # fmt: skip
    made = _slopes(rows)
    assert made["p"].isna().tolist() == [True, False]
    assert made["p"].iloc[1] == 0.4
    assert _slopes(rows.drop(columns="p_shuffled"))["p"].isna().all()


def test_the_demo_steers_enough_directions_of_each_sort_for_a_p():
    section = read_study(Path(study.__file__).parent / "settings/embedded.yaml").steering
    assert section is not None
    assert min(section.n_random, section.n_shuffled) >= MIN_NULL


def test_what_is_left_without_the_other_directions_must_be_beyond_its_own_null():
    part, nan = "without the other", float("nan")
    assert steered(slopes(), part).outcome == "passed"
    assert steered(slopes("orthogonalized", null_hi=0.6), part).outcome == "failed"
    undefined = steered(slopes("orthogonalized", value=nan, lo=nan, hi=nan), part)
    assert (undefined.outcome, undefined.detail) == ("not run", "slope undefined")
    table = slopes_table()
    claim = by_text(claims({"steering_slopes": table[table["arm"] != "orthogonalized"]}), "raises the margin")
    assert not [control for control in claim.controls if part in control.name], "nothing was to be taken out"


def test_a_head_whose_same_answer_twins_move_as_much_does_not_carry_the_answer():
    tables = heads_tables()
    table = tables["heads"]
    placebo = table["pairs"] == "keep"
    tables["heads"] = table.assign(value=table["value"].where(~placebo, 0.6))
    claim = by_text(claims(tables), "transfers to the other answer in the engaged member")
    assert claim.verdict == "qualified"
    assert any("same-answer" in control.name and control.outcome == "failed" for control in claim.controls)


def test_the_gap_of_an_oracle_has_its_own_n_and_the_text_is_beaten_by_the_interval():
    claim = by_text(claims(all_tables()), "reads step type")
    assert claim.measured is not None
    assert (claim.measured.n, claim.measured.n_groups, claim.measured.value) == (480, 120, 0.96)
    table = oracle_table()

    def beats(text: float) -> str:
        found = by_text(claims({"oracle": table.assign(text_only=text, probe=0.9)}), "reads step type")
        return {c.name: c.outcome for c in found.controls}["beats the text alone"]

    assert [beats(0.5), beats(0.92)] == ["passed", "failed"], "0.94 [0.91, 0.97]"
    alone = claims({"oracle": table[table["metric"] == "accuracy"]})
    assert {c.verdict for c in alone} == {"not tested"}


def test_published_values_are_read_beside_ours():
    tables = {"pair": pair_table()}
    own = dict(member="engaged", cell="training_distribution")
    change = dict(member="engaged - heuristic", cell="baseline_compliant")

    def read(**kwargs) -> str:
        return beside(Published("q", table="pair", **kwargs), tables).reading

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
