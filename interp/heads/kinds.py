"""What is put in a head's place: frozen values that say where the replacement of z comes from."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp.heads.attention import changed_pattern_z
from interp.heads.pairs import TokenPair, Where
from interp.hooks import record
from interp.model import Model
from interp.positions import Positions
from interp.site import Site

Per = Literal["position", "role", "class", "all"]
Pairing = Literal["twin", "same_label", "derangement"]


@dataclass(frozen=True)
class Zero:
    """z' = 0. Off the distribution, since the mean of a head is seldom 0: show it beside `Mean`."""

    @property
    def name(self) -> str:
        return "zero"


@dataclass(frozen=True)
class Mean:
    """z' = mean of z over the exp prompts of all pairs: what the head adds on average stays, what varies goes.

    Attributes:
        per: positions that share a mean. "position": the k-th changed token of each pair; "role": tokens of one span;
            "class": the k-th token within one label, so that only what varies inside a class goes; "all": every one.
    """

    per: Per = "position"

    @property
    def name(self) -> str:
        return "mean" if self.per == "position" else f"mean:{self.per}"


@dataclass(frozen=True)
class Resample:
    """z' = z of another item at the corresponding positions, averaged over draws.

    Attributes:
        pairing: "twin": the pair's base prompt; "same_label": another exp prompt of the same label; "derangement":
            another exp prompt, every one used once per draw.
    """

    pairing: Pairing = "derangement"
    draws: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ValueError(f"resample: draws={self.draws}; expected at least 1.")

    @property
    def name(self) -> str:
        return f"resample:{self.pairing}" + (f":{self.draws}" if self.draws > 1 else "")


@dataclass(frozen=True)
class Patch:
    """z' = z of the pair's base prompt: causal mediation as in Yang et al. (2025), `hook_z` of one query head."""

    @property
    def name(self) -> str:
        return "patch"


@dataclass(frozen=True)
class UniformAttention:
    """z' = mean of the values the head may look at: attention spread evenly over the past, itself included.

    What `Retrieval_Head` (Wu et al., 2024) calls masking; no ablation, since the head still writes.
    """

    @property
    def name(self) -> str:
        return "uniform_attention"


@dataclass(frozen=True)
class KnockOut:
    """Attention to the chosen keys set to 0 and the rest renormalised: z' = sum_k p'_k v_k.

    Attributes:
        keys: rule for the tokens that are no longer seen, such as `Span("scenario")`, or "pairs" for the pair's own.
    """

    keys: Where

    @property
    def name(self) -> str:
        return f"knock_out:{self.keys if not isinstance(self.keys, Positions) else self.keys.name}"


@dataclass(frozen=True)
class Noise:
    """z' = a random vector of the length of z: what any change of this size does. A control, not an ablation."""

    seed: int = 0

    @property
    def name(self) -> str:
        return "noise" if self.seed == 0 else f"noise:{self.seed}"


Kind = Zero | Mean | Resample | Patch | UniformAttention | KnockOut | Noise


def parse_kind(text: str) -> Kind:
    """The kind with this name: zero, mean, mean:all, resample:twin, resample:derangement:4, patch, noise, ...

    Raises:
        ValueError: no such kind; lists the names.
    """
    word, *rest = text.strip().split(":")
    match word, rest:
        case "zero", []:
            return Zero()
        case "mean", []:
            return Mean()
        case "mean", [("position" | "role" | "class" | "all") as per]:
            return Mean(per)
        case "resample", []:
            return Resample()
        case "resample", [("twin" | "same_label" | "derangement") as pairing]:
            return Resample(pairing)
        case "resample", [("twin" | "same_label" | "derangement") as pairing, n] if n.isdecimal():
            return Resample(pairing, int(n))
        case "patch", []:
            return Patch()
        case "uniform_attention", []:
            return UniformAttention()
        case "noise", []:
            return Noise()
        case "noise", [seed] if seed.isdecimal():
            return Noise(int(seed))
    raise ValueError(
        f"kind {text!r} is unknown. Kinds: zero, mean, mean:role, mean:class, mean:all, resample:twin, "
        "resample:same_label, resample:derangement:4 (draws), patch, uniform_attention, noise, noise:1 (seed)."
    )


Values = dict[int, Float[Tensor, "new head d_head"]]
"""Replacement by layer at the changed tokens of one pair, in their order."""
Means = dict[tuple[str, int], dict[int, Float[Tensor, "head d_head"]]]
"""Mean z by key and layer, float64."""


def record_z(
    model: Model, ids: Sequence[int], tokens: Sequence[int], layers: Sequence[int], *, extra: Sequence[int] = ()
) -> tuple[Values, Float[Tensor, "extra d_model"]]:
    """z of all heads at `tokens`, in that order, and the last block's output at the tokens `extra`, in one pass."""
    last = Site("resid_post", model.n_layers - 1)
    at = sorted({*tokens, *extra})
    with record(model, [*(Site("z", layer) for layer in layers), *([last] if extra else [])], positions=[at]) as acts:
        model([list(ids)])
    row = {token: index for index, token in enumerate(at)}
    picked = [row[token] for token in tokens]
    z = {layer: acts[str(Site("z", layer))][picked] for layer in layers}
    resid = acts[str(last)][[row[token] for token in extra]] if extra else torch.empty(0, model.d_model)
    return z, resid


