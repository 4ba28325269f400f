"""The generator: no duplicates, no procedure in two splits, no shallow reader above the recorded ceiling."""

from __future__ import annotations

import time
from collections import Counter
from itertools import islice
from random import Random

import pytest

from interp.tasks import procedural
from interp.tasks.procedural.cells import CELLS, TRAINING, grid
from interp.tasks.procedural.dataset import (
    GRID,
    audit_records,
    check_leakage,
    dedup,
    generate_items,
    generate_records,
    label_balance,
)
from interp.tasks.procedural.documents import documents, training_documents
from interp.tasks.procedural.engine import audit
from interp.tasks.procedural.generate import GeneratorConfig, original, originals, shuffled, split_of
from interp.tasks.procedural.latent import procedure_id
from interp.tasks.procedural.perturb import PERTURBATIONS
from interp.tasks.procedural.render import render
from interp.tasks.procedural.replies import HARD_TAGS, TAGS
from interp.tasks.procedural.vocabulary import ACTIONS, DISTRACTORS, DOMAINS, LABELS, SIGNALS, TONES, word_list

N_LARGE = 20_000
SINGLE_CEILING = 0.55
PARENT_CELL = {
    "compliant": "baseline_compliant",
    "noncompliant": "baseline_noncompliant_aligned",
    "reordered": "ord_swap_reordered",
}
# Accuracy of the best lookup over all shallow features, learned on other procedures; measured on 20,400 records.
JOINT_WITHOUT_TONE, JOINT = 0.60, 0.66


@pytest.fixture(scope="module")
def large():
    """20,000 items of the balanced grid, as the parts of a record that the checks read."""
    rows = []
    for made in islice(generate_items(seed=1), N_LARGE):
        text = render(made.instance, rendering="log")
        rows.append(
            {
                "id": f"{made.cell}-{made.index}",
                "procedure_id": made.procedure_id,
                "pair_id": made.pair_id,
                "procedure": text.procedure,
                "scenario": text.scenario,
                "question": text.question,
                "label": audit(made.instance).label,
                "perturbation": made.name,
                "split": split_of(made.procedure_id),
                "latent": made.instance,
            }
        )
    return rows


def test_20000_items_have_no_duplicate_text(large):
    kept, dropped = dedup(large)
    assert (len(kept), dropped) == (N_LARGE, 0)


def test_20000_originals_have_distinct_procedures():
    drawn = [procedure_id(i.procedure) for i in islice(originals(Random(0)), N_LARGE)]
    assert len(set(drawn)) == N_LARGE
    share = Counter(map(split_of, drawn))
    # binomial, 4 standard errors: sqrt(.1 * .9 / 20000) = .0021
    assert abs(share["test"] / N_LARGE - 0.1) < 0.0085
    assert abs(share["validation"] / N_LARGE - 0.1) < 0.0085


def test_no_procedure_pair_or_text_is_in_two_splits(large):
    parts = {s: [r for r in large if r["split"] == s] for s in ("train", "validation", "test")}
    for a, b in (("train", "test"), ("train", "validation"), ("validation", "test")):
        leak = check_leakage(parts[a][:2000], parts[b][:500])
        assert (leak.shared_ids, leak.shared_procedures, leak.shared_pairs) == (0, 0, 0)
        assert leak.max_jaccard < 1
    by_procedure = Counter((r["procedure_id"], r["split"]) for r in large)
    assert len(by_procedure) == len({r["procedure_id"] for r in large})


def test_leakage_is_found_where_it_is():
    rows = generate_records(40, seed=3, split="test")
    leak = check_leakage(rows[:30], rows[20:])
    assert leak.shared_ids == 10
    assert leak.shared_procedures >= 2
    assert leak.shared_pairs == leak.shared_procedures
    assert leak.max_jaccard == 1
    assert leak.held_out_words  # paraphrases of the test side
    assert check_leakage(generate_records(200, seed=3, split="train"), rows).held_out_words == ()


