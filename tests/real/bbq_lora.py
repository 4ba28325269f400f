"""A LoRA on a real checkpoint that answers BBQ better than its base: it abstains where the context does not say who.

    python -m tests.real.bbq_lora BASE BBQ OUT

Trained on the gold letters of the stories of the side "train", so a study of the side "test"
(`task.options: {side: test}`) has items of other stories. One step is one quad, its four items with the options in all
three cyclic orders: twelve prompts that differ in what decides the letter. What they share is computed once (`Trie`).
Loss on the letter alone. About ten minutes for SmolLM2-135M on two CPU cores (`OMP_NUM_THREADS=2`).
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from interp import Checkpoint, load
from interp.prompt import Example, render
from interp.tasks import bbq


@dataclass(frozen=True)
class Recipe:
    """Sizes and rates of the training; quads are drawn without replacement."""

    n_quads: int = 320
    rank: int = 16
    rate: float = 1e-3
    warmup: float = 0.05
    seed: int = 0


@dataclass(frozen=True)
class Trie:
    """Token sequences in which common beginnings are written once.

    Attributes:
        ids: token of each node; a node comes after the token before it.
        depth: place of each node in its sequences, from 0.
        ends: node of the last token of each sequence.
        mask: 0 where a node attends to another (itself and the tokens before it), -inf elsewhere [node, node].
    """

    ids: Tensor
    depth: Tensor
    ends: Tensor
    mask: Tensor

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> Trie:
        places: dict[tuple[int, ...], int] = {}
        paths = list[list[int]]()
        for row in rows:
            paths.append([places.setdefault(tuple(row[: k + 1]), len(places)) for k in range(len(row))])
        mask = torch.full((len(places), len(places)), -math.inf)
        for path in paths:
            for k, node in enumerate(path):
                mask[node, path[: k + 1]] = 0.0
        return cls(torch.tensor([begun[-1] for begun in places]), torch.tensor([len(begun) - 1 for begun in places]),
                   torch.tensor([path[-1] for path in paths]), mask)  # fmt: skip

    def logits(self, module: nn.Module) -> Tensor:
        """Logits after each sequence [row, vocab], as of a forward pass over each alone."""
        model: Any = module
        out = model(input_ids=self.ids[None], position_ids=self.depth[None], attention_mask=self.mask[None, None],
                    use_cache=False, logits_to_keep=self.ends)  # fmt: skip
        return out.logits[0]


def train(base: Path, data: Path, out: Path, recipe: Recipe) -> None:
    """Train and save a PEFT adapter. Every step follows from the recipe; prints the loss every 10 steps."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(recipe.seed)
    model = load(Checkpoint(base.name, str(base)), dtype="float32")  # bfloat16 trains at half the speed on a CPU
    quads = list(quads_of(data, recipe))
    config = LoraConfig(r=recipe.rank, lora_alpha=2 * recipe.rank, target_modules="all-linear", task_type="CAUSAL_LM")
    module: Any = get_peft_model(model.module.requires_grad_(False), config).train()
    weights = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=recipe.rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step, len(quads), recipe.warmup))
    losses, began = list[float](), time.perf_counter()
    for step, quad in enumerate(quads, 1):
        loss = loss_of(module, model.tokenizer, quad)
        loss.backward()
        nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if step % 10 == 0 or step == len(quads):
            left = (time.perf_counter() - began) / step * (len(quads) - step)
            recent = sum(losses[-10:]) / len(losses[-10:])
            sys.stdout.write(f"step {step} of {len(quads)}: loss {recent:.3f} nats, about {left:.0f} s left\n")
            sys.stdout.flush()
    module.save_pretrained(out)


def quads_of(data: Path, recipe: Recipe) -> Iterator[list[Example]]:
    """Quads of the stories of the side "train" in a random order, every item with its options in all cyclic orders."""
    found = bbq.examples(data, permute="cyclic", side="train", seed=recipe.seed)
    by_quad = [list(quad) for _, quad in groupby(found, key=lambda example: example.groups["quad"])]
    yield from Random(recipe.seed).sample(by_quad, min(recipe.n_quads, len(by_quad)))


def loss_of(module: nn.Module, tokenizer: Any, examples: Sequence[Example]) -> Tensor:
    """Mean of -log p(right letter) after the prompts, over the whole vocabulary."""
    answers = [tokenizer(str(example.label), add_special_tokens=False)["input_ids"][0] for example in examples]
    logits = Trie.of([render(example, tokenizer).ids for example in examples]).logits(module)
    return nn.functional.cross_entropy(logits.float(), torch.tensor(answers))


def rate_at(step: int, n_steps: int, warmup: float) -> float:
    """Share of the learning rate: a linear rise, then half a cosine to 0."""
    rise = max(1, round(warmup * n_steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, n_steps - rise)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path, help="Hugging Face folder of the base")
    parser.add_argument("data", type=Path, help="folder of BBQ, with data and templates")
    parser.add_argument("out", type=Path, help="folder of the adapter")
    parser.add_argument("--quads", type=int, default=Recipe.n_quads, help="quads to train on")
    options = parser.parse_args()
    train(options.base, options.data, options.out, Recipe(n_quads=options.quads))


if __name__ == "__main__":
    main()
