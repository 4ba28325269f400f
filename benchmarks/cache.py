"""Recording and extracting beside the bare decoder, Hugging Face, TransformerLens and nnsight.

    python -m benchmarks.cache [--gpu] [--json PATH]

Ratios are wall time over the bare decoder forward (no hooks, no vocabulary projection), on one batch of 8 x 256 tokens
through a 112M-parameter Qwen2 shape with a 152k vocabulary; with --gpu a Qwen2.5-7B shape in bf16.
"""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
import time
from itertools import accumulate
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.kit import Report, Setting, arguments, interleave, synchronize
from interp.cache import extract
from interp.hooks import record
from interp.model import Model
from interp.prompt import Example, render
from tests.tiny import tiny_tokenizer

SHAPES = {
    "cpu": dict(hidden_size=512, intermediate_size=1408, num_hidden_layers=12, num_attention_heads=8),
    "gpu": dict(hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28),
    "rehearsal": dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4),
}


def build(setting: Setting) -> Model:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    kind = setting.kind
    kv = 4 if kind == "gpu" else 2
    config = Qwen2Config(
        vocab_size=151_936,
        num_key_value_heads=kv,
        tie_word_embeddings=kind == "cpu",
        max_position_embeddings=4096,
        pad_token_id=0,
        **SHAPES[kind],
    )
    config.architectures = ["Qwen2ForCausalLM"]
    torch.manual_seed(0)
    if kind == "cpu":
        return Model.wrap(Qwen2ForCausalLM(config).eval(), tiny_tokenizer())
    with torch.device(setting.device):
        torch.set_default_dtype(torch.bfloat16)
        module = Qwen2ForCausalLM(config).eval()
        torch.set_default_dtype(torch.float32)
    return Model.wrap(module, tiny_tokenizer())


def bare(model: Model, ids: Tensor) -> Tensor:
    return model.decoder(input_ids=ids, use_cache=False).last_hidden_state


def ours(model: Model, ids: Tensor, where: Any) -> dict[str, Tensor]:
    with record(model, "resid_post.*", positions=where) as acts:
        model(ids)
    return {site: acts[site].to("cpu") for site in acts}


def hugging_face(model: Model, ids: Tensor) -> tuple[Tensor, ...]:
    return tuple(
        h.cpu() for h in model.decoder(input_ids=ids, use_cache=False, output_hidden_states=True).hidden_states
    )


def transformer_lens(model: Model) -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    shared = {id(t): t for t in (*model.causal_lm.parameters(), *model.causal_lm.buffers())}
    return TransformerBridge.boot_transformers(
        "bench", hf_model=copy.deepcopy(model.causal_lm, memo=shared), tokenizer=tiny_tokenizer(), device="cpu"
    )


def nnsight_all(tracer: Any, ids: Tensor, n_layers: int) -> list[Tensor]:
    kept = []
    with tracer.trace(ids, use_cache=False):
        for i in range(n_layers):
            kept.append(tracer.layers[i].output.save())
    return kept


def difference(mine: dict[str, Tensor], theirs: list[Tensor]) -> float:
    """Largest |ours - theirs| over layers; HF's last entry has passed the final norm and is left out by the caller."""
    return max(
        float((mine[f"resid_post.{i}"] - other.reshape(mine[f"resid_post.{i}"].shape)).abs().max())
        for i, other in enumerate(theirs)
    )


def recording(report: Report, setting: Setting, model: Model, ids: Tensor) -> None:
    n, last = model.n_layers, [[ids.shape[1] - 1]] * ids.shape[0]
    whole = ours(model, ids, "all")
    rows = ours(model, ids, last)
    agree = {
        "last": max(float((whole[s][:, -1] - rows[s]).abs().max()) for s in rows),
        "hf": difference(whole, list(hugging_face(model, ids)[1:n])),
    }
    methods: dict[str, Any] = {
        "bare": lambda: bare(model, ids),
        "ours, last position": lambda: ours(model, ids, last),
        "ours, all positions": lambda: ours(model, ids, "all"),
        "HF output_hidden_states": lambda: hugging_face(model, ids),
    }
    if not setting.gpu:
        bridge, names = transformer_lens(model), [f"blocks.{i}.hook_resid_post" for i in range(n)]

        def lens() -> list[Tensor]:
            cache = bridge.run_with_cache(ids, names_filter=names)[1]
            return [cache[name] for name in names]

        methods["TransformerLens run_with_cache"] = lens
        agree["tl"] = difference(whole, lens())
    import nnsight

    tracer = nnsight.NNsight(model.decoder)
    methods["nnsight trace and save"] = lambda: nnsight_all(tracer, ids, n)
    agree["nnsight"] = difference(whole, [t.cpu() for t in nnsight_all(tracer, ids, n)])
    seconds = interleave(methods, rounds=setting.rounds)
    base = seconds["bare"]
    goals = {"ours, last position": ("<= 1.03", agree["last"]), "ours, all positions": ("<= 1.15", agree["hf"])}
    peers = {
        "HF output_hidden_states": agree["hf"],
        "TransformerLens run_with_cache": agree.get("tl"),
        "nnsight trace and save": agree["nnsight"],
    }
    if setting.gpu:
        rate = ids.numel() / seconds["ours, last position"]
        report.add(
            "rate / bare: ours, last position",
            base / seconds["ours, last position"],
            goal=">= 0.95",
            limit="1.0",
            agree=agree["last"],
            note=f"{rate:.0f} tok/s",
        )
    for name in methods:
        if name in goals:
            report.add(
                f"time / bare: {name}", seconds[name] / base, goal=goals[name][0], limit="1.0", agree=goals[name][1]
            )
        elif name != "bare":
            report.add(f"time / bare: {name}", seconds[name] / base, agree=peers[name])


