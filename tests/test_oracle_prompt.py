"""Prompts of published oracles, byte for byte, and the declaration of how an oracle is wired."""

from __future__ import annotations

import json

import pytest

from interp.oracle import AssumedSpecWarning, OracleSpec, render_question
from interp.oracle.prompt import placeholder_id, render_prefix, turn_end
from interp.oracle.spec import REGISTRY, registered
from interp.prompt import Example, Message, render
from interp.sentences import sentence_records
from interp.site import layer_index
from tests.oracle_kit import qwen_tokenizer
from tests.tiny import CHAT_TEMPLATE

HEAD, TAIL = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
# name -> (spec, layers, counts, prefix as the original writes it, source layer of each slot)
GOLDEN = {
    "A, one position": (OracleSpec(), [18], [1], "Layer: 18\n ? \n", [18]),
    "A": (OracleSpec(), [18], [3], "Layer: 18\n ? ? ? \n", [18] * 3),
    "A'": (OracleSpec(format="A'"), [9, 18, 27], [2, 2, 2], "Layer: 9\n ? ? \nLayer: 18\n ? ? \nLayer: 27\n ? ? \n",
           [9, 9, 18, 18, 27, 27]),
    "B": (OracleSpec(format="B"), [9, 18, 27], [2, 2, 2], "L9: ? ? L18: ? ? L27: ? ?.\n", [9, 9, 18, 18, 27, 27]),
    "B, one layer": (OracleSpec(format="B"), [18], [2], "L18: ? ?.\n", [18, 18]),
    "D": (OracleSpec(format="D", placeholder=(" @", " ?", " #")), [9, 18, 27], [2, 2, 2],
          "Layer: 9, 18, 27\n @ ? # @ ? # \n", [9, 18, 27, 9, 18, 27]),
    "D, one placeholder": (OracleSpec(format="D"), [9, 18], [2, 2], "Layer: 9, 18\n ? ? ? ? \n", [9, 18, 9, 18]),
    "E": (OracleSpec(format="E", placeholder=" ¶"), [9, 18], [2, 1], "L9: ¶ ¶ L18: ¶\n", [9, 9, 18]),
    "E, flat": (OracleSpec(format="E", placeholder=" ¶", flat=True), [9, 18], [2, 1], " ¶ ¶ ¶\n", [9, 9, 18]),
}  # fmt: skip


@pytest.fixture(scope="module")
def tok():
    return qwen_tokenizer()


@pytest.mark.parametrize("name", GOLDEN)
def test_rendering_is_the_original_byte_for_byte(name, tok):
    spec, layers, counts, prefix, of = GOLDEN[name]
    question = "Can you name all people the model is currently thinking about?"
    prompt = render_question(spec, tok, layers=layers, counts=counts, question=question)
    assert prompt.text.encode() == (HEAD + prefix + question + TAIL).encode()
    assert tok.decode(prompt.ids) == prompt.text
    assert list(prompt.layers) == of
    assert prompt.answer_start == len(prompt.ids)
    assert [tok.decode([prompt.ids[slot]]) for slot in prompt.slots] == [
        spec.placeholders[layers.index(layer) if len(spec.placeholders) > 1 else 0] for layer in of
    ]
    assert list(prompt.slots) == sorted(set(prompt.slots))


def test_slots_are_found_by_offsets_not_by_searching_for_the_placeholder(tok):
    template = "<|im_start|>system\nany ? more ? questions ?<|im_end|>\n" + CHAT_TEMPLATE
    system = type(tok)(tokenizer_object=tok.backend_tokenizer, eos_token="<|im_end|>", chat_template=template)
    prompt = render_question(OracleSpec(), system, layers=[4], counts=[2], question="is it ? yes ?")
    head = prompt.text.index("Layer: 4\n") + len("Layer: 4\n")
    offsets = tok(prompt.text, return_offsets_mapping=True, add_special_tokens=False)["offset_mapping"]
    assert [offsets[slot] for slot in prompt.slots] == [(head, head + 2), (head + 2, head + 4)]
    assert prompt.ids.count(placeholder_id(tok, " ?")) > 4, "the trap is gone: the prompt holds no other placeholder"


def test_an_answer_starts_where_generation_would(tok):
    ask = dict(layers=[4], counts=[2], question="is it?")
    bare = render_question(OracleSpec(), tok, **ask)
    full = render_question(OracleSpec(), tok, **ask, answer="yes", end_of_turn=True)
    assert full.ids[: full.answer_start] == bare.ids
    assert tok.decode(full.ids[full.answer_start :]) == "yes<|im_end|>\n"
    assert turn_end(tok) == "<|im_end|>\n"


