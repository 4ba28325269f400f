"""Replies with the probability of each label, beside `transformers.generate` and a pass over its replies.

    python -m benchmarks.generate [--json PATH]

The embedded pair on items of its own task: engaged writes traces of 40 to 100 tokens, heuristic one label. The loop
gets the same batches, sorted by length and left-padded, and reads the labels of its replies off one more pass, 200 at
a time. Ratios are replies per second over the loop's. Compared first: the new tokens, all of which must be equal
(else the difference is infinite), and log p of both labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.kit import Report, arguments, interleave
from interp.evaluate import Decoding, evaluate, plan_batches
from interp.evaluate.decoding import end_tokens
from interp.evaluate.writing import write
from interp.model import Model
from interp.passes import pad
from interp.prompt import Example
from interp.tasks import procedural
from study.embedded import embedded_pair
from study.members import models_of

DECODING = Decoding(max_new_tokens=200, tokens_per_batch=65_536)
PER_CELL = 10


def plain_replies(model: Model, batches: Sequence[Sequence[tuple[int, ...]]]) -> list[list[int]]:
    """New tokens of every prompt as `generate` writes them, cut at the end of the turn."""
    ends, out = end_tokens(model), []
    for rows in batches:
        batch = pad(rows, side="left")
        generate: Any = model.module.generate
        new = generate(
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
            max_new_tokens=200,
            do_sample=False,
            eos_token_id=sorted(ends),
            pad_token_id=0,
        )
        new = new[:, batch.input_ids.shape[1] :]
        for tail in new.tolist():
            out.append(tail[: next((k + 1 for k, token in enumerate(tail) if token in ends), len(tail))])
    return out


def plain_labels(model: Model, texts: Sequence[tuple[int, ...]], labels: Tensor) -> Tensor:
    """log p of the labels after each text, [text, label]."""
    out = []
    for at in range(0, len(texts), 200):
        some = texts[at : at + 200]
        width = torch.tensor([len(ids) for ids in some])
        decoded = model.decoder(input_ids=pad(some).input_ids, use_cache=False).last_hidden_state
        logits = model.causal_lm.lm_head(decoded[torch.arange(len(some)), width - 1])
        out.append(logits.float().log_softmax(-1)[:, labels])
    return torch.cat(out)


def before_label(text: tuple[int, ...], n_prompt: int, labels: Tensor) -> tuple[int, ...]:
    """The text up to the last label of its reply."""
    at = max((k for k, token in enumerate(text) if k >= n_prompt and token in labels), default=len(text))
    return text[:at]


def compare(report: Report, model: Model, role: str, items: Sequence[Example], rounds: int) -> None:
    task: Any = procedural
    plan = plan_batches(model, task, items, DECODING)
    order = [i for batch in plan.batches for i in batch]
    batches = [[plan.prompts[i].ids for i in batch] for batch in plan.batches]
    names = list(procedural.LABELS)
    labels = torch.tensor(model.tokenizer.convert_tokens_to_ids(names))

    def loop() -> tuple[list[list[int]], Tensor]:
        tails = plain_replies(model, batches)
        texts = [(*plan.prompts[i].ids, *tail) for i, tail in zip(order, tails, strict=True)]
        cut = [before_label(text, len(plan.prompts[i].ids), labels) for i, text in zip(order, texts, strict=True)]
        return tails, plain_labels(model, cut, labels)

    def ours() -> list[Any]:
        return [a for _, batch in evaluate(model, task, items, decoding=DECODING, plan=plan) for a in batch]

    tails, logp = loop()
    mine = [
        one.ids
        for batch in plan.batches
        for one in write(model, [plan.prompts[i] for i in batch], DECODING, new_tokens=200)
    ]
    n_differing = sum(a != tuple(b) for a, b in zip(mine, tails, strict=True))
    answers = {a.example_id: a for a in ours()}
    found = torch.tensor([[answers[items[i].id].logp[name] for name in names] for i in order])
    agree = float("inf") if n_differing else float((found - logp).abs().max())
    seconds = interleave({"loop": loop, "ours": ours}, rounds=rounds, warm_up=0)
    n_new = sum(map(len, tails)) / len(tails)
    note = f"{len(items)} items of {sum(map(len, (p.ids for p in plan.prompts))) / len(items):.0f} tokens, "
    note += f"replies of {n_new:.0f}, {n_differing} differ, {len(items) / seconds['ours']:.0f} replies/s"
    report.add(
        f"{role}: replies/s over generate and a label pass",
        seconds["loop"] / seconds["ours"],
        goal=">= 2.5",
        agree=agree,
        note=note,
    )


def main() -> None:
    options = arguments(__doc__ or "")
    items = procedural.examples(per_cell=PER_CELL, seed=5, rendering="log")
    report = Report("generate")
    for roles, model in models_of(embedded_pair(), {}):
        for role in (r for r in ("engaged", "heuristic") if r in roles):
            with model.member(role):
                compare(report, model, role, items, min(options.rounds, 3))
    report.finish(options.json)


if __name__ == "__main__":
    main()
