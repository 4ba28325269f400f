"""Steering: edits of the residual stream along directions (computed in float32), and the block in which they act."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from interp.edits import Edit
from interp.hooks import edit
from interp.model import Model
from interp.passes import TokenLists
from interp.positions import Answer, Positions, parse_position
from interp.site import Site
from steering.direction import Direction, Directions, Unit

Op = Literal["add", "clamp", "affine", "ablate", "ablate_everywhere"]
OPS: tuple[Op, ...] = ("add", "clamp", "affine", "ablate", "ablate_everywhere")
Resid = Float[Tensor, "batch pos d_model"]


def _wide(acts: Tensor) -> Tensor:
    return acts if acts.dtype == torch.float64 else acts.float()


@dataclass(frozen=True, eq=False)
class AddVector:
    """resid + delta, summed in float32 and then cast. A delta of zeros changes no bit."""

    delta: Float[Tensor, "d_model"]

    def __call__(self, acts: Resid, /) -> Resid:
        if not bool(self.delta.any()):
            return acts  # -0.0 + 0.0 is +0.0, which is another bit
        wide = _wide(acts)
        return (wide + self.delta.to(wide)).to(acts.dtype)


@dataclass(frozen=True, eq=False)
class SetCoordinate:
    """resid + share · (target - resid · unit) unit: the coordinate along `unit` moved to `target`, others kept.

    Args:
        target: where the coordinate goes, in activation units (the mean of a class along `unit`, for instance).
        share: 1 sets it, 0 changes no bit.
    """

    unit: Float[Tensor, "d_model"]
    target: float
    share: float = 1.0

    def __call__(self, acts: Resid, /) -> Resid:
        if self.share == 0:
            return acts
        wide = _wide(acts)
        unit = self.unit.to(wide)
        return (wide + self.share * (self.target - (wide @ unit))[..., None] * unit).to(acts.dtype)


@dataclass(frozen=True, eq=False)
class RemoveSpan:
    """resid - share · left (right (resid - reference)): the component in a span removed, relative to a reference point.

    An orthonormal basis R of the span as both sides and a reference of zeros is directional ablation, a mean as
    reference sets the coordinates to the mean's ("mean ablation"); `left` = W⁺U, `right` = UᵀW is a LEACE eraser.

    Args:
        left, right: [k, d_model] rows.
        share: 1 removes all of it, 0 changes no bit.
    """

    left: Float[Tensor, "k d_model"]
    right: Float[Tensor, "k d_model"]
    reference: Float[Tensor, "d_model"]
    share: float = 1.0

    def __call__(self, acts: Resid, /) -> Resid:
        if self.share == 0:
            return acts
        wide = _wide(acts)
        along = (wide - self.reference.to(wide)) @ self.right.to(wide).T
        return (wide - self.share * along @ self.left.to(wide)).to(acts.dtype)


@dataclass(frozen=True, eq=False)
class KeepNorm:
    """The result of another edit, rescaled to the norm of the activation: resid' ‖resid‖ / ‖resid'‖."""

    inner: Edit

    def __call__(self, acts: Resid, /) -> Resid:
        new = self.inner(acts)
        if new is acts:
            return acts
        wide = _wide(new)
        length = wide.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(wide.dtype).tiny)
        return (wide * (_wide(acts).norm(dim=-1, keepdim=True) / length)).to(acts.dtype)


def orthonormal_rows(vectors: Sequence[Float[Tensor, "d_model"]]) -> Float[Tensor, "k d_model"]:
    """Orthonormal basis of a span, float32; vectors of any length count equally, near-duplicates (1e-4) once."""
    units = torch.stack([v.double() / v.double().norm() for v in vectors])
    _, values, rows = torch.linalg.svd(units, full_matrices=False)
    return rows[values > 1e-4 * values[0]].float()


def eraser(
    against: Sequence[Float[Tensor, "d_model"]],
    *,
    cov: Float[Tensor, "d_model d_model"],
    reference: Float[Tensor, "d_model"],
) -> RemoveSpan:
    """LEACE with known moments: the smallest change after which the directions' linear readouts have no information.

        resid - W⁺ U Uᵀ W (resid - reference),    W = Σ^{-1/2},  U an orthonormal basis of the span of W N

    Args:
        against: differences of class means to erase.
        cov: Σ, positive definite (`within_covariance`); many more rows than dimensions, or shrinkage.
        reference: mean of the activations.
    Raises:
        ValueError: Σ is not positive definite.
    Source: Belrose et al., arXiv 2306.03819, theorem 4.3.
    """
    values, vectors = torch.linalg.eigh(cov.double())
    if not float(values[0]) > 1e-10 * float(values[-1]):
        raise ValueError(f"cov: expected a positive definite matrix, smallest eigenvalue {float(values[0]):.2e}.")
    whiten, unwhiten = ((vectors * values**power) @ vectors.T for power in (-0.5, 0.5))
    basis = orthonormal_rows([whiten @ one.double() for one in against]).double()
    return RemoveSpan((basis @ unwhiten).float(), (basis @ whiten).float(), reference.float())


def make_edit(
    directions: Sequence[Direction], *, alpha: float, unit: Unit = "resid", op: Op = "add", keep_norm: bool = False
) -> Edit:
    """The edit of one site that acts along one or several directions.

        add      resid + alpha · scale(unit) · unit vector, of each direction
        clamp    coordinate along the direction set to the mean of class `toward`
        affine   coordinates in the span set to those of the midpoint between the class means
        ablate   coordinates in the span set to 0 (rank k for k directions)

    For all but "add", alpha is the fraction of the full change (1 is all of it) and `unit` is ignored. alpha = 0
    changes no bit.

    Args:
        keep_norm: rescale the result to the length that the activation had.
    Raises:
        ValueError: a unit or a class mean that is not known of a direction; several directions to clamp.
    """
    edit: Edit
    if op == "add":
        delta = torch.stack([alpha * one.scale(unit) * one.unit.double() for one in directions]).sum(dim=0)
        edit = AddVector(delta.float())
    elif op == "clamp":
        edit = _clamp(directions, alpha)
    else:
        rows = orthonormal_rows([one.vec for one in directions])
        reference = _midpoint(directions) if op == "affine" else torch.zeros(rows.shape[1])
        edit = RemoveSpan(rows, rows, reference, alpha)
    return KeepNorm(edit) if keep_norm else edit


def _clamp(directions: Sequence[Direction], share: float) -> Edit:
    if len(directions) != 1:
        raise ValueError(f"op='clamp' sets one coordinate; got {len(directions)} directions at one site.")
    one = directions[0]
    if one.stats.proj_toward != one.stats.proj_toward:
        raise ValueError(f"op='clamp': the mean of {one.toward!r} along direction {one.label!r} is not known.")
    return SetCoordinate(one.unit, one.stats.proj_toward, share)


def _midpoint(directions: Sequence[Direction]) -> Tensor:
    means = [one.means for one in directions if one.means is not None]
    if len(means) != len(directions):
        missing = next(one.label for one in directions if one.means is None)
        raise ValueError(
            f"op='affine' needs the class means of direction {missing!r}, which are not known; use 'ablate'."
        )
    return torch.stack(means).double().mean(dim=(0, 1)).float()


Tokens = str | Positions | TokenLists | Bool[Tensor, "item pos"]


class OtherCheckpointWarning(UserWarning):
    """A direction acts on a checkpoint other than the one it was fitted on, or this cannot be checked."""


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

    +alpha moves toward the direction's class `toward`; alpha = 0 changes no bit. The model itself is not changed, and
    hooks are removed after the block, also after an error.

    Args:
        direction: one, several, or one per layer; each acts at its own site.
        alpha: strength in `unit` for "add" (required); fraction of the full change for the other operators, default 1.
        unit:  "resid" is a fraction of the mean residual norm; see `Direction.scale`.
        positions: "generated" (last token of the prompt and every generated one), "last" (last token of the prompt
            alone), "prompt", "all", "from:K", any other rule, token numbers per item, or a mask [item, column] over
            the columns of the prompt. Counted from each item's first real token, so padding and beams change nothing.
        op:    see `steering.operators.make_edit`; "ablate_everywhere" ablates all that is written into the stream.
        layers: "own" is the site of each direction; numbers or "all" are `resid_post` of those layers.
        keep_norm: rescale each changed activation to the length that it had.
    Yields:
        The model.
    Raises:
        ValueError: another width, a layer that the model does not have, a strength that is not a number, two directions
            to clamp at one site; raised before any hook is placed.
    Warns:
        OtherCheckpointWarning: it acts on a sibling of the checkpoint that it was fitted on, or the checkpoint is not
            known.

    Example:
        >>> direction = Direction(torch.ones(model.d_model), Site("resid_post", 1), toward="formal", away_from="casual")
        >>> with steer(model, direction, alpha=8.0, unit="raw", positions="all"):
        ...     steered = model([[3, 5, 8]]).logits
        >>> bool((steered != model([[3, 5, 8]]).logits).any())
        True
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
        raise ValueError("alpha: op='add' needs a strength, such as alpha=0.1 with unit='resid' (a tenth of the norm).")
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
    """Sites at which an edit reaches everything in the residual stream: its start, and after each branch is added.

    Projecting the stream there equals projecting what the embedding, every attention and every MLP write into it, also
    with a norm between branch and stream, and with position embeddings.
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
        ValueError: text that is not a rule, or several rules.

    Example:
        >>> resolve_positions("span:scenario:last")
        Span(span='scenario', which='last')
    """
    if not isinstance(positions, str):
        return positions
    if positions == "all":
        return "all"
    if positions == "last":
        return Answer()
    return parse_position(positions)


def _sites(one: Direction, layers: Sequence[int] | Literal["own", "all"], model: Model) -> list[Site]:
    if layers == "own":
        return [one.site]
    chosen = range(model.n_layers) if layers == "all" else layers
    outside = [layer for layer in chosen if not 0 <= int(layer) < model.n_layers]
    if outside:
        raise ValueError(f"layers: {model.name} has layers 0-{model.n_layers - 1}, got {outside[0]}.")
    return [Site("resid_post", int(layer)) for layer in chosen]


def _listed(direction: Direction | Directions | Sequence[Direction]) -> list[Direction]:
    listed = (
        [direction]
        if isinstance(direction, Direction)
        else list(direction.values() if isinstance(direction, Directions) else direction)
    )
    if not listed:
        raise ValueError("direction: expected at least one, got none.")
    return listed