@dataclass
class Donors:
    """Where a kind's replacements come from, for all pairs of a sweep.

    Attributes:
        means: of a `Mean`, per key and layer.
        order: per draw of a `Resample`, which pair each pair is given.
    """

    model: Model
    pairs: Sequence[TokenPair]
    kind: Kind
    where: Where
    layers: tuple[int, ...]
    means: Means = field(default_factory=dict)
    order: list[list[int]] = field(default_factory=list)

    def prepare(self) -> None:
        """What has to be known of all pairs before the first: means, or who is given whose."""
        if isinstance(self.kind, Mean) and not self.means:
            self.means = self._means(self.kind)
        if isinstance(self.kind, Resample) and self.kind.pairing != "twin" and not self.order:
            dice = random.Random(self.kind.seed)
            same = self.kind.pairing == "same_label"
            self.order = [_derangement(self.pairs, dice, same_label=same) for _ in range(self.kind.draws)]

    @torch.no_grad()
    def values(self, index: int) -> list[Values | None]:
        """Replacements for the pair with this index, one per draw; None stands for zeros."""
        pair, kind = self.pairs[index], self.kind
        tokens = pair.exp_tokens(self.where)
        match kind:
            case Zero():
                return [None]
            case Mean():
                return [self._mean_values(pair, tokens, kind)]
            case Patch() | Resample(pairing="twin"):
                return [self.base(pair)]
            case Resample():
                return [self._from(self.pairs[row[index]], pair) for row in self.order]
            case UniformAttention():
                return [changed_pattern_z(self.model, pair.exp_ids, tokens, self.layers, without=None)]
            case KnockOut():
                gone = pair.exp_tokens(kind.keys)
                return [changed_pattern_z(self.model, pair.exp_ids, tokens, self.layers, without=gone)]
            case Noise():
                return [self._noise(pair, tokens, kind.seed)]

    def base(self, pair: TokenPair) -> Values:
        """z of the base prompt at the corresponding tokens."""
        tokens = pair.base_tokens(self.where)
        assert pair.base_ids is not None
        return record_z(self.model, pair.base_ids, tokens, self.layers)[0]

    def clean(self, pair: TokenPair) -> Values:
        """z of the unchanged exp prompt at the changed tokens."""
        return record_z(self.model, pair.exp_ids, pair.exp_tokens(self.where), self.layers)[0]

    def _from(self, donor: TokenPair, pair: TokenPair) -> Values:
        theirs, mine = donor.exp_tokens(self.where), pair.exp_tokens(self.where)
        if len(theirs) != len(mine):
            raise ValueError(
                f"pair {pair.id!r} has {len(mine)} changed positions, its donor {donor.id!r} has {len(theirs)}, so "
                "they do not correspond. Resample at the answer slot, or from twins."
            )
        return record_z(self.model, donor.exp_ids, theirs, self.layers)[0]

    def _noise(self, pair: TokenPair, tokens: Sequence[int], seed: int) -> Values:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + int(pair.sha256[:8], 16))
        clean, out = self.clean(pair), {}
        for layer, z in clean.items():
            noise = torch.randn(z.shape, generator=generator).to(z)
            out[layer] = noise * (z.norm(dim=-1, keepdim=True) / noise.norm(dim=-1, keepdim=True))
        return out

    def _keys(self, pair: TokenPair, tokens: Sequence[int], kind: Mean) -> list[tuple[str, int]]:
        """What the mean at each changed token is shared by."""
        if kind.per == "all":
            return [("all", 0)] * len(tokens)
        if kind.per == "class":
            if pair.label is None:
                raise ValueError(f"pair {pair.id!r}: a mean per class needs a label. Set it, or use the kind mean.")
            return [(f"class:{pair.label}", place) for place in range(len(tokens))]
        if kind.per == "role":
            return [(_role(pair, token), 0) for token in tokens]
        return [("position", place) for place in range(len(tokens))]

    @torch.no_grad()
    def _means(self, kind: Mean) -> Means:
        sums: Means = {}
        counts: dict[tuple[str, int], int] = {}
        for pair in self.pairs:
            tokens = pair.exp_tokens(self.where)
            z = self.clean(pair)
            for place, key in enumerate(self._keys(pair, tokens, kind)):
                counts[key] = counts.get(key, 0) + 1
                held = sums.setdefault(key, {})
                for layer in self.layers:
                    one = z[layer][place].double()
                    held[layer] = held[layer] + one if layer in held else one
        return {key: {layer: total / counts[key] for layer, total in held.items()} for key, held in sums.items()}

    def _mean_values(self, pair: TokenPair, tokens: Sequence[int], kind: Mean) -> Values:
        keys = self._keys(pair, tokens, kind)
        dtype = self.model.dtype
        return {layer: torch.stack([self.means[key][layer] for key in keys]).to(dtype) for layer in self.layers}


def _role(pair: TokenPair, token: int) -> str:
    """The shortest span that holds the token; its place from the end where no span does."""
    holding = [(len(tokens), name) for name, tokens in pair.roles.items() if token in tokens]
    return f"role:{min(holding)[1]}" if holding else f"end:{len(pair.exp_ids) - token}"


def _derangement(pairs: Sequence[TokenPair], dice: random.Random, *, same_label: bool) -> list[int]:
    """A pair for every pair, never itself, each used once; within labels if asked. A random cycle of each class."""
    out = [-1] * len(pairs)
    classes: dict[str | None, list[int]] = {}
    for index, pair in enumerate(pairs):
        classes.setdefault(pair.label if same_label else None, []).append(index)
    for label, members in classes.items():
        if len(members) < 2:
            what = f"of label {label!r}" if same_label else "in the set"
            raise ValueError(f"resample: pair {pairs[members[0]].id!r} is the only one {what}, so it has no donor.")
        dice.shuffle(members)
        for a, b in zip(members, [*members[1:], members[0]], strict=True):
            out[a] = b
    return out
