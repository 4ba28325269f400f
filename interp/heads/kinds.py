"""Kinds of change to a head's output z: what replaces it, recorded from the same prompt, another one, or averaged.

A new kind is one frozen dataclass with the four members of `Kind`, and one entry of `KINDS` if it is to have a name on
the command line and in study files; `head_sweep` takes any object with those members.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, cast, get_args, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from interp.heads.attention import changed_pattern_z
from interp.heads.pairs import TokenPair, Where
from interp.hooks import record
from interp.model import Model
from interp.positions import Positions
from interp.progress import parts
from interp.site import Site

Per = Literal["position", "role", "class", "all"]
Pairing = Literal["twin", "same_label", "derangement"]
Values = dict[int, Float[Tensor, "new head d_head"]]
"""Replacement by layer at the changed tokens of one pair, in their order."""
Means = dict[tuple[str, int], dict[int, Float[Tensor, "head d_head"]]]
"""Mean z by key and layer, float64."""


@runtime_checkable
class Kind(Protocol):
    """What replaces z of a head.

    `prepare` computes what depends on all pairs, once; `values` gives the replacements for one pair, one per draw, None
    for zeros. `needs_base`: z comes from the pair's base prompt, so that prompt is run, and its own answer read.
    """

    @property
    def name(self) -> str: ...

    @property
    def needs_base(self) -> bool: ...

    def prepare(self, donors: Donors) -> None: ...

    def values(self, donors: Donors, index: int) -> list[Values | None]: ...


@dataclass(frozen=True)
class Zero:
    """z' = 0. Off-distribution, since the mean of a head is seldom 0: compare it with `Mean`."""

    name = "zero"
    needs_base = False

    def prepare(self, donors: Donors) -> None: ...

    def values(self, donors: Donors, index: int) -> list[Values | None]:
        return [None]


@dataclass(frozen=True)
class Mean:
    """z' = mean of z over the exp prompts of all pairs: removes what varies, keeps the head's average contribution.

    Attributes:
        per: positions that share a mean. "position": the k-th changed token of each pair; "role": tokens of one span;
            "class": the k-th token within one label, which removes only what varies inside a class; "all": all tokens.
    """

    per: Per = "position"
    needs_base = False

    @property
    def name(self) -> str:
        return "mean" if self.per == "position" else f"mean:{self.per}"

    @torch.no_grad()
    def prepare(self, donors: Donors) -> None:
        if donors.means:
            return
        sums: Means = {}
        counts: dict[tuple[str, int], int] = {}
        for pair in parts(donors.pairs):
            tokens = pair.exp_tokens(donors.where)
            z = donors.clean(pair)
            for place, key in enumerate(self._keys(pair, tokens)):
                counts[key] = counts.get(key, 0) + 1
                totals = sums.setdefault(key, {})
                for layer in donors.layers:
                    one = z[layer][place].double()
                    totals[layer] = totals[layer] + one if layer in totals else one
        donors.means = {
            key: {layer: total / counts[key] for layer, total in totals.items()} for key, totals in sums.items()
        }

    def values(self, donors: Donors, index: int) -> list[Values | None]:
        pair, dtype = donors.pairs[index], donors.model.dtype
        keys = self._keys(pair, pair.exp_tokens(donors.where))
        return [{layer: torch.stack([donors.means[key][layer] for key in keys]).to(dtype) for layer in donors.layers}]

    def _keys(self, pair: TokenPair, tokens: Sequence[int]) -> list[tuple[str, int]]:
        """Key of the mean at each changed token; tokens with equal keys share a mean."""
        if self.per == "all":
            return [("all", 0)] * len(tokens)
        if self.per == "class":
            if pair.label is None:
                raise ValueError(f"pair {pair.id!r}: a mean per class needs a label. Set it, or use the kind mean.")
            return [(f"class:{pair.label}", place) for place in range(len(tokens))]
        if self.per == "role":
            return [(_role(pair, token), 0) for token in tokens]
        return [("position", place) for place in range(len(tokens))]


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
            raise ValueError(f"resample: expected at least 1 draw, got {self.draws}.")

    @property
    def name(self) -> str:
        return f"resample:{self.pairing}" + (f":{self.draws}" if self.draws > 1 else "")

    @property
    def needs_base(self) -> bool:
        return self.pairing == "twin"

    def prepare(self, donors: Donors) -> None:
        if not self.needs_base and not donors.order:
            dice, same = random.Random(self.seed), self.pairing == "same_label"
            donors.order = [_derangement(donors.pairs, dice, same_label=same) for _ in range(self.draws)]

    def values(self, donors: Donors, index: int) -> list[Values | None]:
        pair = donors.pairs[index]
        if self.needs_base:
            return [donors.base(pair)]
        return [donors.other(donors.pairs[donor_of[index]], pair) for donor_of in donors.order]


