"""Dose sweep: every arm at every strength on one item, as rows that share the item's one clean prefix."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.model import Model
from interp.positions import Last, Positions, parse_position
from interp.prompt import Example, Prompt
from interp.sweep import sweep
from interp.sweep.intervention import Tokens
from interp.sweep.read import answer_logits, final_norm
from steering.strengths import DosePlan

_ROWS = 64
"""Rows whose logits over the whole vocabulary are in memory at once."""


@dataclass(frozen=True, eq=False)
class DoseItem:
    """One prompt that ends at the token where its label is decided, and the labels to choose from.

    Attributes:
        example: the item: id, gold label, groups, metadata.
        prompt: input of the model; a `Prompt` if positions name spans.
        labels: strings of the choices.
        label_ids: tokens that count as each choice.
        group: independent unit.
        baseline: the prompt with an instruction instead of steering; None: no prompt baseline.
    Raises:
        ValueError: fewer than two labels, a label without tokens, a token of two labels.
    """

    example: Example
    prompt: Prompt | tuple[int, ...]
    labels: tuple[str, ...]
    label_ids: tuple[tuple[int, ...], ...]
    group: str
    baseline: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        tokens = [token for ids in self.label_ids for token in ids]
        if len(self.labels) < 2 or len(self.labels) != len(self.label_ids) or not all(self.label_ids):
            raise ValueError(
                f"item {self.example.id!r}: expected two or more labels, each with tokens; got {self.labels}, "
                f"{self.label_ids}."
            )
        if len(set(tokens)) < len(tokens):
            raise ValueError(
                f"item {self.example.id!r}: two labels share a first token. Use labels with different ones."
            )

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(self.prompt.ids if isinstance(self.prompt, Prompt) else self.prompt)

    @property
    def gold(self) -> int | None:
        """Index of the gold label; None if there is none."""
        label = None if self.example.label is None else str(self.example.label)
        return self.labels.index(label) if label in self.labels else None

    @property
    def sha256(self) -> str:
        content = [
            self.example.id,
            self.example.label,
            self.ids,
            self.labels,
            self.label_ids,
            self.group,
            self.baseline,
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class DoseOutcome:
    """The effect of every row on one item.

    Attributes:
        logp: log-probability of each label over the whole vocabulary, nats; for a label of several tokens, their sum.
        top: 1 if the most likely token belongs to a label.
        kl: KL(p₀ ‖ p_row) over the whole vocabulary at the last token, nats; 0 in row 0.
        prompted: logp of each label, then top, under the prompt baseline; NaN without one.
    """

    key: str
    logp: Float[np.ndarray, "row label"]
    top: Float[np.ndarray, "row"]
    kl: Float[np.ndarray, "row"]
    prompted: Float[np.ndarray, "label_and_top"]


def read_choices(
    model: Model, label_ids: Sequence[Sequence[int]]
) -> Callable[[Float[Tensor, "row read d_model"]], Float[Tensor, "row read value"]]:
    """A function of the normed residual stream whose first row is the clean run: log p of each label, top, KL."""
    flat = [token for ids in label_ids for token in ids]
    sizes = [len(ids) for ids in label_ids]

    def read(final: Tensor) -> Tensor:
        parts, clean = [], None
        for rows in final.split(_ROWS):
            logp = answer_logits(model, rows, "all").log_softmax(-1)
            clean = logp[:1] if clean is None else clean  # of the same product, so that KL of the clean row is 0
            chosen = logp[..., flat]
            top = (chosen.amax(-1) >= logp.amax(-1)).to(logp)
            kl = (clean.exp() * (clean - logp)).sum(-1).clamp_min(0)
            labels = [part.logsumexp(-1) for part in chosen.split(sizes, dim=-1)]
            parts.append(torch.stack([*labels, top, kl], dim=-1))
        return torch.cat(parts)

    return read


def tokens_of(positions: str | Positions | Sequence[int]) -> Tokens:
    """Tokens to change: "last", "generated" (in a prompt: its last token, which predicts the first new one), "prompt"
    and "all" (every token), or a rule of `interp.positions`.

    Raises:
        ValueError: no rule, or several.
    """
    if not isinstance(positions, str):
        return positions
    if positions in ("all", "prompt"):
        return "all"
    if positions == "generated":
        return Last()
    return parse_position(positions)


@dataclass(frozen=True, eq=False)
class DoseSweep:
    """Items under one plan, one outcome at a time, so that finished ones can be stored.

    Attributes:
        verify: share of the rows of every item that hooked forward passes recompute and compare.
        engine: "reference" computes each row by a hooked forward pass of its own.
    """

    model: Model
    items: Sequence[DoseItem]
    plan: DosePlan
    verify: float = 0.0
    engine: Literal["auto", "reference"] = "auto"
    chunk_bytes: int | None = None
    weights: str = ""
    _interventions: list = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", Model.wrap(self.model))
        names = [item.example.id for item in self.items]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"items: expected at least one, each with an id of its own; got {len(names)}.")
        width = self.model.layout.d_model
        for arm in self.plan.arms:
            if len(arm.unit) != width:
                raise ValueError(
                    f"arm {arm.name!r} has {len(arm.unit)} dimensions, the residual stream of {self.model.name} has "
                    f"{width}. A direction acts on checkpoints of its own width only."
                )
        self._interventions.extend(self.plan.interventions(self.model.device))

    def keys(self) -> list[str]:
        """The key under which each item's outcome is stored: digest of weights, plan and item."""
        return [
            hashlib.sha256(f"{self.weights}{self.plan.sha256}{item.sha256}".encode()).hexdigest()[:32]
            for item in self.items
        ]

    def run(self, *, done: Collection[str] = ()) -> Iterator[tuple[int, DoseOutcome]]:
        """(index of the item, outcome) of every item whose key is not in `done`, in order.

        Raises:
            RuntimeError: a verified row disagrees.
        """
        for index, key in enumerate(self.keys()):
            if key not in done:
                yield index, self.outcome(index, key)

    @torch.no_grad()
    def outcome(self, index: int, key: str = "", *, verify: float | None = None) -> DoseOutcome:
        """The outcome of one item."""
        item = self.items[index]
        result = sweep(
            self.model,
            item.prompt,
            self._interventions,
            read=read_choices(self.model, item.label_ids),
            verify=self.verify if verify is None else verify,
            engine=self.engine,
            chunk_bytes=self.chunk_bytes,
        )
        # strength 0 is the clean run itself, so that it keeps every bit
        values = torch.cat([result.clean[:1, 0], result.rows[:, 0]]).double().cpu().numpy()
        prompted = np.full(values.shape[1] - 1, np.nan)
        if item.baseline is not None:
            prompted = self._prompted(item)
        return DoseOutcome(key, values[:, :-2], values[:, -2], values[:, -1], prompted)

    def _prompted(self, item: DoseItem) -> Float[np.ndarray, "label_and_top"]:
        from interp.hooks import record
        from interp.site import Site

        assert item.baseline is not None
        last = Site("resid_post", self.model.n_layers - 1)
        with record(self.model, [last], positions=[[len(item.baseline) - 1]]) as acts:
            self.model([list(item.baseline)])
        final = final_norm(self.model, acts[last])[:, None]
        return read_choices(self.model, item.label_ids)(final)[0, 0, :-1].double().cpu().numpy()
