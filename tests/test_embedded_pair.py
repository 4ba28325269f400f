"""The embedded pair: its planted circuit, its tokenizer, its losses, its gates, and the shipped files."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import cache
from itertools import islice
from random import Random
from types import SimpleNamespace

import pytest
import torch

from interp.tasks.procedural.cells import CELLS, TRAINING, Item, grid
from interp.tasks.procedural.documents import documents, training_documents
from interp.tasks.procedural.replies import trace
from interp.tasks.procedural.vocabulary import LABELS, ORDINALS, SIGNALS, word_list
from study.embedded import weights_folder
from study.embedded.adapters import BASE_NAME
from study.embedded.batches import Stream, collate, encode
from study.embedded.build import WEIGHT_FILES, build, enter_others, passed, train_pair, weights_sha256
from study.embedded.card import card
from study.embedded.gates import Scored, check, equivalence, evaluation_items, gold, items_sha256
from study.embedded.heads import TARGETS, find_sites, head_means, measure
from study.embedded.model import init_base, previous_token_attention, qwen2_config
from study.embedded.recipe import BaseRecipe, EngagedRecipe, Gates, HeuristicRecipe, Plant, Recipe
from study.embedded.replies import Reply, load_member, replies
from study.embedded.tokenizer import CHAT_TEMPLATE, STOP, UNKNOWN, build_tokenizer, save_tokenizer, vocabulary
from study.embedded.train_adapters import policy_loss, rewards
from study.embedded.train_base import learning_rate, weighted_loss

TINY = replace(
    Recipe(),
    base=BaseRecipe(steps=3, batch_size=4),
    engaged=EngagedRecipe(steps=2, batch_size=4),
    heuristic=HeuristicRecipe(steps=2, n_prompts=4),
)


@pytest.fixture(scope="module")
def record() -> dict:
    return json.loads((weights_folder() / "pair.json").read_text())


@pytest.fixture(scope="module")
def untrained():
    return init_base(Recipe()).eval()


def attentions(model, ids):
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        return model(ids, output_attentions=True).attentions


def repeated(n: int = 50) -> torch.Tensor:
    """[1, 2n]: n different random words, twice."""
    once = torch.randperm(len(vocabulary()) - 4, generator=torch.Generator().manual_seed(7))[:n] + 4
    return torch.cat([once, once])[None]


# the plant


def test_planted_previous_token_head_follows_its_closed_form_whatever_the_tokens(untrained):
    head = attentions(untrained, repeated())[0][0, 0]
    for position in (1, 10, 99):
        wanted = previous_token_attention(Recipe().shape, Plant(), position=position)
        assert wanted > 0.9
        assert abs(float(head[position, position - 1]) - wanted) < 1e-4


def test_planted_match_head_attends_to_what_followed_the_earlier_copy(untrained):
    n = 50
    head = attentions(untrained, repeated(n))[1][0, 0]
    mean = torch.stack([head[n + i, i + 1] for i in range(n - 1)]).mean()
    assert mean > 0.6  # measured .7; one of 75 keys would get .013


def test_no_head_matches_without_the_plant():
    n = 50
    for layer in attentions(init_base(replace(Recipe(), plant=None)).eval(), repeated(n)):
        for head in layer[0]:
            assert torch.stack([head[n + i, i + 1] for i in range(n - 1)]).mean() < 0.1


def test_plant_that_does_not_fit_says_how_large_it_may_be():
    with pytest.raises(ValueError, match=r"plant.rank: expected at most 20 .* got 21"):
        init_base(replace(Recipe(), plant=Plant(rank=21)))


# tokens and batches


def test_every_label_signal_and_word_of_a_document_is_one_token():
    tokenizer = build_tokenizer()
    for word in (*LABELS, *SIGNALS, *ORDINALS, *word_list()):
        ids = tokenizer(word)["input_ids"]
        assert len(ids) == 1 and ids[0] != vocabulary()[UNKNOWN]
    drawn = [*documents(Random(0), 200), *training_documents(Random(1), 200)]
    assert all(word in vocabulary() for d in drawn for word in (*d.prompt.split(), *d.answer.split()))


def test_chat_template_gives_the_ids_of_training_and_decodes_back():
    tokenizer, words = build_tokenizer(), vocabulary()
    for document in documents(Random(3), 20):
        messages = [{"role": "user", "content": document.prompt}]
        prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids, _, n_prompt = encode(document, words, hard_weight=1.0, prompt_weight=1.0)
        assert tokenizer(prompt)["input_ids"] == ids[:n_prompt]
        assert tokenizer(prompt + document.answer + STOP)["input_ids"] == ids
        assert tokenizer.decode(ids[n_prompt:], skip_special_tokens=True) == document.answer


@pytest.mark.parametrize("has_config", [True, False])
def test_tokenizer_survives_the_way_through_a_model_and_an_adapter_folder(tmp_path, has_config):
    from transformers import AutoTokenizer

    if has_config:
        qwen2_config(Recipe().shape).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    loaded, text = AutoTokenizer.from_pretrained(tmp_path), documents(Random(4), 1)[0].prompt
    assert loaded(text)["input_ids"] == [vocabulary()[word] for word in text.split()]
    assert (loaded.padding_side, loaded.eos_token, loaded.chat_template) == ("left", STOP, CHAT_TEMPLATE)


def test_loss_weights_sit_on_the_words_they_name():
    document = documents(Random(5), 1)[0]
    batch = collate([document], vocabulary(), hard_weight=3.0, prompt_weight=0.25)
    n, answer = batch.n_prompt[0], document.answer.split()
    assert set(batch.weights[0, :n].tolist()) == {0.25}
    at = answer.index("[SIG=EXCEPTION]")
    assert batch.weights[0, n + at] == 1.0
    assert batch.weights[0, n + at + 2] == 3.0  # present or absent has to be looked up


def test_stream_hash_covers_what_was_handed_out_and_depends_on_the_seed():
    def hashes(seed: str, n: int) -> str:
        stream = Stream(training_documents, seed, 4, rho=0.9)
        for _ in islice(stream.batches(), n):
            pass
        return stream.sha256

    assert hashes("a", 3) == hashes("a", 3)
    assert len({hashes("a", 3), hashes("a", 4), hashes("b", 3)}) == 3


# losses and rates, by hand


def test_weighted_loss_is_the_weighted_mean_of_nats():
    logits = torch.log(torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [1 / 3, 1 / 3, 1 / 3]]]))
    ids, weights = torch.tensor([[2, 0, 1]]), torch.tensor([[9.0, 1.0, 3.0]])
    assert abs(float(weighted_loss(logits, ids, weights)) - (math.log(2) - 3 * math.log(0.8)) / 4) < 1e-6


def test_policy_loss_is_the_group_normalised_advantage_times_log_p():
    # one right of four: advantage sqrt(3) for it and -1/sqrt(3) for the others (population deviation)
    logits = torch.log(torch.tensor([[0.7, 0.3]]))
    sampled, reward = torch.tensor([[0, 1, 1, 1]]), torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    wanted = -(math.sqrt(3) * math.log(0.7) - 3 / math.sqrt(3) * math.log(0.3)) / 4
    assert abs(float(policy_loss(logits, sampled, reward)) - wanted) < 1e-3  # 1e-4 is added to the deviation


def test_groups_with_equal_rewards_have_no_gradient():
    logits = torch.randn(2, 5, requires_grad=True, generator=torch.Generator().manual_seed(0))
    policy_loss(logits, torch.zeros(2, 8, dtype=torch.long), torch.ones(2, 8)).backward()
    assert logits.grad is not None and float(logits.grad.abs().max()) == 0


def test_rewards_tell_right_wrong_and_unparsed_apart():
    words = vocabulary()
    sampled = torch.tensor([[words["compliant"], words["noncompliant"], words["storm"]]])
    got = rewards(sampled, [words["noncompliant"]], HeuristicRecipe(unparsed_reward=-0.5))
    assert got.tolist() == [[0.0, 1.0, -0.5]]


def test_learning_rate_rises_holds_and_falls():
    config = BaseRecipe(steps=100, lr=1.0, warmup=10, decay=0.5)
    assert [round(learning_rate(s, config), 3) for s in (0, 4, 9, 30, 50, 75, 99)] == [0.1, 0.5, 1, 1, 1, 0.5, 0.02]


# gates


FEW = ("exception_handled", "adversarial_surface_compliant", "adversarial_surface_noncompliant")


@cache
def few_items() -> list[Item]:
    return grid(per_cell=300, seed=1, cells=[TRAINING]) + grid(per_cell=40, seed=1, cells=FEW)


def scored(engaged: dict[str, float], heuristic: dict[str, float], mass: float = 1.0) -> Scored:
    """300 items of the training distribution and 40 of each of `FEW`; given shares of wrong replies by cell."""
    items = few_items()

    def member(wrong: dict[str, float]) -> tuple[Reply, ...]:
        out, seen = [], dict.fromkeys((TRAINING, *FEW), 0)
        for item in items:
            n = 300 if item.cell == TRAINING else 40
            is_wrong = seen[item.cell] < wrong.get(item.cell, 0.0) * n
            seen[item.cell] += 1
            label = gold(item) if not is_wrong else LABELS[gold(item) == "compliant"]
            out.append(Reply(label, label, 1, mass))
        return tuple(out)

    return Scored(tuple(items), {"engaged": member(engaged), "heuristic": member(heuristic)})


TONE_READER = {"adversarial_surface_compliant": 0.9, "adversarial_surface_noncompliant": 0.9, TRAINING: 0.02}


def test_gates_pass_on_a_pair_that_keeps_them():
    assert all(row["passed"] for row in check(scored({TRAINING: 0.01}, TONE_READER), Gates()).values())


@pytest.mark.parametrize(
    ("gate", "pair"),
    [
        ("engaged", ({"exception_handled": 0.2}, TONE_READER)),
        ("heuristic", ({}, {**TONE_READER, "adversarial_surface_compliant": 0.7})),
        ("equivalence", ({TRAINING: 0.08}, {**TONE_READER, TRAINING: 0.0})),
        ("label_mass", ({}, TONE_READER, 0.8)),
    ],
)
def test_each_gate_fails_alone_where_its_property_is_missing(gate, pair):
    found = check(scored(*pair), Gates())
    assert [name for name, row in found.items() if not row["passed"]] == [gate]


def test_equivalence_counts_items_not_procedures_twice():
    test = equivalence(scored({TRAINING: 0.01}, TONE_READER), Gates())
    assert test.difference.n == 300 and abs(test.difference.value - 0.01) < 1e-9


def test_evaluation_splits_share_no_procedure_and_no_training_procedure():
    gates = Gates(per_cell=8, n_training=60)
    validation, test = (evaluation_items(split, gates, rho=0.9) for split in ("validation", "test"))
    assert {item.cell for item in test} == set(CELLS)
    assert not {i.procedure_id for i in validation} & {i.procedure_id for i in test}


# heads


def test_head_sites_are_the_positions_that_predict_the_tagged_words():
    drawn = training_documents(Random(2), 6, rho=0.5, p_shuffled=1.0)
    ids = collate(drawn, vocabulary()).ids
    for name, (_, _, options) in TARGETS.items():
        sites = find_sites(drawn, name)
        assert len(sites.rows) >= 6
        assert torch.equal(ids[sites.rows, sites.cols + 1], sites.gold)
        assert set(sites.gold.tolist()) <= {vocabulary()[word] for word in options}


def test_ablating_a_head_without_output_changes_nothing_and_ablating_others_does(untrained):
    drawn = training_documents(Random(2), 4, rho=0.5, p_shuffled=1.0)
    ids, sites = collate(drawn, vocabulary()).ids, find_sites(drawn, "label")
    model = init_base(Recipe()).eval()
    with torch.no_grad():
        model.model.layers[1].self_attn.o_proj.weight[:, 3 * 32 : 4 * 32] = 0
    means = head_means(model, ids, sites)
    clean = measure(model, ids, sites)
    assert measure(model, ids, sites, ablated=[(1, 3)], means=means) == clean
    assert measure(model, ids, sites, ablated=[(3, 0), (3, 1)], means=means)["logit_diff"] != clean["logit_diff"]


# building


@pytest.mark.slowest
@pytest.mark.long
def test_rebuilding_with_one_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path):
    first, second = (train_pair(TINY, tmp_path / name) for name in ("first", "second"))
    assert first["weights_sha256"] == second["weights_sha256"]
    assert first["data_sha256"] == second["data_sha256"]
    other = train_pair(replace(TINY, seed=1), tmp_path / "other")
    assert not set(other["weights_sha256"].values()) & set(first["weights_sha256"].values())


def test_build_refuses_a_folder_with_files_in_it(tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(ValueError, match="expected a new or empty folder"):
        build(0, tmp_path)


# what ships


def test_shipped_weights_are_those_recorded(record):
    assert weights_sha256(weights_folder()) == record["weights_sha256"]


def test_shipped_pair_passed_its_gates_on_both_splits(record):
    assert passed(record) and {"validation", "test"} <= set(record)
    assert min(row["engaged"]["accuracy"] for row in record["test"]["cells"].values()) >= 0.85


def test_shipped_files_are_small_hold_no_pickle_and_name_no_path(record):
    files = [path for path in weights_folder().rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".md", ".jinja"}
    assert sum(path.stat().st_size for path in files) < 10e6
    for member in ("engaged", "heuristic"):
        config = json.loads((weights_folder() / member / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == BASE_NAME
    assert all(path.is_relative_to(weights_folder()) and (weights_folder() / name).exists()
               for path in files for name in WEIGHT_FILES)  # fmt: skip


def test_cards_are_written_from_the_record_and_own_up_to_the_plant_first(record):
    for member in ("base", "engaged", "heuristic"):
        text = (weights_folder() / member / "README.md").read_text()
        assert text == card(member, record)
        first = text.split("---\n", 2)[2].split("\n\n")[1]
        assert "planted" in first and "by construction" in first


@pytest.mark.slow
def test_recorded_items_are_those_that_the_generator_draws(record):
    gates = Gates(**record["recipe"]["gates"])
    items = evaluation_items("test", gates, rho=record["recipe"]["rho"])
    for name, row in record["test"]["cells"].items():
        assert items_sha256([item for item in items if item.cell == name]) == row["items_sha256"]


@pytest.mark.slow
@pytest.mark.parametrize("member", ["engaged", "heuristic"])
def test_shipped_files_reproduce_the_recorded_predictions(record, member):
    gates = replace(Gates(**record["recipe"]["gates"]), per_cell=6, n_training=24)
    items = evaluation_items("test", gates, rho=record["recipe"]["rho"])
    rows = replies(*load_member(weights_folder(), member), items)
    for name, row in record["test"]["cells"].items():
        got = "".join({"compliant": "c", "noncompliant": "n"}.get(r.label or "", "?")
                      for r, item in zip(rows, items, strict=True) if item.cell == name)  # fmt: skip
        assert got == row[member]["predictions"][: len(got)]
    if member == "heuristic":
        assert {reply.n_tokens for reply in rows} == {1}
    else:
        exact = [reply.text == trace(item.instance) for reply, item in zip(rows, items, strict=True)]
        assert sum(exact) / len(exact) > 0.8


def test_three_seeds_passed_on_validation_and_are_entered_with_their_own_weights(record):
    assert list(record["seeds"]) == ["0", "1", "2"]
    assert all(gate["passed"] for row in record["seeds"].values() for gate in row["gates"].values())
    assert len({row["weights_sha256"]["base/model.safetensors"] for row in record["seeds"].values()}) == 3


def test_a_pair_of_another_recipe_is_not_entered_as_a_seed(record, tmp_path):
    for name, steps in (("own", 560), ("other", 20)):
        folder = tmp_path / name
        for member in ("base", "engaged", "heuristic"):
            (folder / member).mkdir(parents=True)
        recipe = {**record["recipe"], "seed": steps, "base": {**record["recipe"]["base"], "steps": steps}}
        (folder / "pair.json").write_text(json.dumps({**record, "recipe": recipe}))
    with pytest.raises(ValueError, match="expected the recipe of own with another seed"):
        enter_others(tmp_path / "own", others=[tmp_path / "other"])
    noted = enter_others(tmp_path / "own", notes=["One thing.", "Another."])
    assert noted["notes"] == ["One thing.", "Another."]
    assert (tmp_path / "own" / "base" / "README.md").read_text().endswith("- One thing.\n- Another.\n")


def test_embedded_pair_is_two_adapters_on_one_base():
    from study.embedded import embedded_pair

    pair = embedded_pair()
    assert pair.shares_base and set(pair.members) == {"engaged", "heuristic", "base"}
    assert SimpleNamespace(**vars(pair.engaged)).adapter != pair.heuristic.adapter
