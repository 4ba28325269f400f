"""Controls of the ledger: of directions that are added, of probes that are carried over, of oracles."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

import study
from steering.arms import MIN_NULL
from study.analyses.steering.tables import slope_rows
from study.config.read import read_study
from study.report.claims import Control, claims
from study.schema import tidy
from tests.report_tables import all_tables, oracle_table, probes_table, slopes_table
from tests.test_report_claims import by_text


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
    chance = dict(row, variant="aligned-shuffled", value=0.52, lo=0.4, hi=0.64)  # an interval that wide shows nothing
    for ends, outcome in (
        (None, "not run"),
        ((0.05, 0.3), "passed"),
        ((-0.1, 0.3), "undecided"),
        ((-0.3, -0.1), "failed"),
    ):
        beyond = (
            {} if ends is None else dict(zip(("control_difference_lo", "control_difference_hi"), ends, strict=True))
        )
        claim = by_text(
            claims(tables | {"probes_transfer": tidy([aligned | beyond, chance], **same)}), "reads heuristic"
        )
        assert {c.name: c.outcome for c in claim.controls}["beats the same map on shuffled pairs"] == outcome
        assert (claim.verdict == "supported") == (outcome == "passed")


def test_a_direction_that_moves_less_bias_by_committing_less_is_no_gain():
    claim = by_text(claims(all_tables()), "lowers commit bias")
    outcomes = {control.name: control.outcome for control in claim.controls}
    assert outcomes == {
        "beyond random and shuffled directions of equal norm": "passed",
        "still there without the other directions": "undecided",  # -0.02 [-0.08, 0.04]
        "leaves coverage where equal-norm controls leave it, within 0.05": "failed",
        "leaves accuracy where equal-norm controls leave it, within 0.05": "passed",
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
    made = slope_rows(rows)
    assert made["p"].isna().tolist() == [True, False]
    assert made["p"].iloc[1] == 0.4
    assert slope_rows(rows.drop(columns="p_shuffled"))["p"].isna().all()


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


def test_a_direction_read_at_two_decisions_is_two_claims_each_with_its_own_controls():
    one = slopes_table().assign(decision_site="label")
    other = slopes(null_hi=0.9)["steering_slopes"].assign(decision_site="step_lookup")
    alone = {c.key for c in claims({"steering_slopes": one}) if c.key.startswith("steering/margin")}
    assert alone == {"steering/margin/engaged/resid_post.2"}
    both = [c for c in claims({"steering_slopes": pd.concat([one, other])}) if c.key.startswith("steering/margin")]
    assert {c.key for c in both} == {f"{key}/{site}" for key in alone for site in ("label", "step_lookup")}
    outcomes = {c.key.rsplit("/", 1)[1]: c.controls[0].outcome for c in both}
    assert outcomes == {"label": "passed", "step_lookup": "failed"} and "at the step lookup" in both[1].text


def test_the_gap_of_an_oracle_has_its_own_n_and_the_text_is_beaten_by_the_interval():
    claim = by_text(claims(all_tables()), "reads step type")
    assert claim.measured is not None
    assert (claim.measured.n, claim.measured.n_groups, claim.measured.value) == (480, 120, 0.96)
    table = oracle_table()

    def beats(lo: float | None, hi: float | None) -> str:
        changed = table.assign(text_only_difference_lo=lo, text_only_difference_hi=hi)
        found = by_text(claims({"oracle": changed}), "reads step type")
        return {c.name: c.outcome for c in found.controls}["beats the text alone"]

    ends = ((0.01, 0.2), (-0.02, 0.2), (-0.2, -0.01), (None, None))
    assert [beats(*e) for e in ends] == ["passed", "undecided", "failed", "not run"]
    alone = claims({"oracle": table[table["metric"] == "accuracy"]})
    assert {c.verdict for c in alone} == {"not tested"}
