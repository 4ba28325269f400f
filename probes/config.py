"""Options of a sweep; defaults live here alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

CS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True)
class SweepConfig:
    """How a sweep fits, permutes and resamples.

    Attributes:
        kinds:     of probes; each is swept and selected by itself.
        Cs:        ascending inverse penalties.
        n_perm:    permutations of the null; a number is for the closed forms, {kind: n} for any kind (logistic costs
                   folds x C fits per permutation).
        n_boot:    resamples behind every interval.
        n_control: control labels behind selectivity and its null; logistic takes at most 4 of them.
        scheme:    how null labels move: "auto", "group", "within", "between".
        balanced:  weigh classes equally in logistic probes.
    """

    kinds: tuple[str, ...] = ("logistic", "ridge", "massmean")
    Cs: tuple[float, ...] = CS
    n_folds: int = 5
    test_share: float = 0.25
    n_perm: int | Mapping[str, int] = 999
    n_boot: int = 2000
    n_control: int = 20
    scheme: str = "auto"
    balanced: bool = False
    tol: float = 1e-3
    seed: int = 0

    def permutations(self, kind: str) -> int:
        if isinstance(self.n_perm, Mapping):
            return self.n_perm.get(kind, 0)
        return 0 if kind == "logistic" else self.n_perm

    def controls(self, kind: str) -> int:
        return min(self.n_control, 4) if kind == "logistic" else self.n_control