def test_dedup_ignores_case_and_punctuation_but_refuses_contradicting_labels():
    row = generate_records(1, seed=0)[0]
    louder = {**row, "id": "b", "procedure": row["procedure"].upper().replace(".", " -")}
    assert dedup([row, louder]) == ([row], 1)
    with pytest.raises(ValueError, match="the same text has the labels"):
        dedup([row, {**louder, "label": "noncompliant" if row["label"] == "compliant" else "compliant"}])


def test_the_grid_has_balanced_labels_and_no_shallow_shortcut(large):
    assert label_balance(large)["all"]["compliant"] == pytest.approx(N_LARGE / 2, abs=34)
    rows = {r.feature: r for r in audit_records(large)}
    for name, row in rows.items():
        assert abs(row.shuffled - 0.5) < 0.02, name  # 4 standard errors of .0035, and a little fitting
        if not name.startswith("joint"):
            assert row.accuracy <= SINGLE_CEILING, name
    assert rows["joint_without_tone"].accuracy == pytest.approx(JOINT_WITHOUT_TONE, abs=0.015)
    assert rows["joint"].accuracy == pytest.approx(JOINT, abs=0.015)


def test_the_audit_finds_a_planted_shortcut_in_latents_and_in_text():
    kept = ("baseline_compliant", "baseline_noncompliant", "hierarchy_violation", "prerequisite_omission")
    rows = [r for r in generate_records(1200, seed=2) if r["perturbation"] in kept]
    rows = [r for r in rows if (r["label"] == "noncompliant") == ("skipped" in r["scenario"])]
    latent = {r.feature: r for r in audit_records(rows)}
    assert latent["any_skipped"].accuracy == 1
    assert latent["any_skipped"].n_right == latent["any_skipped"].n == len(rows)
    text = {r.feature: r for r in audit_records([{k: v for k, v in r.items() if k != "latent"} for r in rows])}
    assert text["mentions_omission"].accuracy == 1
    assert text["mentions_omission"].shuffled < 0.7
    with pytest.raises(ValueError, match="at least 4 records"):
        audit_records(rows[:3])


def test_the_grid_of_a_data_set_is_balanced_by_construction():
    cells = [cell for row in GRID for cell in row]
    assert len(cells) == 34
    items = list(islice(generate_items(seed=0), 34))
    assert [i.cell for i in items] == cells
    assert Counter(audit(i.instance).label for i in items) == {"compliant": 17, "noncompliant": 17}
    tones = Counter((audit(i.instance).label, TONES[i.instance.scenario.tone].polarity) for i in items)
    assert tones[("compliant", -1)] == tones[("noncompliant", -1)] == 3


def test_a_longer_run_begins_with_the_shorter_one_and_cells_do_not_depend_on_each_other():
    every = grid(per_cell=3, seed=5)
    assert [i.cell for i in every] == [c for c in CELLS for _ in range(3)]
    for cell in CELLS:
        assert grid(per_cell=2, seed=5, cells=[cell]) == [i for i in every if i.cell == cell][:2]
    assert generate_records(50, 7) == generate_records(60, 7)[:50]
    assert generate_records(5, 7) != generate_records(5, 8)
    assert {i.procedure_id for i in grid(per_cell=3, seed=6)}.isdisjoint(i.procedure_id for i in every)


