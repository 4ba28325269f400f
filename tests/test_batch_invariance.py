"""Padding and batch composition change no activation: every rope type, window and family, through every engine.

The other side of each comparison is the unmodified transformers model on the prompt alone, in a fresh copy that has
seen no other text (a `dynamic` rope remembers the longest one).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from interp.cache import extract
from interp.edits import Add
from interp.evaluate.decoding import Decoding
from interp.evaluate.labels import letter_scores, next_token_logp
from interp.evaluate.writing import write
from interp.heads.attention import changed_pattern_z
from interp.hooks import record
from interp.model import Model
from interp.oracle import OracleSpec
from interp.oracle.collection import collect
from interp.oracle.engine import answer_logp
from interp.oracle.jobs import Job
from interp.oracle.prompt import OraclePrompt
from interp.positions import Last
from interp.prompt import Example, Prompt
from interp.rope import depends_on_length
from interp.site import Site
from interp.sweep import Intervention, sweep
from steering import Direction, steer
from tests.tiny import tiny, tiny_tokenizer

ORIGINAL = 16  # length before scaling: shorter and longer prompts share a batch
ROPES: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"factor": 2.0},
    "dynamic": {"factor": 2.0},
    "yarn": {"factor": 2.0, "original_max_position_embeddings": ORIGINAL},
    "longrope": {"factor": 4.0, "original_max_position_embeddings": ORIGINAL},
    "llama3": {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": ORIGINAL},
    "proportional": {"factor": 2.0},
}  # fmt: skip
FULL, SLIDING = "full_attention", "sliding_attention"
WINDOWS: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": 8},
    "qwen2": {"sliding_window": 8, "use_sliding_window": True, "layer_types": [SLIDING, FULL, SLIDING]},
    "qwen3": {"sliding_window": 8, "use_sliding_window": True, "layer_types": [FULL, SLIDING, FULL]},
    "gemma2": {"sliding_window": 8, "layer_types": [SLIDING, FULL, SLIDING]},
    "gemma3": {"sliding_window": 8, "layer_types": [SLIDING, SLIDING, FULL]},
}
ROTARY = ("qwen2", "qwen3", "qwen3_5", "llama", "mistral", "gemma2", "gemma3", "gpt_neox", "olmo2")
CASES = [(family, rope, False) for family in ROTARY for rope in ("dynamic", "longrope")]
CASES += [("llama", rope, False) for rope in ROPES if not depends_on_length(rope)]
CASES += [(family, "default", True) for family in WINDOWS]
CASES += [("mistral", "dynamic", True), ("gemma3", "longrope", True), ("gpt2", "none", False)]
FAST = {("llama", "dynamic", False), ("qwen3_5", "longrope", False), ("mistral", "default", True)}
GATED = {"qwen3_5"}  # a gate stands between attention and heads
TOLERANCE = 2e-5  # float32, other orders of summation


def rope_parameters(rope: str, n_frequencies: int) -> dict[str, Any]:
    factors = {"short_factor": [1.0] * n_frequencies, "long_factor": [1.0 + 3 * i for i in range(n_frequencies)]}
    return {"rope_type": rope, "rope_theta": 10000.0, **ROPES[rope], **(factors if rope == "longrope" else {})}


def module_of(family: str, rope: str, windowed: bool) -> nn.Module:
    more: dict[str, Any] = {"vocab_size": len(tiny_tokenizer())}
    if windowed:
        more |= WINDOWS[family]
    if family in ("gemma2", "gemma3") and not windowed:
        more["layer_types"] = [SLIDING, SLIDING, FULL] if family == "gemma3" else [SLIDING, FULL, SLIDING]
    if rope != "none":
        partial = {"qwen3_5": 0.25, "gpt_neox": 0.5}.get(family)
        width = 16 if family in ("qwen3", "qwen3_5", "gemma2", "gemma3") else 8
        one = rope_parameters(rope, int(width * (partial or 1.0)) // 2)
        one |= {"partial_rotary_factor": partial} if partial else {}
        more["rope_parameters"] = {FULL: one, SLIDING: one} if family == "gemma3" else one
        more["max_position_embeddings"] = ORIGINAL if rope == "dynamic" else 8 * ORIGINAL
    return _tiny(family, more)


def _tiny(family: str, more: dict[str, Any]) -> nn.Module:
    """A tiny model whose sliding window the helper of the other tests would fix."""
    from tests import tiny as kit

    if family == "gpt2":
        return tiny(family, vocab_size=more["vocab_size"])
    if family == "mistral" and "sliding_window" in more:
        from transformers import MistralConfig, MistralForCausalLM

        torch.manual_seed(0)
        model = MistralForCausalLM._from_config(MistralConfig(**{**kit.COMMON, **more}), attn_implementation="sdpa")
        kit.randomise(model, seed=1)
        return model.eval().requires_grad_(False)
    window = more.pop("sliding_window", None)
    model = tiny(family, **more)
    if window is None:
        return model
    config: Any = copy.deepcopy(model.config)
    config.sliding_window = window
    fresh = type(model)._from_config(config, attn_implementation=config._attn_implementation)  # pyright: ignore
    fresh.load_state_dict(model.state_dict())
    return fresh.eval().requires_grad_(False)


class Alone:
    """The unmodified model, one prompt at a time, each in a copy that has seen nothing else."""

    def __init__(self, module: nn.Module) -> None:
        self.module = copy.deepcopy(module)

    def fresh(self) -> Any:
        return copy.deepcopy(self.module)  # hooks of an earlier call and what a rope remembers stay with that copy

    def hidden(self, ids: list[int], layer: int) -> Tensor:
        """Output of block `layer`, [pos, d_model]."""
        seen: list[Tensor] = []
        model = self.fresh()
        block = next(m for n, m in model.named_modules() if n.endswith((f"layers.{layer}", f"h.{layer}")))
        block.register_forward_hook(lambda module, args, out: seen.append(out[0] if isinstance(out, tuple) else out))
        model(torch.tensor([ids]), use_cache=False)
        return seen[0][0]

    def logp(self, ids: list[int]) -> Tensor:
        return self.fresh()(torch.tensor([ids]), use_cache=False).logits[0].float().log_softmax(-1)

    def written(self, ids: list[int], n: int) -> list[int]:
        tokens = torch.tensor([ids])
        out = self.fresh().generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=n, do_sample=False,
                                    eos_token_id=None, pad_token_id=0)  # fmt: skip
        return out[0, len(ids) :].tolist()


def _param(case: tuple[str, str, bool]) -> Any:
    name = "-".join((case[0], case[1], *(["window"] if case[2] else [])))
    return pytest.param(case, id=name, marks=[] if case in FAST else [pytest.mark.long])


@pytest.fixture(scope="module", params=map(_param, CASES))
def made(request: pytest.FixtureRequest) -> tuple[Model, Alone]:
    module = module_of(*request.param)
    alone = Alone(module)
    return Model.wrap(module, tiny_tokenizer()), alone


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    rng = torch.Generator().manual_seed(0)
    return [torch.randint(5, 250, (n,), generator=rng).tolist() for n in (12, 40, 5, 29, 17)]


def same(found: Tensor, want: Tensor, tolerance: float = TOLERANCE) -> None:
    assert float((found - want).abs().max()) <= tolerance * max(1.0, float(want.abs().max()))


def test_every_rope_type_of_transformers_is_in_the_matrix() -> None:
    assert set(ROPES) == {"default", *ROPE_INIT_FUNCTIONS}


def test_record_and_the_logits(made: tuple[Model, Alone], prompts: list[list[int]]) -> None:
    model, alone = made
    for _ in range(2):  # the second pass comes after a long text
        with record(model, ["resid_post.1", "logits"], positions=[range(len(ids)) for ids in prompts]) as acts:
            model(prompts)
        rows = acts.rows or []
        for item, ids in enumerate(prompts):
            mine = [i for i, (b, _) in enumerate(rows) if b == item]
            same(acts["resid_post.1"][mine], alone.hidden(ids, 1))
            same(acts["logits"][mine].log_softmax(-1), alone.logp(ids), 1e-4)


def test_left_padding_with_a_mask(made: tuple[Model, Alone], prompts: list[list[int]]) -> None:
    from interp.passes import pad

    model, alone = made
    batch = pad(prompts, pad_id=0, side="left")
    with record(model, ["resid_post.1"], positions=Last()) as acts:
        model(batch.input_ids, attention_mask=batch.attention_mask)
    for item, ids in enumerate(prompts):
        same(acts["resid_post.1"][item], alone.hidden(ids, 1)[-1])


def test_generated_text(made: tuple[Model, Alone], prompts: list[list[int]]) -> None:
    model, alone = made
    some = [Prompt(f"p{i}", "", tuple(ids), (), {}) for i, ids in enumerate(prompts)]
    ends = model.tokenizer.eos_token_id
    for written, ids in zip(write(model, some, Decoding(), new_tokens=6), prompts, strict=True):
        want = alone.written(ids, 6)
        stop = want.index(ends) if ends in want else len(want)
        assert written.reply.text == model.tokenizer.decode(want[:stop])


def test_cache(made: tuple[Model, Alone], tmp_path: Path) -> None:
    model, alone = made
    words = "the quick brown fox jumps over the lazy dog . "
    examples = [Example(f"e{k}", text=(words * 4)[: 20 + 17 * k]) for k in range(5)]
    for rule, at in (("at:3", 3), ("last", -1)):  # the first lets every pass end before its prompt does
        cache = extract(model, examples, out=tmp_path / rule[:2], sites="resid_post.1", positions=rule, progress=False)
        feats = cache.read("resid_post.1", rule)
        for k, example in enumerate(examples):
            ids = model.tokenizer.encode(example.text, add_special_tokens=False)
            same(feats[k], alone.hidden(ids, 1)[at])


def test_letter_scores_of_prompts_that_begin_alike(made: tuple[Model, Alone], prompts: list[list[int]]) -> None:
    model, alone = made
    start = prompts[1]
    rows = [tuple(start[:30] + ids[:k]) for ids, k in zip(prompts, (4, 9, 2, 12, 1), strict=True)]
    rows += [tuple(start[:8] + ids[:3]) for ids in prompts]
    units = [0] * 5 + [1] * 5
    labels = [(ids, ("yes", "no")) for ids in rows]
    for found, ids in zip(letter_scores(model, labels, lambda label: (label,), units=units), rows, strict=True):
        want = alone.logp(list(ids))[-1]
        for label in ("yes", "no"):
            (token,) = model.tokenizer.encode(label, add_special_tokens=False)
            assert abs(found[label] - float(want[token])) < 2e-4
    for found, ids in zip(next_token_logp(model, rows), rows, strict=True):
        same(found, alone.logp(list(ids))[-1], 1e-4)


def changed(alone: Alone, ids: list[int], layer: int, at: list[int], vector: Tensor) -> Tensor:
    """log p at the last token with a vector added to the output of a block, by a hook of our own."""
    model = alone.fresh()
    block = next(m for n, m in model.named_modules() if n.endswith((f"layers.{layer}", f"h.{layer}")))

    def add(module: nn.Module, args: Any, out: Any) -> Any:
        whole = (out[0] if isinstance(out, tuple) else out).clone()
        whole[:, at] += vector
        return (whole, *out[1:]) if isinstance(out, tuple) else whole

    block.register_forward_hook(add)
    return model(torch.tensor([ids]), use_cache=False).logits[0, -1].float().log_softmax(-1)


def test_sweep(made: tuple[Model, Alone], prompts: list[list[int]]) -> None:
    model, alone = made
    vector = torch.linspace(-1, 1, model.d_model)
    for ids in prompts:
        at = [len(ids) - 3]
        row = Intervention.at("resid_post.0", Add(vector), [at[0]])
        for engine in ("auto", "reference"):
            found = sweep(model, ids, [row, Intervention()], engine=engine)
            same(found.rows[0, 0].log_softmax(-1), changed(alone, ids, 0, at, vector), 1e-4)
            same(found.clean[0, 0].log_softmax(-1), alone.logp(ids)[-1], 1e-4)


def test_steer(made: tuple[Model, Alone], prompts: list[list[int]]) -> None:
    model, alone = made
    vector = torch.linspace(-1, 1, model.d_model)
    direction = Direction(vector, Site("resid_post", 1), "a", "b")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with steer(model, direction, 1.0, unit="raw", positions="last"):
            logits = model(prompts).logits
    for item, ids in enumerate(prompts):
        want = changed(alone, ids, 1, [len(ids) - 1], vector / vector.norm())
        same(logits[item, len(ids) - 1].log_softmax(-1), want, 1e-4)


def test_oracle(made: tuple[Model, Alone], prompts: list[list[int]]) -> None:
    model, alone = made
    vectors = torch.randn(2, model.d_model, generator=torch.Generator().manual_seed(3))
    jobs = []
    for n, ids in enumerate(prompts):
        for answer in ([7, 9], [11, 12, 13]):
            whole = (*prompts[1][:4], *ids, *answer)
            jobs.append(Job(OraclePrompt("", whole, (1, 2), (1, 1), len(whole) - len(answer)), vectors, n))
    spec = OracleSpec(layers=(1,))
    batched, shared = answer_logp(model, jobs, spec, share=False), answer_logp(model, jobs, spec)
    for job, one, other in zip(jobs, batched, shared, strict=True):
        fresh = Model.wrap(alone.fresh(), model.tokenizer)
        (want,) = answer_logp(fresh, [job], spec, share=False)
        same(one, want, 1e-4)
        same(other, want, 1e-4)


def test_collected_features(made: tuple[Model, Alone]) -> None:
    model, alone = made
    words = "the quick brown fox jumps over the lazy dog . "
    examples = [Example(f"e{k}", text=(words * 3)[: 20 + 20 * k]) for k in range(3)]
    feats = collect(model, examples, layers=[1], positions="at:3", per="example", sources=["base"])["base"]
    for slot, row in zip(feats.slots, feats.vectors, strict=True):
        text = next(e.text for e in examples if e.id == slot.item)
        same(row, alone.hidden(model.tokenizer.encode(text, add_special_tokens=False), 1)[3])


@pytest.mark.parametrize("made", [_param(case) for case in CASES if case[0] not in GATED], indirect=True)
def test_uniform_attention_sees_the_keys_that_the_layer_sees(
    made: tuple[Model, Alone], prompts: list[list[int]]
) -> None:
    model, _ = made
    layers, ids = list(model.layout.head_layers), prompts[3]
    assert not model.layout.family.gated_q
    with record(model, [f"pattern.{layer}" for layer in layers] + [f"v.{layer}" for layer in layers]) as acts:
        model([ids])
    found = changed_pattern_z(model, ids, [len(ids) - 1], layers, without=None)
    for layer in layers:
        pattern, v = acts[f"pattern.{layer}"][0, :, -1], acts[f"v.{layer}"][0]
        visible = pattern.amax(dim=0) > 0
        kind = model.layout.layers[layer]
        assert int(visible.sum()) == (kind.window or len(ids)), "window of the layer, read off its own pattern"
        same(found[layer][0, 0], v[visible, 0].mean(dim=0))


def test_a_window_that_the_family_does_not_read_is_taken_out_of_its_caches() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.tiny import COMMON

    module = LlamaForCausalLM(LlamaConfig(**COMMON, sliding_window=8)).eval()
    ids = torch.randint(3, 128, (1, 29), generator=torch.Generator().manual_seed(0))
    write: Callable[..., Tensor] = module.generate
    options: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    assert not torch.equal(write(ids, **options), write(ids, **options, use_cache=False)), "what transformers does"
    with pytest.warns(UserWarning, match="sliding_window: 8 is ignored"):
        model = Model.wrap(module)
    assert model.layout.layers[0].window is None
    assert torch.equal(write(ids, **options), write(ids, **options, use_cache=False))


def test_a_context_under_dynamic_scaling_is_factor_times_as_long() -> None:
    from interp.evaluate.labels import context_length

    assert context_length(Model.wrap(module_of("llama", "dynamic", False))) == 2 * ORIGINAL
    assert context_length(Model.wrap(module_of("llama", "longrope", False))) == 8 * ORIGINAL
