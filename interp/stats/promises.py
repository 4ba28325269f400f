"""Coverage and error rates of the statistics on data like yours: studies simulated through the public functions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from interp.stats.check import choice, level
from interp.stats.equivalence import MARGIN, tost_paired
from interp.stats.estimate import Estimate
from interp.stats.intervals import clopper_pearson
from interp.stats.mean_test import mean_test
from interp.stats.means import cluster_mean, paired_difference, wilson_clustered
from interp.stats.permutation import sign_flip
from interp.stats.ranking import ClassEstimate, auroc, auroc_difference

if TYPE_CHECKING:
    import pandas as pd

Shape: TypeAlias = Literal["gaussian", "skewed", "binary"]
SHAPES: tuple[Shape, ...] = ("gaussian", "skewed", "binary")


@dataclass(frozen=True)
class Design:
    """Sizes of the independent groups, intraclass correlation, and distribution of the values.

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


COVERED, ERRED = 0.93, 0.06
"""Promises: 95 % intervals cover in at least 0.93 of studies, tests at 0.05 reject a true null in at most 0.06."""
AREA, N_EFFECTS = 0.8, 20

Kind = Literal["coverage", "level"]
Draw = Callable[[np.random.Generator], bool | None]
"""One simulated study: whether the interval covered, or the test erred; None where there is no result."""


@dataclass(frozen=True)
class Promise:
    """One row: how often one statistic was right (coverage) or wrong (level) in simulated studies.

    Attributes:
        kind:      "coverage": share of 95 % intervals that hold the true value; "level": share of studies without an
            effect in which the test at 0.05 finds one.
        statistic: the public function.  data: what was simulated, in words.
        promised:  least coverage, or largest level.
        rate:      measured, with its exact Monte Carlo interval; n counts the studies that gave a result.
        n_refused: studies in which the function refused or left its interval undefined.
    """

    kind: Kind
    statistic: str
    data: str
    promised: float
    rate: Estimate
    n_refused: int

    @property
    def measured(self) -> str:
        """`0.948 [0.921, 0.967]`; a dash where no study gave a result."""
        e = self.rate
        return f"{e.value:.3f} [{e.lo:.3f}, {e.hi:.3f}]" if e.is_defined else "–"

    @property
    def verdict(self) -> Literal["kept", "broken", "no result"]:
        """Broken only where the whole Monte Carlo interval lies on the wrong side of what is promised."""
        if not self.rate.is_defined:
            return "no result"
        is_broken = self.rate.hi < self.promised if self.kind == "coverage" else self.rate.lo > self.promised
        return "broken" if is_broken else "kept"


@dataclass(frozen=True)
class Verification:
    """Result of `verify`: one row for each statistic, for one design."""

    design: Design
    n_studies: int
    rows: tuple[Promise, ...]

    @property
    def broken(self) -> tuple[Promise, ...]:
        """The promises that are not kept on this design."""
        return tuple(row for row in self.rows if row.verdict == "broken")

    def table(self) -> pd.DataFrame:
        """One row for each statistic: kind, statistic, data, promised, rate, lo, hi, n, n_refused, verdict."""
        import pandas as pd

        return pd.DataFrame([self._flat(row) for row in self.rows])

    @staticmethod
    def _flat(row: Promise) -> dict[str, Any]:
        e = row.rate
        rest = {key: value for key, value in asdict(row).items() if key not in ("rate", "n_refused")}
        return rest | {
            "rate": e.value,
            "lo": e.lo,
            "hi": e.hi,
            "n": e.n,
            "n_refused": row.n_refused,
            "verdict": row.verdict,
        }

    @property
    def title(self) -> str:
        d = self.design
        sizes = f"{min(d.sizes)}–{max(d.sizes)}" if len(set(d.sizes)) > 1 else str(d.sizes[0])
        return (
            f"{self.n_studies} simulated studies: {len(d.sizes)} groups of {sizes} examples, ICC {d.icc:g}, "
            f"{d.shape}, mean {d.mean:g}"
        )

    def _lines(self) -> tuple[list[str], list[list[str]]]:
        head = ["", "statistic", "data", "promised", "measured", "studies", "refused", "verdict"]
        sign = {"coverage": "≥", "level": "≤"}
        lines = [
            [
                r.kind,
                r.statistic,
                r.data,
                f"{sign[r.kind]} {r.promised:g}",
                r.measured,
                str(r.rate.n),
                str(r.n_refused),
                r.verdict,
            ]
            for r in self.rows
        ]
        return head, lines

    def _repr_html_(self) -> str:
        from interp.show import html_table

        head, lines = self._lines()
        return html_table(head, lines, title=self.title, rest="table()")

    def __str__(self) -> str:
        head, lines = self._lines()
        widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
        text = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in [head, *lines]]
        return "\n".join([self.title, "", *text])


def verify(design: Design, *, n_studies: int = 400, positive: float = 0.5, seed: int = 0) -> Verification:
    """Simulate studies like yours and count how often the intervals cover and the tests err.

    Every statistic is called as an analysis calls it, with its defaults, on freshly drawn data of the design whose
    truth is known: the mean, a paired difference, a rate, AUROC and a difference of two, equivalence at its margin, and
    the tests of 20 effects that are all 0. 400 studies measure 0.95 to about ±0.02, in well under a minute for
    up to 40 groups of 20.

    Args:
        design: sizes of your groups (`np.bincount` of their codes), their intraclass correlation, shape and mean.
        positive: share of positive examples, and of groups with the positive label, for AUROC.
    Raises:
        ValueError: positive outside (0, 1), no studies.
    Source: definitions of coverage and level; promises of docs/concepts/controls.md.

    Example:
        >>> from interp.stats import Design, group_sizes, verify
        >>> found = verify(Design(group_sizes(12, 10)), n_studies=50)
        >>> found.rows[0].statistic, found.rows[0].kind, found.rows[0].rate.n, found.broken
        ('cluster_mean', 'coverage', 50, ())
    """
    level("positive", positive)
    if n_studies < 1:
        raise ValueError(f"n_studies: expected at least 1, got {n_studies}.")
    rows = tuple(
        _measure(kind, statistic, data, draw, n_studies, np.random.default_rng([seed, number]))
        for number, (kind, statistic, data, draw) in enumerate(_checks(design, positive))
    )
    return Verification(design, n_studies, rows)