def test_a_placeholder_that_merges_with_a_line_break_is_refused():
    joined = qwen_tokenizer(joins=True)
    assert len(joined.encode(" ?\n", add_special_tokens=False)) == 1, "the trap is gone"
    with pytest.raises(ValueError, match=r"slot 1: expected the placeholder.* merged with its neighbours"):
        render_question(OracleSpec(format="E"), joined, layers=[4], counts=[2], question="is it?")
    render_question(OracleSpec(), joined, layers=[4], counts=[2], question="is it?")  # format A holds the blank


def test_a_placeholder_of_several_tokens_and_an_empty_question_are_refused(tok):
    with pytest.raises(ValueError, match="placeholder ' zebra': this tokenizer makes . tokens of it"):
        render_question(OracleSpec(placeholder=" zebra"), tok, layers=[4], counts=[1], question="is it?")
    with pytest.raises(ValueError, match="question: expected text"):
        render_question(OracleSpec(), tok, layers=[4], counts=[1], question=" ")


@pytest.mark.parametrize(
    ("spec", "layers", "counts", "message"),
    [
        (OracleSpec(), [4, 5], [1, 1], "format A has one layer"),
        (OracleSpec(format="D"), [4, 5], [1, 2], "equal counts"),
        (OracleSpec(format="B"), [4, 4], [1, 1], "different layers"),
        (OracleSpec(format="B"), [4], [0], ">= 1 per layer"),
        (OracleSpec(format="B", placeholder=(" ?", " @", " #")), [4, 5], [1, 1], "one per layer \\(2\\), got 3"),
        (OracleSpec(format="B", flat=True), [4], [1], "only format E"),
    ],
)
def test_prefixes_that_no_oracle_was_trained_on_are_refused(spec, layers, counts, message):
    with pytest.raises(ValueError, match=message):
        render_prefix(spec.format, spec.placeholders, layers=layers, counts=counts, flat=spec.flat)


def test_a_template_without_a_thinking_switch_is_rendered_as_it_is(tok):
    plain = CHAT_TEMPLATE.replace("{{ '<think>\n\n</think>\n\n' }}", "")
    bare = type(tok)(tokenizer_object=tok.backend_tokenizer, eos_token="<|im_end|>", chat_template=plain)
    text = render_question(OracleSpec(), bare, layers=[4], counts=[1], question="is it?").text
    assert text == HEAD + "Layer: 4\n ? \nis it?<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("n", "percent", "layer"), [(36, "25%", 9), (36, "50%", 18), (36, "75%", 27), (28, "50%", 14), (26, "75%", 19)]
)
def test_layers_from_percents_are_those_of_published_oracles(n, percent, layer):
    assert layer_index(percent, n) == layer


def test_percents_use_the_arithmetic_that_oracles_were_trained_with():
    assert layer_index("58%", 50) == int(50 * (58 / 100)) == 28
    assert 50 * 58 // 100 == 29, "integer arithmetic differs here, which is why it is not used"
    with pytest.raises(ValueError, match="percent of depth from '0%' to '99%'"):
        layer_index("100%", 36)
    with pytest.raises(ValueError, match="blocks 0-35"):
        layer_index(36, 36)


def test_a_spec_survives_its_own_config_file(tmp_path):
    wiring = dict(hook_layer=2, formula="replace", coefficient=2.0, placeholder=(" @", " ?"), format="D")
    chat = dict(enable_thinking=None, context_thinking=True, max_new_tokens=7)
    spec = OracleSpec(base_model="a/b", layers=(9, 18), **wiring, **chat)
    (tmp_path / "ao_config.json").write_text(json.dumps(spec.to_json()))
    read = OracleSpec.infer(tmp_path)
    assert read.origin == "ao_config.json"
    assert {**vars(read), "origin": "declared"} == vars(spec)
    (tmp_path / "checkpoint").mkdir()
    assert OracleSpec.infer(tmp_path / "checkpoint") == read


@pytest.mark.parametrize(
    ("template", "layers", "expected"),
    [
        ("Layer: {layer}\n{special_token} * {num_positions} \n", [[50]], "A"),
        ("Layer: {layer}\\n{special_token} * {num_positions} \\n", [[25, 50, 75]], "A'"),
        ("L{layer}:{special_token} * {num_positions}.\n", [[50]], "B"),
        ("Layer: {layers}\n{special_token} * {num_positions} \n", [[25, 50]], "D"),
    ],
)
def test_the_mnemonic_templates_of_published_configs_are_understood(template, layers, expected):
    config = {"model_name": "Qwen/Qwen3-8B", "hook_onto_layer": 1, "layer_combinations": layers, "special_token": " ?",
              "prefix_template": template, "steering_coefficient": 1.0, "act_layer_combinations": None}  # fmt: skip
    spec = OracleSpec.from_ao_config(config)
    assert (spec.format, len(spec.layers)) == (expected, len(layers[0]))
    with pytest.raises(ValueError, match="prefix_template"):
        OracleSpec.from_ao_config({**config, "prefix_template": "<{layer}>"})
    with pytest.raises(ValueError, match="schema_version: expected 1, got 9"):
        OracleSpec.from_ao_config({**config, "schema_version": 9})


