"""Extraction: rows equal single unpadded forwards, the bytes are the same however the run went, nothing is mixed up."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from interp.cache import ActivationCache, Request, extract
from interp.cache.errors import CacheBusyError, CacheFullError, IdentityMismatchError, NonFiniteActivationError
from interp.cache.extract import Budget, rank_and_world, run_shard
from interp.io.lock import writer_lock
from interp.model import Model
from interp.positions import Last, Span, Stride
from interp.prompt import Example, Message, render
from tests.tiny import add_lora, tiny, tiny_tokenizer

VOCAB = len(tiny_tokenizer())


def make_examples(n: int = 12) -> list[Example]:
    words = ["the quick brown fox", "yes", "is this compliant ? no, step two is one day late.", "jumps over"]
    texts = [" ".join(words[: 1 + i % 4]) + f" number {i}" for i in range(n)]
    return [
        Example(id=f"item-{i}", messages=(Message("user", text),), label=i % 2, groups={"procedure": f"p{i // 3}"},
                spans={"start": (0, 9)} if text.startswith("the quick") else {}, metadata={"length": len(text)})
        for i, text in enumerate(texts)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.wrap(tiny("qwen2", vocab_size=VOCAB), tiny_tokenizer())


def files(root: Path) -> dict[str, bytes]:
    """Everything that a finished cache is made of; run logs, locks and temporary files are not part of it."""
    kept = (p for p in root.rglob("*") if p.is_file() and not p.relative_to(root).parts[0].startswith("."))
    return {str(p.relative_to(root)): p.read_bytes() for p in kept}


# --- what is stored ------------------------------------------------------------------------------------------------


def test_rows_equal_single_unpadded_forwards_through_plain_transformers(model: Model, tmp_path: Path) -> None:
    examples = make_examples()
    cache = extract(model, examples, sites="resid_post.*, z.1", positions=[Last(), Span("start", "last")], out=tmp_path,
                    tokens_per_batch=200, shard_bytes=5000, progress=False)  # fmt: skip
    assert len(list(tmp_path.glob("shards/*/*.safetensors"))) > 2
    feats, z = cache.read("resid_post.1", "last"), cache.read("z.1", "last")
    for i, example in enumerate(examples):
        ids = torch.tensor([render(example, model.tokenizer).ids])
        hidden = model.module(ids, output_hidden_states=True).hidden_states
        assert torch.allclose(feats[i], hidden[2][0, -1], atol=1e-5)
        seen: list[torch.Tensor] = []
        with model.layout.layers[1].out_proj.register_forward_pre_hook(lambda m, a, seen=seen: seen.append(a[0])):
            model.module(ids)
        assert torch.allclose(z[i].flatten(), seen[0][0, -1], atol=1e-5)


def test_examples_table_says_what_each_row_is(model: Model, tmp_path: Path) -> None:
    examples = make_examples(5)
    table = extract(model, examples, sites="resid_post.0", out=tmp_path, progress=False).examples
    assert table["id"].tolist() == [e.id for e in examples]
    assert table["label"].tolist() == [0, 1, 0, 1, 0]
    assert table["procedure"].tolist() == ["p0", "p0", "p0", "p1", "p1"]
    assert table["length"].tolist() == [e.metadata["length"] for e in examples]
    prompts = [render(e, model.tokenizer) for e in examples]
    assert table["prompt_sha256"].tolist() == [p.sha256 for p in prompts]
    assert table["position.last"].tolist() == [len(p.ids) - 1 for p in prompts]


def test_stored_dtype_can_be_narrower_than_the_models(model: Model, tmp_path: Path) -> None:
    examples = make_examples(3)
    wide = extract(model, examples, sites="resid_post.1", out=tmp_path / "a", progress=False)
    half = extract(model, examples, sites="resid_post.1", dtype="bfloat16", out=tmp_path / "b", progress=False)
    assert torch.equal(half.read("resid_post.1", "last"), wide.read("resid_post.1", "last").bfloat16())


def test_a_hybrid_stores_each_layers_own_head_geometry(tmp_path: Path) -> None:
    model = Model.wrap(tiny("qwen3_5", vocab_size=VOCAB), tiny_tokenizer())
    cache = extract(model, make_examples(4), sites="z.*", out=tmp_path, progress=False)
    assert cache.read("z.0", "last").shape == (4, 4, 8)
    assert cache.read("z.3", "last").shape == (4, 4, 16)


def test_only_what_is_needed_is_run(model: Model, tmp_path: Path) -> None:
    """A prompt is run up to its last chosen token; what comes after cannot change it."""
    examples = [e for e in make_examples(4) if e.spans]
    seen: list[int] = []
    with model.decoder.register_forward_pre_hook(
        lambda m, a, k: seen.append(k["input_ids"].shape[1]), with_kwargs=True
    ):
        extract(model, examples, sites="resid_post.0", positions="span:start:last", out=tmp_path, progress=False)
    assert max(seen) < max(len(render(e, model.tokenizer).ids) for e in examples)


# --- identity ------------------------------------------------------------------------------------------------------


def test_running_again_computes_nothing(model: Model, tmp_path: Path) -> None:
    first = extract(model, make_examples(), sites="resid_post.1", out=tmp_path, progress=False)
    before = files(tmp_path)
    calls: list[int] = []
    with model.decoder.register_forward_pre_hook(lambda m, a: calls.append(1)):
        again = extract(model, make_examples(), sites="resid_post.1", out=tmp_path, progress=False)
    assert calls == []
    assert files(tmp_path) == before
    assert torch.equal(first.read("resid_post.1", "last"), again.read("resid_post.1", "last"))


def test_another_adapter_is_another_cache(tmp_path: Path) -> None:
    base = tiny("qwen2", vocab_size=VOCAB)
    peft = add_lora(base, name="engaged")
    tuned = Model.wrap(peft, tiny_tokenizer())
    extract(tuned, make_examples(3), sites="resid_post.0", out=tmp_path, progress=False)
    committed = files(tmp_path)
    with tuned.adapters.use(None), pytest.raises(IdentityMismatchError, match="adapter"):
        extract(tuned, make_examples(3), sites="resid_post.0", out=tmp_path, progress=False)
    with pytest.raises(IdentityMismatchError, match="prompts"):
        extract(tuned, make_examples(4), sites="resid_post.0", out=tmp_path, progress=False)
    assert files(tmp_path) == committed


def test_adapters_of_one_base_differ_in_their_caches_and_pair_by_id(tmp_path: Path) -> None:
    model = Model.wrap(add_lora(tiny("qwen2", vocab_size=VOCAB), name="engaged"), tiny_tokenizer())
    examples = make_examples(6)
    engaged = extract(model, examples, sites="resid_post.2", out=tmp_path / "e", progress=False)
    with model.adapters.use(None):
        base = extract(model, examples[::-1], sites="resid_post.2", out=tmp_path / "b", progress=False)
    joined = engaged.pair(base)
    assert len(joined) == 6
    ours, theirs = engaged.read("resid_post.2", "last"), base.read("resid_post.2", "last").flip(0)
    assert (ours - theirs).abs().amax(dim=1).min() > 1e-3
    assert torch.equal(torch.as_tensor(np.asarray(joined.right)), torch.arange(5, -1, -1))


# --- interrupted, crowded, full ------------------------------------------------------------------------------------


def start_worker(model: Model, out: Path, **env: str) -> int:
    """Extract in a forked child (one thread per process, so a fork is safe); returns its pid."""
    pid = os.fork()
    if pid == 0:
        os.environ.update(env)
        status = 1
        with contextlib.suppress(Exception):
            extract(model, make_examples(60), sites="resid_post.*, z.*", positions="last, stride:3", out=out,
                    shard_bytes=20_000, tokens_per_batch=400, progress=False)  # fmt: skip
            status = 0
        os._exit(status)
    return pid


def status_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.slow
def test_killed_at_random_moments_the_finished_cache_is_byte_identical(
    model: Model, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    wanted = request.config.getoption("--kills")
    began = time.monotonic()
    assert status_of(start_worker(model, tmp_path / "calm")) == 0
    whole = time.monotonic() - began
    calm = files(tmp_path / "calm")
    assert len(calm) > 10
    rng, kills, n_runs = np.random.default_rng(0), 0, 1
    while kills < wanted:  # a run that ends before its next kill is compared, and another one is begun
        out = tmp_path / f"killed-{n_runs}"
        pid = start_worker(model, out)
        time.sleep(float(rng.uniform(0.02, 0.25)) * whole)
        os.kill(pid, signal.SIGKILL)
        if status_of(pid) == -signal.SIGKILL:
            kills += 1
            continue
        assert files(out) == calm
        n_runs += 1
        assert n_runs < 60, "the worker is too quick to be killed"
    assert status_of(start_worker(model, tmp_path / f"killed-{n_runs}")) == 0
    restarted = files(tmp_path / f"killed-{n_runs}")
    assert sorted(calm) == sorted(restarted)
    assert [name for name in calm if calm[name] != restarted[name]] == []


def test_ranks_of_one_job_make_the_same_bytes_as_one_process(model: Model, tmp_path: Path) -> None:
    assert status_of(start_worker(model, tmp_path / "alone")) == 0
    ranks = [start_worker(model, tmp_path / "ranks", RANK=str(i), WORLD_SIZE="2") for i in range(2)]
    assert [status_of(rank) for rank in ranks] == [0, 0]
    assert ActivationCache.open(tmp_path / "ranks").sealed
    assert files(tmp_path / "alone") == files(tmp_path / "ranks")


def test_a_second_writer_is_refused(model: Model, tmp_path: Path) -> None:
    with writer_lock(tmp_path), pytest.raises(CacheBusyError, match=str(os.getpid())):
        extract(model, make_examples(3), sites="resid_post.0", out=tmp_path, progress=False)


def test_a_nan_activation_names_its_example_and_commits_nothing(tmp_path: Path) -> None:
    module = tiny("qwen2", vocab_size=VOCAB)
    model = Model.wrap(module, tiny_tokenizer())
    examples = make_examples(4)
    poisoned = render(examples[2], model.tokenizer).ids[-4]
    with torch.no_grad():
        module.get_input_embeddings().weight[poisoned] = float("nan")
    with pytest.raises(NonFiniteActivationError, match=r"item-\d.*resid_post.0"):
        extract(model, examples, sites="resid_post.0", out=tmp_path, progress=False)
    assert not list(tmp_path.glob("shards/*/*"))


def test_all_positions_need_an_explicit_budget_and_a_budget_is_kept(model: Model, tmp_path: Path) -> None:
    ask = {"sites": "resid_post.*", "positions": "all", "out": tmp_path, "progress": False}
    with pytest.raises(ValueError, match=r"max.bytes"):
        extract(model, make_examples(4), **ask)
    with pytest.raises(CacheFullError, match="1.00 kB"):
        extract(model, make_examples(4), max_bytes="1kB", **ask)
    assert extract(model, make_examples(4), max_bytes="10MB", **ask).n_rows > 40


def test_batches_halve_when_memory_does_not_suffice_and_remember(model: Model, tmp_path: Path) -> None:
    examples = make_examples(10)
    widest: list[int] = []

    def small_memory(module, args, kwargs):
        widest.append(kwargs["input_ids"].numel())
        if widest[-1] > 90:
            raise torch.OutOfMemoryError("no room")

    with model.decoder.register_forward_pre_hook(small_memory, with_kwargs=True):
        cache = extract(model, examples, sites="resid_post.1", out=tmp_path / "a", progress=False)
    calm = extract(model, examples, sites="resid_post.1", out=tmp_path / "b", progress=False)
    assert torch.allclose(cache.read("resid_post.1", "last"), calm.read("resid_post.1", "last"), atol=1e-5)
    assert Budget.of(tmp_path / "a", 16_384).tokens <= 90


def test_one_example_that_does_not_fit_is_named(model: Model, tmp_path: Path) -> None:
    def no_memory(module, args):
        raise torch.OutOfMemoryError("no room")

    with (
        model.decoder.register_forward_pre_hook(no_memory),
        pytest.raises(ValueError, match="example 'item-.*does not fit"),
    ):
        extract(model, make_examples(3), sites="resid_post.1", out=tmp_path, progress=False)


def test_a_shard_is_a_pure_function_of_the_plan(model: Model) -> None:
    request = Request(sites="resid_post.*", positions=[Stride(2)], shard_bytes=4000, tokens_per_batch=300)
    examples = make_examples(8)
    from interp.loading.fingerprint import fingerprint_module

    prompts = request.prompts(examples, model.tokenizer)
    plan = request.plan(
        examples, prompts, layout=model.layout, dtype=model.dtype, fingerprint=fingerprint_module(model.module)
    )
    assert len(plan.shards) > 2
    once = run_shard(model, plan, 1, prompts)
    run_shard(model, plan, 2, prompts)
    again = run_shard(model, plan, 1, prompts)
    assert all(torch.equal(once[site], again[site]) for site in once)


def test_a_prompt_that_is_too_long_is_an_error_that_names_it(model: Model, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"item-0.*28 tokens, the limit is 20"):
        extract(model, make_examples(4), sites="resid_post.0", max_length=20, out=tmp_path, progress=False)
    assert not tmp_path.joinpath("manifest.json").exists()


def test_rank_comes_from_torchrun_or_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rank_and_world() == (0, 1)
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "3")
    monkeypatch.setenv("SLURM_ARRAY_TASK_MIN", "10")
    monkeypatch.setenv("SLURM_ARRAY_TASK_STEP", "5")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "20")
    assert rank_and_world() == (2, 3)
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("RANK", "7")
    assert rank_and_world() == (7, 8)
    monkeypatch.setenv("DIPTYCH_WORLD", "1")
    assert rank_and_world() == (0, 1)
