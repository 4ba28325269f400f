"""Head effects of one sweep: per-example arrays under named definitions, never a bare δ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float

from interp import stats
from interp.heads.estimates import (
    Tested,
    beyond_placebo,
    fractions,
    less_controls,
    matched_controls,
    means_and_p,
    standardised,
)
from interp.heads.ids import HeadId, Unit, parse_unit, unit_name
from interp.heads.outcomes import Outcome, Outcomes, Plan, main_of
from interp.heads.pairs import TokenPair

if TYPE_CHECKING:
    import pandas as pd

UNITS = {"cma": "logits", "abl_logit": "logits", "direct_effect": "logits", "abl_prob": "probability",
         "abl_acc": "accuracy", "flip_rate": "share of pairs", "cma_frac": "share of the gap",
         "abl_frac": "share of the clean margin", "cohen_dz": "standard deviations", "cliff": "-1 to 1"}  # fmt: skip
_SOURCES = {"abl_prob": "p", "abl_acc": "right"}


@dataclass(frozen=True, eq=False)
class HeadEffects:
    """Effects of every unit on every pair, and what made them.

        cma, abl_logit, direct_effect   m_clean - m_changed                       per pair, logits
        cma_frac                        mean(m_clean - m_patched) / mean(m_clean + m_base), m_base for base's own answer
        abl_frac                        mean(m_clean - m_changed) / mean(m_clean)
        abl_prob, abl_acc               p_clean - p_changed, right_clean - right_changed
        flip_rate                       share of pairs on which another option wins
        cohen_dz                        mean / sd of the logit effect
        cliff                           P(effect > control) - P(effect < control), controls: 3 heads of the layer
                                        whose write has the same length

    m = logit(answer) - logit(foil), so that Yang's score δ(patched) - δ(exp) with δ = f[foil] - f[answer] is `cma`.
    An effect is positive where the head helps the answer, or carries what patching it in was to carry.

    Attributes:
        pairs: those that were kept, in order; n_dropped were left out by `solved`.
        values: by name of `outcomes.FIELDS`, [example, unit].
        base_margin: by how much the base run prefers its own right answer [example]; NaN where it was not run.
        write_norms: mean length of each unit's write into the residual stream [unit]; None where not measured.
        named: units that were named before the sweep.
    """

    plan: Plan
    pairs: tuple[TokenPair, ...]
    units: tuple[Unit, ...]
    values: dict[str, Float[np.ndarray, "example unit"]]
    base_margin: Float[np.ndarray, "example"]
    base_right: Float[np.ndarray, "example"]
    write_norms: Float[np.ndarray, "unit"] | None = None
    named: tuple[Unit, ...] = ()
    n_dropped: int = 0
    sampling: stats.Sampling = stats.Sampling()
    _tests: dict[tuple, Tested] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, plan: Plan, pairs: Sequence[TokenPair], outcomes: Sequence[Outcome], **kwargs) -> HeadEffects:
        """From the outcomes of all pairs, in the order of the pairs."""
        known = Outcomes.of(outcomes)
        units = tuple(parse_unit(name) for name in plan.units)
        return cls(plan, tuple(pairs), units, known.values, known.base_margin, known.base_right, **kwargs)

    @property
    def groups(self) -> list[str]:
        """The independent unit of each pair."""
        return [pair.unit for pair in self.pairs]

    @property
    def label_mass(self) -> float:
        """Mean over pairs of the probability of all options in the unchanged run; NaN where it was not measured."""
        mass = self.values.get("clean_mass")
        return float("nan") if mass is None else float(mass[:, 0].mean())

    @property
    def names(self) -> list[str]:
        return [unit_name(unit) for unit in self.units]

    @property
    def main(self) -> str:
        """The named definition of the logit effect under this kind: `cma`, `abl_logit` or `direct_effect`."""
        return main_of(self.plan)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The definitions that this sweep can be read under."""
        asked = self.plan.metrics
        ratio = {"cma": ("cma_frac",), "abl_logit": ("abl_frac",), "direct_effect": ()}[self.main]
        found: tuple[str, ...] = (self.main, *ratio, "cohen_dz", "cliff") if "LogitDiff" in asked else ()
        found += ("abl_prob",) if "Prob" in asked else ()
        return found + (("abl_acc", "flip_rate") if "LabelAccuracy" in asked else ())

    def per_example(self, metric: str | None = None) -> Float[np.ndarray, "example unit"]:
        """The effect of each unit on each pair, for a definition that is a mean over pairs; default: `main`.

        Raises:
            ValueError: a metric that this sweep does not have, or that no single pair has.
        """
        metric = metric or self.main
        if metric not in self.metrics and metric != self.main:
            raise ValueError(f"metric {metric!r}: this sweep ({self.plan.kind}) has {', '.join(self.metrics)}.")
        if metric == "flip_rate":
            return self.values["flipped"]
        if metric in ("cma_frac", "abl_frac", "cohen_dz", "cliff"):
            raise ValueError(f"metric {metric!r} is of all pairs together; single pairs have {self.main!r}.")
        source = _SOURCES.get(metric, "margin")
        return self.values[f"clean_{source}"] - self.values[source]

    @property
    def whole(self) -> Float[np.ndarray, "example"]:
        """What a share is a share of: m_clean, or for patching m_clean + m_base, the way to a full flip."""
        clean = self.values["clean_margin"][:, 0]
        return clean + self.base_margin if self.main == "cma" else clean

    def tested(self, metric: str | None = None, *, alternative: str = "two-sided", stat: str = "t") -> Tested:
        """Means, intervals and family-wise p of all units; `alternative="greater", stat="mean"` is Yang's test."""
        key = (metric or self.main, alternative, stat)
        if key not in self._tests:
            effects = self.per_example(metric)
            self._tests[key] = means_and_p(
                effects, groups=self.groups, sampling=self.sampling, alternative=alternative, stat=stat
            )
        return self._tests[key]

    def estimates(self, metric: str) -> stats.Estimates:
        """Estimates of one definition for every unit; `cliff` is given head by head, by `at`."""
        options: dict[str, Any] = dict(groups=self.groups, sampling=self.sampling)
        if metric in ("cma_frac", "abl_frac"):
            return fractions(self.per_example(), self.whole, **options)
        if metric == "cohen_dz":
            return standardised(self.per_example(), **options)
        return self.tested(metric).estimates

    @cached_property
    def controls(self) -> list[list[int]]:
        """For each unit the units of equal write that stand beside it; all of its layer where norms are unknown."""
        norms = np.ones(len(self.units)) if self.write_norms is None else self.write_norms
        return matched_controls([unit[0].layer for unit in self.units], norms)

    def control_difference(self, metric: str | None = None) -> stats.Estimates:
        """The effect of every unit minus the mean effect of its control units, paired over the same examples.

        In the unit of the metric: a share has the difference as a share of the same whole. NaN for a unit without
        controls, and for `cohen_dz` and `cliff`, which are no means.

        Raises:
            ValueError: as `per_example`.
        """
        metric = metric or self.main
        blank = np.full(len(self.units), np.nan)
        if metric in ("cohen_dz", "cliff"):
            return stats.Estimates(blank, blank, blank, len(self.pairs), len(set(self.groups)))
        is_share = metric in ("cma_frac", "abl_frac")
        effects = less_controls(self.per_example(None if is_share else metric), self.controls)
        options: dict[str, Any] = dict(groups=self.groups, sampling=self.sampling)
        found = fractions(effects, self.whole, **options) if is_share else stats.cluster_means(effects, **options)
        known = np.array([bool(others) for others in self.controls])
        value, lo, hi = (np.where(known, part, np.nan) for part in (found.value, found.lo, found.hi))
        return stats.Estimates(value, lo, hi, found.n, found.n_groups)

    def keep_difference(self, keep: HeadEffects) -> stats.Estimates:
        """The effect of every unit on these pairs minus the size of its effect on pairs that keep the answer.

            mean over these pairs - |mean over the pairs of `keep`|        by the groups of both together

        The same-answer control of patching: where twins with the same answer move the margin as much, what moves it is
        not the answer.

        Args:
            keep: the same sweep on pairs whose twins have the same answer.
        Raises:
            ValueError: other units, or another definition.
        """
        if keep.plan.units != self.plan.units or keep.main != self.main:
            raise ValueError(f"keep_difference: expected a {self.main} sweep of the same {len(self.units)} units.")
        effects = np.concatenate([self.per_example(), keep.per_example()])
        is_keep = np.repeat([False, True], [len(self.pairs), len(keep.pairs)])
        groups = [*self.groups, *keep.groups]
        return beyond_placebo(effects, is_keep, groups=groups, sampling=self.sampling)

    def cliff(self, unit: int) -> stats.Estimate:
        """Cliff's δ of the unit's effects over those of its control heads, pooled."""
        x, others = self.per_example()[:, unit], self.controls[unit]
        if not others:
            return stats.Estimate.undefined(len(x), len(set(self.groups)))
        y = np.concatenate([self.per_example()[:, other] for other in others])
        groups = self.groups
        return stats.cliffs_delta(x, y, groups_x=groups, groups_y=groups * len(others))

    def index(self, head: str | HeadId | Unit) -> int:
        """The column of a head or set.

        Raises:
            ValueError: it was not swept.
        """
        unit = parse_unit(head) if isinstance(head, str) else ((head,) if isinstance(head, HeadId) else head)
        if unit not in self.units:
            layers = sorted({one.layer for swept in self.units for one in swept})
            raise ValueError(
                f"head {unit_name(unit)} was not swept: {len(self.units)} units of layers {layers[0]}-{layers[-1]} "
                "were. Names count from 0 (L19.H17)."
            )
        return self.units.index(unit)

    def at(self, head: str | HeadId | Unit) -> pd.DataFrame:
        """Every definition of the effect of one head or set, each with interval, n, p and control."""
        from interp.heads.tables import rows_at

        return rows_at(self, self.index(head))

    def table(self, metrics: Sequence[str] | None = None, *, keep: HeadEffects | None = None) -> pd.DataFrame:
        """One row per unit and definition, with what made it.

        Args:
            keep: the pairs of the same-answer control, for the columns of `keep_difference`.
        """
        from interp.heads.tables import tidy

        return tidy(self, metrics, keep=keep)

    def heatmap(self, metric: str | None = None) -> pd.DataFrame:
        """One row per head, in the columns that `study.figures.head_map` draws; sets of heads are left out."""
        from interp.heads.tables import heatmap

        return heatmap(self, metric or self.main)

    def forest(self, metric: str | None = None, *, keep: HeadEffects | None = None) -> pd.DataFrame:
        """One row per unit and half, in the columns of `study.figures.top_heads`.

        Args:
            keep: the pairs of the same-answer control, for the columns of `keep_difference`, in the same halves.
        """
        from interp.heads.tables import forest

        return forest(self, metric or self.main, keep=keep)

    def top(self, k: int = 10, metric: str | None = None) -> pd.DataFrame:
        """The k units with the largest |effect|, chosen on one half of the pairs and reported on the other.

        Raises:
            ValueError: fewer than 4 independent groups of pairs.
        """
        from interp.heads.tables import top

        return top(self, k, metric or self.main)

    def _repr_html_(self) -> str:
        from interp.heads.tables import top_html

        return top_html(self)

    def subset(self, keep: Bool[np.ndarray, "example"]) -> HeadEffects:
        """The same sweep on some of its pairs."""
        dropped = self.n_dropped + int((~keep).sum())
        if not keep.any():
            raise ValueError("subset: no pair is left.")
        pairs = tuple(pair for pair, kept in zip(self.pairs, keep, strict=True) if kept)
        values = {name: array[keep] for name, array in self.values.items()}
        return replace(self, pairs=pairs, values=values, base_margin=self.base_margin[keep],
                       base_right=self.base_right[keep], n_dropped=dropped, _tests={})  # fmt: skip

    def of_kind(self, *kinds: str) -> HeadEffects:
        """Only pairs of these kinds, such as "flip"."""
        return self.subset(np.array([pair.kind in kinds for pair in self.pairs]))

    def solved(self, *, min_p: float = 0.0) -> HeadEffects:
        """Only pairs that the model answers right, with at least this probability (Yang et al. take 0.9 of both runs).

        Where a base prompt was run, its own answer must be right too.
        """
        return self.subset(self.is_solved(min_p=min_p))

    def is_solved(self, *, min_p: float = 0.0) -> Bool[np.ndarray, "example"]:
        """True for the pairs that `solved` keeps."""
        return Outcomes(self.values, self.base_margin, self.base_right).solved(min_p=min_p)