def memory(report: Report, setting: Setting, model: Model, ids: Tensor) -> None:
    """Peak bytes above the bare forward, over the bytes asked for plus one batch (its hidden states)."""
    asked = model.n_layers * ids.numel() * model.d_model * model.dtype.itemsize
    batch = ids.numel() * model.d_model * model.dtype.itemsize
    for where, name, size in (
        ([[255]] * ids.shape[0], "last position", asked // ids.shape[1]),
        ("all", "all positions", asked),
    ):
        runs = (lambda: bare(model, ids), lambda w=where: ours(model, ids, w))
        low, high = (peak(run, setting.device) for run in runs)
        over = max(0, high - low)
        report.add(
            f"peak memory above bare / (bytes asked + batch): {name}", over / (size + batch), goal="<= 1.0", limit="0"
        )


def peak(run: Any, device: str = "cpu") -> int:
    """Largest sum of bytes that torch holds during a call, above where it began.

    On a CPU from the events of the allocator: the resident size of the process depends on what earlier calls left in
    the heap, and differed by 2 batches between runs.
    """
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        start = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - start
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    results = profiler.profiler
    assert results is not None and results.kineto_results is not None
    changes = [(e.start_ns(), e.nbytes()) for e in results.kineto_results.events() if e.name() == "[memory]"]
    return max(accumulate(n_bytes for _, n_bytes in sorted(changes, key=itemgetter(0))))


def end_to_end(report: Report, model: Model, *, n: int, length: int, tokens: int) -> None:
    """Extraction to disk against the slower of its two parts: the bare forwards, and writing the same bytes."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    examples = [Example(id=str(i), text=" ".join(letters[(i + j) % 26] for j in range(length))) for i in range(n)]
    folder = Path(tempfile.mkdtemp(dir=Path.cwd()))
    kwargs = dict(sites="resid_post.*", positions="last", tokens_per_batch=tokens, progress=False, shard_bytes="64MB")
    try:
        ids = [list(render(e, model.tokenizer).ids) for e in examples]
        width = max(map(len, ids))
        per = max(1, tokens // width)
        batches = [model.batch(ids[i : i + per]).input_ids for i in range(0, n, per)]
        extract(model, examples[:per], out=folder / "warm", **kwargs)
        began = time.perf_counter()
        cache = extract(model, examples, out=folder / "cache", **kwargs)
        whole = time.perf_counter() - began
        began = time.perf_counter()
        for batch in batches:
            bare(model, batch)
        synchronize(model.device.type)
        forward = time.perf_counter() - began
        began = time.perf_counter()
        data = cache.read_rows("resid_post.0").repeat(model.n_layers, 1)
        with open(folder / "raw", "wb") as file:
            file.write(data.flatten().view(torch.uint8).numpy().data)
            file.flush()
            os.fsync(file.fileno())
        disk = time.perf_counter() - began
        report.add(
            "end to end to disk: rate / slower of forward and disk",
            max(forward, disk) / whole,
            goal=">= 0.9",
            limit="1.0",
            note=f"{n * width / whole:.0f} tok/s",
        )
    finally:
        shutil.rmtree(folder)


def main() -> None:
    options = arguments(__doc__ or "")
    kind = options.kind
    report = Report("cache")
    model = build(options)
    shape = (8, 1024) if kind == "gpu" else (8, 256)
    ids = torch.randint(3, 20_000, shape, device=model.device)
    recording(report, options, model, ids)
    memory(report, options, model, ids)
    end_to_end(
        report,
        model,
        n=256 if kind == "gpu" else 64,
        length=500 if kind == "gpu" else 120,
        tokens=16_384 if kind == "gpu" else 2048,
    )
    report.finish(options.json)


if __name__ == "__main__":
    main()
