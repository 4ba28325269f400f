"""Sites of real checkpoints against transformers' own hidden states, nnsight, TransformerLens, and sums of heads."""

from __future__ import annotations

import copy

import pytest
import torch

from interp import Model, record
from interp.bridges import read_nnsight, read_transformer_lens, to_transformer_lens
from interp.family import head_output_weights
from interp.positions import Last
from tests.real.kit import relative, with_lora

MASSIVE = 100.0
"""Times the median coordinate, from which an activation is called massive."""
SUMS = 3e-6
"""Relative, float32: the same numbers added in another order."""


@pytest.mark.quick
def test_every_residual_site_is_a_hidden_state_of_transformers(model: Model, ids: torch.Tensor) -> None:
    with record(model, "embed, resid_pre.*, resid_post.*", stop=False) as acts:
        hidden = model.module(ids, output_hidden_states=True).hidden_states
    for layer in range(model.n_layers):
        assert torch.equal(acts[f"resid_pre.{layer}"], hidden[layer]), layer
        if layer + 1 < model.n_layers:
            assert torch.equal(acts[f"resid_post.{layer}"], hidden[layer + 1]), layer
    last = acts[f"resid_post.{model.n_layers - 1}"]
    assert relative(model.layout.final_norm(last), hidden[-1]) < SUMS
    assert relative(last, hidden[-1]) > 0.1, "the last hidden state of transformers is after the final norm"


def test_every_site_is_the_same_bits_in_nnsight(model: Model, ids: torch.Tensor) -> None:
    pytest.importorskip("nnsight", reason="extra 'bridges' is not installed")
    layers = (0, model.n_layers // 2, model.n_layers - 1)
    kinds = ("resid_pre", "resid_post", "attn_out", "mlp_out", "z")
    sites = [f"{kind}.{layer}" for layer in layers for kind in kinds]
    theirs = read_nnsight(model, ids, sites)
    with record(model, sites) as acts:
        model(ids)
    for site in sites:
        assert torch.equal(theirs[site].reshape(acts[site].shape), acts[site]), site


def test_z_and_the_branches_are_those_of_transformer_lens(model: Model, ids: torch.Tensor) -> None:
    pytest.importorskip("transformer_lens", reason="extra 'bridges' is not installed")
    if "gemma" in model.name:
        pytest.skip("TransformerLens's names of the branches of Gemma-3 are after the post-norm")
    layers = (0, model.n_layers // 2, model.n_layers - 1)
    sites = [f"{kind}.{layer}" for layer in layers for kind in ("resid_pre", "z", "attn_out", "mlp_out", "resid_post")]
    theirs = read_transformer_lens(to_transformer_lens(model), ids, sites)
    with record(model, sites) as acts:
        model(ids)
    for site in sites:
        assert relative(acts[site], theirs[site]) < 2e-5, site  # its attention is a product written out


@pytest.mark.quick
@pytest.mark.parametrize("adapted", [False, True], ids=["plain", "lora"])
def test_heads_sum_to_the_output_of_attention(model: Model, ids: torch.Tensor, adapted: bool) -> None:
    own = Model.wrap(with_lora(copy.deepcopy(model.causal_lm))) if adapted else model
    with record(own, "z.*, attn_out.*") as acts:
        own(ids)
    for layer in own.layout.layers:
        weights, bias = head_output_weights(layer)
        heads = torch.einsum("bphd,hdm->bphm", acts[f"z.{layer.index}"], weights)
        out = acts[f"attn_out.{layer.index}"]
        assert relative(heads.sum(2) + bias, out) < 2e-5, layer.index
    if adapted:
        with record(model, "attn_out.0") as plain:
            model(ids)
        assert relative(acts["attn_out.0"], plain["attn_out.0"]) > 1e-3, "the adapter does something"


@pytest.mark.quick
def test_bfloat16_follows_float32_despite_massive_activations(
    model: Model, texts: list[list[int]], record_property
) -> None:
    """Rounding is 2⁻⁸ of a value; it adds up over blocks like independent errors, and stays a few per cent of the norm.

    A few coordinates of the residual stream are hundreds of times larger than all others from the first blocks on.
    Their rounding alone is as large as ordinary coordinates, so the error is compared with the norm of a row.
    """
    small = Model(copy.deepcopy(model.causal_lm).to(torch.bfloat16), tokenizer=model.tokenizer)
    sites = f"resid_post.{model.n_layers // 2}, resid_post.{model.n_layers - 2}"
    every = [list(range(len(text))) for text in texts]  # the first token of a text has the largest values
    full, half = {}, {}
    for engine, out in ((model, full), (small, half)):
        with record(engine, sites, positions=every) as acts:
            engine(texts)
        out.update({site: acts[site].float() for site in acts})
    found = []
    for site, value in full.items():
        row, at = divmod(int(value.abs().argmax()), model.d_model)
        largest, ordinary = float(value[row, at]), float(value.abs().median())
        found.append(abs(largest) / ordinary)
        record_property(site, f"coordinate {at}: {largest:.1f}, {found[-1]:.0f} times the median")
        error = (half[site] - value).norm(dim=-1) / value.norm(dim=-1)
        assert 0.0 < float(error.max()) < 0.1, site
        assert float(half[site][row, at]) == pytest.approx(largest, rel=0.05), "the largest coordinate itself"
    assert max(found) > MASSIVE, "this checkpoint has massive activations"


def test_one_batch_of_any_make_up_gives_the_activations_of_single_texts(model: Model, texts: list[list[int]]) -> None:
    sites = f"resid_post.{model.n_layers // 2}, z.{model.n_layers - 1}"
    with record(model, sites, positions=Last()) as together:
        model(texts)
    for row, text in enumerate(texts):
        with record(model, sites, positions=Last()) as alone:
            model([text])
        for site in alone:
            assert relative(together[site][row], alone[site][0]) < 1e-4, (site, row)
