"""Wording and reading: both renderings, spans, traces, labels."""

from __future__ import annotations

import json
from collections import Counter
from random import Random

import pytest

from interp.tasks.procedural.cells import grid
from interp.tasks.procedural.engine import audit
from interp.tasks.procedural.generate import GeneratorConfig, original, shuffled
from interp.tasks.procedural.latent import Event, Instance, Procedure, Proviso, Scenario, Step, from_json, to_json
from interp.tasks.procedural.render import event_spans, render, step_spans
from interp.tasks.procedural.replies import (
    corrupt_verdict,
    normalize_label,
    parse,
    parse_trace,
    tagged_trace,
    trace,
)
from interp.tasks.procedural.vocabulary import AUDIT_QUESTION

EVERYTHING = GeneratorConfig(proviso_kinds=("replace", "waive", "add"))
ANY_ORDER = GeneratorConfig(proviso_kinds=("replace", "waive", "add"), in_order=False)
EXAMPLE = Instance(
    Procedure(
        "fda_inspection",
        "FDA",
        (Step("form"), Step("pallet", 1), Step("carton")),
        ((3, 1),),
        (Proviso("storm", 2, "replace", Step("record", 1)),),
        (1, 3, 2),
    ),
    Scenario(
        (("storm", False), ("refusal", True)),
        (
            Event("investigator", "form"),
            Event("supervisor", "carton", wording="held_out"),
            Event("supervisor", "pallet"),
        ),
        tone=0,
        distractors=((2, 0),),
    ),
)


LATENTS = [shuffled(Random(k), c) for k in range(60) for c in (EVERYTHING, ANY_ORDER)]


def test_the_log_prompt_and_its_trace_are_those_written_out_by_hand():
    assert render(EXAMPLE, rendering="log", question=AUDIT_QUESTION).text == (
        "Procedure: 1 anyone issue form . 3 anyone count carton . 2 supervisor photograph pallet . "
        "step 3 needs step 1 . if storm then step 2 becomes supervisor review record . "
        "Scenario: storm absent . refusal present . form first issued by investigator . "
        "box second tallied by supervisor . radio stayed quiet . pallet third photographed by supervisor . "
        "mood proud and tidy . Question: audit each step ."
    )
    assert trace(EXAMPLE) == (
        "[SIG=EXCEPTION] storm absent step 2 "
        "[SIG=STEP] 1 anyone issue form [SIG=FIND] form first issued investigator "
        "[SIG=CHECK] start first after anyone investigator fit [SIG=OK] "
        "[SIG=STEP] 2 supervisor photograph pallet [SIG=FIND] pallet third photographed supervisor "
        "[SIG=CHECK] first third after supervisor supervisor fit [SIG=OK] "
        "[SIG=STEP] 3 anyone count carton [SIG=FIND] carton second tallied supervisor "
        "[SIG=CHECK] third second late anyone supervisor fit [SIG=VIOLATION] [SIG=DECIDE] noncompliant"
    )


def test_the_plain_prompt_says_the_same():
    text = render(EXAMPLE).text
    for sentence in (
        "1. Issue the inspection form.\n3. Count the damaged cartons.\n"
        "2. Photograph the storage pallet (supervisory investigator only).\n",
        "Carry out the steps in the order of their numbers.\nStep 3 requires that step 1 has been completed.\n",
        "Exception: if a storm is under way, step 2 is replaced by: review the batch record (supervisory investigator",
        "Scenario:\nNo storm was under way. The firm had refused entry. At 08:40, field investigator ",
        "tallied the damaged boxes. The radio in the corridor stayed quiet. At 09:04, supervisory investigator ",
        "The team was proud and the area was tidy.\n\nQuestion: Was the procedure followed?",
    ):
        assert sentence in text


@pytest.mark.parametrize("rendering", ["plain", "log"])
def test_named_spans_hold_what_their_name_says(rendering):
    text = render(EXAMPLE, rendering=rendering)
    cut = {name: text.text[a:b] for name, (a, b) in text.spans.items()}
    assert list(cut) == [
        "procedure", "step_1", "step_3", "step_2", "scenario", "event_1", "event_2", "event_3", "tone", "question",
    ]  # fmt: skip
    assert (cut["procedure"], cut["scenario"], cut["question"]) == (text.procedure, text.scenario, text.question)
    for name, word in {
        "step_1": "form",
        "step_3": "carton",
        "step_2": "pallet",
        "event_1": "form",
        "event_2": "box",
    }.items():
        assert word in cut[name]
    assert "tidy" in cut["tone"]
    for part, section in (("step_2", "procedure"), ("event_3", "scenario"), ("tone", "scenario")):
        assert text.spans[section][0] <= text.spans[part][0] < text.spans[part][1] <= text.spans[section][1]


