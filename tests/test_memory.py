"""Batch sizes follow from model and memory; a run that continues elsewhere keeps its batches and its pairs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import interp.memory as memory
from interp import Example, Model
from interp.cache import extract
from interp.evaluate import Decoding, plan_batches
from interp.memory import Sizes, sizes_of
from study.analyses.heads.size import PAIRS, n_pairs
from study.analyses.heads.step import with_pairs
from study.config import read_study, resolved_yaml
from study.run.planner import plan_lines
from tests.eval_kit import TASK
from tests.tiny import tiny, tiny_tokenizer

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def tiny_chat_model() -> Model:
    return Model.wrap(tiny("llama", vocab_size=len(tiny_tokenizer())), tokenizer=tiny_tokenizer())


def group(folder: Path, limit: int | str, used: int, droppable: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {droppable}\n")


def test_the_tightest_control_group_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, own = tmp_path / "cgroup", tmp_path / "own"
    own.write_text("0::/outer/inner\n")
    group(root / "outer", 1000, 700)
    group(root / "outer" / "inner", "max", 650)
    assert memory._cgroups(root, own) == [(1000, 700)]
    group(root / "outer" / "inner", 800, 650, droppable=50)
    assert min(limit - used for limit, used in memory._cgroups(root, own)) == 200
    own.write_text("4:memory:/job\n1:cpu:/other\n")  # version 1; its "no limit" is a huge number
    for name, limit in (("job", 500), ("", 2**63 - 4096)):
        folder = root / "memory" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "memory.limit_in_bytes").write_text(str(limit))
        (folder / "memory.usage_in_bytes").write_text("100")
    assert (500, 100) in memory._cgroups(root, own)
    assert not [limit for limit, _ in memory._cgroups(root, own) if limit > 2**60]
    monkeypatch.setattr(memory, "_meminfo", lambda name: 10_000)
    monkeypatch.setattr(memory, "_cgroups", lambda: [(1000, 700), (800, 650)])
    assert (memory.free_bytes(CPU), memory.total_bytes(CPU)) == (150, 800)
    monkeypatch.setattr(memory, "_cgroups", list)
    assert memory.free_bytes(CPU) == memory.total_bytes(CPU) == 10_000


def test_free_memory_is_that_of_this_machine() -> None:
    psutil = pytest.importorskip("psutil")
    free, total = memory.free_bytes(CPU), memory.total_bytes(CPU)
    assert free is not None and total is not None
    assert 0 < free <= psutil.virtual_memory().available * 1.2
    assert free < total <= psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("parameters", "free", "tokens"),
    [
        (1_000_000, 2**34, 16_384),  # the most
        (135_000_000, 2**34, 4096),  # 2⁴¹ / (2 · 135e6) = 8,144
        (135_000_000, None, 4096),
        (500_000_000, 2**34, 2048),
        (7_000_000_000, 2**34, 512),  # the fewest
        (135_000_000, 3 * 1024 * 50_000, 1024),  # a third of what is free holds 1,024 tokens
        (135_000_000, 3 * 1023 * 50_000, 512),
    ],
)
def test_tokens_of_a_batch_on_a_cpu_by_hand(parameters: int, free: int | None, tokens: int) -> None:
    sizes = Sizes(parameters, torch.float32, CPU, 50_000, free)
    assert sizes.batch_tokens == tokens
    assert replace(sizes, device=CUDA).batch_tokens == max(tokens, 16_384 if free in (None, 2**34) else tokens)


def test_a_pass_on_a_cpu_has_at_most_1024_tokens_and_no_more_than_a_batch() -> None:
    sizes = Sizes(135_000_000, torch.float32, CPU, 50_000, 2**34)
    assert sizes.pass_tokens == 1024
    assert replace(sizes, n_parameters=7_000_000_000).pass_tokens == 512
    assert replace(sizes, device=CUDA).pass_tokens == 16_384


def test_a_token_needs_at_least_what_its_streams_and_its_cache_hold() -> None:
    """Against numbers of the configuration, and the cache of keys and values that transformers makes."""
    model = tiny_chat_model()
    config, layers = model.module.config, model.layout.layers
    cache = model.module(torch.tensor([[1, 2, 3, 4]]), use_cache=True).past_key_values
    kept = sum(part.numel() for layer in cache.layers for part in (layer.keys, layer.values)) / 4
    block = 6 * config.hidden_size + 3 * config.intermediate_size
    block += 3 * (layers[0].n_heads + 2 * layers[0].n_kv_heads) * layers[0].d_head
    assert sizes_of(model).token_bytes == 4 * (kept + block)


def items(n: int = 24) -> list[Example]:
    return [
        Example(f"i{k}", text="\n".join(["the quick brown fox"] * (1 + k % 5)), label="compliant") for k in range(n)
    ]


def with_free(monkeypatch: pytest.MonkeyPatch, model: Model, tokens: int) -> None:
    """As much free memory as `tokens` tokens of a batch need."""
    monkeypatch.setattr(memory, "FEWEST_TOKENS", 1)
    monkeypatch.setattr(memory, "free_bytes", lambda device: 3 * tokens * sizes_of_token(model))


def sizes_of_token(model: Model) -> int:
    return memory.token_bytes(model.layout, model.dtype.itemsize)


def test_an_explicit_budget_wins_and_sampled_batches_depend_on_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_chat_model()
    plans = {}
    for tokens in (64, 4096):
        with_free(monkeypatch, model, tokens)
        greedy = plan_batches(model, TASK, items(), Decoding(generate=False))
        asked = plan_batches(model, TASK, items(), Decoding(generate=False, tokens_per_batch=128))
        sampled = plan_batches(model, TASK, items(), Decoding(max_new_tokens=4, temperature=1.0))
        plans[tokens] = [one.batches for one in (greedy, asked, sampled)]
    (few, asked, sampled), (many, asked_too, sampled_too) = plans[64], plans[4096]
    assert len(few) > len(many)
    assert asked == asked_too and sampled == sampled_too


def test_a_cache_that_continues_with_other_memory_has_the_same_identity_and_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, how = tiny_chat_model(), dict(sites="resid_post.*", positions="last", shard_bytes=2000, progress=False)
    with_free(monkeypatch, model, 64)
    whole = extract(model, items(), out=tmp_path / "whole", **how)
    part = extract(model, items(), out=tmp_path / "part", **how)
    record = tmp_path / "part" / ".runs" / "tokens_per_batch"
    assert record.read_text() == "64"
    last = sorted((tmp_path / "part" / "shards").glob("*/*.safetensors"))[-1]
    for file in last.parent.glob(f"{last.stem}*"):
        file.unlink()
    with_free(monkeypatch, model, 16_384)
    again = extract(model, items(), out=tmp_path / "part", **how)
    assert record.read_text() == "64", "the batches of the first start"
    assert again.plan_id == part.plan_id == whole.plan_id
    files = sorted(file.relative_to(tmp_path / "whole") for file in (tmp_path / "whole").rglob("*.safetensors"))
    assert len(files) > 1
    for file in files:
        assert (tmp_path / "part" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_an_evaluation_that_continues_with_other_memory_keeps_its_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from study.analyses.eval.run import run_member

    model = tiny_chat_model()

    def answers(root: Path) -> list[dict[str, object]]:
        task = "tests.eval_kit:TASK"
        return run_member(model, "m", TASK, task, items(), root, Decoding(generate=False), False).to_dict("records")

    with_free(monkeypatch, model, 64)
    whole = answers(tmp_path / "a")
    assert (n_batches := len(list((tmp_path / "a" / "items").glob("*.item")))) > 4
    max((tmp_path / "a" / "items").glob("*.item")).unlink()
    with_free(monkeypatch, model, 16_384)
    assert answers(tmp_path / "a") == whole
    assert len(list((tmp_path / "a" / "items").glob("*.item"))) == n_batches
    answers(tmp_path / "b")
    assert len(list((tmp_path / "b" / "items").glob("*.item"))) < n_batches


# --- number of pairs -------------------------------------------------------------------------------------------------


def test_pairs_follow_from_the_number_of_heads() -> None:
    from interp.stats.power import FamilyClaim, StudySize

    assert [n_pairs(heads) for heads in (8, 270, 784)] == [48, 48, 48]
    for heads, many in PAIRS.items():
        claim = FamilyClaim(family=heads)
        assert n_pairs(heads) == n_pairs(heads - 1) == many
        assert claim.power(0.8, StudySize(many)) >= 0.8 and (many == 48 or claim.power(0.8, StudySize(many - 1)) < 0.8)


def test_the_number_of_pairs_is_recorded_and_a_recorded_one_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "study.yaml"
    file.write_text("name: s\npair: embedded\ntask: {path: interp.tasks.procedural}\nheads:\n")
    study = read_study(file)
    assert study.heads is not None and study.heads.n is None
    out = tmp_path / "run"
    out.mkdir()
    filled = with_pairs(study, out)
    assert filled.heads is not None and filled.heads.n == 48
    (out / "study.yaml").write_text(resolved_yaml(filled, out))
    monkeypatch.setattr("study.analyses.heads.size.n_pairs", lambda heads: 60)
    kept, fresh = with_pairs(study, out), with_pairs(study, tmp_path / "another")
    assert kept.heads is not None and fresh.heads is not None
    assert (kept.heads.n, fresh.heads.n) == (48, 60)
    explicit = replace(study, heads=replace(study.heads, n=5))
    assert with_pairs(explicit, out) == explicit


def test_the_plan_prints_what_is_derived_and_what_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(
        "name: s\npair: embedded\ntask: {path: interp.tasks.procedural, per_cell: 2}\n"
        "eval: {tokens_per_batch: 2000}\nheads:\n"
    )
    text = "\n".join(plan_lines(read_study(file), tmp_path / "run"))
    assert "float32 on cpu" in text and "16,384 tokens per batch" in text and "per chunk of rows" in text
    assert "eval: 2,000 tokens per batch, as the study says" in text and "heads: 48 pairs" in text
