"""What a run found, in sentences: made from typed columns, sorted, and honest where nothing was found."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from study.ledger import Above, Claim, Control, Measured
from study.reach import Reach
from study.report import claims
from study.report.findings import Findings, findings
from study.report.groups import LAST, grouped, rank, reason, tally_of
from tests.report_tables import all_tables, eval_table, pair_table

PASSED = Control("a null", "passed", "", "null")
TRAINING = ("training_distribution", 1000, 0.995, 0.977, 0.9, "equivalent", "")
HARD = ("adversarial_surface_compliant", 120, 0.98, 0.00, 0.0001, "", "")
HARD2 = ("adversarial_surface_noncompliant", 120, 0.96, 0.10, 0.0001, "", "")


def of(tables) -> Findings:
    return findings(claims(tables), tables)


def texts(found: Findings, kind: str) -> list[str]:
    return [one.text for one in found.sentences if one.kind == kind]


def measured(value: float, half: float, n: int = 40) -> Measured:
    return Measured(value, value - half, value + half, n, unit="logits", name="δ mean")


def head(name: str, member: str, value: float, *, half: float = 0.3) -> Claim:
    about = f"{name} is necessary for the answer of {{member}}"
    return Claim(about, "necessary", "heads", Above(), measured(value, half), (PASSED,), smallest=0.1).of(member)


def test_equal_members_are_said_to_be_equal_with_their_values_the_interval_and_the_margin():
    tables = {"pair": pair_table([TRAINING, HARD], margin=0.1), "eval": eval_table()}
    found = of(tables)
    first = found.sentences[0]
    assert first.text == (
        "Both members answer the training distribution equally well: engaged 0.995, heuristic 0.977, difference "
        "+0.02 [−0.04, +0.07], equivalent within 0.1."
    )
    assert first.kind == "supported"
    assert first.detail == "n = 1,000 items, 333 procedures"


def test_where_the_surface_misleads_both_members_are_named_with_what_they_reach():
    found = of({"pair": pair_table([HARD, HARD2]), "eval": eval_table()})
    assert texts(found, "supported") == [
        "Where the surface misleads, the engaged member is right more often than the heuristic: 0.980 against 0.000 on "
        "adversarial surface compliant, difference +0.98 [+0.92, +1.03]; 0.96 against 0.10 on adversarial surface "
        "noncompliant, difference +0.86 [+0.80, +0.92]."
    ]
    assert found.sentences[0].detail == "n = 120 items each; engaged minus heuristic"


def test_of_many_cells_the_weakest_speaks_for_all():
    many = [HARD, HARD2, ("adversarial_surface_late", 90, 0.7, 0.2, 0.0001, "", "")]
    one = of({"pair": pair_table(many), "eval": eval_table()}).sentences[0]
    assert "0.70 against 0.20 on adversarial surface late, difference +0.50" in one.text
    assert one.text.count("against") == 1
    assert one.detail.startswith("1 of 3 cells, n = 90 items")


def swapped(cells):
    return [(c, n, heuristic, engaged, *rest) for c, n, engaged, heuristic, *rest in cells]


def test_swapped_members_contradict_and_the_sentence_says_the_opposite():
    found = of({"pair": pair_table(swapped([HARD, HARD2])), "eval": eval_table()})
    assert not found.has_supported
    assert texts(found, "contradicted")[0].startswith(
        "Where the surface misleads, the heuristic member is right more often than the engaged, the opposite of what "
        "is claimed: 0.980 against 0.000 on adversarial surface compliant, difference −0.98"
    )
    mixed = of({"pair": pair_table([HARD, *swapped([HARD2])]), "eval": eval_table()})
    assert "surface compliant" not in texts(mixed, "contradicted")[0], "only the cells that are on the other side"


def test_members_that_differ_where_they_were_trained_are_said_to_differ():
    apart = ("training_distribution", 433, 0.70, 0.82, 0.002, "not equivalent", "")
    one = of({"pair": pair_table([apart])}).sentences[0]
    assert one.kind == "contradicted"
    assert one.text.startswith(
        "The heuristic member answers the training distribution better: engaged 0.70, heuristic 0.82"
    )
    assert "beyond the margin of 0.05" in one.text


def test_equality_that_a_small_n_leaves_open_names_the_n_that_would_do():
    tables = {"pair": pair_table([("training_distribution", 30, 0.97, 0.93, 0.5, "undecided", "")])}
    ledger = [replace(c, design=Reach(0.2, 474, 30, 0.05, is_equivalence=True)) if c.key == "eval/equivalent" else c
              for c in claims(tables)]  # fmt: skip
    found = findings(ledger, tables)
    (text,) = texts(found, "open")
    assert "is open" in text and "reaches beyond ±0.05; equal members would be shown to be equal with n = 474." in text
    assert "not equivalent" not in text
    bare = findings([replace(c, design=None) for c in ledger], tables)
    assert "n = 474" not in texts(bare, "open")[0]


def test_claims_that_differ_by_member_share_a_sentence_and_the_other_member_is_the_contrast():
    both = [head("L1.H0", "heuristic", 6.0), head("L1.H0", "engaged", 8.0)]
    (one,) = findings(both, {}).sentences
    assert one.text == (
        "L1.H0 is necessary for the answer of both members: engaged 8.0 [7.7, 8.3] logits, heuristic 6.0 [5.7, 6.3] "
        "logits."
    )
    assert one.detail == "δ mean; n = 40 items"
    assert one.claims == (0, 1)
    apart = [head("L1.H0", "engaged", 8.0), head("L1.H0", "heuristic", 0.0)]
    (one,) = findings(apart, {}).sentences
    assert one.text.endswith("8.0 [7.7, 8.3] logits; in the heuristic member 0.0 [−0.3, 0.3] logits, not supported.")
    assert one.claims == (0,)
    absent = replace(head("L1.H0", "heuristic", 0.0), measured=None, why="it never reaches the step lookup")
    (one,) = findings([apart[0], absent], {}).sentences
    assert one.text.endswith("logits; not tested in the heuristic member (it never reaches the step lookup).")


def test_what_differs_by_member_is_named_for_each():
    one = replace(head("L1.H0", "engaged", 8.0), measured=replace(measured(8.0, 0.2), name="at layer 1"))
    (found,) = findings([one, head("L1.H0", "heuristic", 6.0)], {}).sentences
    assert found.detail == "engaged: at layer 1; heuristic: δ mean; n = 40 items"


def test_a_qualified_claim_names_the_controls_that_did_not_pass():
    held = (PASSED, Control("beats words", "undecided"), Control("matched", "not run"))
    (one,) = findings([replace(head("L1.H0", "engaged", 8.0), controls=held)], {}).sentences
    assert one.kind == "qualified"
    assert one.detail.endswith("not passed: beats words (undecided); matched (not run)")


def test_at_most_three_sentences_of_one_kind_of_evidence_the_others_are_counted():
    found = findings([head(f"L{i}.H0", "engaged", 8.0) for i in range(5)], {})
    assert len(found.sentences) == 3 and found.n_more == 2
    assert found.rest == ""


def test_the_rest_is_one_sentence_with_counts():
    small, open_ = head("a", "engaged", 0.0, half=0.01), head("b", "engaged", 0.0)
    other = Claim("c", "reads", "oracle", why="no oracle in this study")
    found = findings([head("d", "engaged", 8.0), small, open_, open_, other], {})
    assert found.rest == (
        "Of 5 claims, 3 are not supported (in 1 of them the effect is shown to be smaller than the smallest effect of "
        "interest) and 1 not tested."
    )
    assert findings([other], {}).rest == "Of 1 claim, 1 is not tested."


def test_a_run_with_nothing_supported_says_what_its_n_could_have_shown():
    near = replace(head("L1.H0", "engaged", 0.1), design=Reach(0.3, 400, 40, 0.1))
    far = head("b", "engaged", 0.0)
    found = findings([far, near], {})
    assert not found.has_supported and not found.sentences
    (why,) = found.why
    assert why.startswith(
        "Closest of necessary: L1.H0 is necessary for the answer of the engaged member: 0.1 [−0.2, 0.4]"
    )
    assert "effects of 0.3 or more are shown in 80 % of studies" in why and "n = 400" in why
    assert findings([far], {}).why == (
        "Closest of necessary: b is necessary for the answer of the engaged member: 0.0 [−0.3, 0.3] logits (δ mean; "
        "n = 40 items; the interval includes no effect).",
    )


def test_a_run_without_tables_says_that_nothing_was_measured_and_which_steps_failed():
    ledger = claims({}, failed={"heads": "out of memory"})
    found = findings(ledger, {}, failed={"heads": "out of memory"})
    assert found.sentences == ()
    assert found.why == ("Step heads did not finish.", "No claim has an estimate: nothing was measured.")
    assert found.rest == f"Of {len(ledger)} claims, {len(ledger)} are not tested."


def test_a_single_checkpoint_is_spoken_of_by_its_name():
    (one,) = findings([head("L1.H0", "smollm2", 8.0)], {}).sentences
    assert one.text == "L1.H0 is necessary for the answer of the smollm2 member: 8.0 [7.7, 8.3] logits."


def test_no_sentence_is_made_from_free_text():
    tables = all_tables()
    free = ("note", "interval", "control", "verdict", "banner", "scheme")
    other = {
        name: table.assign(**{c: "not a word of it" for c in free if c in table}) for name, table in tables.items()
    }
    assert of(other) == of(tables)
    assert len(of(tables).sentences) > 4


def test_sentences_come_by_verdict_and_then_by_evidence_and_name_claims_of_that_verdict():
    tables = all_tables()
    ledger = claims(tables)
    found = findings(ledger, tables)
    kinds = [one.kind for one in found.sentences]
    order = ["supported", "open", "contradicted", "qualified"]
    assert kinds == sorted(kinds, key=order.index)
    for one in found.sentences:
        assert one.claims
        assert {ledger[i].evidence for i in one.claims} == {one.evidence}
        assert one.kind == "open" or {ledger[i].verdict for i in one.claims} == {one.kind}


def test_the_ledger_is_grouped_by_evidence_best_verdict_first_and_nothing_is_lost():
    ledger = claims(all_tables())
    made = grouped(ledger)
    assert [group.name for group in made.groups] == [
        "behaviour", "decodable", "reads", "necessary", "sufficient", "transfers",
    ]  # fmt: skip
    assert [row.number for row in made.rows] == list(range(1, len(ledger) + 1))
    assert sorted(id(row.claim) for row in made.rows) == sorted(map(id, ledger))
    for group in made.groups:
        ranks = [rank(row.claim.verdict) for row in group.rows]
        assert ranks == sorted(ranks)
        assert {row.claim.evidence for row in group.rows} == {group.name}
        assert not {row.claim.verdict for row in group.rows} & set(LAST)
        assert sum(n for _, n in group.tally) == len(group.rows)
    assert sum(n for _, n in tally_of(ledger)) == len(ledger)


def test_many_claims_that_are_not_supported_are_folded_and_counted():
    small = [head(f"L{i}.H1", "engaged", 0.0, half=0.01) for i in range(4)]
    open_ = [head(f"L{i}.H2", "engaged", 0.0) for i in range(2)]
    (group,) = grouped([*open_, head("L1.H0", "engaged", 8.0), *small]).groups
    assert [row.claim.verdict for row in group.shown] == ["supported"]
    assert (len(group.folded), group.n_small) == (6, 4)
    assert group.shown + group.folded == group.rows
    (few,) = grouped([*small, head("L1.H0", "engaged", 8.0)]).groups
    assert few.folded == () and few.shown == few.rows and few.n_small == 0


def test_what_was_not_tested_or_not_testable_comes_last():
    cannot = replace(head("b", "engaged", 0.0), design=Reach(0.3, 400, 40, 0.1))
    made = grouped([Claim("x", "behaviour", "eval", why="no pair"), cannot, head("a", "engaged", 8.0)])
    assert [g.name for g in made.groups] == ["necessary"]
    assert [row.claim.verdict for row in made.last.rows] == ["not testable", "not tested"]
    assert made.last.rows[-1].number == 3


HALF_SHOWN = replace(head("a", "engaged", 8.0), controls=(PASSED, Control("matched", "failed", "0.2")))
NO_NULL = replace(head("a", "engaged", 8.0), controls=(replace(PASSED, outcome="failed"), Control("x", "failed")))
TWO_MISSED = replace(HALF_SHOWN, controls=(*HALF_SHOWN.controls, Control("words", "not run")))


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        (head("a", "engaged", 8.0), ""),
        (head("a", "engaged", 0.0, half=0.01), "shown to be smaller than 0.1, the smallest effect of interest"),
        (head("a", "engaged", 0.0), "the interval includes no effect"),
        (head("a", "engaged", -3.0), "the interval lies on the other side of the claim"),
        (Claim("x", "reads", "oracle", why="no oracle in this study"), "no oracle in this study"),
        (HALF_SHOWN, "matched (0.2): failed"),
        (TWO_MISSED, "matched (0.2): failed; and 1 more"),
        (NO_NULL, "a null: failed"),
        (replace(head("a", "engaged", 8.0), controls=(), smallest=0.0), "no control was run"),
    ],
)
def test_the_reason_of_a_verdict_is_short(claim, words):
    assert reason(claim) == words


def test_an_interval_that_is_not_of_the_table_leaves_the_plain_sentence():
    tables = {"pair": pair_table([HARD]), "eval": eval_table()}
    ledger = claims(tables)
    found = findings(ledger, {"pair": pd.DataFrame(tables["pair"])[:0]})
    assert found.sentences[0].text.startswith("The pair separates on adversarial surface cells: +0.98")
