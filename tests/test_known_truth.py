"""Known truths: each outcome on tables made by hand, the claims made of controls, and the shuffled target."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from study.analyses.oracle.claims import placebos as oracle_placebos
from study.analyses.probes.choices import with_shuffled
from study.analyses.steering.claims import placebos as steering_placebos
from study.analyses.steering.claims import steering
from study.config.sections import SmallestEffects
from study.embedded.truths import TRUTHS
from study.known_truth import InLedger, InTable, Truth
from study.known_truth.compare import Compared, claim_of_row, claims_of_rows, compare, outcome_of
from study.known_truth.show import counts, shown_table, text_of, truth_table
from study.known_truth.step import claims_on, truths_of
from study.ledger import Claim, Control, Measured
from study.reach import Reach
from study.report.claims import claims, correct
from study.schema import check_table, read_table, tidy
from tests.report_tables import slopes_table

KEY = "heads/necessary/L1.H0/engaged"
FEW = Reach(2.5, 400, 40, 0.1)


def claim(lo: float, hi: float, *outcomes: Any, key: str = KEY, p: float = 0.001) -> Claim:
    """A claim that something is above 0, with one control of the interpretation for each outcome."""
    controls = tuple(Control(f"control {k}", outcome) for k, outcome in enumerate(outcomes or ("passed",)))
    return Claim("it is above 0", "necessary", "heads", measured=Measured((lo + hi) / 2, lo, hi, 40, 20, "δ"),
                 controls=controls, tests=(p,), key=key)  # fmt: skip


def truth(planted: bool, by: Any = None, key: str = "one") -> Truth:
    return Truth(key, "L1.H0 is necessary", planted, "engaged", by or InLedger(KEY))


@pytest.mark.parametrize(
    ("made", "verdict", "if_planted", "if_not"),
    [
        (claim(1.0, 2.0), "supported", "found", "false_alarm"),
        (claim(1.0, 2.0, "failed"), "qualified", "missed", "silent"),
        (claim(-1.0, 2.0), "not supported", "missed", "silent"),
        (claim(-2.0, -1.0), "contradicted", "missed", "silent"),
        (replace(claim(-1.0, 2.0), design=FEW), "not testable", "not_testable", "not_testable"),
        (replace(claim(1.0, 2.0), design=FEW), "supported", "found", "false_alarm"),
        (Claim("it is above 0", "necessary", "heads", why="no sweep", key=KEY), "not tested", "silent", "silent"),
        (None, None, "silent", "silent"),
    ],
)
def test_the_outcome_of_a_truth_follows_from_the_verdict_of_its_claim(
    made: Claim | None, verdict: str | None, if_planted: str, if_not: str
) -> None:
    assert made is None or made.verdict == verdict
    assert outcome_of(truth(True), made) == if_planted
    assert outcome_of(truth(False), made) == if_not


def test_a_claim_counts_despite_the_controls_that_must_fail_and_no_others() -> None:
    """One bar for what was planted and what was not."""
    by = InLedger(KEY, ("control 1",))
    for outcomes, if_planted, if_not in (
        (("passed", "failed"), "found", "false_alarm"),
        (("passed", "undecided"), "found", "false_alarm"),
        (("failed", "passed"), "missed", "silent"),
        (("failed", "failed"), "missed", "silent"),
    ):
        made = claim(1.0, 2.0, *outcomes)
        assert made.verdict == "qualified"
        assert (outcome_of(truth(True, by), made), outcome_of(truth(False, by), made)) == (if_planted, if_not)
    assert outcome_of(truth(True, by), claim(-1.0, 2.0, "passed", "failed")) == "missed"


@pytest.fixture
def heads() -> pd.DataFrame:
    same = {"analysis": "heads", "member": "engaged", "interval": "t", "n": 40, "n_groups": 20, "metric": "abl_logit",
            "kind": "mean", "named": True}  # fmt: skip
    return tidy([
        {**same, "head": "L1.H0", "value": 9.0, "lo": 8.0, "hi": 10.0, "p_adjusted": 0.001,
         "control_difference_lo": 7.0, "control_difference_hi": 9.5},
        {**same, "head": "L2.H3", "value": 2.0, "lo": 1.0, "hi": 3.0, "p_adjusted": 0.04,
         "control_difference_lo": -0.5, "control_difference_hi": 2.0},
        {**same, "head": "L3.H7", "value": 0.1, "lo": -0.5, "hi": 0.7, "p_adjusted": 0.9},
    ])  # fmt: skip


def judged(heads: pd.DataFrame, head: str, **more: Any) -> str:
    by = InTable("heads", {"head": head, "member": "engaged", "metric": "abl_logit"}, **more)
    one = truth(True, by)
    (found,) = compare([one], correct(claims_of_rows([one], {"heads": heads})))
    return found.outcome


def test_a_row_decides_by_its_interval_its_p_its_controls_and_its_rank(heads: pd.DataFrame) -> None:
    assert judged(heads, "L1.H0", largest_over="head", beyond=("control",)) == "found"
    assert judged(heads, "L2.H3") == "found"
    assert judged(heads, "L2.H3", largest_over="head") == "missed"
    assert judged(heads, "L2.H3", beyond=("control",)) == "missed"
    assert judged(heads, "L2.H3", smallest=1.5) == "missed"  # qualified: the interval reaches below 1.5
    of_interest = "at least 1.5, the smallest effect of interest"
    assert judged(heads, "L2.H3", smallest=1.5, despite=(of_interest,)) == "found"
    assert judged(heads, "L2.H3", above=1.5) == "missed"
    assert judged(heads, "L3.H7") == "missed"
    assert judged(heads, "L0.H0") == "silent"
    assert judged(heads.assign(p_adjusted=0.2), "L1.H0") == "missed"
    with pytest.raises(ValueError, match="3 rows of table 'heads'"):
        claim_of_row(truth(True), {"heads": heads}, InTable("heads", {"member": "engaged"}))


def test_heads_of_the_shipped_pair_are_decided_on_all_pairs_where_some_are_not_solved(heads: pd.DataFrame) -> None:
    """A member that solves some of the pairs has a second row of every head, `all, solved`."""
    both = heads.assign(decision_site="step_lookup", pairs="all"), heads.assign(pairs="all, solved", value=0.0)
    table = pd.concat([both[0], both[1].assign(decision_site="step_lookup", lo=-0.1, hi=0.1)], ignore_index=True)
    made = {one.truth.key: one for one in compare(TRUTHS, claims_of_rows(TRUTHS, {"heads": table}))}
    assert made["L1.H0-largest"].outcome == "found" and made["L1.H0-largest"].claim is not None
    assert made["L1.H0-largest"].claim.measured == Measured(9.0, 8.0, 10.0, 40, 20, "abl_logit", signed=True)


def test_rows_and_placebos_are_corrected_together_with_the_ledger(heads: pd.DataFrame) -> None:
    other = Truth("other", "L2.H3 is necessary", False, "engaged", InTable("heads", {"head": "L2.H3"}))
    tables = {"heads": heads}
    made = claims_on([other], tables, SmallestEffects(), 0.0)
    ledger = claims(tables)
    assert made[: len(ledger)] == ledger and [claim.key for claim in made[len(ledger) :]] == ["other"]
    known = [claim.corrected.n_claims for claim in ledger if claim.corrected is not None]
    assert made[-1].corrected is not None and {made[-1].corrected.n_claims} == {n + 1 for n in known}
    crowd = [claim(-1.0, 1.0, key=f"heads/other/{k}", p=0.9) for k in range(30)]
    alone, among = (
        compare([other], correct([*crowd[:n], *claims_of_rows([other], tables)]))[0].outcome for n in (0, 30)
    )
    assert (alone, among) == ("false_alarm", "silent")


@pytest.mark.slow
def test_a_run_of_the_embedded_pair_has_the_table_and_raises_no_false_alarm(small_run: Path) -> None:
    """Four items per cell show little; what they show is true."""
    table = read_table(small_run, "known_truth")
    assert table["claim"].tolist() == [t.sentence for t in TRUTHS]
    assert counts(table).false_alarm == 0, text_of(table)
    asked = table.loc[table["claim_verdict"] != "not run", "claim_key"].tolist()
    assert {"reliance-heuristic", "reliance-engaged", "probes/decodable/surface_label/engaged"} <= set(asked)
    assert str(counts(table)) in (small_run / "report.html").read_text()


def test_two_truths_with_one_key_are_refused() -> None:
    with pytest.raises(ValueError, match="truths.*'one' twice"):
        compare([truth(True), truth(False)], [])
    with pytest.raises(ValueError, match="claims.*L1.H0/engaged' twice"):
        compare([truth(True)], [claim(1.0, 2.0), claim(-1.0, 2.0)])


def test_the_table_holds_estimate_and_verdict_and_the_counts_follow_from_it() -> None:
    truths = [truth(True), truth(True, InLedger("none"), "two"), truth(False, key="three"), truth(True, key="four")]
    made = [claim(1.0, 2.0), None, claim(1.0, 2.0), claim(-1.0, 1.0)]
    compared = [Compared(t, c, outcome_of(t, c)) for t, c in zip(truths, made, strict=True)]
    table = check_table(truth_table(compared, seed=5), "known_truth")
    assert table["verdict"].tolist() == ["found", "silent", "false_alarm", "missed"]
    assert table["claim_verdict"].tolist() == ["supported", "not run", "supported", "not supported"]
    assert table["value"].tolist()[0] == 1.5 and np.isnan(table["value"].tolist()[1])
    found = counts(table)
    assert (found.n_planted, found.n_not_planted, found.found, found.missed, found.false_alarm) == (3, 1, 1, 1, 1)
    assert "1 of 3 planted found (1 missed)" in text_of(table) and "false alarm: L1.H0" in text_of(table)
    shown = shown_table(table)
    at = shown.columns.index(shown.verdict)
    assert [row[at] for row in shown.rows] == ["false alarm", "missed", "found", "silent"]


def test_truths_of_the_shipped_pair_have_no_fewer_negatives_and_say_how_they_are_known() -> None:
    assert truths_of("study.embedded.truths:TRUTHS") is TRUTHS
    assert len({t.key for t in TRUTHS}) == len(TRUTHS) == len({t.sentence for t in TRUTHS})
    planted = sum(t.planted for t in TRUTHS)
    assert planted >= 10 and len(TRUTHS) >= 2 * planted
    assert all(t.because for t in TRUTHS)
    with pytest.raises(ValueError, match="expected module:NAME"):
        truths_of("study.embedded.truths:NONE")
    with pytest.raises(ValueError, match="sequence of study.known_truth.Truth"):
        truths_of("study.embedded:EMBEDDED")


def slopes(direction: float, random: list[float], shuffled: list[float]) -> Mapping[str, pd.DataFrame]:
    """The margin of one member at one site: slopes of the direction and its controls, each ± 0.1."""
    row = slopes_table().query("metric == 'margin' and arm == 'direction'").iloc[0]
    same = {str(name): value for name, value in row.items()}
    values = [("direction", 0, direction)]
    values += [(arm, k, v) for arm, all_ in (("random", random), ("shuffled", shuffled)) for k, v in enumerate(all_)]
    made = [same | {"arm": arm, "draw": k, "value": v, "lo": v - 0.1, "hi": v + 0.1} for arm, k, v in values]
    return {"steering_slopes": tidy(made)}


def test_a_random_direction_that_sticks_out_of_its_controls_is_a_false_alarm() -> None:
    rest = np.linspace(-0.5, 0.5, 40).tolist()
    for first, verdict in ((3.0, "supported"), (0.2, "not supported"), (-3.0, "not supported")):
        (placebo,) = steering_placebos(slopes(9.0, [first, *rest], rest), SmallestEffects())
        (real,) = steering(slopes(9.0, [first, *rest], rest), SmallestEffects())
        assert placebo.key == f"{real.key}/random" and placebo.verdict == verdict
        assert placebo.measured is not None and placebo.measured.value == pytest.approx(first)


def test_an_oracle_that_knows_the_answer_without_activations_is_a_false_alarm() -> None:
    row = {"analysis": "oracle", "member": "base", "target": "kind", "metric": "accuracy_zero", "interval": "t",
           "value": 0.3, "lo": 0.2, "hi": 0.4, "n": 300, "n_groups": 24}  # fmt: skip
    (alarm,) = oracle_placebos({"oracle": tidy([row])}, SmallestEffects())
    assert alarm.key == "oracle/zero/kind/base" and alarm.verdict == "supported"
    (silent,) = oracle_placebos({"oracle": tidy([row | {"value": 0.0, "lo": -0.1, "hi": 0.1}])}, SmallestEffects())
    assert silent.verdict == "not supported"


def test_a_shuffled_target_has_the_values_of_its_column_in_another_order() -> None:
    frame = pd.DataFrame({"tone": [*"aab" * 40, None], "own.shuffled": range(121)})
    made = with_shuffled(frame, ["tone", "tone.shuffled", "own.shuffled", "none.shuffled"], seed=1)
    assert list(made.columns) == ["tone", "own.shuffled", "tone.shuffled"]
    assert sorted(made["tone.shuffled"][:120]) == sorted(frame["tone"][:120])
    assert made["tone.shuffled"].isna().tolist() == frame["tone"].isna().tolist()
    agreement = (made["tone.shuffled"] == made["tone"])[:120].mean()
    assert 0.4 < agreement < 0.7  # 5/9 expected of independent labels
    again = with_shuffled(frame, ["tone.shuffled"], seed=1)["tone.shuffled"]
    assert again.equals(made["tone.shuffled"])
    assert not with_shuffled(frame, ["tone.shuffled"], seed=2)["tone.shuffled"].equals(again)
