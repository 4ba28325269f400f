"""Which heads: 0-based names, checked against the model, alone or as sets that are changed together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from interp.family import Layout
from interp.site import Site, format_ranges


@dataclass(frozen=True, order=True)
class HeadId:
    """A query head, layer and head counted from 0: `L19.H17`. Its block's output is `hidden_states[layer + 1]`."""

    layer: int
    head: int

    def __post_init__(self) -> None:
        if self.layer < 0 or self.head < 0:
            raise ValueError(f"head (layer {self.layer}, head {self.head}): both are counted from 0.")

    @classmethod
    def parse(cls, text: str, *, base: Literal[0, 1] = 0) -> HeadId:
        """The head that `text` names: `L19.H17`, `19.17`, `L=19 H=17`, `z.19.17`.

        Args:
            base: what the first layer and head are called in `text`; published names are sometimes 1-based, so that
                the "L=20" of one text can be the "L19" of another.
        Raises:
            ValueError: the text names no head.
        """
        site = Site.parse(text, base=base)
        if site.kind != "z" or site.layer is None or site.head is None:
            raise ValueError(f"{text!r} names the site '{site}', not a head. Expected a form such as 'L19.H17'.")
        return cls(site.layer, site.head)

    @property
    def site(self) -> Site:
        """Where the head hands its output to the output projection."""
        return Site("z", self.layer, self.head)

    def __str__(self) -> str:
        return f"L{self.layer}.H{self.head}"


Unit = tuple[HeadId, ...]
"""Heads that are changed together in one run; most often one."""
Heads = Literal["all"] | Sequence[HeadId | str | Sequence[HeadId | str]]


def layers_of(units: Sequence[Unit]) -> list[int] | list[float]:
    """The layer of every unit; NaN for a set of several heads."""
    alone = [unit[0].layer for unit in units if len(unit) == 1]
    return alone if len(alone) == len(units) else [unit[0].layer if len(unit) == 1 else float("nan") for unit in units]


def unit_name(unit: Unit) -> str:
    """`L1.H0`, or `L1.H0+L1.H6` for a set."""
    return "+".join(map(str, unit))


def parse_unit(text: str, *, base: Literal[0, 1] = 0) -> Unit:
    """The heads of `L1.H0` or `L1.H0+L1.H6`, ascending."""
    return tuple(sorted(HeadId.parse(part, base=base) for part in text.split("+")))


def expand_heads(heads: Heads, layout: Layout) -> tuple[Unit, ...]:
    """The units that `heads` names on a model.

    Args:
        heads: "all" heads of all layers with softmax attention, each alone; or heads, names, and sets of these.
    Raises:
        ValueError: a head that the model does not have, a layer without attention heads, the same unit twice.
    """
    if isinstance(heads, str) and heads == "all":
        return tuple(
            (HeadId(layer, head),) for layer in layout.head_layers for head in range(layout.layers[layer].n_heads)
        )
    units = tuple(_unit(one) for one in ([heads] if isinstance(heads, str) else heads))
    for unit in units:
        for head in unit:
            check_head(head, layout)
    names = [unit_name(unit) for unit in units]
    if not names or len(set(names)) < len(names):
        twice = next((name for name in names if names.count(name) > 1), None)
        raise ValueError(f"heads: {twice} is named twice." if twice else "heads: expected at least one, got none.")
    return units


def _unit(one: HeadId | str | Sequence[HeadId | str]) -> Unit:
    if isinstance(one, HeadId):
        return (one,)
    if isinstance(one, str):
        return parse_unit(one)
    return tuple(sorted({head for part in one for head in _unit(part)}))


def check_head(head: HeadId, layout: Layout) -> None:
    """Raise a ValueError unless the model has this layer, attention heads in it, and this one among them."""
    have = f"Layers with attention heads: {format_ranges(layout.head_layers)}."
    if head.layer >= layout.n_layers:
        raise ValueError(f"head {head}: the model has {layout.n_layers} layers (0-{layout.n_layers - 1}). {have}")
    layer = layout.layers[head.layer]
    if head.layer not in layout.head_layers:
        raise ValueError(
            f"head {head}: layer {head.layer} is of kind {layer.kind!r} and has no attention heads. {have}"
        )
    if head.head >= layer.n_heads:
        raise ValueError(
            f"head {head}: layer {head.layer} has {layer.n_heads} query heads (0-{layer.n_heads - 1}). Names "
            "count from 0: if a published name counts from 1, subtract 1 from layer and head."
        )


def kv_group(head: HeadId, layout: Layout) -> Unit:
    """All query heads that read the keys and values that this head reads, itself included.

    Raises:
        ValueError: as `check_head`.
    """
    check_head(head, layout)
    layer = layout.layers[head.layer]
    size = layer.n_heads // layer.n_kv_heads
    first = head.head // size * size
    return tuple(HeadId(head.layer, index) for index in range(first, first + size))
