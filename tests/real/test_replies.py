"""Replies of real checkpoints, read again: the activations that were there while they were written."""

from __future__ import annotations

from pathlib import Path

import torch

from interp import Example, Model
from interp.cache import extract_replies
from interp.evaluate import Decoding
from interp.evaluate.writing import write
from interp.hooks import record
from interp.passes import pad
from interp.prompt import render
from interp.replies import reply_prompt
from tests.real.kit import TEXTS, relative
from tests.test_replies import while_generating

N_NEW = 16


def asked() -> list[Example]:
    """20 texts of unequal lengths: beginnings of `TEXTS`."""
    return [Example(f"t{k}", text=TEXTS[k % 5][: 24 + 3 * k].rstrip()) for k in range(20)]


def test_activations_along_replies_equal_those_while_generating(model: Model, tmp_path: Path) -> None:
    """20 replies, relative 1e-5 in float32: right padding, left padding, and `transformers.generate` with its cache."""
    examples = asked()
    prompts = [render(example, model.tokenizer) for example in examples]
    written = write(model, prompts, Decoding(), new_tokens=N_NEW)
    made = [reply_prompt(p, one.ids, model.tokenizer) for p, one in zip(prompts, written, strict=True)]
    for one, whole in zip(written, made, strict=True):
        assert whole.text[whole.spans["answer"][0] :].startswith(one.reply.text)
    sites = ("resid_post.0", f"resid_post.{model.n_layers // 2}", f"resid_post.{model.n_layers - 1}")
    cache = extract_replies(model, made, examples, out=tmp_path / "cache", sites=list(sites),
                            positions="all:answer, fraction:0", max_bytes="1GB", progress=False)  # fmt: skip
    fed = while_generating(model, prompts, N_NEW, sites)
    left = pad([prompt.ids for prompt in made], side="left")
    with record(model, list(sites)) as acts:
        model(left.input_ids, attention_mask=left.attention_mask)
    rows = cache.rows
    for site in sites:
        feats = cache.read_rows(site)
        for k, (one, steps) in enumerate(zip(written, fed, strict=True)):
            mine = rows[(rows["example"] == k) & (rows["position_name"] == "all:answer")]
            first = rows[(rows["example"] == k) & (rows["position_name"] == "fraction:0")]
            ours = feats[torch.tensor([*first.index, *mine.index])]
            assert relative(ours, acts[site][k, -len(ours) :]) < 1e-5, (site, k)
            assert relative(ours[:-1], steps[site][: len(one.ids)]) < 1e-5, (site, k)
