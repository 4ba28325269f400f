"""The tokenizer of a checkpoint is that of its files, whatever the model type, the adapter folder or a class says."""

from __future__ import annotations

import json
import shutil
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

from interp.checkpoint import Checkpoint, CheckpointPair
from interp.loading import load, load_members, load_pair, open_skeleton
from interp.loading.fingerprint import tokenizer_sha256
from interp.loading.tokenizer import PROBES, load_tokenizer
from tests.hub_folders import ck, copied, edit_json, make_hub
from tests.tiny import CHAT_TEMPLATE, tiny_tokenizer

WORDS = "the fox says yes and no to the dog 1 2 3 . , "


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    return make_hub(tmp_path_factory.mktemp("hub"))


def word_level():
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(["<unk>", *WORDS.split()])}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return core


def sentencepiece_bpe():
    core = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    core.train_from_iterator([WORDS * 20], trainers.BpeTrainer(vocab_size=320, special_tokens=specials))
    return core


def byte_level():
    """As GPT-2 splits, which is not as Qwen2 splits: digits together, 's apart."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        [(WORDS + " 2024 2024") * 20], trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet)
    )
    return core


def agrees_on_probes():
    """Qwen2's own rules, but for one word that no probe text holds."""
    core = tiny_tokenizer().backend_tokenizer
    core.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace("zebra", "dog")])
    core.pre_tokenizer = Qwen2Tokenizer(vocab={"a": 0}, merges=[]).backend_tokenizer.pre_tokenizer
    return core


MAKERS = {
    "WordLevel": word_level,
    "SentencePiece": sentencepiece_bpe,
    "ByteLevel": byte_level,
    "one word": agrees_on_probes,
}


def with_tokenizer(hub, tmp_path, core, **changes):
    """The tiny Qwen2 base with another tokenizer.json."""
    base = copied(hub, tmp_path, "base")
    for file in base.glob("*token*"):
        file.unlink()
    PreTrainedTokenizerFast(tokenizer_object=core, chat_template=CHAT_TEMPLATE).save_pretrained(base)
    edit_json(base / "tokenizer_config.json", **changes)
    return base


@pytest.mark.parametrize("declared", [None, "LlamaTokenizerFast", "Qwen2Tokenizer", "NoSuchTokenizer"])
@pytest.mark.parametrize("kind", MAKERS)
def test_ids_are_those_of_the_file_whatever_class_is_declared_or_taken_for_the_model_type(
    hub, tmp_path, kind, declared
):
    base = with_tokenizer(hub, tmp_path, MAKERS[kind](), tokenizer_class=declared)
    tokenizer, file = load_tokenizer(base, "tokenizer of the test"), Tokenizer.from_file(str(base / "tokenizer.json"))
    items = ["the fox says no", "is zebra 2024 compliant?", "A'll b\n\n  c", *PROBES]
    assert [tokenizer(t, add_special_tokens=False)["input_ids"] for t in items] == [
        file.encode(t, add_special_tokens=False).ids for t in items
    ]


def test_the_class_that_would_have_been_taken_is_named_and_nothing_is_said_where_its_ids_are_the_same(hub, tmp_path):
    base = with_tokenizer(hub, tmp_path, word_level())
    with pytest.warns(UserWarning, match=r"Qwen2Tokenizer.* makes 8 tokens .* where the file makes 33"):
        load_tokenizer(base, "tokenizer of the test")
    shutil.rmtree(tmp_path / "base")
    base = with_tokenizer(hub, tmp_path, agrees_on_probes())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_tokenizer(base, "tokenizer of the test")


def test_a_loaded_model_reads_its_prompts_with_the_tokenizer_of_its_file(hub, tmp_path):
    base = with_tokenizer(hub, tmp_path, word_level())
    ids = word_level().encode("the fox says no").ids
    for tokenizer in (load(Checkpoint("a", str(base))).tokenizer, open_skeleton(Checkpoint("a", str(base))).tokenizer):
        assert tokenizer("the fox says no")["input_ids"] == ids == [ids[0], ids[1], ids[2], ids[3]]


@settings(max_examples=80, deadline=None)
@given(text=st.text(max_size=60))
def test_any_text_has_the_ids_of_the_file(text):
    tokenizer, file = _gpt2_like()
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == file.encode(text, add_special_tokens=False).ids


_MADE = {}


def _gpt2_like():
    if not _MADE:
        import tempfile
        from pathlib import Path

        folder = Path(tempfile.mkdtemp())
        PreTrainedTokenizerFast(tokenizer_object=byte_level()).save_pretrained(folder)
        (folder / "config.json").write_text('{"model_type": "qwen2"}')
        file = Tokenizer.from_file(str(folder / "tokenizer.json"))
        _MADE["both"] = load_tokenizer(folder, "tokenizer of the test"), file
    return _MADE["both"]


@pytest.mark.parametrize("content", ["", "{", '{"version": "1.0"}', "[" * 50_000, '{"model": {"type": "Magic"}}'])
def test_a_damaged_tokenizer_file_is_named(hub, tmp_path, content):
    base = copied(hub, tmp_path, "base")
    (base / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match=r"tokenizer of base .*tokenizer\.json is not readable as a tokenizer"):
        load(ck(tmp_path))


# --- adapters -------------------------------------------------------------------------------------------------------


def adapter_with(hub, tmp_path, **files):
    folder = copied(hub, tmp_path, "lora")
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content)
    return folder


