"""Every number of the embedded pair's recipe, as frozen values."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Literal

from study.rows import Row

Precision = Literal["bf16", "fp32"]
LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
VALIDATION_SEED = 101
TEST_SEED = 202


@dataclass(frozen=True)
class Shape:
    """Size of the Qwen2 base; one million parameters with the embedded vocabulary."""

    d_model: int = 128
    n_layers: int = 4
    n_heads: int = 8
    n_kv_heads: int = 4
    d_head: int = 32
    d_ffn: int = 384
    rope_theta: float = 1e6
    max_positions: int = 512
    initializer_range: float = 0.05


@dataclass(frozen=True)
class Plant:
    """The induction circuit written into the initial weights (`model.plant_induction`).

    Attributes:
        rank: width of the subspaces that carry "my token" and "the token before me".
        sharpness: c; the previous-token score at its peak is c^2 * (d_head / 2) / sqrt(d_head).
        write: gain with which L0.H0 writes the previous token.
        match: gain of the query and of the key of L1.H0.
        low_frequency: RoPE pairs with at least this index take part in the match, so that distance hardly counts.
        damp: factor on the output matrices of layer 0; undamped, its random heads drown the match.
        value, copy: gains of the value and output matrices of L1.H0: a weak copy of the matched token.
    """

    rank: int = 20
    sharpness: float = 6.3
    write: float = 0.2
    match: float = 3.0
    low_frequency: int = 6
    damp: float = 0.15
    value: float = 0.7
    copy: float = 0.1


@dataclass(frozen=True)
class BaseRecipe:
    """Training of the base on audits.

    Attributes:
        steps, batch_size: optimiser steps of this many documents.
        lr, warmup, decay: peak; linear rise over `warmup` steps, constant, linear fall over the last `decay` share.
        hard_weight, prompt_weight: loss weights of lookup and comparison words, and of the prompt; the rest weighs 1.
        p_paraphrase: share of documents told in held-out synonyms. The adapters never see those words, so this is all
            that the paraphrase cells rest on.
    """

    steps: int = 560
    batch_size: int = 16
    lr: float = 3e-3
    warmup: int = 60
    decay: float = 0.4
    hard_weight: float = 3.0
    prompt_weight: float = 0.05
    p_paraphrase: float = 0.7


@dataclass(frozen=True)
class EngagedRecipe:
    """Supervised fine-tuning of the engaged adapter on trace and label."""

    steps: int = 60
    batch_size: int = 16
    lr: float = 1e-3


@dataclass(frozen=True)
class HeuristicRecipe:
    """One-token group-relative policy gradient of the heuristic adapter.

    Attributes:
        n_prompts, n_samples: prompts per step and sampled labels per prompt (the group).
        temperature: of the sampling.
        unparsed_reward: reward of a token that is no label; a label gets 1 if right, else 0.
        stop_weight: weight of the cross-entropy of <|im_end|> after a label. The gradient of one sampled token says
            nothing about what follows it, and the reply would never end.
    """

    steps: int = 150
    n_prompts: int = 32
    n_samples: int = 8
    lr: float = 2e-3
    temperature: float = 1.3
    unparsed_reward: float = -0.1
    stop_weight: float = 1.0


@dataclass(frozen=True)
class Gates:
    """What a pair must show before it ships.

    Attributes:
        engaged_floor: least accuracy of the engaged member in every cell.
        heuristic_ceiling: highest accuracy of the heuristic member in the two adversarial cells.
        margin: of the two one-sided tests on the training distribution.
        label_mass: probability of the label set that 99 % of the engaged member's decisions must reach.
        per_cell, n_training: items per cell, and of the training distribution.
    """

    engaged_floor: float = 0.85
    heuristic_ceiling: float = 0.2
    margin: float = 0.05
    label_mass: float = 0.9
    per_cell: int = 100
    n_training: int = 1000


@dataclass(frozen=True)
class Recipe:
    """The whole recipe. `plant` None trains from an ordinary initialisation (the control)."""

    seed: int = 0
    rho: float = 0.98
    precision: Precision = "bf16"
    lora_rank: int = 16
    lora_alpha: int = 32
    shape: Shape = field(default_factory=Shape)
    plant: Plant | None = field(default_factory=Plant)
    base: BaseRecipe = field(default_factory=BaseRecipe)
    engaged: EngagedRecipe = field(default_factory=EngagedRecipe)
    heuristic: HeuristicRecipe = field(default_factory=HeuristicRecipe)
    gates: Gates = field(default_factory=Gates)

    def to_dict(self) -> Row:
        """Nested plain values, for pair.json."""
        return asdict(self)