def _measure(kind: Kind, statistic: str, data: str, draw: Draw, n_studies: int, rng: np.random.Generator) -> Promise:
    hits, n_refused = [], 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(n_studies):
            try:
                outcome = draw(rng)
            except ValueError:  # a refusal claims nothing; it is counted, not hidden
                outcome = None
            if outcome is None:
                n_refused += 1
            else:
                hits.append(outcome)
    rate = clopper_pearson(sum(hits), len(hits)) if hits else Estimate.undefined()
    return Promise(kind, statistic, data, COVERED if kind == "coverage" else ERRED, rate, n_refused)


def _covers(e: Estimate | ClassEstimate, truth: float) -> bool | None:
    """Whether an interval holds the truth (up to rounding); None where it has no ends."""
    return None if np.isnan(e.lo + e.hi) else bool(e.lo - 1e-12 <= truth <= e.hi + 1e-12)


def _checks(design: Design, positive: float) -> Iterator[tuple[Kind, str, str, Draw]]:
    """(kind, statistic, data, one study: did it cover, or did it err)."""
    groups = design.groups
    own = f"{design.shape}, mean {design.mean:g}"
    yield (
        "coverage",
        "cluster_mean",
        own,
        lambda rng: _covers(cluster_mean(design.draw(rng), groups=groups), design.mean),
    )
    yield (
        "coverage",
        "paired_difference",
        f"two members, {own}",
        lambda rng: _covers(paired_difference(*design.draw(rng, 2).T, groups=groups), 0.0),
    )
    rates = design if design.shape == "binary" else replace(design, shape="binary", mean=0.5)
    yield (
        "coverage",
        "wilson_clustered",
        f"rate {rates.mean:g}",
        lambda rng: _covers(wilson_clustered(rates.draw(rng), groups=groups), rates.mean),
    )
    yield from _ranking_checks(design, positive)
    high, low, margin = _at_margin(design)
    yield (
        "level",
        "tost_paired",
        f"means that differ by the margin {margin:g}",
        lambda rng: tost_paired(high.draw(rng), low.draw(rng), groups=groups, margin=margin).equivalent,
    )
    yield ("level", "mean_test", f"{N_EFFECTS} effects with mean 0", lambda rng: _any_mean(design, rng))
    yield (
        "level",
        "sign_flip",
        f"{N_EFFECTS} differences of two members without a difference",
        lambda rng: _any_difference(design, rng),
    )


def _ranking_checks(design: Design, positive: float) -> Iterator[tuple[Kind, str, str, Draw]]:
    from scipy.special import ndtri

    normal, groups, shift = replace(design, shape="gaussian", mean=0.0), design.groups, np.sqrt(2) * float(ndtri(AREA))
    n_groups = len(design.sizes)

    def by_group(rng: np.random.Generator) -> np.ndarray:
        chosen = rng.permutation(n_groups) < min(max(1, round(positive * n_groups)), n_groups - 1)
        return chosen[groups]

    def by_example(rng: np.random.Generator) -> np.ndarray:
        return rng.random(len(groups)) < positive

    for labels, words in ((by_group, "labels of whole groups"), (by_example, "both labels in a group")):

        def area(rng: np.random.Generator, labels: Callable[..., np.ndarray] = labels) -> bool | None:
            y = labels(rng)
            return _covers(auroc(normal.draw(rng) + shift * y, y, groups=groups), AREA)

        def gap(rng: np.random.Generator, labels: Callable[..., np.ndarray] = labels) -> bool | None:
            y = labels(rng)
            a, b = normal.draw(rng, 2).T + shift * y
            return _covers(auroc_difference(a, b, y, groups=groups), 0.0)

        yield "coverage", "auroc", f"AUROC {AREA:g}, {positive:g} positive, {words}", area
        yield "coverage", "auroc_difference", f"two AUROCs of {AREA:g}, {positive:g} positive, {words}", gap


def _at_margin(design: Design) -> tuple[Design, Design, float]:
    """Two designs whose means differ by the margin: 0.05 for rates, half a standard deviation otherwise."""
    if design.shape != "binary":
        return replace(design, mean=design.mean + 0.5), design, 0.5
    high = design if design.mean > MARGIN else replace(design, mean=design.mean + MARGIN)
    return high, replace(high, mean=high.mean - MARGIN), MARGIN


def _any_mean(design: Design, rng: np.random.Generator) -> bool:
    """Whether any of many effects without a mean is found: centred values, skewed where the design is."""
    effects = design.draw(rng, N_EFFECTS) - design.mean
    return bool((mean_test(effects, groups=design.groups, seed=rng).p <= 0.05).any())


def _any_difference(design: Design, rng: np.random.Generator) -> bool:
    """The same of differences of two draws, which are symmetric about 0 whatever the design."""
    values = design.draw(rng, 2 * N_EFFECTS)
    effects = values[:, ::2] - values[:, 1::2]
    return bool((sign_flip(effects, groups=design.groups, seed=rng).p <= 0.05).any())
