"""Scores while a real checkpoint writes: those of a pass over the finished text."""

from __future__ import annotations

from typing import Any

import torch

from interp import Model, record
from interp.passes import pad
from probes import monitor
from tests.real.kit import relative

N_NEW = 12


def test_scores_while_writing_are_those_of_the_finished_text(model: Model, texts: list[list[int]]) -> None:
    layer = model.n_layers // 2
    weights = torch.randn(model.d_model, generator=torch.Generator().manual_seed(5))
    batch = pad(texts, side="left")
    module: Any = model.module
    with monitor(model, (weights, 1.0), site=f"resid_post.{layer}") as m:
        out = module.generate(
            batch.input_ids, attention_mask=batch.attention_mask, max_new_tokens=N_NEW, do_sample=False
        )
    width = max(map(len, texts))
    assert len(m.replies) == len(texts) and max(map(len, m.scores)) == out.shape[1] - width
    for text, new, scores in zip(texts, out[:, width:].tolist(), m.scores, strict=True):
        whole = [*text, *new][: len(text) - 1 + len(scores)]
        with record(model, f"resid_post.{layer}") as acts:
            model([whole])
        expected = acts[f"resid_post.{layer}"][0, len(text) - 1 :] @ weights + 1.0
        assert relative(torch.from_numpy(scores), expected) < 1e-4
