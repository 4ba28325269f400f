"""Strengths of a dose curve, and which rows of a sweep they need: equal vectors are computed once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.edits import Add
from interp.site import Site
from interp.sweep import Intervention
from interp.sweep.intervention import Tokens
from steering.arms import Arm
from steering.direction import UNITS

DEFAULT_ALPHAS = "-0.3:0.3:13"


def parse_alphas(text: str | Sequence[float]) -> tuple[float, ...]:
    """Ascending strengths with exactly one 0: "-0.3:0.3:13" (from:to:count) or "-1,0,0.5".

    Raises:
        ValueError: not numbers, no 0 (changes are measured from it), a repeated strength, or 0 alone.
    """
    try:
        if isinstance(text, str) and ":" in text:
            low, high, count = text.split(":")
            numbers = np.linspace(float(low), float(high), int(count)).tolist()
        else:
            numbers = [float(part) for part in (text.split(",") if isinstance(text, str) else text)]
    except ValueError as error:
        raise ValueError(
            f"alphas {text!r}: expected from:to:count such as -0.3:0.3:13, or numbers like -1,0,1."
        ) from error
    step = max(map(abs, numbers), default=0.0)
    alphas = sorted(0.0 if abs(a) < 1e-9 * step else float(f"{a:.12g}") for a in numbers)
    if 0.0 not in alphas or len(set(alphas)) < len(alphas) or len(alphas) < 2:
        raise ValueError(
            f"alphas {text!r}: expected different strengths, with 0 among them as the baseline of changes; got "
            f"{', '.join(f'{a:g}' for a in alphas) or 'none'}. A count from -a to a must be odd."
        )
    return tuple(alphas)


@dataclass(frozen=True, eq=False)
class DosePlan:
    """Arms at strengths, and the rows they need. Row 0 is the unchanged run: every arm at strength 0.

        resid <- resid + alpha · scale[site] · arm.length · unit

    Attributes:
        scale: length that alpha = 1 adds at each site, in the norm of the residual stream.
        resid_norm: mean norm of the residual stream at each site; alpha · scale / resid_norm is the share of it.
        positions: tokens that are changed.
    Raises:
        ValueError: an unknown unit, a site without scale, a scale that is not positive.
    """

    arms: tuple[Arm, ...]
    alphas: tuple[float, ...]
    unit: str
    scale: Mapping[Site, float]
    resid_norm: Mapping[Site, float]
    positions: Tokens

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ValueError(f"unit {self.unit!r}: expected one of {', '.join(UNITS)}.")
        for site in self.sites:
            if not (self.scale.get(site, 0.0) > 0 and self.resid_norm.get(site, 0.0) > 0):
                raise ValueError(f"site {site}: no scale in unit {self.unit!r}. Fit the direction with its statistics.")

    @property
    def sites(self) -> tuple[Site, ...]:
        return tuple(dict.fromkeys(arm.site for arm in self.arms))

    @property
    def zero(self) -> int:
        """Index of strength 0."""
        return self.alphas.index(0.0)

    @cached_property
    def _table(self) -> tuple[Int[np.ndarray, "arm alpha"], tuple[tuple[int, float], ...]]:
        """Row of each arm and strength, and (arm, strength) of each row after row 0; -v at alpha is v at -alpha."""
        index: dict[tuple[Site, bytes, float], int] = {}
        pairs: list[tuple[int, float]] = []
        rows = np.zeros((len(self.arms), len(self.alphas)), dtype=int)
        for a, arm in enumerate(self.arms):
            sign, key = _up_to_sign(arm.unit)
            for k, alpha in enumerate(self.alphas):
                if alpha == 0.0:
                    continue
                name = (arm.site, key, sign * alpha * arm.length)
                if name not in index:
                    pairs.append((a, alpha))
                    index[name] = len(pairs)
                rows[a, k] = index[name]
        return rows, tuple(pairs)

    @property
    def rows(self) -> Int[np.ndarray, "arm alpha"]:
        """Number of the row in which each arm at each strength is computed; 0 is the unchanged run."""
        return self._table[0]

    @property
    def n_rows(self) -> int:
        """Rows, the unchanged run included."""
        return 1 + len(self._table[1])

    def added(self, arm: Arm, alpha: float) -> Float[Tensor, "d_model"]:
        """What is added to the residual stream, in float32: alpha · scale · length · unit."""
        return arm.unit * (alpha * self.scale[arm.site] * arm.length)

    def interventions(self, device: torch.device | str = "cpu") -> list[Intervention]:
        """Every row but row 0, in order."""
        return [
            Intervention.at(
                arm.site, Add(self.added(arm, alpha).to(device)), self.positions, name=f"{arm.name} {alpha:+g}"
            )
            for arm, alpha in ((self.arms[a], alpha) for a, alpha in self._table[1])
        ]

    @cached_property
    def sha256(self) -> str:
        """Digest of everything that an outcome depends on besides model and item."""
        digest = hashlib.sha256()
        named = self.positions if isinstance(self.positions, str) else getattr(self.positions, "name", self.positions)
        digest.update(repr((self.alphas, self.unit, named)).encode())
        for arm in self.arms:
            digest.update(
                repr((arm.role, arm.draw, arm.name, str(arm.site), self.scale[arm.site] * arm.length)).encode()
            )
            digest.update(arm.unit.numpy().tobytes())
        return digest.hexdigest()


def _up_to_sign(unit: Float[Tensor, "d_model"]) -> tuple[float, bytes]:
    """(sign, bytes) with bytes the same for v and -v."""
    first = unit[int(unit.abs().argmax())]
    sign = 1.0 if float(first) > 0 else -1.0
    return sign, (sign * unit + 0.0).numpy().tobytes()