def test_a_cell_may_have_a_size_of_its_own_and_keeps_its_items():
    every = grid(per_cell=5, seed=5)
    sizes = {TRAINING: 5, "exception_handled": 4, "baseline_compliant": 1}
    made = grid(per_cell=2, sizes=sizes, seed=5)
    for cell in CELLS:
        mine = [i for i in made if i.cell == cell]
        assert mine == [i for i in every if i.cell == cell][: sizes.get(cell, 2)]
    assert grid(per_cell=2, sizes={}, seed=5) == grid(per_cell=2, seed=5)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"training_distributon": 4}, r"sizes: 'training_distributon': .*Did you mean 'training_distribution'"),
        ({TRAINING: 0}, f"sizes: {TRAINING}: expected a whole number from 1 to 100,000, got 0"),
        ({TRAINING: 2.5}, "got 2.5"),
        ({TRAINING: True}, "got True"),
        ({TRAINING: 100_001}, "got 100001"),
        ([4], r"sizes \[4\]: expected a number of items for some cells"),
    ],
)
def test_a_size_that_is_none_is_refused(sizes, said):
    with pytest.raises(ValueError, match=said):
        grid(per_cell=1, sizes=sizes, seed=0)
    with pytest.raises(ValueError, match=said):
        procedural.examples(per_cell=1, sizes=sizes, seed=0)
    with pytest.raises(ValueError, match="sizes: 'exception_handled': expected one of training_distribution"):
        grid(per_cell=1, sizes={"exception_handled": 2}, seed=0, cells=[TRAINING])


def test_the_parent_of_an_item_is_the_item_of_the_same_index_in_its_parent_cell():
    items = {(i.cell, i.index): i for i in grid(per_cell=10, seed=5)}
    for (cell, index), made in items.items():
        if cell == TRAINING or made.parent is None:
            assert cell in (TRAINING, "baseline_compliant")
            continue
        name = PARENT_CELL[PERTURBATIONS[cell].parent]
        own = cell == name  # an unchanged parent points to the original instead
        assert made.parent == items["baseline_compliant" if own else name, index].instance
        assert made.pair_id == items["baseline_compliant", index].pair_id


def test_splits_of_the_grid_are_disjoint_and_train_items_avoid_held_out_words():
    for split in ("train", "validation", "test"):
        items = grid(per_cell=10, seed=0, split=split)
        assert {split_of(i.procedure_id) for i in items} == {split}
        scenarios = [i.instance.scenario for i in items]
        held_out = [
            any(e.wording == "held_out" for e in s.events)
            or TONES[s.tone].held_out
            or any(DISTRACTORS[d].held_out for _, d in s.distractors)
            for s in scenarios
        ]
        assert any(held_out) == (split != "train")


def test_cells_and_sizes_are_checked():
    with pytest.raises(
        ValueError, match=r"cell 'exception_handle': expected one of .*Did you mean 'exception_handled'"
    ):
        grid(per_cell=1, seed=0, cells=["exception_handle"])
    with pytest.raises(ValueError, match="per_cell: expected at least 1, got 0"):
        grid(per_cell=0, seed=0)
    with pytest.raises(ValueError, match="n: expected at least 1"):
        generate_records(0)


