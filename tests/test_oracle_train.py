"""Training an oracle: the loss by an independent sum, the same weights however computed, nothing trained on faults."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from interp.model import Model
from interp.oracle import train as train_module
from interp.oracle.encode import AnswerBatch, Encoder, answer_nats, base_vectors, score_answers, zero_vectors
from interp.oracle.injection import inject, norm_matched_injection
from interp.oracle.items import mix
from interp.oracle.run import Run
from interp.oracle.spec import OracleSpec
from interp.oracle.train import add_adapter, train_oracle
from interp.oracle.validate import Validation, Validator
from interp.stats import Estimate
from tests.faults.kit import tree
from tests.oracle_train_kit import SPEC, mixture, random_items, recipe, tiny_model
from tests.tiny import add_lora


def adapter_weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@torch.no_grad()
def nats_by_hand(model: Model, encoded, vectors: torch.Tensor) -> float:
    """-log p of one answer, token by token, without padding; the injection by a plain hook on the block's output."""
    layer = model.decoder.layers[SPEC.hook_layer]  # pyright: ignore

    def hook(module, args, output):
        return norm_matched_injection(output, vectors, [list(encoded.slots)])

    total = 0.0
    for t in range(encoded.n_prompt, len(encoded.ids)):
        handle = layer.register_forward_hook(hook)
        logits = model.module(input_ids=torch.tensor([encoded.ids[:t]]), use_cache=False).logits[0, -1]
        handle.remove()
        total -= float(torch.log_softmax(logits.float(), -1)[encoded.ids[t]])
    return total


def test_the_loss_is_the_sum_over_answer_tokens_of_unpadded_rows() -> None:
    model, items = tiny_model(), random_items(6)
    encoded = Encoder(SPEC, model.tokenizer)(items)
    vectors = base_vectors(model, items, encoded)
    batch = AnswerBatch.of(encoded, pad_id=model.pad_id, device=model.device)
    with inject(model, torch.cat(vectors), batch.slots, SPEC):
        nats, counts = answer_nats(model.module(input_ids=batch.ids, use_cache=False).logits, batch)
    expected = torch.tensor([nats_by_hand(model, e, v) for e, v in zip(encoded, vectors, strict=True)])
    assert torch.allclose(nats, expected, rtol=1e-4)  # other batch shapes, other order of sums
    assert counts.tolist() == [e.n_answer for e in encoded]
    scored = score_answers(model, SPEC, encoded, vectors, token_budget=64)
    assert torch.allclose(scored.nll, expected / counts, rtol=1e-4)


def test_the_answer_ends_with_the_end_of_the_turn_and_the_prompt_has_no_loss() -> None:
    model, items = tiny_model(), random_items(4)
    for item, e in zip(items, Encoder(SPEC, model.tokenizer)(items), strict=True):
        assert model.tokenizer.decode(e.ids[e.n_prompt :]) == item.answer + "<|im_end|>\n"
        batch = AnswerBatch.of([e], pad_id=0, device=model.device)
        assert batch.is_answer[0].tolist() == [False] * e.n_prompt + [True] * e.n_answer
        assert [e.sources[k][1] for k in range(len(e.slots))] == list(item.positions)


def test_layers_and_boundaries_are_fed_in_the_order_of_the_placeholders() -> None:
    item = replace(random_items(1)[0], context_ids=(7, 8, 9), positions=(0, 2), layers=(0, 2))
    many = Encoder(OracleSpec(format="A'"), tiny_model().tokenizer)([item])[0]
    assert many.sources == ((0, 0), (0, 2), (2, 0), (2, 2))  # layer by layer
    mixed = Encoder(OracleSpec(format="D"), tiny_model().tokenizer)([item])[0]
    assert mixed.sources == ((0, 0), (2, 0), (0, 2), (2, 2))  # boundary by boundary


