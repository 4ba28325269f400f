"""The tiny Qwen2 base of the embedded pair, and the induction circuit that its initial weights contain."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from study.embedded.recipe import Plant, Recipe, Shape
from study.embedded.tokenizer import END, STOP, vocabulary

if TYPE_CHECKING:
    from transformers import Qwen2Config, Qwen2ForCausalLM

N_COPY = 32  # width of the value subspace that L1.H0 copies; disjoint from the match subspaces


def qwen2_config(shape: Shape) -> Qwen2Config:
    """The configuration: Qwen2 with tied embeddings over the word-level vocabulary."""
    from transformers import Qwen2Config

    words = vocabulary()
    return Qwen2Config(
        vocab_size=len(words),
        hidden_size=shape.d_model,
        num_hidden_layers=shape.n_layers,
        num_attention_heads=shape.n_heads,
        num_key_value_heads=shape.n_kv_heads,
        head_dim=shape.d_head,  # pyright: ignore[reportCallIssue]
        intermediate_size=shape.d_ffn,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        max_position_embeddings=shape.max_positions,
        initializer_range=shape.initializer_range,
        bos_token_id=None,
        eos_token_id=words[STOP],
        pad_token_id=words[END],
    )


def init_base(recipe: Recipe) -> Qwen2ForCausalLM:
    """The base before training: seeded normal weights, then the plant if the recipe has one."""
    from transformers import Qwen2ForCausalLM

    torch.manual_seed(recipe.seed)
    model = Qwen2ForCausalLM(qwen2_config(recipe.shape))
    if recipe.plant is not None:
        plant_induction(model, recipe.shape, recipe.plant, seed=recipe.seed)
    return model


@torch.no_grad()
def plant_induction(model: Any, shape: Shape, plant: Plant, *, seed: int) -> None:
    """Write an induction circuit into the weights, in place: L0.H0 attends to the token before, L1.H0 to what came
    after an earlier copy of the current token, and copies it weakly.

        L0.H0  score(delta) = c^2/sqrt(d_head) * sum_i cos(w_i (delta - 1)),  w_i = theta^(-2i/d_head), delta = distance
        L1.H0  score(m, n)  = match^2/sqrt(d_head) * <P x_m, R x_n>  on RoPE pairs i >= low_frequency

    P and R are disjoint orthonormal rows; L0.H0 reads P of the token before and writes it into R. L0.H1, which shares
    the key-value head, gets offset 2. Nothing is frozen: training may keep, change or copy the circuit.

    Raises:
        ValueError: the subspaces do not fit into d_model, or the match does not fit into the low-frequency pairs.
    Source: Olsson et al. 2022 (arXiv 2209.11895) for the two-head circuit; the weights are ours.
    """
    low = low_frequency_dims(shape, plant)
    if len(low) < plant.rank or N_COPY + 2 * plant.rank > shape.d_model:
        raise ValueError(
            f"plant.rank: expected at most {min(len(low), (shape.d_model - N_COPY) // 2)} (RoPE dimensions from "
            f"low_frequency on, and room in d_model={shape.d_model}); got {plant.rank}."
        )
    rows = orthogonal_rows(shape.d_model, seed=seed)
    own, before = rows[N_COPY : N_COPY + plant.rank], rows[N_COPY + plant.rank : N_COPY + 2 * plant.rank]
    first, second = model.model.layers[0], model.model.layers[1]
    first.self_attn.o_proj.weight.mul_(plant.damp)
    first.mlp.down_proj.weight.mul_(plant.damp)
    _plant_previous_token(first.self_attn, shape, plant)
    first.self_attn.v_proj.weight[: plant.rank] = own
    first.self_attn.o_proj.weight[:, : plant.rank] = plant.write * before.T
    for projection, match in ((second.self_attn.q_proj, own), (second.self_attn.k_proj, before)):
        projection.weight[: shape.d_head] = 0
        projection.weight[low[: plant.rank]] = plant.match * match
    second.self_attn.v_proj.weight[:N_COPY] = plant.value * rows[:N_COPY]
    second.self_attn.o_proj.weight[:, :N_COPY] = plant.copy * rows[:N_COPY].T


def _plant_previous_token(attention: Any, shape: Shape, plant: Plant) -> None:
    """Heads 0 and 1 attend to offsets 1 and 2, whatever the tokens: zero weights, position enters by the biases.

    A key bias (1 | 0) is rotated to angle n w_i at position n; a query bias (cos w_i off | -sin w_i off) to angle
    (m - off) w_i at position m; their product is cos(w_i (m - n - off)).
    """
    half = shape.d_head // 2
    freq = shape.rope_theta ** (-torch.arange(half) / half)
    for head, offset in ((0, 1), (1, 2)):
        rows = slice(head * shape.d_head, (head + 1) * shape.d_head)
        attention.q_proj.weight[rows] = 0
        attention.q_proj.bias[rows] = plant.sharpness * torch.cat([(freq * offset).cos(), -(freq * offset).sin()])
    attention.k_proj.weight[: shape.d_head] = 0
    attention.k_proj.bias[: shape.d_head] = plant.sharpness * torch.cat([torch.ones(half), torch.zeros(half)])


def previous_token_attention(shape: Shape, plant: Plant, *, position: int) -> float:
    """Closed form of the attention that the planted L0.H0 pays to the token before `position` (0-based).

    softmax over delta = 0..position of c^2/sqrt(d_head) * sum_i cos(w_i (delta - 1)), at delta = 1
    """
    half = shape.d_head // 2
    freq = [shape.rope_theta ** (-i / half) for i in range(half)]
    scale = plant.sharpness**2 / math.sqrt(shape.d_head)
    score = [scale * sum(math.cos(w * (delta - 1)) for w in freq) for delta in range(position + 1)]
    top = max(score)
    return math.exp(score[1] - top) / sum(math.exp(s - top) for s in score)


def low_frequency_dims(shape: Shape, plant: Plant) -> list[int]:
    """Dimensions of a head that RoPE turns slowly: both halves of the pairs from `low_frequency` on."""
    half = shape.d_head // 2
    return [*range(plant.low_frequency, half), *range(half + plant.low_frequency, shape.d_head)]


def orthogonal_rows(d_model: int, *, seed: int) -> Float[Tensor, "d_model d_model"]:
    """An orthogonal matrix from a seeded normal draw (QR, float64, signs fixed by the diagonal of R)."""
    draw = torch.randn(d_model, d_model, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    q, r = torch.linalg.qr(draw)
    return (q * r.diagonal().sign()).float()
