"""Decision sites of tasks: found in any reply by the words in front, right by the rule engine, read as token pairs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from interp.checkpoint import Checkpoint
from interp.heads import decision_pairs, swap_pairs, text_pair
from interp.prompt import Example, Message
from interp.tasks import bbq, esi, procedural
from interp.tasks.decision_sites import DecisionSite, chosen_sites, decision_sites, label_site
from interp.tasks.procedural.documents import Document, training_documents
from study.analyses.heads.options import HeadsOptions
from study.analyses.heads.run import run_heads
from study.embedded.heads import SEED, TARGETS, find_sites
from study.embedded.tokenizer import vocabulary
from tests.tiny import tiny_tokenizer

PREFIX = 5  # tokens that the chat template of the embedded pair puts around a prompt


def as_example(number: int, document: Document) -> Example:
    gold = {"rendering": "log", "trace": document.answer}
    return Example(f"d{number}", (Message("user", document.prompt),), label=document.label, metadata=gold)


def named(example: Example, text: str, name: str) -> list[DecisionSite]:
    return [site for site in decision_sites(procedural, example, text) if site.name == name]


@pytest.mark.parametrize("name", list(TARGETS))
def test_sites_of_gold_replies_are_those_that_the_builder_of_the_pair_finds_from_its_tags(name: str) -> None:
    documents, words = training_documents(Random(SEED), 32, rho=0.5, split="validation", p_shuffled=1.0), vocabulary()
    sites = find_sites(documents, name)
    found = [
        (row, len(document.prompt.split()) + PREFIX + len(site.before.split()) - 1, words[site.answer])
        for row, document in enumerate(documents)
        for site in named(as_example(row, document), document.answer, name)
    ]
    assert found == list(zip(sites.rows.tolist(), sites.cols.tolist(), sites.gold.tolist(), strict=True))
    assert tuple(procedural.DECISION_SITES)[-1] == "label" and set(procedural.DECISION_SITES) == set(TARGETS)


@pytest.mark.parametrize("rendering", ["log", "plain"])
def test_the_right_word_of_every_site_is_what_a_gold_reply_goes_on_with(rendering) -> None:
    seen = set()
    for example in procedural.examples(per_cell=2, rendering=rendering):
        gold = procedural.gold_reply(example)
        assert gold is not None
        for site in decision_sites(procedural, example, gold):
            assert gold.startswith(f"{site.before} {site.answer}")
            assert site.answer in site.options
            seen.add(site.name)
    assert seen == set(procedural.DECISION_SITES)


@pytest.mark.parametrize("rendering", ["log", "plain"])
def test_the_right_word_comes_from_the_rules_and_not_from_the_reply(rendering) -> None:
    example = procedural.examples(per_cell=1, rendering=rendering)[0]
    gold = procedural.gold_reply(example) or ""
    for site in decision_sites(procedural, example, gold):
        wrong = next(option for option in site.options if option != site.answer)
        reply = f"{site.before} {wrong}{gold[len(site.before) + 1 + len(site.answer) :]}"
        assert site in decision_sites(procedural, example, reply), site.name


def test_a_decision_in_front_of_which_the_reply_went_wrong_is_no_site() -> None:
    twins = procedural.twin_examples(1, rendering="log")
    example, gold = twins[0][0], procedural.gold_reply(twins[0][0]) or ""
    number = gold.split("[SIG=STEP] ")[1].split()[0]
    lookup = named(example, gold, "event_lookup")
    reply = gold.replace(f"[SIG=FIND] {lookup[0].before.split()[-1]}", "[SIG=FIND] badge", 1)
    assert lookup[0].key == number
    assert [site.key for site in named(example, reply, "event_lookup")] == [site.key for site in lookup][1:]
    operands = named(example, gold, "order_verdict")[0].before.split()[-2:]
    reply = gold.replace(f"[SIG=CHECK] {operands[0]} {operands[1]}", f"[SIG=CHECK] {operands[0]} ninth", 1)
    assert len(named(example, reply, "order_verdict")) == len(named(example, gold, "order_verdict")) - 1
    for strange in ("", "compliant", "[SIG=STEP]", "[SIG=STEP] 77 anyone wear badge [SIG=FIND]"):
        assert [site.name for site in decision_sites(procedural, example, strange)] == ["label"]
    bare = replace(example, metadata={})
    assert [site.name for site in decision_sites(procedural, bare, gold)] == ["label"], "rows without a gold trace"


def test_the_letter_and_the_level_are_decided_where_the_reply_states_them() -> None:
    item = Example("i", text="x", label="B")
    assert decision_sites(bbq, item, "B")[0] == DecisionSite("letter", "", "B", ("A", "B", "C"))
    assert decision_sites(bbq, item, "Answer: C")[0].before == "Answer:"
    patient = esi.examples(per_cell=1)[0]
    (site,) = decision_sites(esi, patient, "Stable, ESI level: 3 then. So: ESI: 3.")
    assert (site.name, site.answer, site.options) == ("level", str(patient.label), ("1", "2", "3", "4", "5"))
    assert site.before == "Stable, ESI level: 3 then. So: ESI:"
    assert (label_site(bbq), label_site(esi), label_site(procedural), label_site(object())) == (
        "letter",
        "level",
        "label",
        "",
    )


def test_sites_are_chosen_in_the_order_of_the_task_and_unknown_ones_are_refused() -> None:
    assert chosen_sites(procedural, ["label", "step_lookup"]) == ("step_lookup", "label")
    assert chosen_sites(procedural, []) == tuple(procedural.DECISION_SITES)
    with pytest.raises(ValueError, match=r"'step_lokup'.*the task names .*Did you mean 'step_lookup'\?"):
        chosen_sites(procedural, ["step_lokup"])
    with pytest.raises(ValueError, match="'label'.*names none"):
        chosen_sites(object(), ["label"])


def test_sites_and_gold_replies_that_a_task_lacks_are_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    nowhere = Checkpoint("m", str(tmp_path / "no-such-model"))
    twins = procedural.twin_examples(8, rendering="log")

    def run(task: str, items, **options) -> None:
        run_heads(nowhere, task, items, out=tmp_path / "x", options=HeadsOptions(kinds=("mean",), **options))

    with pytest.raises(ValueError, match=r"'step_lokup'.*Did you mean 'step_lookup'"):
        run("interp.tasks.procedural", twins, at=("step_lokup",))
    with pytest.raises(ValueError, match=r"'label' alone after the forced text 'Answer:', got step_lookup"):
        run("interp.tasks.procedural", twins, at=("step_lookup",), slot="Answer:")
    with pytest.raises(ValueError, match=r"slot gold.*no gold_reply"):
        run("interp.tasks.esi", esi.examples(per_cell=2), slot="gold")
    with pytest.raises(ValueError, match="no-such-model"):  # what stops the right name is the model
        run("interp.tasks.procedural", twins, at=("step_lookup",))


def test_pairs_at_the_label_are_the_order_swap_pairs() -> None:
    twins, tokenizer = procedural.twin_examples(3, seed=4), tiny_tokenizer()
    reply = {e.id: procedural.gold_reply(e) or "" for twin in twins for e in twin}
    (pairs,) = decision_pairs(
        procedural, twins, lambda e: reply[e.id], tokenizer, at=["label"], group="procedure"
    ).values()
    wanted = swap_pairs(
        twins, procedural.LABELS, tokenizer, before=lambda e: procedural.decision_prefix(reply[e.id]), group="procedure"
    )
    assert [replace(pair, decision_site="") for pair in pairs] == wanted


@pytest.mark.parametrize("rendering", ["log", "plain"])
def test_pairs_at_a_lookup_flip_and_keep_from_one_decision_and_are_cut_in_front_of_it(rendering) -> None:
    twins, tokenizer = procedural.twin_examples(6, seed=2, rendering=rendering), tiny_tokenizer()
    by_id = {twin[1].id: twin for twin in twins}

    def reply(example: Example) -> str:
        return procedural.gold_reply(example) or ""

    found = decision_pairs(procedural, twins, reply, tokenizer, group="procedure")
    assert {pair.kind for pair in found["exception_lookup"]} <= {"keep"}, "twins have the same conditions"
    for name in ("step_lookup", "event_lookup", "order_verdict"):
        pairs = found[name]
        assert {pair.kind for pair in pairs} == {"flip", "keep"} and {pair.decision_site for pair in pairs} == {name}
        assert len({pair.id for pair in pairs}) == len(pairs) > len(twins)
        assert {pair.id.split()[0] for pair in pairs} == set(by_id), "every twin reaches it"
        for pair in pairs:
            original, twin = by_id[pair.id.split()[0]]
            key = pair.id.split(maxsplit=1)[1].removesuffix(" keep")
            (site,) = [one for one in named(twin, reply(twin), name) if one.key == key]
            assert pair.label == site.answer and pair.flips == (pair.kind == "flip")
            written = str(tokenizer.decode(list(pair.exp_ids))).rpartition("<|im_start|>assistant\n")[2]
            assert written.startswith(site.before) and f"{site.before} {site.answer}".startswith(written)
            bases = {one.answer for one in named(original, reply(original), name)}
            assert bases - {site.answer} if pair.flips else bases & {site.answer}
        ablated = decision_pairs(procedural, twins, reply, tokenizer, at=[name], has_base=False)[name]
        assert [pair.id for pair in ablated] == list(dict.fromkeys(pair.id.removesuffix(" keep") for pair in pairs))
        assert all(pair.base_ids is None and (pair.foil is None) == (name != "order_verdict") for pair in ablated)


def test_without_a_foil_a_pair_is_cut_where_the_options_first_differ() -> None:
    tokenizer = tiny_tokenizer()
    pair = text_pair(None, "the dog", tokenizer, answer="yes", foil=None, options=("no", "yes", "maybe"))
    two = text_pair(None, "the dog", tokenizer, answer="yes", foil="no")
    assert (pair.exp_ids, pair.answer, pair.foil) == (two.exp_ids, two.answer, None)
    assert pair.options[:2] == (two.answer, two.foil) and len(pair.options) == 3
    with pytest.raises(ValueError, match="expected a foil or further options"):
        text_pair(None, "the dog", tokenizer, answer="yes", foil=None)
