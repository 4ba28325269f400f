"""Replies are those of `transformers.generate`, token for token, though prompts share passes and ended rows leave."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from interp.evaluate import Decoding, evaluate
from interp.evaluate.decoding import end_tokens
from interp.evaluate.prefix import can_share, shared_logp, shared_prefix_logp, units_of
from interp.evaluate.writing import Written, why_not_narrowed, write
from interp.model import Model
from interp.passes import pad
from interp.prompt import Prompt, render, render_all
from interp.tasks import procedural
from study.embedded import embedded_pair
from study.members import models_of
from tests.eval_kit import TASK, items
from tests.test_batch_invariance import module_of
from tests.tiny import FAMILIES, add_lora, tiny, tiny_tokenizer

NARROWED = tuple(family for family in FAMILIES if family != "qwen3_5")
NEW_TOKENS = 24


def model_of(family: str) -> Model:
    module = tiny(family, vocab_size=len(tiny_tokenizer()))
    model = Model.wrap(add_lora(module) if family == "qwen2" else module, tiny_tokenizer())
    _end_often(model)
    return model


def _end_often(model: Model) -> None:
    """Let a token end replies that about half of the greedy ones have early, so that some rows leave and some stay."""
    model.causal_lm.generation_config.eos_token_id = None
    tails = [set(tail[:12]) for tail in generated(model, prompts())]
    counts = {token: sum(token in tail for tail in tails) for token in set().union(*tails)}
    model.causal_lm.generation_config.eos_token_id = min(counts, key=lambda token: (abs(counts[token] - 6), token))


def prompts(seed: int = 0) -> list[Prompt]:
    """Token lists of 3 to 40 tokens: families with a common beginning, one alone, and one twice."""
    rng = torch.Generator().manual_seed(seed)

    def some(n: int) -> list[int]:
        return torch.randint(5, 250, (n,), generator=rng).tolist()

    start = some(7)
    lists = [start + begin + some(n) for begin in (some(6), some(20)) for n in (1, 9, 2, 13, 5)]
    lists += [some(3), some(31), lists[3]]
    return [Prompt(f"p{k}", "", tuple(ids), (), {}) for k, ids in enumerate(lists)]


def generated(model: Model, asked: list[Prompt], **options: Any) -> list[tuple[int, ...]]:
    """The same from `transformers.generate`, cut behind the first ending token."""
    from transformers import GenerationConfig

    batch, ends = pad([prompt.ids for prompt in asked], side="left"), end_tokens(model)
    held, model.causal_lm.generation_config = model.causal_lm.generation_config, GenerationConfig()
    config = GenerationConfig(max_new_tokens=NEW_TOKENS, eos_token_id=sorted(ends), pad_token_id=0, **options)
    generate: Any = model.module.generate
    out = generate(input_ids=batch.input_ids, attention_mask=batch.attention_mask, generation_config=config)
    model.causal_lm.generation_config = held
    tails = out[:, batch.input_ids.shape[1] :].tolist()
    return [tuple(t[: next((i + 1 for i, x in enumerate(t) if x in ends), len(t))]) for t in tails]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(rows, columns) of every pass through a decoder, seen without a hook, which would change how replies are made."""
    from torch import nn

    passes: list[tuple[int, int]] = []
    call = nn.Module.__call__

    def spy(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if "input_ids" in kwargs and {"embed_tokens", "wte", "embed_in"} & set(self._modules):
            passes.append(tuple(kwargs["input_ids"].shape))
        return call(self, *args, **kwargs)

    monkeypatch.setattr(nn.Module, "__call__", spy)
    return passes


@pytest.mark.parametrize("family", NARROWED)
def test_greedy_tokens_are_those_of_transformers(family: str, seen: list[tuple[int, int]]) -> None:
    model, asked = model_of(family), prompts()
    assert why_not_narrowed(model) == ""
    seen.clear()
    written = write(model, asked, Decoding(), new_tokens=NEW_TOKENS)
    mine = list(seen)
    assert [one.ids for one in written] == generated(model, asked)
    n_ended = sum(len(one.ids) < NEW_TOKENS for one in written)
    assert 2 <= n_ended < len(asked)
    n_rows, n_columns = mine[-1]
    assert n_columns == 1
    assert n_rows < len({prompt.ids for prompt in asked})  # some have left by the last step


@pytest.mark.parametrize("family", ["qwen2", "gemma3", "gpt2", "qwen3_5"])
def test_sampled_tokens_are_those_of_transformers_with_the_same_seed(family: str) -> None:
    model, asked, decoding = model_of(family), prompts(), Decoding(temperature=1.3, n_samples=3, seed=4)
    written = write(model, asked, decoding, new_tokens=NEW_TOKENS, place=9)
    assert [(one.example, one.sample) for one in written] == [(k, s) for k in range(len(asked)) for s in range(3)]
    torch.manual_seed(4 * 1_000_003 + 9)
    want = generated(model, asked, do_sample=True, temperature=1.3, top_k=0, top_p=1.0, num_return_sequences=3)
    assert [one.ids for one in written] == want
    assert len(set(want)) > 2 * len(asked)


@pytest.mark.parametrize("family", ["qwen2", "gpt2"])
def test_the_beginnings_that_prompts_share_are_read_once(family: str, seen: list[tuple[int, int]]) -> None:
    model, asked = model_of(family), prompts()
    seen.clear()
    write(model, asked, Decoding(), new_tokens=1)
    n_read = sum(rows * columns for rows, columns in seen)
    distinct = {prompt.ids for prompt in asked}
    assert len({ids[:k] for ids in distinct for k in range(1, len(ids) + 1)}) <= n_read  # what no engine could save
    assert n_read < 0.7 * sum(map(len, distinct))


def hybrid() -> Model:
    return model_of("qwen3_5")


def scaled() -> Model:
    return Model.wrap(module_of("llama", "dynamic", False), tiny_tokenizer())


def hooked() -> Model:
    model = model_of("llama")
    model.layout.layers[0].block.register_forward_hook(lambda module, args, output: None)
    return model


def spread(monkeypatch: pytest.MonkeyPatch) -> Model:
    """A model whose last layer says that its weights are on a second device, as under `device_map`."""
    model = model_of("llama")
    elsewhere = [SimpleNamespace(device=torch.device("meta")), *model.module.parameters()]
    monkeypatch.setattr(model.module, "parameters", lambda *args, **kwargs: iter(elsewhere))
    return model


def test_weights_on_several_devices_share_no_prefix_and_leave_the_batch_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain, model = model_of("llama"), spread(monkeypatch)
    assert (can_share(plain), why_not_narrowed(plain)) == (True, "")
    assert (can_share(model), why_not_narrowed(model)) == (False, "weights on several devices")
    with pytest.raises(ValueError, match="weights on several devices"):
        shared_prefix_logp(model, [(5, 6), (5, 7)], [0, 0])


@pytest.mark.parametrize("make", [hybrid, scaled, hooked])
def test_transformers_writes_where_rows_cannot_leave(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, asked, calls = make(), prompts()[:4], []
    _end_often(model)
    assert why_not_narrowed(model) != ""
    want = generated(model, asked)
    generate = model.module.generate
    monkeypatch.setattr(model.module, "generate", lambda **kw: calls.append(kw) or generate(**kw))  # pyright: ignore
    written = write(model, asked, Decoding(), new_tokens=NEW_TOKENS, keep_finals=True)
    assert len(calls) == 1
    assert [one.ids for one in written] == want
    assert all(one.final_after(one.prompt) is None for one in written)


@pytest.mark.parametrize("family", ["qwen2", "gemma2", "mistral"])
def test_a_kept_state_gives_the_logits_of_a_pass_over_the_text(family: str) -> None:
    model = model_of(family)
    written = write(model, prompts(), Decoding(), new_tokens=NEW_TOKENS, keep_finals=True)
    for one in written:
        for step in {0, len(one.ids) // 2, len(one.ids) - 1}:
            text = one.prompt + one.ids[:step]
            final = one.final_after(text)
            assert final is not None
            want = model.module(torch.tensor([text]), use_cache=False).logits[0, -1]
            assert (model.unembed(final) - want).abs().max() < 1e-4  # float32, other orders of summation
    one = written[0]
    assert one.final_after(one.prompt + one.ids) is None  # the last token was never read
    assert one.final_after((*one.prompt, one.ids[0] + 1)) is None
    assert one.final_after(one.prompt[1:]) is None
    assert Written(0, 0, one.reply, one.prompt, one.ids).final_after(one.prompt) is None


@pytest.mark.parametrize("family", ["qwen2", "gemma3"])
def test_labels_after_a_reply_need_no_pass_of_their_own(family: str, seen: list[tuple[int, int]]) -> None:
    model = model_of(family)
    own = {"labels": lambda example: ("yes",), "spellings": lambda label: (label,), "decision_prefix": None}
    task: Any = SimpleNamespace(**{**vars(TASK), **own})
    passes = []
    for decoding in (Decoding(max_new_tokens=5), Decoding(max_new_tokens=5, score_labels=False)):
        seen.clear()
        answers = {a.example_id: a for _, batch in evaluate(model, task, items(6), decoding=decoding) for a in batch}
        passes.append((list(seen), answers))
    assert passes[0][0] == passes[1][0] != []
    answers = passes[0][1]
    (token,) = model.tokenizer.encode("yes", add_special_tokens=False)
    for example in items(6):
        ids = render(example, model.tokenizer).ids
        want = model.module(torch.tensor([ids]), use_cache=False).logits[0, -1].log_softmax(-1)[token]
        assert answers[example.id].logp["yes"] == pytest.approx(float(want), abs=1e-4)


def test_texts_that_begin_alike_are_found_by_their_tokens() -> None:
    rows = [(1, 2, 3, 4, 5), (9, 8, 7, 6), (1, 2, 3, 4, 6), (9, 8, 7, 5), (1, 2), (3, 3, 3, 3)]
    units = units_of(rows)
    assert units[0] == units[2] == units[4]
    assert units[1] == units[3]
    assert len(set(units)) == 3
    model = model_of("qwen2")
    found = shared_logp(model, rows)
    for row, logp in zip(rows, found, strict=True):
        want = model.module(torch.tensor([row]), use_cache=False).logits[0, -1].log_softmax(-1)
        assert (logp - want).abs().max() < 5e-5


@pytest.mark.parametrize("role", ["engaged", "heuristic"])
def test_the_embedded_pair_writes_what_transformers_writes(role: str) -> None:
    asked = procedural.examples(per_cell=3, seed=11, rendering="log")
    for roles, model in models_of(embedded_pair(), {}):
        if role in roles:
            with model.member(role):
                some = render_all(asked, model.tokenizer)
                written = write(model, some, Decoding(), new_tokens=NEW_TOKENS)
                assert [one.ids for one in written] == generated(model, some)
                assert all(one.reply.finished for one in written) == (role == "heuristic")