@dataclass(frozen=True)
class Patch:
    """z' = z of the pair's base prompt: causal mediation as in Yang et al. (2025), `hook_z` of one query head."""

    name = "patch"
    needs_base = True

    def prepare(self, donors: Donors) -> None: ...

    def values(self, donors: Donors, index: int) -> list[Values | None]:
        return [donors.base(donors.pairs[index])]


@dataclass(frozen=True)
class UniformAttention:
    """z' = mean of the values the head may attend to: attention spread evenly over the past, itself included.

    What `Retrieval_Head` (Wu et al., 2024) calls masking. It is no ablation, since the head still writes.
    """

    name = "uniform_attention"
    needs_base = False

    def prepare(self, donors: Donors) -> None: ...

    def values(self, donors: Donors, index: int) -> list[Values | None]:
        return [donors.reweighted(donors.pairs[index], without=None)]


@dataclass(frozen=True)
class KnockOut:
    """Attention to the chosen keys set to 0 and the rest renormalised: z' = sum_k p'_k v_k.

    Attributes:
        keys: rule for the tokens to hide, such as `Span("scenario")`, or "pairs" for the pair's own.
    """

    keys: Where
    needs_base = False

    @property
    def name(self) -> str:
        return f"knock_out:{self.keys if not isinstance(self.keys, Positions) else self.keys.name}"

    def prepare(self, donors: Donors) -> None: ...

    def values(self, donors: Donors, index: int) -> list[Values | None]:
        pair = donors.pairs[index]
        return [donors.reweighted(pair, without=pair.exp_tokens(self.keys))]


@dataclass(frozen=True)
class Noise:
    """z' = a random vector with the norm of z: the effect of any change of this size. A control, not an ablation."""

    seed: int = 0
    needs_base = False

    @property
    def name(self) -> str:
        return "noise" if self.seed == 0 else f"noise:{self.seed}"

    def prepare(self, donors: Donors) -> None: ...

    def values(self, donors: Donors, index: int) -> list[Values | None]:
        pair = donors.pairs[index]
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + int(pair.sha256[:8], 16))
        out: Values = {}
        for layer, z in donors.clean(pair).items():
            noise = torch.randn(z.shape, generator=generator).to(z)
            out[layer] = noise * (z.norm(dim=-1, keepdim=True) / noise.norm(dim=-1, keepdim=True))
        return [out]


@dataclass(frozen=True)
class KindForm:
    """How a kind is written on the command line and in study files.

    Attributes:
        forms: spellings, with their meaning where it is not obvious.
        parse: words after the first ":" -> the kind; None if they do not fit.
    """

    forms: tuple[str, ...]
    parse: Callable[[list[str]], Kind | None]


def _mean(words: list[str]) -> Kind | None:
    if len(words) > 1 or (words and words[0] not in get_args(Per)):
        return None
    return Mean(*cast("list[Per]", words))