def test_a_prompt_that_is_no_prefix_of_its_text_is_refused_with_the_item_named() -> None:
    class Merging:
        """A tokenizer that joins the first letter of the answer to the last token of the prompt."""

        def __init__(self, inner) -> None:
            self.inner = inner

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def __call__(self, texts, **kw):
            out = self.inner(texts, **kw)
            if not isinstance(texts, list):
                return out
            n = out["input_ids"][0].index(self.inner.encode("yes")[0])
            out["input_ids"][0][n - 1 : n + 1] = [17]
            return out

    item = replace(random_items(1)[0], answer="yes")
    with pytest.raises(ValueError, match="task 'word'.*are not the first tokens.*merges with the prompt"):
        Encoder(SPEC, Merging(tiny_model().tokenizer))([replace(item, task="word")])


def test_activations_are_those_of_the_bare_base_whatever_adapter_is_active() -> None:
    model, items = tiny_model(), random_items(24)
    encoded = Encoder(SPEC, model.tokenizer)(items)
    bare = [
        torch.stack(
            [
                model.module(input_ids=torch.tensor([i.context_ids]), output_hidden_states=True).hidden_states[
                    layer + 1
                ][0, t]
                if layer < 2  # the last entry of hidden_states is after the final norm
                else _last_block(model, i.context_ids)[t]
                for layer, t in e.sources
            ]
        )
        for i, e in zip(items, encoded, strict=True)
    ]
    adapted = Model(add_lora(model.module), model.tokenizer)
    adapted.module.train()  # dropout of the adapter would show
    for mine, theirs in zip(base_vectors(adapted, items, encoded, token_budget=50), bare, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-4)  # other batch shapes
    assert adapted.module.training
    assert adapted.adapters.active == "default"


def _last_block(model: Model, ids) -> torch.Tensor:
    seen: list[torch.Tensor] = []
    handle = model.decoder.layers[-1].register_forward_hook(lambda m, a, out: seen.append(out))  # pyright: ignore
    model.module(input_ids=torch.tensor([ids]))
    handle.remove()
    return seen[0][0]


def test_checkpointing_and_small_passes_give_the_same_steps() -> None:
    """Gradient checkpointing runs every block once more during the backward pass; the loss and its gradient stay."""
    plain = train_oracle(tiny_model(), mixture(), SPEC, recipe(max_steps=3, dropout=0.0, gradient_checkpointing=False))
    counted, passes = tiny_model(), [0]

    def count(module, args, output) -> None:
        passes[0] += torch.is_grad_enabled()

    counted.decoder.layers[1].mlp.act_fn.register_forward_hook(count)  # pyright: ignore
    again = train_oracle(counted, mixture(), SPEC, recipe(max_steps=3, dropout=0.0))
    assert passes == [2 * 3]
    assert again.losses == plain.losses
    split = train_oracle(tiny_model(), mixture(), SPEC, recipe(max_steps=3, dropout=0.0, micro_batch=3))
    assert split.losses == pytest.approx(plain.losses, rel=1e-5)
    assert plain.losses[2] != pytest.approx(plain.losses[0], rel=1e-3)  # something was learnt in between


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    settings = recipe(save_every=3, epochs=2, max_steps=11, dropout=0.1)
    whole = train_oracle(tiny_model(), mixture(), SPEC, settings, out=tmp_path / "whole")

    def kill(step: int, loss: float, validation: Validation | None) -> None:
        if step == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_oracle(tiny_model(), mixture(), SPEC, settings, out=tmp_path / "killed", log=kill)
    with pytest.raises(ValueError, match="Pass resume=True"):
        train_oracle(tiny_model(), mixture(), SPEC, settings, out=tmp_path / "killed")
    resumed = train_oracle(tiny_model(), mixture(), SPEC, settings, out=tmp_path / "killed", resume=True)
    assert resumed.losses == whole.losses[6:]
    assert resumed.validations == whole.validations
    for name in ("last", "best", "step_9"):
        assert same(adapter_weights(tmp_path / "killed" / name), adapter_weights(tmp_path / "whole" / name))
    assert not same(adapter_weights(tmp_path / "whole" / "step_9"), adapter_weights(tmp_path / "whole" / "last"))
    with pytest.raises(ValueError, match="holds another training run .recipe"):
        train_oracle(tiny_model(), mixture(), SPEC, replace(settings, lr=1e-3), out=tmp_path / "killed", resume=True)


