"""Remove the span of other vectors from a vector, in one of three metrics, and the covariance for two of them. Tensors
only."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Moments:
    """n rows with mean m and scatter S = Σ (x - m)(x - m)ᵀ (its diagonal alone where `scatter` has one axis).

        (n, m, S) + (n', m', S') = (N, m + (n'/N) δ, S + S' + (n n'/N) δ δᵀ),   N = n + n', δ = m' - m

    Source: Chan, Golub & LeVeque 1979; exact in exact arithmetic, and no sum of squares ever cancels.
    """

    n: int
    mean: Float[Tensor, "d_model"]
    scatter: Float[Tensor, "d_model"] | Float[Tensor, "d_model d_model"]

    @classmethod
    def of(cls, feats: Float[Tensor, "row d_model"], *, full: bool = False) -> Moments:
        """Of a block of rows, in any dtype. `full` keeps the whole scatter matrix, not its diagonal alone."""
        wide = feats.detach().cpu().double()
        if wide.ndim != 2:
            raise ValueError(f"feats: expected [row, d_model], got shape {tuple(feats.shape)}.")
        d = wide.shape[1]
        if not len(wide):
            return cls(0, wide.new_zeros(d), wide.new_zeros(d, d) if full else wide.new_zeros(d))
        mean = wide.mean(dim=0)
        centred = wide - mean
        return cls(len(wide), mean, centred.T @ centred if full else centred.square().sum(dim=0))

    def __add__(self, other: Moments) -> Moments:
        if self.scatter.shape != other.scatter.shape:
            raise ValueError(
                f"moments of different shapes cannot be merged: scatter {list(self.scatter.shape)} and "
                f"{list(other.scatter.shape)}. Use one width, and full=True on both sides or on neither."
            )
        n = self.n + other.n
        if not self.n or not other.n:
            return other if not self.n else self
        delta = other.mean - self.mean
        between = torch.outer(delta, delta) if self.is_full else delta.square()
        weight = self.n * other.n / n
        return Moments(n, self.mean + delta * (other.n / n), self.scatter + other.scatter + weight * between)

    @property
    def is_full(self) -> bool:
        return self.scatter.ndim == 2


def pooled_covariance(parts: list[Moments], *, shrinkage: float = 0.1) -> Float[Tensor, "d_model d_model"]:
    """Within-class covariance of several classes, shrunk toward the identity, float64.

        Σ = (1 - λ) S + λ (tr S / d) I,     S = Σ_c S_c / Σ_c (n_c - 1)

    Args:
        parts: full moments of each class.
        shrinkage: λ in [0, 1]; above 0 it makes Σ positive definite where there are fewer rows than dimensions.
    Raises:
        ValueError: moments without the whole scatter, fewer than 2 rows in every class, or a bad shrinkage.
    """
    if not 0 <= shrinkage <= 1:
        raise ValueError(f"shrinkage: expected a number from 0 to 1, got {shrinkage}.")
    if not parts or not all(one.is_full for one in parts):
        raise ValueError("expected moments with the whole scatter matrix: Moments.of(feats, full=True).")
    freedom = sum(one.n - 1 for one in parts if one.n)
    if freedom < 1:
        raise ValueError(f"expected at least 2 rows in a class, got {[one.n for one in parts]}.")
    within = torch.stack([one.scatter for one in parts]).sum(dim=0) / freedom
    eye = torch.eye(len(within), dtype=within.dtype)
    return (1 - shrinkage) * within + shrinkage * within.diagonal().mean() * eye


Metric = Literal["euclidean", "cov", "leace"]
METRICS: tuple[Metric, ...] = ("euclidean", "cov", "leace")
WARN_BELOW = 0.1


class ShortResidueWarning(UserWarning):
    """Less than a tenth of the direction is left, so its unit vector is mostly noise of the estimate."""


@dataclass(frozen=True, eq=False)
class Residue:
    """A vector orthogonalized against its nuisances, and how much of it is left.

    Attributes:
        vec:          [d_model] float64, v⊥.
        kept:         ‖v⊥‖ / ‖v‖.
        cosine_before, cosine_after: cosine of v and of v⊥ with each nuisance, in the order given (Euclidean, whatever
                      the metric: with "cov" and "leace" another product is zero).
        product_after: cosine of v⊥ and each nuisance in the metric that was used; 0 without ridge.
        rank, n_dropped: dimensions removed, and columns beyond them (near-duplicates).
        names:        names of the nuisances.
    """

    vec: Float[Tensor, "d_model"]
    kept: float
    cosine_before: tuple[float, ...]
    cosine_after: tuple[float, ...]
    product_after: tuple[float, ...]
    rank: int
    n_dropped: int
    names: tuple[str, ...]
    metric: Metric
    ridge: float

    def report(self) -> str:
        """Text for a terminal: the kept fraction, and the cosine with each nuisance before and after."""
        exact = f"ridge {self.ridge:g}" if self.ridge else "exact"
        lines = [
            f"kept {self.kept:.4f} of the length; {self.rank} of {len(self.names)} directions removed "
            f"({self.metric}, {exact})" + (f", {self.n_dropped} dropped as near-duplicates" if self.n_dropped else "")
        ]
        width = max(map(len, self.names))
        rows = zip(self.names, self.cosine_before, self.cosine_after, strict=True)
        lines += [
            f"  cosine with {name:<{width}}  {before:+.4f} before, {after:+.1e} after" for name, before, after in rows
        ]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, object]:
        """Plain JSON values, without the vector."""
        return {key: value for key, value in vars(self).items() if key != "vec"}

    @classmethod
    def from_dict(cls, vec: Float[Tensor, "d_model"], values: Mapping[str, Any]) -> Residue:
        """The residue whose vector and `as_dict` these are."""
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(vec.double(), **plain)


def remove_span(
    vec: Float[Tensor, "d_model"],
    against: Sequence[Tensor] | Float[Tensor, "k d_model"],
    *,
    rtol: float = 1e-4,
    ridge: float = 0.0,
    metric: Metric = "euclidean",
    cov: Float[Tensor, "d_model d_model"] | None = None,
    names: Sequence[str] = (),
) -> Residue:
    """Remove from `vec` its component in the span of `against`, in float64.

        v⊥ = v - N (Nᵀ M N)⁻¹ Nᵀ M v        M = I (euclidean), Σ (cov), Σ⁻¹ (leace)

    euclidean: v⊥ · n = 0.  cov: the scores h·v⊥ and h·n are uncorrelated where h has covariance Σ.  leace: adding v⊥
    leaves the best linear readout Σ⁻¹n of every nuisance unchanged. N is cut to its numerical rank: columns are
    normalised, and of their singular values only those above rtol · σ₁ count, so that two near-duplicates remove one
    direction and not the noise between them. The step is done twice, to remove rounding.

    Args:
        ridge: λ >= 0 on unit columns: v - N (Nᵀ M N + λ·m̄ I)⁻¹ Nᵀ M v with m̄ the mean diagonal of Nᵀ M N (1 in the
            Euclidean metric); soft removal for nuisances that are themselves noisy. It acts once, on all columns.
        cov: Σ, for the metrics that need it: within-class covariance, shrunk (`steering.residue`).
        names: names of the nuisances, for the report.
    Raises:
        ValueError: no nuisances or a zero one, other widths, a bad option, or nothing left (kept <= rtol).
    Warns:
        ShortResidueWarning: kept < 0.1.
    Source: rank-cut least squares; the leace metric is the projection of Belrose et al., arXiv 2306.03819, thm 4.3.
    """
    v = vec.detach().double().cpu()
    columns = _columns(v, against)
    labels = tuple(names) or tuple(f"against[{i}]" for i in range(columns.shape[1]))
    _check_options(rtol, ridge, metric, cov, len(v))
    weights = _weights(metric, cov, len(v))
    u, values, _ = torch.linalg.svd(columns, full_matrices=False)
    basis = u[:, values > rtol * values[0]]
    left = _remove(v, columns, weights, ridge) if ridge else _remove(_remove(v, basis, weights), basis, weights)
    kept = float(left.norm() / v.norm())
    if not kept > rtol:
        raise ValueError(
            f"nothing is left of the direction: it is in the span of {', '.join(labels)} (kept fraction {kept:.1e}). "
            f"Remove fewer directions, or soften the removal with ridge."
        )
    if kept < WARN_BELOW:
        warnings.warn(f"only {kept:.3f} of the direction is left.", ShortResidueWarning, stacklevel=3)
    return Residue(
        vec=left,
        kept=kept,
        cosine_before=_cosines(v, columns),
        cosine_after=_cosines(left, columns),
        product_after=_cosines(left, columns, weights),
        rank=basis.shape[1],
        n_dropped=columns.shape[1] - basis.shape[1],
        names=labels,
        metric=metric,
        ridge=ridge,
    )


def _remove(v: Tensor, columns: Tensor, weights: Tensor | None, ridge: float = 0.0) -> Tensor:
    weighted = columns if weights is None else weights @ columns
    gram = columns.T @ weighted
    gram = gram + ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    return v - columns @ torch.linalg.solve(gram, weighted.T @ v)


def _columns(v: Tensor, against: Sequence[Tensor] | Tensor) -> Tensor:
    """[d_model, k] unit columns."""
    if len(against) == 0:
        raise ValueError("against: expected at least one direction, got none.")
    for i, one in enumerate(against):
        if one.shape != v.shape:
            raise ValueError(f"against[{i}]: expected a vector of width {len(v)}, got shape {tuple(one.shape)}.")
    columns = torch.stack([one.detach().double().cpu() for one in against], dim=1)
    lengths = columns.norm(dim=0)
    for i, length in enumerate(lengths.tolist()):
        if not 0 < length < float("inf"):
            raise ValueError(f"against[{i}]: expected a finite vector other than zero, its length is {length}.")
    if not 0 < float(v.norm()) < float("inf"):
        raise ValueError(f"the direction to orthogonalize has length {float(v.norm())}; expected a finite one above 0.")
    return columns / lengths


def _check_options(rtol: float, ridge: float, metric: str, cov: Tensor | None, d: int) -> None:
    if metric not in METRICS:
        raise ValueError(f"metric: expected one of {', '.join(METRICS)}, got {metric!r}.")
    if (cov is None) != (metric == "euclidean"):
        what = "needs the covariance: pass cov=" if cov is None else "takes no covariance; leave cov= out"
        raise ValueError(f"metric={metric!r} {what} (a [{d}, {d}] within-class covariance, see within_covariance).")
    if cov is not None and tuple(cov.shape) != (d, d):
        raise ValueError(f"cov: expected shape [{d}, {d}], got {tuple(cov.shape)}.")
    if not 0 < rtol < 1 or not ridge >= 0:
        raise ValueError(f"expected 0 < rtol < 1 and ridge >= 0, got rtol={rtol}, ridge={ridge}.")


def _weights(metric: Metric, cov: Tensor | None, d: int) -> Tensor | None:
    if cov is None:
        return None
    wide = cov.detach().double().cpu()
    wide = (wide + wide.T) / 2
    values, vectors = torch.linalg.eigh(wide)
    floor = float(values[-1]) * 1e-10
    if float(values[0]) <= floor:
        raise ValueError(
            f"cov: expected a positive definite matrix, its smallest eigenvalue is {float(values[0]):.2e} of a largest "
            f"{float(values[-1]):.2e}. Shrink it (within_covariance(..., shrinkage=0.1)); fewer rows than dimensions "
            f"never give full rank."
        )
    return wide if metric == "cov" else (vectors / values) @ vectors.T


def _cosines(v: Tensor, columns: Tensor, weights: Tensor | None = None) -> tuple[float, ...]:
    right = columns if weights is None else weights @ columns
    own = v if weights is None else weights @ v
    lengths = (columns * right).sum(dim=0).sqrt() * (v @ own).sqrt()
    return tuple(((v @ right) / lengths).tolist())
