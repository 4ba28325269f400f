"""What an oracle is asked about: activations grouped into readings, each slot with its origin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.oracle.spec import LayerOrder

NULL_FRACTION = 1e-6


@dataclass(frozen=True)
class Slot:
    """Where one vector comes from.

    Attributes:
        item:   the reading it belongs to (one prompt of the oracle).
        layer:  block whose output it is.
        token:  index in the text that was read; `text` is that token.
        sentence: id of its sentence where positions are sentence ends.
        position: the rule that chose it, e.g. "sentence_ends".
        source: adapter that was active: "base", a role, or a difference such as "engaged - base".
    """

    item: str
    layer: int
    token: int
    text: str = ""
    sentence: int | None = None
    position: str = "tokens"
    source: str = "base"

    def __str__(self) -> str:
        return f"item {self.item!r}, layer {self.layer}, token {self.token} {self.text!r}, source {self.source}"


@dataclass(frozen=True, eq=False)
class Features:
    """Activations to be read, `vectors[slots, d_model]` with one `Slot` each; slots of a reading stand together.

    Within a reading slots are layer-major: all positions of its first layer, then of the next; every layer has the
    same tokens.

    Attributes:
        groups: reading -> problem; readings of one problem are not independent. Default: each its own.
        texts:  reading -> the text up to its last position, for the text-only control.
        provenance: model, adapter, dtype, positions, as `collect` found them.
    Raises:
        ValueError: vectors that are not finite (slot named), slots of a reading apart from each other, or layers of a
            reading with different tokens.
    """

    vectors: Float[Tensor, "slots d_model"]
    slots: tuple[Slot, ...]
    groups: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or len(self.vectors) != len(self.slots):
            came = f"{list(self.vectors.shape)} for {len(self.slots)} slots"
            raise ValueError(f"features: expected vectors [slots, d_model], one per slot record; got {came}.")
        if not self.slots:
            raise ValueError("features: expected at least one slot, got none.")
        self._refuse_not_finite()
        for item, span in self._spans.items():
            self._check_item(item, self.slots[span.start : span.stop])

    @cached_property
    def items(self) -> tuple[str, ...]:
        """Readings in order."""
        return tuple(dict.fromkeys(slot.item for slot in self.slots))

    @cached_property
    def items_set(self) -> frozenset[str]:
        """Readings, for membership."""
        return frozenset(self.items)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def d_model(self) -> int:
        return self.vectors.shape[1]

    @cached_property
    def _spans(self) -> dict[str, range]:
        spans: dict[str, range] = {}
        for i, slot in enumerate(self.slots):
            known = spans.get(slot.item)
            if known is not None and known.stop != i:
                raise ValueError(f"features: slots of item {slot.item!r} are apart (slot {i}); put them together.")
            spans[slot.item] = range(known.start if known else i, i + 1)
        return spans

    def group(self, item: str) -> str:
        """The problem a reading belongs to."""
        return self.groups.get(item, item)

    def layers(self, item: str) -> tuple[int, ...]:
        """Source layers of a reading, in order."""
        return tuple(dict.fromkeys(self.slots[i].layer for i in self._spans[item]))

    def counts(self, item: str) -> tuple[int, ...]:
        """Positions per layer of a reading."""
        n = len(self.layers(item))
        return (len(self._spans[item]) // n,) * n

    def rows(self, item: str, order: LayerOrder = "layer-major") -> tuple[int, ...]:
        """Slot numbers of a reading in the order in which a prompt writes them."""
        span = self._spans[item]
        if order == "layer-major":
            return tuple(span)
        k = self.counts(item)[0]
        return tuple(span[layer * k + position] for position in range(k) for layer in range(len(span) // k))

    def kind(self, item: str) -> tuple[object, ...]:
        """What a matched control must share: position rule, layers and number of positions."""
        span = self._spans[item]
        return (self.slots[span.start].position, self.layers(item), len(span))

    def select(self, items: Iterable[str]) -> Features:
        """Some readings, in the order asked for. Raises ValueError for one that is not there."""
        wanted = list(items)
        unknown = [item for item in wanted if item not in self._spans]
        if unknown:
            raise ValueError(f"features: no reading {unknown[0]!r}; there are {len(self)}, e.g. {self.items[0]!r}.")
        rows = [i for item in wanted for i in self._spans[item]]
        return replace(self, vectors=self.vectors[rows], slots=tuple(self.slots[i] for i in rows))

    def with_vectors(self, vectors: Float[Tensor, "slots d_model"], **provenance: Any) -> Features:
        """The same slots with other vectors, as a control."""
        return replace(self, vectors=vectors, provenance={**self.provenance, **provenance})

    @cached_property
    def null_slots(self) -> tuple[int, ...]:
        """Slots whose vector is shorter than 1e-6 of its layer's median norm: they carry no direction to speak of."""
        norms = self.vectors.float().norm(dim=1)
        layers = torch.tensor([slot.layer for slot in self.slots])
        found: list[int] = []
        for layer in layers.unique().tolist():
            at = (layers == layer).nonzero().flatten()
            floor = NULL_FRACTION * norms[at.to(norms.device)].median()
            small = (norms[at.to(norms.device)] <= floor).cpu()
            found += at[small].tolist()
        return tuple(sorted(found))

    def _refuse_not_finite(self) -> None:
        bad = (~torch.isfinite(self.vectors).all(dim=1)).nonzero().flatten().tolist()
        if bad:
            raise ValueError(
                f"features: {len(bad)} of {len(self.slots)} vectors hold NaN or inf, the first at slot {bad[0]} "
                f"({self.slots[bad[0]]}). Collect in a wider dtype or leave the position out."
            )

    def _check_item(self, item: str, slots: Sequence[Slot]) -> None:
        layers = list(dict.fromkeys(slot.layer for slot in slots))
        per_layer = [[s.token for s in slots if s.layer == layer] for layer in layers]
        if [s.layer for s in slots] != [layer for layer in layers for _ in per_layer[0]] or any(
            tokens != per_layer[0] for tokens in per_layer
        ):
            raise ValueError(
                f"features, item {item!r}: expected the same tokens at every layer, layer by layer; got "
                f"{[(s.layer, s.token) for s in slots][:12]}."
            )


def join(parts: Sequence[Features]) -> Features:
    """Readings of several sources as one set. Raises ValueError where two parts share a reading."""
    seen: set[str] = set()
    for part in parts:
        if shared := seen.intersection(part.items):
            raise ValueError(f"features: reading {sorted(shared)[0]!r} is in two parts.")
        seen.update(part.items)
    return Features(
        torch.cat([part.vectors for part in parts]),
        tuple(slot for part in parts for slot in part.slots),
        {k: v for part in parts for k, v in part.groups.items()},
        {k: v for part in parts for k, v in part.texts.items()},
        {"parts": [dict(part.provenance) for part in parts]},
    )