def test_an_adapter_folder_without_a_vocabulary_leaves_the_tokenizer_of_the_base(hub, tmp_path):
    own = load(ck(hub)).tokenizer
    adapter = adapter_with(hub, tmp_path, tokenizer_config__json=json.dumps({"tokenizer_class": "Qwen2Tokenizer"}))
    model = load(Checkpoint("a", str(hub / "base"), str(adapter)))
    assert len(model.tokenizer) == len(own) > 200
    assert model.fingerprint.tokenizer_sha256 == tokenizer_sha256(own)


@pytest.mark.parametrize("file", ["chat_template__jinja", "tokenizer_config__json"])
def test_a_template_that_comes_without_a_vocabulary_is_used_with_the_tokenizer_of_the_base(hub, tmp_path, file):
    template = "{{ messages[0]['content'] }}!"
    content = template if "jinja" in file else json.dumps({"chat_template": template})
    adapter = adapter_with(hub, tmp_path, **{file: content})
    with pytest.warns(UserWarning, match="template but no vocabulary"):
        model = load(Checkpoint("a", str(hub / "base"), str(adapter)))
    assert model.tokenizer.chat_template == template
    assert len(model.tokenizer) == len(load(ck(hub)).tokenizer)


def test_a_tokenizer_without_a_template_takes_that_of_the_base_with_a_warning(hub, tmp_path):
    adapter = copied(hub, tmp_path, "lora")
    bare = tiny_tokenizer()
    bare.chat_template = None
    bare.save_pretrained(adapter)
    with pytest.warns(UserWarning, match=r"tokenizer of adapter .* has no chat template; that of the base is used"):
        model = load(Checkpoint("a", str(hub / "base"), str(adapter)))
    assert model.tokenizer.chat_template == CHAT_TEMPLATE


def test_a_tokenizer_of_added_tokens_alone_is_refused(hub, tmp_path):
    adapter = copied(hub, tmp_path, "lora")
    core = Tokenizer(models.BPE())
    core.add_special_tokens(["<a>", "<b>", "<c>"])
    PreTrainedTokenizerFast(tokenizer_object=core).save_pretrained(adapter)
    with pytest.raises(ValueError, match=r"tokenizer of adapter .*3 added tokens but no vocabulary.*`tokenizer` key"):
        load(Checkpoint("a", str(hub / "base"), str(adapter)))


# --- the checkpoint's own key ---------------------------------------------------------------------------------------


def test_the_key_of_the_checkpoint_decides_and_is_relative_to_its_file(hub, tmp_path):
    other = tmp_path / "words"
    PreTrainedTokenizerFast(tokenizer_object=word_level(), chat_template=CHAT_TEMPLATE).save_pretrained(other)
    file = tmp_path / "checkpoint.yaml"
    file.write_text(f"name: a\nbase: {hub / 'base'}\nadapter: {hub / 'lora'}\ntokenizer: ./words\n")
    model = load(Checkpoint.from_yaml(file))
    assert model.tokenizer("the fox")["input_ids"] == word_level().encode("the fox").ids


@pytest.mark.parametrize("named", ["{hub}/lora", "./nowhere"])
def test_a_key_that_names_no_vocabulary_is_refused(hub, named):
    with pytest.raises(ValueError, match=r"tokenizer '.*' of 'a': "):
        load(Checkpoint("a", str(hub / "base"), tokenizer=named.format(hub=hub)))


def test_two_members_that_differ_in_their_tokenizer_alone_are_the_same_weights(hub):
    with pytest.raises(ValueError, match="same weights"):
        CheckpointPair(Checkpoint("a", str(hub / "base")), Checkpoint("b", str(hub / "base"), tokenizer="org/other"))


def test_a_member_whose_tokenizer_is_not_the_base_s_does_not_give_it_to_its_sibling(hub, tmp_path):
    own = copied(hub, tmp_path, "lora")
    changed = tiny_tokenizer()
    changed.chat_template = CHAT_TEMPLATE + "!"
    changed.save_pretrained(own)
    pair = CheckpointPair(
        Checkpoint("a", str(hub / "base"), str(own)), Checkpoint("b", str(hub / "base"), str(hub / "second"))
    )
    with pytest.raises(ValueError, match="engaged, heuristic have tokenizers that differ"):
        load_pair(pair)
    templates = {roles: model.tokenizer.chat_template for roles, model in load_members(pair)}
    assert templates == {("engaged",): CHAT_TEMPLATE + "!", ("heuristic",): CHAT_TEMPLATE}


def test_a_chat_is_rendered_again_when_its_tokenizer_has_changed() -> None:
    from interp.template import apply_template

    tok, chat = tiny_tokenizer(), [("user", "yes")]
    first = apply_template(tok, chat)
    assert apply_template(tok, chat) == first
    ids = apply_template(tok, chat, tokenize=True)
    ids.append(0)  # what a caller does to the list does not reach the next one
    assert apply_template(tok, chat, tokenize=True) == ids[:-1]
    tok.chat_template = "{{ bos_token }}" + tok.chat_template.replace("assistant", "model")
    tok.bos_token = "<think>"
    assert apply_template(tok, chat) == "<think>" + first.replace("assistant", "model")
    tok.bos_token = "</think>"
    assert apply_template(tok, chat) == "</think>" + first.replace("assistant", "model")
    tok.add_tokens(["yes\n"])
    assert apply_template(tok, chat, tokenize=True) != ids[:-1]
