"""What is put in a head's place: frozen values that say where the replacement of z comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from interp.heads.pairs import Where
from interp.positions import Positions

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