def _resample(words: list[str]) -> Kind | None:
    if len(words) > 2 or (words and words[0] not in get_args(Pairing)) or not all(w.isdecimal() for w in words[1:]):
        return None
    if not words:
        return Resample()
    return Resample(cast("Pairing", words[0]), *map(int, words[1:]))


KINDS: dict[str, KindForm] = {
    "zero": KindForm(("zero",), lambda words: None if words else Zero()),
    "mean": KindForm(("mean", "mean:role", "mean:class", "mean:all"), _mean),
    "resample": KindForm(("resample:twin", "resample:same_label", "resample:derangement:4 (draws)"), _resample),
    "patch": KindForm(("patch",), lambda words: None if words else Patch()),
    "uniform_attention": KindForm(("uniform_attention",), lambda words: None if words else UniformAttention()),
    "noise": KindForm(
        ("noise", "noise:1 (seed)"),
        lambda words: Noise(*map(int, words)) if len(words) < 2 and all(w.isdecimal() for w in words) else None,
    ),
}


def kinds_help() -> str:
    """The spellings of all kinds, for help and errors."""
    return ", ".join(form for kind in KINDS.values() for form in kind.forms)


def parse_kind(text: str) -> Kind:
    """The kind with this name: zero, mean, mean:all, resample:twin, resample:derangement:4, patch, noise, ...

    Raises:
        ValueError: no such kind; lists the names.
    """
    word, *rest = text.strip().split(":")
    kind = KINDS[word].parse(rest) if word in KINDS else None
    if kind is None:
        raise ValueError(f"kind {text!r} is unknown. Kinds: {kinds_help()}.")
    return kind


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
    """The pairs of a sweep, as kinds need them, and what a kind has computed of all pairs.

    Attributes:
        means: of a `Mean`, per key and layer.
        order: per draw of a `Resample`, the index of each pair's donor.
    """

    model: Model
    pairs: Sequence[TokenPair]
    kind: Kind
    where: Where
    layers: tuple[int, ...]
    means: Means = field(default_factory=dict)
    order: list[list[int]] = field(default_factory=list)

    def prepare(self) -> None:
        """Compute what the kind needs of all pairs."""
        self.kind.prepare(self)

    @torch.no_grad()
    def values(self, index: int) -> list[Values | None]:
        """Replacements for the pair with this index, one per draw; None means zeros."""
        return self.kind.values(self, index)

    def base(self, pair: TokenPair) -> Values:
        """z of the base prompt at the corresponding tokens."""
        tokens = pair.base_tokens(self.where)
        assert pair.base_ids is not None
        return record_z(self.model, pair.base_ids, tokens, self.layers)[0]

    def clean(self, pair: TokenPair) -> Values:
        """z of the unchanged exp prompt at the changed tokens."""
        return record_z(self.model, pair.exp_ids, pair.exp_tokens(self.where), self.layers)[0]

    def reweighted(self, pair: TokenPair, *, without: Sequence[int] | None) -> Values:
        """z of the exp prompt under changed attention: without these keys, or (None) uniform over the past."""
        return changed_pattern_z(self.model, pair.exp_ids, pair.exp_tokens(self.where), self.layers, without=without)

    def other(self, donor: TokenPair, pair: TokenPair) -> Values:
        """z of another pair's exp prompt at its changed tokens. Raises ValueError if their number differs."""
        theirs, mine = donor.exp_tokens(self.where), pair.exp_tokens(self.where)
        if len(theirs) != len(mine):
            raise ValueError(
                f"pair {pair.id!r} has {len(mine)} changed positions, its donor {donor.id!r} has {len(theirs)}, so "
                "they do not correspond. Resample at the answer slot, or from twins."
            )
        return record_z(self.model, donor.exp_ids, theirs, self.layers)[0]


def _role(pair: TokenPair, token: int) -> str:
    """Name of the shortest span with the token; its distance from the end if it is in no span."""
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
