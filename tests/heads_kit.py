"""Models of which the heads' effects are known: by construction, by training, and by a peer's code."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from interp.heads import TokenPair

ONE_HEAD, BOTH_HEADS, OTHER_HEAD = (1, 0), (1, 1), (1, 2)
N_KEYS = N_VALUES = 4
PLANTED = (1, 2)


def qwen2(dtype: torch.dtype = torch.float32, attn: str = "eager", **config) -> nn.Module:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    shape = dict(num_hidden_layers=2, num_attention_heads=4, hidden_size=64, tie_word_embeddings=False)
    model = Qwen2ForCausalLM._from_config(Qwen2Config(**{**shape, **config}), attn_implementation=attn)
    return model.to(dtype).eval()


def retrieval_model(a: float, b: float) -> nn.Module:
    """L1.H0 (kv head 0) and L1.H2 (kv head 1) both retrieve the value bound to the queried key, with gains a and b.

    Context token (key i, value j) is e_key[i] + e_value[j] + e_flag, a query e_query[i] + e_flag + e_mark, all of
    squared length 3, d = 64. With s the total gain the final stream is the query plus 5 s e_value, so

        m(s) = 5 s sqrt(d) / sqrt(3 + 25 s²)

    Attention is one-hot to within exp(-300). Rotation is the identity but for dims 0 and 8 of a head, left unused.
    """
    model = qwen2(
        torch.float64, vocab_size=N_KEYS * N_VALUES + N_KEYS + N_VALUES, intermediate_size=8, num_key_value_heads=2,
        rms_norm_eps=0.0, rope_parameters={"rope_type": "default", "rope_theta": 1e30},
    )  # fmt: skip
    key, query, value, flag, mark = 0, 4, 8, 12, 13
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.fill_(1.0 if "norm" in name else 0.0)
        embed, unembed = model.model.embed_tokens.weight, model.lm_head.weight
        for i in range(N_KEYS):
            for j in range(N_VALUES):
                embed[i * N_VALUES + j, [key + i, value + j, flag]] = 1.0
            embed[N_KEYS * N_VALUES + i, [query + i, flag, mark]] = 1.0
        for j in range(N_VALUES):
            unembed[N_KEYS * N_VALUES + N_KEYS + j, value + j] = 1.0
        attn, size = model.model.layers[1].self_attn, 8 / 3**0.5  # length of one component after the norm
        for head, kv, gain in ((0, 0, a), (2, 1, b)):
            for i in range(4):
                attn.q_proj.weight[head * 16 + 1 + i, query + i] = 60.0
                attn.k_proj.weight[kv * 16 + 1 + i, key + i] = 1.0
                attn.v_proj.weight[kv * 16 + 1 + i, value + i] = 1.0
                attn.o_proj.weight[value + i, head * 16 + 1 + i] = 5.0 * gain / size
    return model


def retrieval_pairs(n: int = 24, *, seed: int = 0) -> list[TokenPair]:
    """Four bindings and a query; base binds the queried key to the foil."""
    rng = torch.Generator().manual_seed(seed)
    pairs = []
    for index in range(n):
        keys, values = torch.randperm(4, generator=rng).tolist(), torch.randperm(4, generator=rng).tolist()
        asked = keys[int(torch.randint(4, (1,), generator=rng))]
        at, other = keys.index(asked), (keys.index(asked) + 1) % 4
        swapped = list(values)
        swapped[at], swapped[other] = swapped[other], swapped[at]
        exp, base = ([*(k * 4 + v for k, v in zip(keys, vs, strict=True)), 16 + asked] for vs in (values, swapped))
        pairs.append(TokenPair(tuple(base), tuple(exp), 20 + values[at], 20 + swapped[at], id=f"r{index}"))
    return pairs


def margin(s: float) -> float:
    return 5 * s * 8 / (3 + 25 * s * s) ** 0.5


def recall_batch(n: int, rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """8 bindings (key, value) as tokens key * 8 + value, then a key as 64 + key; the answer is 72 + value."""
    keys = torch.stack([torch.randperm(8, generator=rng) for _ in range(n)])
    values = torch.randint(8, (n, 8), generator=rng)
    at = torch.randint(8, (n, 1), generator=rng)
    ids = torch.cat([keys * 8 + values, 64 + keys.gather(1, at)], dim=1)
    return ids, 72 + values.gather(1, at)[:, 0]


def planted_model(*, steps: int = 200, noise: float = 0.002) -> nn.Module:
    """A two-layer model trained on recall with the output of every head but L1.H2 masked; then refilled with noise."""
    torch.manual_seed(0)
    model = qwen2(vocab_size=80, intermediate_size=128, num_key_value_heads=4, initializer_range=0.1, attn="sdpa")
    layer, head = PLANTED
    masks = [torch.zeros(64), torch.zeros(64)]
    masks[layer][head * 16 : head * 16 + 16] = 1.0
    rng = torch.Generator().manual_seed(1)
    optimiser = torch.optim.Adam(model.parameters(), lr=5e-3, betas=(0.9, 0.98))
    projections = [block.self_attn.o_proj.weight for block in model.model.layers]
    for _ in range(steps):
        with torch.no_grad():
            for weight, mask in zip(projections, masks, strict=True):
                weight.mul_(mask)
        ids, answers = recall_batch(64, rng)
        loss = nn.functional.cross_entropy(model(ids, logits_to_keep=1).logits[:, -1], answers)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        for weight, mask in zip(projections, masks, strict=True):
            weight.mul_(mask).add_(noise * torch.randn(weight.shape, generator=rng) * (1 - mask))
    return model.eval().requires_grad_(False)


def recall_pairs(n: int, *, seed: int = 5) -> list[TokenPair]:
    """Recall with a base prompt that binds the queried key to another value; all 8 values are options."""
    rng = torch.Generator().manual_seed(seed)
    ids, answers = recall_batch(n, rng)
    pairs = []
    for index, (row, answer) in enumerate(zip(ids.tolist(), answers.tolist(), strict=True)):
        asked = row[-1] - 64
        foil = 72 + (answer - 72 + 1 + int(torch.randint(7, (1,), generator=rng))) % 8
        base = [asked * 8 + foil - 72 if token // 8 == asked and token < 64 else token for token in row]
        pairs.append(TokenPair(tuple(base), tuple(row), answer, foil, options=tuple(range(72, 80)), id=f"i{index}"))
    return pairs


@dataclass(frozen=True)
class Peer:
    """LLMSymbMech's own numbers on a seeded tiny model."""

    model: nn.Module
    data: dict

    def pairs(self) -> list[TokenPair]:
        rows = self.data["cma"]
        return [
            TokenPair(tuple(r["base"]), tuple(r["exp"]), r["exp_ans"], r["causal_ans"],
                      tuple(p % len(r["exp"]) for p in r["token_pos"]), base_answer=r["base_ans"], id=f"r{i}")
            for i, r in enumerate(rows)
        ]  # fmt: skip


def peer(shared: Path) -> Peer:
    from safetensors.torch import load_file

    data = json.loads((shared / "vectors" / "heads.json").read_text())
    config = dict(data["config"])
    rope = {"rope_type": "default", "rope_theta": config.pop("rope_theta")}
    model = qwen2(attn=config.pop("attn_implementation"), rope_parameters=rope, **config)
    model.load_state_dict(load_file(shared / "vectors" / "heads.safetensors"))
    return Peer(model.requires_grad_(False), data)
