"""Options of a sweep and their defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from interp.stats import ALPHA, N_RESAMPLES, Sampling
from probes.kinds import Kind, KindLike, kinds_of, score_labels
from probes.null import SCHEMES
from probes.splits import TestShare

if TYPE_CHECKING:
    from torch import Tensor

    from probes.layer import Scored
    from probes.splits import Split

CS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
LEAST_PERM = round(1 / ALPHA) - 1
"""Fewer permutations cannot give such a p."""


@dataclass(frozen=True)
class SweepConfig:
    """How a sweep fits, permutes and resamples.

    Attributes:
        kinds:      kinds of probes, as `probes.kinds.kind_of` accepts them; each is swept and selected separately.
        Cs:         ascending inverse penalties.
        n_folds:    largest number of folds; see `group_split`, as for `test_share`.
        test_share: "auto" (crossed below 80 groups, else 0.25), "crossed", or the share that is held out; 0 for none.
        n_perm:     permutations of the null, 0 for none, else 19 or more; a number is for the closed forms, {name: n}
                    for any kind (logistic costs folds x C fits per permutation).
        n_boot:     resamples behind the interval of a calibration error and the bands of layer curves.
        n_control:  control labels behind selectivity and its null; logistic takes at most 4 of them.
        n_seeds:    seeds of the split, the first included, over which the spread of AUROC is reported; a number is for
                    the closed forms, {name: n} for any kind.
        scheme:     how null labels move: "auto", "group", "unit", "between", "within" (see `probes.null`).
        balanced:   weight classes equally in logistic probes.
    Raises:
        ValueError: an unknown scheme, or 1 to 18 permutations: no p of 0.05 could be reached.
    """

    kinds: tuple[KindLike, ...] = ("logistic", "ridge", "massmean")
    Cs: tuple[float, ...] = CS
    n_folds: int = 5
    test_share: TestShare = "auto"
    n_perm: int | Mapping[str, int] = 999
    n_boot: int = N_RESAMPLES
    n_control: int = 20
    n_seeds: int | Mapping[str, int] = 5
    scheme: str = "auto"
    balanced: bool = False
    tol: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        if self.scheme not in SCHEMES:
            raise ValueError(f"scheme: expected one of {', '.join(SCHEMES)}; got {self.scheme!r}.")
        for kind in self.table:
            if 0 < self.permutations(kind) < LEAST_PERM:
                raise ValueError(
                    f"n_perm: {self.permutations(kind)} permutations of {kind} give no p below "
                    f"{1 / (1 + self.permutations(kind)):.3g}. Use {LEAST_PERM} or more, or 0 for no null."
                )

    @property
    def sampling(self) -> Sampling:
        """Sampling of the intervals: `seed` and `n_boot`."""
        return Sampling(seed=self.seed, n_resamples=self.n_boot)

    @property
    def table(self) -> Mapping[str, Kind]:
        """name -> kind."""
        return kinds_of(self.kinds)

    @property
    def settings(self) -> dict[str, Any]:
        """Every option as plain values, kinds by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"kinds": tuple(self.table)}

    def score(self, kind: str, feats: Tensor, labels: Tensor, split: Split) -> Scored:
        """Held-out and TEST scores of every label by one kind of probe; see `probes.kinds.score_labels`."""
        return score_labels(self.table[kind], feats, labels, split, Cs=self.Cs, balanced=self.balanced, tol=self.tol)

    def permutations(self, kind: str) -> int:
        """Permutations of the null of a kind."""
        if isinstance(self.n_perm, Mapping):
            return self.n_perm.get(kind, 0)
        return 0 if self.table[kind].is_costly else self.n_perm

    def controls(self, kind: str) -> int:
        """Control labels behind the selectivity of a kind."""
        return min(self.n_control, 4) if self.table[kind].is_costly else self.n_control

    def seeds(self, kind: str) -> tuple[int, ...]:
        """Further seeds of the split."""
        if isinstance(self.n_seeds, Mapping):
            n = self.n_seeds.get(kind, 1)
        else:
            n = 1 if self.table[kind].is_costly else self.n_seeds
        return tuple(self.seed + 7919 * i for i in range(1, n))