def test_a_run_that_is_resumed_inside_a_window_prepares_the_very_batches_of_an_undisturbed_one(
    tmp_path: Path, monkeypatch
) -> None:
    prepared: list[list[tuple]] = []
    prepare = Run.prepare

    def noted(self, items):
        prepared.append([(item.context_ids, item.positions, item.layers) for item in items])
        return prepare(self, items)

    monkeypatch.setattr(Run, "prepare", noted)
    settings = recipe(save_every=3, max_steps=8, window=4)  # windows begin at the steps 0 and 4
    train_oracle(tiny_model(), mixture(), SPEC, settings, out=tmp_path / "whole")
    whole = list(prepared)

    def kill(done: int, loss: float, validation: Validation | None) -> None:
        if done == 7:
            raise KeyboardInterrupt

    prepared.clear()
    with pytest.raises(KeyboardInterrupt):
        train_oracle(tiny_model(), mixture(), SPEC, settings, out=tmp_path / "cut", log=kill)
    prepared.clear()
    train_oracle(tiny_model(), mixture(), SPEC, settings, out=tmp_path / "cut", resume=True)  # from step 6
    assert len(whole) == 2
    assert prepared == whole[1:]
    assert tree(tmp_path / "cut") == tree(tmp_path / "whole")


def test_a_run_that_dies_between_its_files_goes_on_from_the_older_ones(tmp_path: Path, monkeypatch) -> None:
    settings = recipe(save_every=2, max_steps=6)
    whole = train_oracle(tiny_model(), mixture(), SPEC, settings, out=tmp_path / "whole")
    put_state = train_module.put_state

    def full_disk(store, state) -> None:
        if state["step"] == 4:
            raise OSError("no space left on device")
        put_state(store, state)

    monkeypatch.setattr(train_module, "put_state", full_disk)
    with pytest.raises(OSError, match="no space"):
        train_oracle(tiny_model(), mixture(), SPEC, settings, out=tmp_path / "run")
    monkeypatch.undo()
    resumed = train_oracle(tiny_model(), mixture(), SPEC, settings, out=tmp_path / "run", resume=True)
    assert len(resumed.losses) == 4
    assert resumed.validations == whole.validations
    for name in ("last", "best"):
        assert same(adapter_weights(tmp_path / "run" / name), adapter_weights(tmp_path / "whole" / name))


def test_contexts_that_begin_another_are_read_with_it() -> None:
    model, items = tiny_model(), random_items(40)
    seen: list[int] = []
    model.decoder.register_forward_pre_hook(lambda m, args, kw: seen.append(len(kw["input_ids"])), with_kwargs=True)
    base_vectors(model, items, Encoder(SPEC, model.tokenizer)(items))
    contexts = {i.context_ids for i in items}
    alone = [c for c in contexts if not any(c != d and d[: len(c)] == c for d in contexts)]
    assert sum(seen) == len(alone)
    assert len(alone) < len(contexts)


def test_the_best_checkpoint_is_the_one_with_the_largest_gap_not_the_last(tmp_path: Path, monkeypatch) -> None:
    gaps = iter((0.1, 0.5, 0.3))

    def falls_again(self, step: int) -> Validation:
        value = next(gaps)
        return Validation(step, Estimate(value, value, value, 4, 4), {})

    monkeypatch.setattr(Validator, "__call__", falls_again)
    run = train_oracle(tiny_model(), mixture(), SPEC, recipe(save_every=2, max_steps=6), out=tmp_path / "run")
    assert run.best.step == 4
    assert same(adapter_weights(tmp_path / "run" / "best"), adapter_weights(tmp_path / "run" / "step_4"))
    assert json.loads((tmp_path / "run" / "run.json").read_text())["best"] == 4


