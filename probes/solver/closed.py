"""Probes in closed form: ridge with exact leave-group-out for any number of labels, class means, LDA."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from probes.solver.spaces import symmetric_product


@dataclass(frozen=True)
class Linear:
    """score = feats · coefᵀ + intercept for every label, in raw units: coef [label, d_feature], intercept [label]."""

    coef: Float[Tensor, "label d_feature"]
    intercept: Float[Tensor, "label"]

    def __call__(self, feats: Float[Tensor, "example d_feature"]) -> Float[Tensor, "label example"]:
        return self.coef @ feats.to(self.coef.dtype).T + self.intercept[:, None]


def ridge(
    feats: Float[Tensor, "example d_feature"],
    targets: Float[Tensor, "label example"],
    *,
    alpha: float,
    weights: Float[Tensor, "example"] | None = None,
) -> Linear:
    """Least squares with a penalty on the coefficients and none on the intercept, for all labels at once.

        minimise  sum_i c_i (x_i·w + b - y_i)² + alpha ‖w‖²;   w = (XᵀcX + alpha I)⁻¹ Xᵀc y  on centred data

    One Cholesky of the smaller of d x d and n x n (w = Xᵀ a, a = (X c Xᵀ + alpha I)⁻¹ ..., on rows scaled by √c).

    Args:
        feats: standardised or raw, float32 or float64 (the result has its dtype).
        alpha: > 0; 1/C in the units of the logistic probe.
    Raises:
        ValueError: alpha <= 0.
    Source: Hoerl & Kennard (1970); equals sklearn.linear_model.Ridge, tests/test_probe_closed.py.
    """
    if not alpha > 0:
        raise ValueError(
            f"alpha: expected a penalty > 0, got {alpha!r}. A probe with more features than rows needs one."
        )
    c = feats.new_ones(len(feats)) if weights is None else weights.to(feats.dtype)
    share = c / c.sum()
    mean_x, mean_y = share @ feats, targets.to(feats.dtype) @ share
    root = c.sqrt()  # weighted least squares is plain least squares on rows scaled by √c
    x, y = (feats - mean_x) * root[:, None], (targets.to(feats.dtype) - mean_y[:, None]) * root
    n, d = x.shape
    if n <= d:
        a = _solve_spd(symmetric_product(x), alpha, y.T)
        coef = a.T @ x
    else:
        coef = _solve_spd(symmetric_product(x.T), alpha, x.T @ y.T).T
    return Linear(coef, mean_y - coef @ mean_x)


def _solve_spd(matrix: Tensor, alpha: float, right: Tensor) -> Tensor:
    matrix.diagonal().add_(alpha)  # in place: the caller's product is not used again
    return torch.cholesky_solve(right, torch.linalg.cholesky(matrix))


@dataclass(frozen=True)
class LeaveOut:
    """Factors of one ridge problem from which the held-out scores of any label follow.

    For the smoother H of the full data (intercept included) and a held-out set g,

        y_g - score_g = (I - H_gg)⁻¹ (y - H y)_g       exactly what refitting without g would give

    Attributes:
        annihilator: I - H [example, example], or None when `root` holds it in factored form.
        root:        [example, d_feature + 1] with H = root · rootᵀ.
        folds:       rows of each held-out set; rows in none of them are always in training.
        inverses:    (I - H_gg)⁻¹ of each.
    """

    annihilator: Float[Tensor, "example example"] | None
    root: Float[Tensor, "example rank"] | None
    folds: tuple[Int[Tensor, "_"], ...]
    inverses: tuple[Float[Tensor, "_ _"], ...]

    def __call__(self, targets: Float[Tensor, "label example"]) -> Float[Tensor, "label example"]:
        """Held-out score of every row for every label; NaN for rows in no held-out set."""
        return self.held_out(targets, self.residuals(targets))

    def residuals(self, targets: Float[Tensor, "label example"]) -> Float[Tensor, "label example"]:
        """y - H y of the fit to all rows; its coefficients are residuals @ feats / alpha."""
        if self.annihilator is not None:
            return targets.to(self.annihilator.dtype) @ self.annihilator
        assert self.root is not None
        y = targets.to(self.root.dtype)
        return y - (y @ self.root) @ self.root.T

    def held_out(
        self, targets: Float[Tensor, "label example"], residual: Float[Tensor, "label example"]
    ) -> Float[Tensor, "label example"]:
        """Held-out scores where the residuals are known already."""
        y = targets.to(residual.dtype)
        out = torch.full_like(residual, torch.nan)
        for rows, inverse in zip(self.folds, self.inverses, strict=True):
            out[:, rows] = y[:, rows] - residual[:, rows] @ inverse.T
        return out


def leave_out_ridge(
    feats: Float[Tensor, "example d_feature"],
    fold_of: Int[Tensor, "example"],
    *,
    alpha: float,
    kernel: Float[Tensor, "example example"] | None = None,
    scatter: Float[Tensor, "d_feature d_feature"] | None = None,
) -> LeaveOut:
    """Prepare exact leave-group-out scores of the ridge probe: the cost per further label is two products.

        n <= d:  I - H = alpha·(G₀ - u uᵀ/(1ᵀu)),  G₀ = (K + alpha I)⁻¹,  u = G₀ 1
        n >  d:  H = Z Zᵀ + 1 1ᵀ/n,  Z = X (XᵀX + alpha I)^(-1/2 Cholesky),  X centred

    Args:
        feats: on one common scale: a scale per fold has no such formula. float32 or wider.
        fold_of: held-out set of each row, -1 for rows that are always in training.
        kernel, scatter: feats·featsᵀ, featsᵀ·feats of the centred feats, where one is known already.
    Raises:
        ValueError: alpha <= 0.
    Source: block form of Allen's PRESS (1974); refitting gives the same numbers, tests/test_probe_closed.py.
    """
    if not alpha > 0:
        raise ValueError(f"alpha: expected a penalty > 0, got {alpha!r}.")
    n, d = feats.shape
    folds = tuple((fold_of == g).nonzero()[:, 0] for g in fold_of.unique().tolist() if g >= 0)
    if n <= d or kernel is not None:
        matrix = symmetric_product(feats - feats.mean(dim=0)) if kernel is None else kernel.clone()
        matrix.diagonal().add_(alpha)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(matrix))
        u = inverse.sum(dim=1)
        # the rank-one term is the intercept, which has no penalty
        annihilator = alpha * (inverse - torch.outer(u, u) / u.sum())
        return LeaveOut(annihilator, None, folds, tuple(_inverse(annihilator[g][:, g]) for g in folds))
    x = feats - feats.mean(dim=0)
    gram = symmetric_product(x.T) if scatter is None else scatter.clone()
    gram.diagonal().add_(alpha)
    # H is kept as root · rootᵀ [n, d + 1]: for n > d the n x n matrix would not fit where the rows do
    z = torch.linalg.solve_triangular(torch.linalg.cholesky(gram), x.T, upper=False).T
    root = torch.cat([z, z.new_full((n, 1), n**-0.5)], dim=1)
    eye = [torch.eye(len(g), dtype=x.dtype, device=x.device) for g in folds]
    blocks = tuple(_inverse(one - root[g] @ root[g].T) for one, g in zip(eye, folds, strict=True))
    return LeaveOut(None, root, folds, blocks)


def _inverse(block: Tensor) -> Tensor:
    return torch.cholesky_inverse(torch.linalg.cholesky(block))


def mass_mean(
    feats: Float[Tensor, "example d_feature"],
    is_positive: Float[Tensor, "label example"],
    weights: Float[Tensor, "label example"],
) -> Linear:
    """Difference of class means, with the threshold half way between them.

        coef = mu₊ - mu₋;   intercept = -coef · (mu₊ + mu₋)/2

    Args:
        is_positive: 0/1 per label;  weights: >= 0, 0 for held-out rows.
    Raises:
        ValueError: a label whose weighted rows all have one class.
    Source: Marks & Tegmark, arXiv 2310.06824, §4 (the threshold is ours; they have none).
    """
    positive, negative = weights * is_positive, weights * (1 - is_positive)
    n_pos, n_neg = positive.sum(dim=1, keepdim=True), negative.sum(dim=1, keepdim=True)
    if not bool(((n_pos > 0) & (n_neg > 0)).all()):
        raise ValueError("is_positive: expected both classes among the weighted rows of every label. Drop that label.")
    mu_pos, mu_neg = (positive / n_pos) @ feats, (negative / n_neg) @ feats
    coef = mu_pos - mu_neg
    return Linear(coef, -(coef * (mu_pos + mu_neg)).sum(dim=1) / 2)


def lda(
    feats: Float[Tensor, "example d_feature"],
    is_positive: Float[Tensor, "label example"],
    weights: Float[Tensor, "example"],
    *,
    alpha: float,
) -> Linear:
    """Class means corrected for the covariance inside classes: "mass mean, iid", or regularised LDA.

        coef = n (S_w + alpha I)⁻¹ (mu₊ - mu₋);   intercept = -coef·(mu₊ + mu₋)/2 + log(n₊/n₋)

    S_w is the scatter inside classes. By Sherman & Morrison coef is the ridge direction rescaled: with targets
    0/1, h = n₊n₋/n and m = ridge·(mu₊ - mu₋),  coef = n · ridge / (h (1 - m)).

    Raises:
        ValueError: as `ridge` and `mass_mean`.
    Source: Marks & Tegmark §4 ("iid"); Friedman, JASA 84 (1989) 165 for the ridge.
    """
    means = mass_mean(feats, is_positive, weights.expand_as(is_positive))
    # S_w is the scatter about both class means; ridge has the total scatter, which is S_w + h·δδᵀ: rank one apart
    direct = ridge(feats, is_positive, alpha=alpha, weights=weights)
    n_pos = (is_positive * weights).sum(dim=1)
    n = weights.sum()
    h, m = n_pos * (n - n_pos) / n, (direct.coef * means.coef).sum(dim=1)
    coef = direct.coef * (n / (h * (1 - m)))[:, None]
    midpoint = _midpoints(feats, is_positive, weights)
    return Linear(coef, -(coef * midpoint).sum(dim=1) + (n_pos / (n - n_pos)).log())


def _midpoints(feats: Tensor, is_positive: Tensor, weights: Tensor) -> Tensor:
    positive, negative = is_positive * weights, (1 - is_positive) * weights
    return (
        (positive / positive.sum(dim=1, keepdim=True)) @ feats + (negative / negative.sum(dim=1, keepdim=True)) @ feats
    ) / 2
