"""Activations that an oracle is asked about, grouped into readings, each slot with its origin."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.model import Model
from interp.oracle.spec import LayerOrder, OracleSpec

NULL_FRACTION = 1e-6


@dataclass(frozen=True)
class Slot:
    """Origin of one vector.

    Attributes:
        item:   its reading (one prompt of the oracle).
        layer:  block whose output it is.
        token:  token index in the source text; `text` is that token.
        sentence: id of its sentence if positions are sentence ends.
        position: position rule, e.g. "sentence_ends".
        source: active adapter: "base", a role, or a difference such as "engaged - base".
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
    """Activations to be read: `vectors[slots, d_model]` with one `Slot` each; the slots of a reading are contiguous.

    Within a reading slots are layer-major: all positions of its first layer, then of the next; every layer has the
    same tokens.

    Attributes:
        groups: reading -> problem; readings of one problem are not independent. Default: one problem per reading.
        texts:  reading -> source text up to its last position, for the text-only control.
        provenance: model, adapter, dtype and positions, as `collect` recorded them.
    Raises:
        ValueError: vectors are not finite (the slot is named), slots of a reading are not contiguous, or layers of a
            reading have different tokens.
    """

    vectors: Float[Tensor, "slots d_model"]
    slots: tuple[Slot, ...]
    groups: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or len(self.vectors) != len(self.slots):
            shape = f"{list(self.vectors.shape)} for {len(self.slots)} slots"
            raise ValueError(f"features: expected vectors [slots, d_model], one per slot; got {shape}.")
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
        """`items` as a set."""
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
            span = spans.get(slot.item)
            if span is not None and span.stop != i:
                raise ValueError(f"features: slots of item {slot.item!r} are not contiguous (slot {i}).")
            spans[slot.item] = range(span.start if span else i, i + 1)
        return spans

    def group(self, item: str) -> str:
        """Problem of a reading."""
        return self.groups.get(item, item)

    def layers(self, item: str) -> tuple[int, ...]:
        """Source layers of a reading, in order."""
        return tuple(dict.fromkeys(self.slots[i].layer for i in self._spans[item]))

    def counts(self, item: str) -> tuple[int, ...]:
        """Positions per layer of a reading."""
        n = len(self.layers(item))
        return (len(self._spans[item]) // n,) * n

    def rows(self, item: str, order: LayerOrder = "layer-major") -> tuple[int, ...]:
        """Slot indices of a reading, in the order of the prompt's placeholders."""
        span = self._spans[item]
        if order == "layer-major":
            return tuple(span)
        k = self.counts(item)[0]
        return tuple(span[layer * k + position] for position in range(k) for layer in range(len(span) // k))

    def kind(self, item: str) -> tuple[object, ...]:
        """What a matched partner must share: position rule, layers and number of positions."""
        span = self._spans[item]
        return (self.slots[span.start].position, self.layers(item), len(span))

    def select(self, items: Iterable[str]) -> Features:
        """The given readings, in the given order. Raises ValueError for an unknown one."""
        chosen = list(items)
        unknown = [item for item in chosen if item not in self._spans]
        if unknown:
            raise ValueError(f"features: no reading {unknown[0]!r}; there are {len(self)}, e.g. {self.items[0]!r}.")
        rows = [i for item in chosen for i in self._spans[item]]
        return replace(self, vectors=self.vectors[rows], slots=tuple(self.slots[i] for i in rows))

    def with_vectors(self, vectors: Float[Tensor, "slots d_model"], **provenance: Any) -> Features:
        """The same slots with other vectors, for a control."""
        return replace(self, vectors=vectors, provenance={**self.provenance, **provenance})

    @cached_property
    def null_slots(self) -> tuple[int, ...]:
        """Slots whose vector is shorter than 1e-6 of its layer's median norm: its direction is rounding noise."""
        norms = self.vectors.float().norm(dim=1)
        layers = torch.tensor([slot.layer for slot in self.slots])
        null: list[int] = []
        for layer in layers.unique().tolist():
            at = (layers == layer).nonzero().flatten()
            floor = NULL_FRACTION * norms[at.to(norms.device)].median()
            small = (norms[at.to(norms.device)] <= floor).cpu()
            null += at[small].tolist()
        return tuple(sorted(null))

    def _refuse_not_finite(self) -> None:
        bad = (~torch.isfinite(self.vectors).all(dim=1)).nonzero().flatten().tolist()
        if bad:
            raise ValueError(
                f"features: {len(bad)} of {len(self.slots)} vectors contain NaN or inf, the first at slot {bad[0]} "
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
    """Concatenate the readings of several parts. Raises ValueError if two parts share a reading."""
    seen: set[str] = set()
    for part in parts:
        if shared := seen.intersection(part.items):
            raise ValueError(f"features: reading {sorted(shared)[0]!r} is in two parts; expected different readings.")
        seen.update(part.items)
    return Features(
        torch.cat([part.vectors for part in parts]),
        tuple(slot for part in parts for slot in part.slots),
        {k: v for part in parts for k, v in part.groups.items()},
        {k: v for part in parts for k, v in part.texts.items()},
        {"parts": [dict(part.provenance) for part in parts]},
    )


class OffDistributionWarning(UserWarning):
    """The activations differ from those that the oracle was trained on; answers are shown with that caveat."""


def warn_other_base(spec: OracleSpec, model: Model) -> None:
    """Warn if the loaded base is not the one that the spec names."""
    base = model.checkpoint.base if model.checkpoint is not None else None
    names = [name.rstrip("/").split("/")[-1].casefold() for name in (spec.base_model, base) if name]
    if len(names) == 2 and names[0] != names[1]:
        warnings.warn(
            f"the oracle was trained on {spec.base_model}, the model is {base}. Correct only if it is a copy of that.",
            OffDistributionWarning,
            stacklevel=3,
        )


def warn_off_distribution(feats: Features, spec: OracleSpec, model: Model) -> None:
    """Warn of layers, base weights, differences and null vectors that the oracle never saw in training."""
    for message in _off_distribution(feats, spec, model):
        warnings.warn(message, OffDistributionWarning, stacklevel=4)


def _off_distribution(feats: Features, spec: OracleSpec, model: Model) -> Iterator[str]:
    trained = set(spec.layer_indices(model.n_layers))
    untrained = sorted({slot.layer for slot in feats.slots} - trained)
    if untrained and spec.origin != "assumed":
        yield f"layers {untrained} are not among those that the oracle was trained on ({sorted(trained)})."
    read, own = feats.provenance.get("base_sha256"), model.fingerprint.weights_sha256 if model.fingerprint else None
    if read is not None and own is not None and read != own:
        yield (
            f"the activations ({feats.slots[0].source}) come from other base weights than the oracle's "
            f"({read[:12]}, {own[:12]}): it was not trained on these activations."
        )
    sources = sorted({slot.source for slot in feats.slots if " - " in slot.source})
    if sources:
        yield (
            f"{', '.join(sources)}: oracles are trained on activations, not on differences; look at the controls first."
        )
    if feats.null_slots and feats.provenance.get("control") != "zero":
        first = feats.slots[feats.null_slots[0]]
        yield (
            f"{len(feats.null_slots)} vectors are shorter than a millionth of their layer's median, the first at "
            f"{first}: their direction is rounding noise, so noise is injected there."
        )
