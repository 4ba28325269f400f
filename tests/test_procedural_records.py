"""Records and the task: the user's file right or an error with line and field, examples, scores."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from interp.tasks.procedural import CELLS, examples, load_records, parse, score
from interp.tasks.procedural.cells import grid
from interp.tasks.procedural.dataset import generate_records
from interp.tasks.procedural.records import accept_notes, from_row, record_of, to_row
from interp.tasks.procedural.render import render
from interp.tasks.procedural.replies import corrupt_verdict

MINE = {
    "procedure": "1. Wear goggles.\n2. Seal the drum.",
    "scenario": "Ann wore goggles. Ann sealed the drum.",
    "question": "Is this compliant?",
    "label": "Non-Compliant",
    "perturbation": "prerequisite_omission",
}


@pytest.fixture
def write(tmp_path):
    def to_file(*rows):
        path = tmp_path / "mine.jsonl"
        path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows))
        return path

    return to_file


@pytest.mark.parametrize("rendering", ["plain", "log"])
def test_a_record_becomes_its_row_and_its_latent_and_back(rendering):
    for made in grid(per_cell=4, seed=1):
        record = record_of(made, rendering=rendering)
        row = json.loads(json.dumps(to_row(record)))
        assert from_row(row) == record
        again = render(from_row(row).latent, rendering=rendering)
        assert (again.procedure, again.scenario) == (record.procedure, record.scenario)


def test_a_record_names_its_parent_and_says_whether_the_label_flips():
    made = {(i.cell, i.index): record_of(i) for i in grid(per_cell=5, seed=1)}
    base = made["baseline_compliant", 2]
    assert (base.parent_id, base.flips_label, base.surface_label, base.cohort) == (None, None, "compliant", "synthetic")
    flip = made["ord_swap_flip", 2]
    assert (flip.parent_id, flip.flips_label, flip.flipping, flip.perturbation) == (base.id, True, True, "ord_swap")
    keep = made["ord_swap_keep_listing", 2]
    assert (keep.parent_id, keep.flips_label, keep.flipping) == (base.id, False, False)
    rebind = made["ord_swap_rebind", 2]
    assert (rebind.parent_id, rebind.flipping) == (made["ord_swap_reordered", 2].id, True)
    worded = made["lexical_paraphrase_noncompliant", 2]
    assert worded.parent_id == made["baseline_noncompliant_aligned", 2].id
    assert (worded.surface_label, worded.flips_label, worded.flipping) == ("noncompliant", False, None)
    lie = made["adversarial_surface_noncompliant", 2]
    assert (lie.label, lie.surface_label) == ("noncompliant", "compliant")
    assert len({r.pair_id for (c, k), r in made.items() if k == 2 and c != "training_distribution"}) == 1


def test_a_foreign_row_needs_five_fields_and_its_label_is_normalised():
    record = from_row({**MINE, "reviewer": "kp", "cohort": "af7lab", "accept": None})
    assert (record.label, record.cohort, record.accept, record.extra) == (
        "noncompliant",
        "af7lab",
        None,
        {"reviewer": "kp"},
    )
    assert len(record.id) == 40
    assert len(record.procedure_id) == 16
    assert record.split is None
    assert from_row({**MINE, "id": 7, "surface_label": "COMPLIANT"}).id == "7"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scenario": None}, "line 2, field 'scenario': expected a value, got .* Add it to the row"),
        ({"scenario": None, "scenarios": "x"}, "line 2, field 'scenario': .* Did you mean 'scenarios'"),
        ({"scenario": " "}, "line 2, field 'scenario': expected text, got ' '. Fill it in"),
        ({"perturbation": "step_reorder"}, "line 2, field 'perturbation': .*Did you mean 'step_reorder_invalid'"),
        ({"perturbation": "zzz"}, "line 2, field 'perturbation': expected one of baseline_compliant, .*got 'zzz'"),
        ({"label": "maybe"}, "line 2, field 'label': expected compliant or noncompliant, got 'maybe'"),
        ({"label": True}, "line 2, field 'label': expected compliant or noncompliant, got True"),
        ({"flips_label": "no"}, "line 2, field 'flips_label': expected true or false, got 'no'"),
        ({"surface_labels": "compliant"}, "line 2, field 'surface_labels': .*did you mean 'surface_label'"),
        ({"verdicts": ["fine"]}, "line 2, field 'verdicts': expected a list out of ok, missing"),
        ({"latent": {"procedure": {}}}, "line 2, field 'latent': latent: expected an object with exactly the fields"),
        ({"institution": 3}, "line 2, field 'institution': expected text, got 3"),
    ],
)
def test_a_faulty_row_is_an_error_with_line_and_field(write, change, message):
    with pytest.raises(ValueError, match=r"mine\.jsonl, " + message):
        load_records(write(MINE | {"id": "a"}, MINE | change))


def test_a_label_that_contradicts_the_latent_is_an_error():
    row = generate_records(1, seed=0)[0]
    with pytest.raises(
        ValueError, match="line 9, field 'label': expected 'compliant', which the rules give for 'latent'"
    ):
        from_row({**row, "label": "noncompliant"}, "line 9")


def test_broken_json_and_repeated_rows_name_their_line(write):
    with pytest.raises(ValueError, match="line 2"):
        load_records(write(MINE, '{"procedure": '))
    with pytest.raises(ValueError, match=r"line 2, field 'id': .* was used at mine.jsonl, line 1"):
        load_records(write(MINE, {**MINE, "label": "noncompliant"}))


def test_noisy_cells_get_a_footnote():
    cornell = {"institution": "Cornell", "perturbation": "adversarial_surface_compliant", "label": "compliant"}
    rows = [from_row({**MINE, **cornell, "id": str(k), "accept": k > 0}) for k in range(4)]
    assert accept_notes(rows) == [
        "Cornell x adversarial_surface_compliant: the authors accepted 72.3% of the items; labels are noisy.",
        "adversarial_surface_compliant: 3 of 4 judged items are marked as accepted.",
    ]
    fda = from_row({**MINE, "institution": "FDA"})
    assert "65.2%" in accept_notes([fda])[0]
    assert accept_notes([from_row(MINE)]) == []


def test_examples_are_one_user_message_with_spans_groups_and_unique_ids():
    made = examples(per_cell=3, seed=5)
    assert Counter(e.metadata["cell"] for e in made) == dict.fromkeys(CELLS, 3)
    assert len({e.id for e in made}) == len(made)
    for e in made:
        assert [m.role for m in e.messages] == ["user"]
        at = [e.content.index(e.content[slice(*e.spans[n])]) for n in ("procedure", "scenario", "question")]
        assert at == sorted(at)
        assert e.groups["procedure"] == e.groups["pair"][:16]
        assert len(e.metadata["verdicts"]) >= 3
    assert examples(per_cell=3, seed=5) == made
    assert [e.label for e in examples(per_cell=3, seed=5, rendering="log")] == [e.label for e in made]
    (one,) = examples(
        per_cell=1, seed=5, cells=["ord_swap_flip"], split="validation", question="Well?", rendering="log"
    )
    assert one.content.endswith("Question: Well?")


def test_a_file_of_generated_records_gives_the_spans_of_the_generator(write):
    rows = generate_records(68, seed=2)
    for kept, exact in ((rows, True), ([{k: v for k, v in r.items() if k != "latent"} for r in rows], False)):
        for e, row in zip(examples(write(*kept), split="all"), rows, strict=True):
            cut = {n: e.content[a:b] for n, (a, b) in e.spans.items()}
            assert (cut["procedure"], cut["scenario"]) == (row["procedure"], row["scenario"])
            steps = row["latent"]["procedure"]["steps"]
            assert {f"step_{k + 1}" for k in range(len(steps))} == {n for n in cut if n.startswith("step_")}
            assert all(cut[f"step_{k + 1}"].startswith(f"{k + 1}. ") for k in range(len(steps)))
            n_events = len(row["latent"]["scenario"]["events"])
            n_cut = sum(n.startswith("event_") for n in cut)
            assert n_cut == n_events if exact else n_cut > n_events
            assert ("tone" in cut) == exact


def test_rows_of_a_file_are_chosen_by_split_cell_and_number(write):
    rows = generate_records(170, seed=2)
    path = write(*rows)
    n_test = sum(r["split"] == "test" for r in rows)
    assert 0 < len(examples(path)) == n_test < 170
    assert len(examples(path, split="all")) == 170
    some = examples(path, split="all", per_cell=2, seed=1)
    assert set(Counter(e.metadata["cell"] for e in some).values()) == {2}
    sized = examples(path, split="all", per_cell=2, sizes={"exception_handled": 4}, seed=1)
    counts = Counter(e.metadata["cell"] for e in sized)
    assert counts.pop("exception_handled") == 4
    assert set(counts.values()) == {2}
    order = [r["id"] for r in rows]
    assert [order.index(e.id) for e in some] == sorted(order.index(e.id) for e in some)
    assert {e.id for e in some} != {e.id for e in examples(path, split="all", per_cell=2, seed=2)}
    swaps = examples(path, split="all", cells=["ord_swap"])
    assert {e.metadata["cell"] for e in swaps} == {"ord_swap_flip", "ord_swap_rebind", "ord_swap_keep_listing"}
    with pytest.raises(ValueError, match=r"cell 'ord_swp': .*Did you mean 'ord_swap'"):
        examples(path, split="all", cells=["ord_swp"])
    with pytest.raises(ValueError, match="per_cell: expected at least 1, got 0"):
        examples(path, per_cell=0)
    with pytest.raises(ValueError, match="'all' is for a file"):
        examples(split="all")
    assert len(examples(write(MINE))) == 1  # a row that names no split is always kept
    with pytest.raises(ValueError, match="no row of split 'train' among 1"):
        examples(write(MINE | {"split": "test"}), split="train")


def test_a_template_of_ones_own_is_used_and_checked(write):
    (one,) = examples(write(MINE), template="<p>{procedure}</p>\n{scenario}\n---\n{question}")
    assert one.content == f"<p>{MINE['procedure']}</p>\n{MINE['scenario']}\n---\n{MINE['question']}"
    assert one.content[slice(*one.spans["step_2"])] == "2. Seal the drum."
    assert one.content[slice(*one.spans["event_1"])] == "Ann wore goggles."
    for bad in (
        "{procedure} {scenario}",
        "{scenario} {procedure} {question}",
        "{procedure}{procedure}{scenario}{question}",
    ):
        with pytest.raises(ValueError, match="template: expected"):
            examples(write(MINE), template=bad)


def test_scores_of_replies():
    (e,) = examples(per_cell=1, seed=5, cells=["adversarial_surface_compliant"], rendering="log")
    gold = e.metadata["trace"]
    perfect = {"correct": 1.0, "parsed": 1.0, "surface": 0.0, "steps": 1.0, "faithful": 1.0, "unknown_signals": 0.0}
    perfect |= {"signals_understood": 1.0}
    assert score(e, gold) == perfect
    assert score(e, corrupt_verdict(gold, 0)) == perfect | {"faithful": 0.0}
    assert score(e, "noncompliant") == {"correct": 0.0, "parsed": 1.0, "surface": 1.0}
    assert score(e, "hm") == {"correct": 0.0, "parsed": 0.0, "surface": 0.0}
    n = len(e.metadata["verdicts"])
    shorter = gold[: gold.rindex("[SIG=STEP]")] + "[SIG=DECIDE] compliant"
    assert score(e, shorter)["steps"] == pytest.approx((n - 1) / n)
    assert parse("maybe") is None