def test_the_adapter_is_plain_peft_and_declares_its_wiring(tmp_path: Path) -> None:
    from peft import PeftModel

    spec = replace(SPEC, coefficient=2.0, format="B", layers=(1,))
    items = [replace(i, layers=(1,)) for i in random_items()]
    run = train_oracle(tiny_model(), mix(items, validation=4), spec, recipe(max_steps=3), out=tmp_path / "run")
    folder = tmp_path / "run" / "last"
    loaded = PeftModel.from_pretrained(tiny_model().module, str(folder)).eval()
    ids = torch.arange(5, 25)[None]
    with torch.no_grad(), run.model.adapters.use("oracle"):
        expected = run.model.module(input_ids=ids).logits
        assert torch.equal(loaded(input_ids=ids).logits, expected)
    with torch.no_grad(), run.model.adapters.use(None):
        assert not torch.equal(run.model.module(input_ids=ids).logits, expected)
    declared = OracleSpec.from_ao_config(folder)
    assert (declared.coefficient, declared.format, declared.layers) == (2.0, "B", (1,))
    assert sorted(p.name for p in folder.iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors", "ao_config.json",
    ]  # fmt: skip


def test_nothing_but_the_new_adapter_changes() -> None:
    model = tiny_model()
    before = {k: v.clone() for k, v in model.module.state_dict().items()}
    pair = Model(add_lora(model.module, name="engaged"), model.tokenizer)
    engaged = {k: v.clone() for k, v in pair.module.state_dict().items() if "engaged" in k}
    run = train_oracle(pair, mixture(), SPEC, recipe(max_steps=2))
    after = run.model.module.state_dict()
    assert all(torch.equal(after[k], v) for k, v in engaged.items())
    base = {
        k.replace("base_model.model.", "").replace("base_layer.", ""): v for k, v in after.items() if "lora" not in k
    }
    assert base.keys() == before.keys()
    assert all(torch.equal(base[k], v) for k, v in before.items())
    assert not any(p.requires_grad for p in run.model.module.parameters())
    assert not run.model.module.training


def test_training_on_zeros_never_sees_an_activation(monkeypatch) -> None:
    import interp.oracle.run as run_module

    def refuse(*args, **kw):
        raise AssertionError("activations were read")

    monkeypatch.setattr(run_module, "base_vectors", refuse)
    settings = recipe(max_steps=2, activations="zeros")
    losses = train_oracle(tiny_model(), mixture(), SPEC, settings).losses
    with pytest.raises(AssertionError, match="were read"):
        train_oracle(tiny_model(), mixture(), SPEC, replace(settings, activations="real"))
    assert len(losses) == 2
    model, items = tiny_model(), random_items(5)
    encoded = Encoder(SPEC, model.tokenizer)(items)
    batch = AnswerBatch.of(encoded, pad_id=0, device=model.device)
    with inject(model, torch.cat(zero_vectors(model, encoded)), batch.slots, SPEC):
        injected = model.module(input_ids=batch.ids).logits
    assert torch.equal(injected, model.module(input_ids=batch.ids).logits)


def test_linear_layers_outside_the_text_decoder_get_no_adapter() -> None:
    model = tiny_model()
    plain = {n for n, _ in add_adapter(tiny_model(), recipe()).module.named_parameters() if "lora" in n}
    model.causal_lm.vision = torch.nn.Sequential(torch.nn.Linear(4, 4))
    seeing = {n for n, _ in add_adapter(model, recipe()).module.named_parameters() if "lora" in n}
    assert seeing == plain
    assert plain


def test_adapter_weights_are_float32_over_a_bfloat16_base() -> None:
    run = train_oracle(tiny_model(dtype=torch.bfloat16), mixture(), SPEC, recipe(max_steps=2))
    dtypes = {p.dtype for n, p in run.model.module.named_parameters() if ".oracle." in n}
    assert dtypes == {torch.float32}
    assert run.model.dtype == torch.bfloat16
    assert all(loss == loss for loss in run.losses)