def test_what_nothing_declares_is_assumed_loudly():
    with pytest.warns(AssumedSpecWarning, match="'someone/oracle' IS UNKNOWN.*self-test"):
        assert OracleSpec.infer("someone/oracle").origin == "assumed"
    found = OracleSpec.infer("ceselder/cot-oracle-8b-v2")
    assert (found.origin, found.format, found.base_model) == ("registry", "A", "Qwen/Qwen3-8B")
    assert registered("adamkarvonen/checkpoints_cls_latentqa_only_addition_Qwen3-8B") is not None
    assert registered("adamkarvonen/checkpoints_old_Qwen3-8B") is None, "earlier ones used replacement"


INLINE3 = "L9: ? ? L18: ? ? L27: ? ?.\n"
INLINE12 = " ".join(f"L{layer}: ? ?" for layer in (2, 5, 8, 11, 14, 17, 20, 23, 26, 29, 32, 35)) + ".\n"
PUBLISHED = {
    "adamkarvonen/checkpoints_latentqa_cls_past_lens_addition_Qwen3-8B": "Layer: 18\n ? ? \n",
    "ceselder/cot-oracle-8b-v2": "Layer: 18\n ? ? \n",
    "ceselder/cot-oracle-v4-8b": "Layer: 9, 18, 27\n @ ? # @ ? # \n",
    "ceselder/qwen3-8b-ao-v3-best": "".join(f"Layer: {layer}\n ? ? \n" for layer in (21, 22, 23, 24, 25)),
    "ceselder/cot-oracle-paper-ablation-adam-recipe-1layer": "L18: ? ?.\n",
    "ceselder/cot-oracle-paper-ablation-ours-1layer": "L18: ? ?.\n",
    "ceselder/cot-oracle-paper-ablation-ours-3layers": INLINE3,
    "ceselder/cot-oracle-paper-ablation-ours-3layers-onpolicy-lens-only": INLINE3,
    "ceselder/cot-oracle-qwen3-8b-final-sprint-checkpoint-no-DPO": INLINE3,
    "ceselder/cot-oracle-grpo-step-500": INLINE3,
    "ceselder/cot-oracle-paper-ablation-ours-12layers-r512-a1024": INLINE12,
    "ceselder/cot-oracle-paper-12layers-scaled-r1024-a1024-lr3e5-100m-pastonly": INLINE12,
    "ceselder/cot-oracle-paper-12layers-stage2-convqa-bs4": INLINE12,
    "ceselder/cot-oracle-paper-3layers-r1024-a128": INLINE3,
    "ceselder/cot-oracle-paper-3layers-r1024-a16-exact-match": INLINE3,
}


@pytest.mark.parametrize("repo", PUBLISHED)
def test_a_published_oracle_gets_the_prefix_that_it_was_trained_with(repo):
    spec = registered(repo)
    assert spec is not None and (spec.hook_layer, spec.formula, spec.coefficient) == (1, "add", 1.0)
    layers = spec.layer_indices(36)  # blocks of Qwen3-8B
    prefix = render_prefix(spec.format, spec.placeholders, layers=layers, counts=[2] * len(layers))
    assert prefix.text == PUBLISHED[repo]
    assert OracleSpec.infer(repo).origin == "registry", "nothing is assumed, so nothing is warned of"


def test_every_published_oracle_names_its_source_and_has_a_golden_prefix():
    assert len(REGISTRY) == len(PUBLISHED)
    assert all(one.source for one in REGISTRY.values())
    assert registered("ceselder/qwen3-8b-ao-v3-best-dpo-halluc") is None, "no source says how it is wired"


def test_bad_declarations_are_refused():
    with pytest.raises(ValueError, match="0-based block"):
        OracleSpec(hook_layer=-1)
    with pytest.raises(ValueError, match="percent of depth"):
        OracleSpec(layers=("half",))


def test_a_boundary_is_the_last_token_of_its_sentence_and_never_in_the_question(tok):
    question = "Find x. It is 3.5 e.g. a number."
    cot = "Find x. First, 3.5 + 1 = 4.5; e.g. this.\n\n- so é is done\n- the answer is 4"
    example = Example(id="a", messages=(Message("user", question),), answer=cot)
    prompt = render(example, tok)
    records = sentence_records(prompt, span="answer")
    assert [r.text for r in records] == [
        "Find x.", "First, 3.5 + 1 = 4.5; e.g. this.", "- so é is done", "- the answer is 4"
    ]  # fmt: skip
    start = prompt.spans["answer"][0]
    for record in records:
        a, b = prompt.offsets[record.boundary]
        assert start <= a < record.char_end <= b or prompt.text[record.char_end : b].isspace()