def test_an_unknown_rendering_is_named():
    with pytest.raises(ValueError, match="rendering 'logs': expected one of plain, log"):
        render(EXAMPLE, rendering="logs")
    with pytest.raises(ValueError, match="rendering 'logs'"):
        trace(EXAMPLE, rendering="logs")


@pytest.mark.parametrize("rendering", ["plain", "log"])
def test_a_trace_read_back_states_the_findings_of_the_engine(rendering):
    for instance in LATENTS:
        finding, claims = audit(instance), parse_trace(trace(instance, rendering=rendering))
        assert claims.triggers == finding.triggers
        assert tuple(c.verdict for c in claims.steps) == finding.verdicts
        assert [(c.number, c.mode) for c in claims.steps] == [(s.number, s.mode) for s in finding.steps]
        assert claims.label == claims.implied == finding.label


def test_a_latent_survives_json():
    for instance in LATENTS:
        assert from_json(json.loads(json.dumps(to_json(instance)))) == instance


@pytest.mark.parametrize(
    ("path", "where"),
    [
        (("procedure", "steps", 0), "latent.procedure.steps"),
        (("procedure",), "latent.procedure"),
        (("scenario", "events", 0), "latent.scenario.events"),
        (("procedure", "provisos", 0), "latent.procedure.provisos"),
    ],
)
def test_a_latent_with_a_missing_field_says_where(path, where):
    data = to_json(EXAMPLE)
    inner = data
    for key in path:
        inner = inner[key]
    inner.pop(next(iter(inner)))
    with pytest.raises(ValueError, match=rf"^{where}: expected an object with exactly the fields"):
        from_json(data)


def test_order_swapped_prompts_have_equal_words_in_plain_english_too():
    items = {(i.cell, i.index): i for i in grid(per_cell=60, seed=3)}
    for index in range(60):
        base = render(items["baseline_compliant", index].instance).text
        for cell in ("ord_swap_flip", "ord_swap_keep_listing", "ord_swap_reordered", "ord_swap_rebind"):
            twin = render(items[cell, index].instance).text
            assert Counter(twin.casefold().split()) == Counter(base.casefold().split())
            assert len(twin) == len(base)
        scenario = render(items["ord_swap_flip", index].instance).scenario
        assert scenario in base


def test_plain_paraphrases_leave_the_procedure_alone_and_share_no_action_phrase():
    for made in grid(per_cell=30, seed=3, cells=["lexical_paraphrase_compliant"]):
        assert made.parent is not None
        before, after = render(made.parent), render(made.instance)
        assert before.procedure == after.procedure
        actions = [
            before.text[slice(*s)].split(", ", 1)[1].split(" ", 4)[4] for n, s in before.spans.items() if "event" in n
        ]
        assert not any(phrase in after.scenario for phrase in actions)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("compliant", "compliant"),
        ("noncompliant", "noncompliant"),
        ("Noncompliant.", "noncompliant"),
        ("The answer is non-compliant", "noncompliant"),
        ("NON COMPLIANT", "noncompliant"),
        ("non\u2011compliant", "noncompliant"),
        ("It is not compliant.", "noncompliant"),
        ("It isn't compliant.", "noncompliant"),
        ("not noncompliant", None),  # no attempt at double negation
        ("compliant? No: noncompliant", "noncompliant"),
        ("noncompliant at first, in the end compliant", "compliant"),
        ("[SIG=DECIDE] compliant<|im_end|>", "compliant"),
        ("**Compliant**", "compliant"),
        ("compliance was good", None),
        ("incompliant", None),
        ("uncompliant", None),
        ("", None),
        ("I cannot tell.", None),
    ],
)
def test_the_last_label_is_read_and_noncompliant_is_never_compliant(text, label):
    assert parse(text) == label


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ("Non-Compliant", "noncompliant"),
        (" compliant ", "compliant"),
        ("NON_COMPLIANT", "noncompliant"),
        ("not compliant", None),
        ("yes", None),
        (1, None),
        (None, None),
    ],
)
def test_a_label_field_is_normalised_but_not_guessed(value, label):
    assert normalize_label(value) == label


def test_a_corrupted_verdict_changes_what_the_trace_implies_and_nothing_else():
    base = original(Random(0))
    text, n = trace(base), len(base.procedure.steps)
    for k in range(n):
        broken = corrupt_verdict(text, k)
        claims = parse_trace(broken)
        assert [c.passed for c in claims.steps] == [i != k for i in range(n)]
        assert (claims.implied, claims.label) == ("noncompliant", "compliant")
        assert corrupt_verdict(broken, k) == text
    with pytest.raises(ValueError, match=rf"verdict {n}: the trace has {n} verdicts"):
        corrupt_verdict(text, n)


