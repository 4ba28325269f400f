"""All heads of a model, one at a time: our sweep against the naive loop and against TransformerLens.

    python -m benchmarks.heads [--json PATH] [--gpu]

Random weights: the price of a sweep does not depend on them. Every method is the zero ablation of every head at the
answer slot (or at all positions), read as logits of two answers; outputs are compared before anything is timed. The
naive loop is one hooked forward pass per head and costs the same for every head and layer, so a few passes are timed
and multiplied by the number of heads. Process CPU seconds, least of the rounds, methods in turn.

ratio = seconds of the naive loop (or of TransformerLens) / seconds of our sweep, its clean pass included.
limit = heads / (1 + heads · T / (2 S)), the share of a forward pass that no exact sweep of T of S tokens can avoid.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.kit import Report, Setting, arguments
from interp.edits import Replace
from interp.heads import HeadSweep, LogitDiff, TokenPair, Zero
from interp.hooks import edit
from interp.model import Model
from interp.positions import All, Answer

ANSWERS = (11, 12)


@dataclass(frozen=True)
class Shape:
    """A Qwen2 of this size, and the prompt length."""

    name: str
    layers: int
    heads: int
    width: int
    kv: int
    mlp: int
    tokens: int
    goal_slot: float
    goal_all: float | None = None
    peer: bool = False

    @property
    def n_heads(self) -> int:
        return self.layers * self.heads

    def limit(self, changed: int) -> float:
        return self.n_heads / (1 + self.n_heads * changed / (2 * self.tokens))


BASE = Shape("12x12 d768 S192", 12, 12, 768, 4, 3072, 192, 90, 1.7, peer=True)
THIN = Shape("28x28 d448 S96", 28, 28, 448, 4, 1792, 96, 140)
LARGE = Shape("7B 28x28 S512 bf16", 28, 28, 3584, 4, 18944, 512, 0)
REHEARSAL = Shape("rehearsal 2x4 S32", 2, 4, 64, 2, 128, 32, 0)


def build(shape: Shape, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> Model:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=1000,
        hidden_size=shape.width,
        intermediate_size=shape.mlp,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv,
        tie_word_embeddings=False,
        max_position_embeddings=2048,
    )
    with torch.device(device):
        module = Qwen2ForCausalLM._from_config(config, attn_implementation="sdpa", dtype=dtype)
    return Model.wrap(module.eval().requires_grad_(False))


def pair_of(shape: Shape) -> TokenPair:
    ids = torch.randint(20, 1000, (shape.tokens,), generator=torch.Generator().manual_seed(1)).tolist()
    return TokenPair(None, tuple(ids), *ANSWERS)


def ours(model: Model, pair: TokenPair, *, everywhere: bool) -> Callable[[], np.ndarray]:
    job = HeadSweep(model, [pair], Zero(), All() if everywhere else Answer(), metrics=(LogitDiff(),))
    return lambda: job.outcome(0).values["margin"]


def naive(model: Model, pair: TokenPair, layer: int, head: int, *, everywhere: bool) -> float:
    """The margin under one hooked forward pass; logits of the last token only, as a careful user would write it."""
    ids = torch.tensor([pair.exp_ids], device=model.device)
    where = "all" if everywhere else [[len(pair.exp_ids) - 1]]
    with edit(model, {f"z.{layer}.{head}": Replace(0.0)}, positions=where):
        logits: Tensor = model.module(ids, use_cache=False, logits_to_keep=1).logits[0, -1]
    return float(logits[ANSWERS[0]] - logits[ANSWERS[1]])


def cells(shape: Shape) -> list[tuple[int, int]]:
    return [(0, 1), (shape.layers // 2, shape.heads - 1), (shape.layers - 1, 0)]


def best_cpu(methods: dict[str, Callable[[], object]], *, rounds: dict[str, int]) -> dict[str, float]:
    """Least process CPU seconds of each method, in turn; all have run before, when their outputs were compared."""
    best = dict.fromkeys(methods, float("inf"))
    for turn in range(max(rounds.values())):
        for name, run in methods.items():
            if turn < rounds[name]:
                began = time.process_time()
                run()
                best[name] = min(best[name], time.process_time() - began)
    return best


def compare(report: Report, shape: Shape, *, rounds: int, everywhere: bool, goal: float) -> None:
    """One line: the naive loop over all heads against our sweep."""
    model, pair = build(shape), pair_of(shape)
    sweep = ours(model, pair, everywhere=everywhere)
    margins = sweep()
    names = cells(shape)
    agree = max(
        abs(margins[layer * shape.heads + head] - naive(model, pair, layer, head, everywhere=everywhere))
        for layer, head in names
    )
    assert agree < 1e-3, f"{shape.name}: the sweep differs from hooked passes by {agree}"
    loop = lambda: naive(model, pair, *names[1], everywhere=everywhere)  # noqa: E731
    methods: dict[str, Callable[[], object]] = {"ours": sweep, "naive": loop}
    if shape.peer and not everywhere and (lens := transformer_lens(model, pair, shape, margins)):
        methods["lens"] = lens
    few = {"ours": 1 if everywhere else rounds, "naive": rounds, "lens": rounds}
    best = best_cpu(methods, rounds={name: few[name] for name in methods})
    where, changed = ("all positions", shape.tokens) if everywhere else ("answer slot", 1)
    limit = f"{shape.limit(changed):.1f}"
    note = f"({best['ours']:.2f} s for {shape.n_heads} heads; one hooked forward {best['naive']:.3f} s)"
    report.add(
        f"{shape.name}, {where}: naive / ours",
        best["naive"] * shape.n_heads / best["ours"],
        goal=f">= {goal:g}",
        limit=limit,
        agree=agree,
        note=note,
    )
    if "lens" in methods:
        ratio = best["lens"] * shape.n_heads / best["ours"]
        report.add(
            f"{shape.name}, {where}: TransformerLens / ours",
            ratio,
            goal=">= 100",
            agree=agree,
            note=f"(run_with_hooks per head, {best['lens']:.3f} s)",
        )


def transformer_lens(model: Model, pair: TokenPair, shape: Shape, margins: np.ndarray) -> Callable[[], float] | None:
    """`run_with_hooks` of one head on the same weights, checked against our margin; None where it is not installed."""
    try:
        from transformer_lens.model_bridge import TransformerBridge
    except ImportError:
        print("TransformerLens is not installed: left out.")
        return None
    layer, head = cells(shape)[1]
    bridge = lens_bridge(TransformerBridge, model.module)
    ids = torch.tensor([pair.exp_ids])

    def zero(z: Tensor, hook: object) -> Tensor:
        z = z.clone()
        z.view(*z.shape[:2], shape.heads, -1)[:, -1, head] = 0.0
        return z

    def run() -> float:
        logits = bridge.run_with_hooks(ids, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", zero)])[0, -1]
        return float(logits[ANSWERS[0]] - logits[ANSWERS[1]])

    error = abs(run() - margins[layer * shape.heads + head])
    assert error < 1e-3, f"TransformerLens differs by {error}"
    return run


def lens_bridge(bridge_class: type, module: nn.Module) -> object:
    """A bridge around a model in memory: its own loader reads only from disk or hub."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        module.save_pretrained(folder)
        return bridge_class.boot_transformers(folder, device="cpu", dtype=torch.float32)


