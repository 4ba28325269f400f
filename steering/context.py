"""`steer`: act along directions during every forward pass inside a block, `generate` included."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

from jaxtyping import Bool
from torch import Tensor, nn

from interp.edits import Edit
from interp.hooks import edit
from interp.model import Model
from interp.passes import TokenLists
from interp.positions import Answer, Positions, parse_positions
from interp.site import Site
from steering.direction import Direction, Directions, Unit
from steering.operators import OPS, Op, make_edit

Tokens = str | Positions | TokenLists | Bool[Tensor, "item pos"]


class OtherCheckpointWarning(UserWarning):
    """A direction acts on another checkpoint than the one it was fitted on, or that cannot be told."""


@contextmanager
def steer(
    model: Model | nn.Module,
    direction: Direction | Directions | Sequence[Direction],
    alpha: float | None = None,
    *,
    unit: Unit = "resid",
    positions: Tokens = "generated",
    op: Op = "add",
    layers: Sequence[int] | Literal["own", "all"] = "own",
    keep_norm: bool = False,
) -> Iterator[Model]:
    """Steer the model inside the block, in plain passes and in `generate`, with and without a KV cache.

        with steer(model, direction, alpha=0.1, unit="resid", positions="generated"):
            module.generate(**batch, max_new_tokens=20)

    +alpha moves toward the direction's class `toward`; alpha = 0 changes no bit. Nothing of the model is changed, and
    hooks are gone after the block whatever happens in it.

    Args:
        direction: one, several, or one per layer; each acts at its own site.
        alpha: dose in `unit` for "add" (required); share of the way for the other operators, 1 if left out.
        unit:  "resid" is a fraction of the mean residual norm; see `Direction.scale`.
        positions: "generated" (last token of the prompt and every generated one), "last" (last token of the prompt
            alone), "prompt", "all", "from:K", any other rule, token numbers per item, or a mask [item, column] over
            the columns of the prompt. Counted from each item's first real token, so padding and beams move nothing.
        op:    see `steering.operators.make_edit`; "ablate_everywhere" ablates in all that is written into the stream.
        layers: "own" is the site of each direction; numbers or "all" are `resid_post` of those layers.
        keep_norm: rescale each changed activation to the length that it had.
    Yields:
        The model.
    Raises:
        ValueError: another width, a layer that the model does not have, a dose that is not a number, two directions to
            clamp at one site; before any hook is placed.
    Warns:
        OtherCheckpointWarning: it acts on a sibling of the checkpoint that it was fitted on, or that cannot be told.
    """
    model = Model.wrap(model)
    edits = steering_edits(model, direction, alpha, unit=unit, op=op, layers=layers, keep_norm=keep_norm)
    where = resolve_positions(positions)
    for sentence in dict.fromkeys(one.check_acts_on(model) for one in _listed(direction)):
        if sentence:
            warnings.warn(sentence, OtherCheckpointWarning, stacklevel=3)
    with edit(model, edits, positions=where):
        yield model


def steering_edits(
    model: Model,
    direction: Direction | Directions | Sequence[Direction],
    alpha: float | None = None,
    *,
    unit: Unit = "resid",
    op: Op = "add",
    layers: Sequence[int] | Literal["own", "all"] = "own",
    keep_norm: bool = False,
) -> Mapping[str | Site, Edit]:
    """The edit of each site that `steer` places, for `interp.hooks.edit` or for a sweep. Raises as `steer`."""
    if op not in OPS:
        raise ValueError(f"op: expected one of {', '.join(OPS)}, got {op!r}.")
    if alpha is None and op == "add":
        raise ValueError("alpha: op='add' needs a dose, such as alpha=0.1 with unit='resid' (a tenth of the norm).")
    dose = 1.0 if alpha is None else float(alpha)
    if not math.isfinite(dose):
        raise ValueError(f"alpha: expected a finite number, got {alpha}.")
    listed = _listed(direction)
    for one in listed:
        one.check_acts_on(model)
    if op == "ablate_everywhere":
        if layers != "own":
            raise ValueError("op='ablate_everywhere' acts in every layer; leave layers out.")
        everywhere = make_edit(listed, alpha=dose, op="ablate", keep_norm=keep_norm)
        return dict.fromkeys(everywhere_sites(model), everywhere)
    by_site: dict[Site, list[Direction]] = {}
    for one in listed:
        for site in _sites(one, layers, model):
            by_site.setdefault(site, []).append(one)
    return {site: make_edit(at, alpha=dose, unit=unit, op=op, keep_norm=keep_norm) for site, at in by_site.items()}


def everywhere_sites(model: Model) -> tuple[Site, ...]:
    """Sites after which nothing in the residual stream has escaped an edit: its start, and after each branch is added.

    Projecting the stream there equals projecting what the embedding, every attention and every MLP write into it, and
    holds too where a norm stands between the branch and the stream, and where positions are embedded.
    """
    sites = [Site("resid_pre", 0)]
    for layer in model.layout.layers:
        if model.layout.has("resid_mid", layer.index):
            sites.append(Site("resid_mid", layer.index))
        sites.append(Site("resid_post", layer.index))
    return tuple(sites)


def resolve_positions(positions: Tokens) -> Literal["all"] | Positions | TokenLists | Tensor:
    """What `interp.hooks.edit` takes. "last" is the last token of the prompt, also while a model generates.

    Raises:
        ValueError: text that is no rule, or several rules.
    """
    if not isinstance(positions, str):
        return positions
    if positions == "all":
        return "all"
    if positions == "last":
        return Answer()
    rules = parse_positions(positions)
    if len(rules) != 1:
        raise ValueError(f"positions {positions!r}: expected one rule, got {len(rules)}.")
    return rules[0]


def _sites(one: Direction, layers: Sequence[int] | Literal["own", "all"], model: Model) -> list[Site]:
    if layers == "own":
        return [one.site]
    chosen = range(model.n_layers) if layers == "all" else layers
    outside = [layer for layer in chosen if not 0 <= int(layer) < model.n_layers]
    if outside:
        raise ValueError(f"layers: {model.name} has layers 0-{model.n_layers - 1}, got {outside[0]}.")
    return [Site("resid_post", int(layer)) for layer in chosen]


def _listed(direction: Direction | Directions | Sequence[Direction]) -> list[Direction]:
    listed = [direction] if isinstance(direction, Direction) else list(
        direction.values() if isinstance(direction, Directions) else direction
    )  # fmt: skip
    if not listed:
        raise ValueError("direction: expected at least one, got none.")
    return listed
