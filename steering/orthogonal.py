"""Orthogonalize a direction against others: a `Direction` for `Direction`s, a `Residue` for tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, overload

from jaxtyping import Float
from torch import Tensor

from steering.direction import Direction
from steering.residue import Metric, Residue, remove_span


@overload
def orthogonalize(
    v: Direction,
    against: Sequence[Direction | Tensor],
    *,
    rtol: float = ...,
    ridge: float = ...,
    metric: Metric = ...,
    cov: Tensor | None = ...,
) -> Direction: ...
@overload
def orthogonalize(
    v: Tensor,
    against: Sequence[Direction | Tensor] | Tensor,
    *,
    rtol: float = ...,
    ridge: float = ...,
    metric: Metric = ...,
    cov: Tensor | None = ...,
) -> Residue: ...
def orthogonalize(
    v: Direction | Float[Tensor, "d_model"],
    against: Sequence[Direction | Tensor] | Float[Tensor, "k d_model"],
    *,
    rtol: float = 1e-4,
    ridge: float = 0.0,
    metric: Metric = "euclidean",
    cov: Float[Tensor, "d_model d_model"] | None = None,
) -> Direction | Residue:
    """`v` without its component in the span of `against`; formula and options as `steering.residue.remove_span`.

    A Direction keeps the scales of `v` (delta, resid, sd), so that at the same alpha both add the same norm: otherwise
    the orthogonalized one would seem harmless only because it is shorter. Statistics of the vector itself (d',
    agreement, split-half cosine) become NaN; projections of the class means are recomputed.

    Raises:
        ValueError: as `remove_span`; directions of different sites.

    Example:
        >>> left = orthogonalize(torch.tensor([3.0, 4.0]), against=torch.tensor([[1.0, 0.0]]))
        >>> left.vec.tolist(), round(left.kept, 3)
        ([0.0, 4.0], 0.8)
    """
    options: dict[str, Any] = dict(rtol=rtol, ridge=ridge, metric=metric, cov=cov)
    if isinstance(v, Tensor):
        vectors = [one.vec if isinstance(one, Direction) else one for one in against]
        return remove_span(v, vectors, names=_names(against), **options)
    for one in against:
        if isinstance(one, Direction) and one.site != v.site:
            raise ValueError(
                f"against {one.label!r}: it was fitted at {one.site}, the direction at {v.site}. Residual "
                "streams of different layers are not comparable; fit both at one site."
            )
    residue = remove_span(
        v.vec, [one.vec if isinstance(one, Direction) else one for one in against], names=_names(against), **options
    )
    nan = float("nan")
    stats = replace(v.stats, d_prime=nan, split_half_cosine=nan, pair_agreement=nan, held_out_gap=nan, n_held_out=0)
    name = f"{v.label} without {', '.join(residue.names)}"
    turned = replace(v, vec=residue.vec.float(), stats=stats, removed=residue, name=name)
    return replace(turned, stats=replace(stats, **turned.class_projections()))


def _names(against: Sequence[Direction | Tensor] | Tensor) -> list[str]:
    return [one.label if isinstance(one, Direction) else f"against[{i}]" for i, one in enumerate(against)]