def main() -> None:
    options = arguments(__doc__ or "")
    report = Report("heads")
    if options.gpu:
        on_gpu(report, options)
    else:
        rounds = min(options.rounds, 4)
        compare(report, BASE, rounds=rounds, everywhere=False, goal=BASE.goal_slot)
        compare(report, THIN, rounds=rounds, everywhere=False, goal=THIN.goal_slot)
        compare(report, BASE, rounds=2, everywhere=True, goal=BASE.goal_all or 0)
    report.finish(options.json)


def on_gpu(report: Report, setting: Setting) -> None:
    """Clean-forward times that all heads of one prompt of a 7B-shaped model cost."""
    from benchmarks.kit import interleave

    shape = LARGE if setting.kind == "gpu" else REHEARSAL
    model, pair = build(shape, dtype=torch.bfloat16, device=setting.device), pair_of(shape)
    ids = torch.tensor([pair.exp_ids], device=setting.device)
    best = interleave(
        {
            "ours": ours(model, pair, everywhere=False),
            "clean": lambda: model.module(ids, use_cache=False, logits_to_keep=1),
        },
        rounds=setting.rounds,
    )
    report.add(
        f"{shape.name}: all heads in clean forwards",
        best["ours"] / best["clean"],
        goal="<= 3",
        limit=f"{shape.n_heads / shape.limit(1):.2f}",
    )


if __name__ == "__main__":
    main()
