"""Sweeps and steering of real checkpoints against loops of plain hooked passes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from interp import Model, edit, record
from interp.edits import Replace
from interp.heads import HeadId, HeadSweep, LogitDiff, parse_kind
from interp.heads.pairs import TokenPair
from interp.site import Site
from steering import Direction, steer
from steering.direction import DirectionStats

N_HEADS, N_NEW = 20, 8


@pytest.fixture(scope="module")
def pairs(model: Model, texts: list[list[int]]) -> list[TokenPair]:
    """Eight prompts: the texts and what is left of some after three tokens; the answer is the model's own."""
    prompts = [*texts, *(text[:-3] for text in texts[:3])]
    made = []
    for i, prompt in enumerate(prompts):
        first, second = model([prompt]).logits[0, -1].topk(2).indices.tolist()
        made.append(TokenPair(None, tuple(prompt), first, second, id=f"p{i}"))
    return made


def looped(model: Model, pair: TokenPair, head: HeadId, value: torch.Tensor) -> float:
    with edit(model, {head.site: Replace(value)}, positions=[[len(pair.exp_ids) - 1]]):
        logits = model([list(pair.exp_ids)]).logits[0, -1]
    return float(logits[pair.answer] - logits[pair.foil])


@pytest.mark.parametrize("kind", ["zero", "mean"])
def test_head_sweep_is_the_naive_loop(model: Model, pairs: list[TokenPair], kind: str) -> None:
    rng = np.random.default_rng(3)
    n_heads = model.layout.layers[0].n_heads
    chosen = rng.choice(model.n_layers * n_heads, N_HEADS, replace=False)
    heads = [HeadId(int(i) // n_heads, int(i) % n_heads) for i in sorted(chosen)]
    job = HeadSweep(model, pairs, parse_kind(kind), heads=heads, metrics=(LogitDiff(),))
    ours = np.array([outcome.values["margin"].ravel() for _, outcome in job.run()])
    last: dict[HeadId, torch.Tensor] = {}
    for head in heads:
        rows = []
        for pair in pairs:
            with record(model, [head.site]) as acts:
                model([list(pair.exp_ids)])
            rows.append(acts[str(head.site)][0, -1])
        last[head] = torch.stack(rows).mean(0) if kind == "mean" else torch.zeros_like(rows[0])
    theirs = np.array([[looped(model, pair, head, last[head]) for head in heads] for pair in pairs])
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() < 2e-3 * max(1.0, np.abs(theirs).max() / 10)
    assert np.ptp(theirs, axis=1).min() > 0.01, "heads differ in what they do"


@pytest.mark.quick
def test_generate_is_steered_alike_with_and_without_cache(model: Model, texts: list[list[int]]) -> None:
    layer = model.n_layers // 2
    site = Site("resid_post", layer)
    with record(model, [site]) as acts:
        model([texts[0]])
    norm = float(acts[str(site)][0, 1:].norm(dim=-1).median())
    vec = torch.randn(model.d_model, generator=torch.Generator().manual_seed(0))
    direction = Direction(vec, site, "one", "other", stats=DirectionStats(resid_norm=norm))
    options = dict(max_new_tokens=N_NEW, min_new_tokens=N_NEW, do_sample=False, pad_token_id=model.pad_id)

    def written(use_cache: bool) -> list[list[int]]:
        return [
            model.module.generate(input_ids=torch.tensor([text]), use_cache=use_cache, **options)[
                0, len(text) :
            ].tolist()
            for text in texts[:3]
        ]

    bare = written(True)
    with steer(model, direction, 0.6, positions="generated"):
        steered = written(True)
        assert written(False) == steered
    assert steered != bare
    assert written(True) == bare, "nothing is left behind"
