"""Simulated studies with the structure of real ones: groups of any sizes, intraclass correlation, skew, boundaries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from interp.stats._check import choice

Shape: TypeAlias = Literal["gaussian", "skewed", "binary"]
SHAPES: tuple[Shape, ...] = ("gaussian", "skewed", "binary")


@dataclass(frozen=True)
class Design:
    """How many examples each independent group has, how alike they are, and how the values are distributed.

        gaussian: mean + sqrt(icc)·u_group + sqrt(1 - icc)·e_example, both standard normal (standard deviation 1)
        skewed:   the same with u and e standardised lognormal (sigma 1: skewness 6.2)
        binary:   e ~ Bernoulli(p_group), p_group ~ Beta with mean `mean` and intraclass correlation `icc`

    Attributes:
        sizes: examples of each group [group].
        icc:   intraclass correlation, in [0, 1).
        shape: distribution of the values.
        mean:  true mean of the values; a rate strictly between 0 and 1 where binary.
    Raises:
        ValueError: fewer than two groups, an empty group, icc outside [0, 1), a binary mean outside (0, 1).
    """

    sizes: tuple[int, ...]
    icc: float = 0.3
    shape: Shape = "gaussian"
    mean: float = 0.0

    def __post_init__(self) -> None:
        choice("shape", self.shape, SHAPES)
        if len(self.sizes) < 2 or min(self.sizes) < 1:
            raise ValueError(f"sizes: expected at least 2 groups of at least 1 example, got {self.sizes}.")
        if not 0 <= self.icc < 1:
            raise ValueError(f"icc: expected a number in [0, 1), got {self.icc!r}.")
        if self.shape == "binary" and not 0 < self.mean < 1:
            raise ValueError(f"mean: expected a rate strictly between 0 and 1 for binary values, got {self.mean!r}.")

    @property
    def groups(self) -> np.ndarray:
        """Group of each example [example], int64."""
        return np.repeat(np.arange(len(self.sizes)), self.sizes)

    def draw(self, rng: np.random.Generator, n_columns: int | None = None) -> np.ndarray:
        """One study: values [example], or [example, column] of independent columns, float64."""
        width, code = 1 if n_columns is None else n_columns, self.groups
        if self.shape == "binary":
            values = (rng.random((len(code), width)) < self._rates(rng, width)[code]).astype(np.float64)
        else:
            u, e = self._noise(rng, (len(self.sizes), width)), self._noise(rng, (len(code), width))
            values = self.mean + np.sqrt(self.icc) * u[code] + np.sqrt(1 - self.icc) * e
        return values[:, 0] if n_columns is None else values

    def _rates(self, rng: np.random.Generator, width: int) -> np.ndarray:
        if self.icc == 0:
            return np.full((len(self.sizes), width), self.mean)
        strength = (1 - self.icc) / self.icc
        return rng.beta(self.mean * strength, (1 - self.mean) * strength, size=(len(self.sizes), width))

    def _noise(self, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        normal = rng.standard_normal(shape)
        if self.shape != "skewed":
            return normal
        return (np.exp(normal) - np.exp(0.5)) / np.sqrt((np.e - 1) * np.e)


def group_sizes(n_groups: int, mean_size: int, *, equal: bool = True) -> tuple[int, ...]:
    """Sizes of `n_groups` groups: all `mean_size`, or spread over a factor of about 10 with that mean.

    The unequal sizes are quantiles of a lognormal with sigma 0.8, so they are the same at every call.
    """
    if equal:
        return (mean_size,) * n_groups
    from scipy.special import ndtri

    raw = np.exp(0.8 * ndtri((np.arange(n_groups) + 0.5) / n_groups))
    return tuple(int(max(1, round(size))) for size in raw / raw.mean() * mean_size)
