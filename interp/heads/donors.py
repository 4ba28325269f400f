"""Replacement values of z for one pair: recorded from the same prompt, from another, or averaged over all."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from interp.heads.attention import changed_pattern_z
from interp.heads.kinds import Kind, KnockOut, Mean, Noise, Patch, Resample, UniformAttention, Zero
from interp.heads.pairs import TokenPair, Where
from interp.hooks import record
from interp.model import Model
from interp.site import Site

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