def test_every_word_of_a_document_is_one_token_of_the_word_list():
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocab = {word: k for k, word in enumerate(["<|unk|>", *word_list()])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<|unk|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    rng, seen = Random(0), set()
    config = GeneratorConfig(proviso_kinds=("replace", "waive", "add"), in_order=False)
    latents = [shuffled(rng, config) for _ in range(300)]
    texts = [f"{d.prompt} {d.answer}" for d in (*documents(rng, 1500), *training_documents(rng, 500))]
    texts += [render(x, rendering="log").text for x in latents]
    for text in texts:
        ids = tokenizer.encode(text).ids
        assert 0 not in ids
        assert len(ids) == len(text.split())
        seen.update(ids)
    unused = {word for word, k in vocab.items() if k not in seen} - {"<|unk|>", "user", "assistant"}
    assert unused <= {"6", "7", "8", "9", "eighth", "ninth"}  # longer procedures may use them
    for word in (*LABELS, *SIGNALS):
        assert vocab[word] in seen


def test_words_that_must_tell_actions_apart_belong_to_one_action_only():
    keys = [w for a in ACTIONS.values() for w in (a.key, a.syn_key)]
    verbs = [w for a in ACTIONS.values() for w in (a.past, a.syn_past, a.verb)]
    assert len(set(keys)) == len(keys) == 84
    assert set(keys).isdisjoint(verbs)
    others = set(word_list()) - set(keys) - set(verbs)
    assert len(others) + len(set(keys) | set(verbs)) == len(word_list())
    for domain in DOMAINS.values():
        assert len(domain.actions) == 14
    phrases = [f"{p} {n}" for a in ACTIONS.values() for p, n in PHRASES(a)]
    assert len(set(phrases)) == 3 * 42


def PHRASES(action):  # noqa: N802
    return ((action.past, action.noun), (action.alt_past, action.alt_noun), (action.syn_past, action.syn_noun))


def test_base_documents_are_tagged_word_by_word_and_their_bare_labels_are_balanced():
    made = documents(Random(1), 4000)
    for d in made:
        assert len(d.tags) == len(d.answer.split())
        assert set(d.tags) <= set(TAGS)
        assert d.tags[-1] == "label"
        assert d.label == audit(d.instance).label
        assert split_of(procedure_id(d.instance.procedure)) == "train"
        assert d.prompt.endswith("audit each step ." if d.trace else "is this compliant ?")
    assert set(TAGS) == {t for d in made for t in d.tags}
    assert set(TAGS) >= HARD_TAGS
    bare = Counter(d.label for d in made if not d.trace)
    # about 240 bare labels; 4 standard errors of a half
    assert abs(bare["compliant"] / bare.total() - 0.5) < 0.13
    assert 0.04 < bare.total() / 4000 < 0.08
    tone = Counter((d.label, TONES[d.instance.scenario.tone].polarity) for d in made)
    for label in LABELS:
        n = tone[(label, 1)] + tone[(label, -1)]
        assert abs(tone[(label, 1)] / n - 0.5) < 0.06


@pytest.mark.parametrize("rho", [0.97, 0.8])
def test_the_tone_of_the_training_distribution_is_right_with_probability_rho(rho):
    n = 1500
    made = training_documents(Random(2), n, rho=rho, split="validation", with_trace=False)
    right = sum((TONES[d.instance.scenario.tone].polarity > 0) == (d.label == "compliant") for d in made)
    assert abs(right / n - rho) < 4 * (rho * (1 - rho) / n) ** 0.5
    assert abs(Counter(d.label for d in made)["compliant"] / n - 0.5) < 4 * 0.5 / n**0.5
    assert all(d.answer == d.label and d.tags == ("label",) for d in made)
    assert all(split_of(procedure_id(d.instance.procedure)) == "validation" for d in made)
    events = [e for d in made for e in d.instance.scenario.events]
    assert {e.wording for e in events} == {"plain"}  # held-out synonyms stay out of the adapters' text
    assert not any(DISTRACTORS[i].held_out for d in made for _, i in d.instance.scenario.distractors)
    with pytest.raises(ValueError, match="rho: expected a probability"):
        training_documents(Random(0), 1, rho=1.5)


def test_paraphrased_training_text_is_available_on_request():
    made = training_documents(Random(2), 300, p_paraphrase=1.0)
    worded = [e.wording for d in made for e in d.instance.scenario.events]
    assert 0.7 < worded.count("held_out") / len(worded) < 0.9


def test_shuffled_latents_break_the_usual_order_and_still_have_both_labels():
    rng = Random(0)
    made = [shuffled(rng) for _ in range(2000)]
    labels = Counter(audit(x).label for x in made)
    assert labels["compliant"] > 200
    assert sum(list(x.procedure.listing) != sorted(x.procedure.listing) for x in made) > 600
    verdicts = Counter(v for x in made for v in audit(x).verdicts)
    assert all(verdicts[v] > 200 for v in ("ok", "missing", "skipped", "order", "role"))
    modes = Counter(s.mode for x in made for s in audit(x).steps)
    assert modes["instead"] > 500


def test_the_generator_draws_thousands_per_second():
    rng, start = Random(0), time.process_time()
    for _ in range(2000):
        audit(original(rng))
    assert time.process_time() - start < 2  # about .1 s on an idle core: room for a busy machine
