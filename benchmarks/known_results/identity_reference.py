"""The scores of `identity` by a plain loop: one hooked forward pass of transformers per head, nothing of this library.

    python -m benchmarks.known_results.identity_reference CHECKPOINT_FOLDER NAME

    score(head) = (f[y*] - f[y])(patched) - (f[y*] - f[y])(exp)        at the last token, float32 logits

Prompts are written here from the description in Yang et al. 2025 (arXiv 2502.20332), not by `identity_pairs`; they use
the same draws of words, so that both compute the same prompts.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.kit import HERE
from benchmarks.known_results.identity import WORDS, Settings


def prompts(tokenizer: Any, settings: Settings, rule: str, context: str) -> list[dict[str, list[int]]]:
    """Base and exp prompts as token ids, with the answers [exp's own, the one that patching should bring]."""
    dice, pool, out = random.Random(settings.seed), sorted(set(WORDS.split())), []
    other = {"ABA": "ABB", "ABB": "ABA"}[rule]
    while len(out) < settings.n_reference:
        words = dice.sample(pool, 2 * settings.k + 2)
        duos = list(zip(words[::2], words[1::2], strict=True))
        (x, y), lines = duos[-1], duos[:-1]
        base = _text(lines, rule) + f"{x}^{y}^"
        exp = _text(lines, rule) if context == "token" else _text([(b, a) for a, b in lines], other)
        exp += f"{y}^{x}^"
        own = rule if context == "token" else other
        first = {"ABA": 0, "ABB": 1}
        answer, brought = (y, x)[first[own]], (x, y)[first[rule]] if context == "token" else (y, x)[first[rule]]
        ids = [tokenizer(text)["input_ids"] for text in (base, exp)]
        token = {y: ids[1][-4], x: ids[1][-2]}
        if all(_is_regular(one, tokenizer("^", add_special_tokens=False)["input_ids"], settings.k) for one in ids):
            out.append({"base_ids": ids[0], "exp_ids": ids[1], "answers": [token[answer], token[brought]]})
    return out


def _is_regular(ids: list[int], separator: list[int], k: int) -> bool:
    """Whether every word is one token, with `^` as a token of its own after the first and second word of each line."""
    n = 6 * k + 4
    tail = ids[-n:]
    places = [at for at in range(n) if at % 6 in (1, 3)]
    return len(ids) in (n, n + 1) and len(separator) == 1 and all(tail[at] == separator[0] for at in places)


def _text(lines: Sequence[tuple[str, str]], rule: str) -> str:
    return "".join(f"{a}^{b}^{a if rule == 'ABA' else b}\n" for a, b in lines)


@torch.no_grad()
def scores(model: Any, one: dict[str, list[int]]) -> dict[str, float]:
    """Score of every head; the heads of a layer are the rows of one batch, each with another head replaced."""
    config = model.config
    width, n_heads = config.hidden_size // config.num_attention_heads, config.num_attention_heads
    base, exp = (torch.tensor([one[key]]) for key in ("base_ids", "exp_ids"))
    y, star = one["answers"]
    stored: dict[int, torch.Tensor] = {}
    outs = [block.self_attn.o_proj for block in model.model.layers]
    hooks = [
        out.register_forward_pre_hook(lambda _, args, i=i: stored.update({i: args[0][0, -1].clone()}))
        for i, out in enumerate(outs)
    ]
    model(base)
    for hook in hooks:
        hook.remove()
    clean = model(exp).logits[0, -1]
    found = {}
    for layer, out in enumerate(outs):

        def patch(_: Any, args: tuple[torch.Tensor], layer: int = layer) -> tuple[torch.Tensor]:
            z = args[0].clone()
            for head in range(n_heads):
                part = slice(head * width, (head + 1) * width)
                z[head, -1, part] = stored[layer][part]
            return (z,)

        hook = out.register_forward_pre_hook(patch)
        logits = model(exp.repeat(n_heads, 1)).logits[:, -1]
        hook.remove()
        moved = (logits[:, star] - logits[:, y]) - (clean[star] - clean[y])
        found |= {f"L{layer}.H{head}": round(float(moved[head]), 6) for head in range(n_heads)}
    return found


def main() -> None:
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, name, settings = Path(sys.argv[1]), sys.argv[2], Settings()
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    out: dict[str, list[dict[str, object]]] = {}
    for context in ("token", "abstract"):
        both = [one for rule in ("ABA", "ABB") for one in prompts(tokenizer, settings, rule, context)]
        out[context] = [{**one, "score": scores(model, one)} for one in both]
    how = {
        "how": "plain loop of hooked forward passes of transformers, float32; benchmarks/known_results/"
        "identity_reference.py",
        "torch": torch.__version__, "transformers": transformers.__version__, "k": settings.k, "seed": settings.seed,
    }  # fmt: skip
    path = HERE / "results" / f"identity_reference.{name}.json"
    path.write_text(json.dumps({"provenance": how, "scores": out}) + "\n")


if __name__ == "__main__":
    main()
