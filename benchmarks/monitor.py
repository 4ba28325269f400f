"""Scores of a probe while a model writes 64 tokens, beside the same `generate` without, and a pass over its replies.

    python -m benchmarks.monitor [--gpu] [--json PATH]

Ratios are the wall time of `generate` inside a block over that outside of it, on left-padded prompts. The peer is a
forward hook as a reader would write it: it keeps the newest activation of every step, and scores them at the end.
Compared first: what is written (must be equal), and the scores with a pass over the finished text.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.cache import build
from benchmarks.kit import Report, arguments, interleave
from interp.hooks import record
from interp.model import Model
from interp.passes import pad
from probes import monitor

N_TEXTS, N_PROMPT, N_NEW = 8, 64, 64


def main() -> None:
    options = arguments(__doc__ or "")
    model = build(options)
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(10, 1000, (N_PROMPT - 3 * i,), generator=generator).tolist() for i in range(N_TEXTS)]
    site = f"resid_post.{model.n_layers // 2}"
    probe = (torch.randn(model.d_model, generator=generator), 0.5)
    batch = pad(prompts, side="left").to(model.device)

    def bare() -> Tensor:
        module: Any = model.module
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
        return module.generate(**inputs, max_new_tokens=N_NEW, do_sample=False, eos_token_id=None, pad_token_id=0)

    def ours() -> Any:
        with monitor(model, probe, site=site) as m:
            out = bare()
        return out, m.scores

    def hooked() -> Any:
        kept: list[Tensor] = []
        layer: nn.Module = model.decoder.layers[model.n_layers // 2]  # pyright: ignore[reportIndexIssue]
        handle = layer.register_forward_hook(lambda module, args, out: kept.append(out[:, -1].detach().clone()))
        try:
            out = bare()
        finally:
            handle.remove()
        return out, torch.stack(kept, dim=1).float() @ probe[0].to(model.device) + probe[1]

    agree = difference(model, prompts, site, probe, bare(), *ours())
    report = Report("monitor")
    seconds = interleave({"bare": bare, "ours": ours, "hooked": hooked}, rounds=options.rounds)
    shape = f"{N_TEXTS} texts, {N_NEW} tokens each"
    report.add("time / bare generate: ours", seconds["ours"] / seconds["bare"], goal="<= 1.05", agree=agree, note=shape)
    report.add("time / bare generate: a hook and a product at the end", seconds["hooked"] / seconds["bare"])
    report.finish(options.json)


def difference(
    model: Model,
    prompts: list[list[int]],
    site: str,
    probe: tuple[Tensor, float],
    plain: Tensor,
    out: Tensor,
    scores: Any,
) -> float:
    """Largest difference of scores from passes over the finished texts; infinite if other tokens were written."""
    if not torch.equal(plain, out):
        return float("inf")
    largest, width = 0.0, max(map(len, prompts))
    for prompt, row, found in zip(prompts, out[:, width:].tolist(), scores, strict=True):
        with record(model, site) as acts:
            model([[*prompt, *row[:-1]]])
        feats = acts[site][0, len(prompt) - 1 :].float().cpu()
        largest = max(largest, float((feats @ probe[0] + probe[1] - torch.from_numpy(found)).abs().max()))
    return largest


if __name__ == "__main__":
    main()