def test_an_incomplete_trace_claims_only_what_it_states():
    text = trace(EXAMPLE)
    cut = parse_trace(text[: text.index("[SIG=CHECK] first third")])
    assert [c.verdict for c in cut.steps] == ["ok", None]
    assert [c.passed for c in cut.steps] == [True, None]
    assert (cut.implied, cut.label) == (None, None)
    assert parse_trace("no trace, compliant").steps == ()


def test_tags_follow_the_words():
    by_tag = {}
    for word, tag in tagged_trace(EXAMPLE):
        by_tag.setdefault(tag, []).append(word)
    assert by_tag["prev"] == ["start", "first", "third"]
    assert by_tag["ordinal"] == ["first", "first", "third", "third", "second", "second"]
    assert by_tag["order"] == ["after", "after", "late"]
    assert by_tag["found"] == ["form", "pallet", "carton"]
    assert by_tag["trigger"] == ["absent"]
    assert by_tag["label"] == ["noncompliant"]


def test_spans_of_foreign_text_are_numbered_lines_and_sentences():
    procedure = "SOP 12\n1. Wear goggles.\n  2) Label it (see 3.1).\nStep 3: Log it\nSee step 4. below\n(5) Seal."
    cut = {n: procedure[a:b] for n, (a, b) in step_spans(procedure).items()}
    assert cut == {
        "step_1": "1. Wear goggles.",
        "step_2": "2) Label it (see 3.1).",
        "step_3": "Step 3: Log it",
        "step_5": "(5) Seal.",
    }
    scenario = "Dr. Lee arrived at 9.30 a.m. sharp. She wore goggles!\nThen she left\nNo. 4 was “empty.” Done"
    assert [scenario[a:b] for a, b in event_spans(scenario).values()] == [
        "Dr. Lee arrived at 9.30 a.m. sharp.",
        "She wore goggles!",
        "Then she left",
        "No. 4 was “empty.”",
        "Done",
    ]


@pytest.mark.parametrize(
    "reply",
    [
        "not fully compliant",
        "I cannot say it is compliant",
        "never compliant",
        "compliant? No.",
        "**compliant**?",
        "It isn't at all compliant.",
        "noncompliant? No",
        "It is not the case that this is noncompliant",
        "no way compliant",
        "neither compliant",
    ],
)
def test_a_label_that_is_negated_from_afar_or_asked_about_is_not_read(reply: str) -> None:
    assert parse(reply) is None


@pytest.mark.parametrize(
    ("reply", "label"),
    [("Is it compliant? No, it is noncompliant.", "noncompliant"),
     ("not fully compliant, so noncompliant", "noncompliant"),
     ("Step 2 was never done. Label: compliant", "compliant"), ("No step was skipped, compliant", "compliant"),
     ("Nothing notable: compliant", "compliant"), ("no violation [SIG=DECIDE] compliant", "compliant"),
     ("No violation was found and it is compliant", "compliant"), ("not compliant", "noncompliant")],
)  # fmt: skip
def test_a_negation_of_another_clause_or_before_a_later_label_changes_nothing(reply: str, label: str) -> None:
    assert parse(reply) == label


def test_unknown_signals_of_a_trace_are_counted_scored_and_shown() -> None:
    import pandas as pd

    from interp.prompt import Example
    from interp.tasks.procedural.replies import score
    from interp.tasks.procedural.reporting import _unknown_signals

    told = "[SIG=STEP] 1 [SIG=HMM] x [SIG=OK] [SIG=Verify 2] y [SIG=HMM] z [SIG=DECIDE] compliant"
    claims = parse_trace(told)
    assert claims.unknown == ("HMM", "Verify 2", "HMM")
    assert len(claims.steps) == 1 and claims.steps[0].passed is True, "what is known is read as before"
    example = Example("a", text="x", label="compliant")
    assert score(example, told)["unknown_signals"] == 3.0
    assert score(example, "[SIG=STEP] 1 [SIG=OK] [SIG=DECIDE] compliant")["unknown_signals"] == 0.0
    assert "unknown_signals" not in score(example, "compliant")
    answers = pd.DataFrame({
        "member": "m", "text": [told, "[SIG=STEP] 1 [SIG=OK] compliant", told, "compliant"],
        "score.unknown_signals": [3.0, 0.0, 3.0, None], "group.procedure": ["p1", "p2", "p3", "p4"],
    })  # fmt: skip
    (row,) = _unknown_signals(answers)
    assert (row["metric"], row["value"], row["n"]) == ("unknown_signals", 2.0, 3)
    assert "[SIG=HMM] 4, [SIG=Verify 2] 2" in row["note"]
    assert list(_unknown_signals(answers.assign(**{"score.unknown_signals": 0.0}))) == []
