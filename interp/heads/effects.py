"""Head effects of one sweep: per-example arrays under the named definitions of `METRICS`, and their tables."""

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
    halves,
    less_controls,
    matched_controls,
    means_and_p,
    standardised,
)
from interp.heads.ids import HeadId, Unit, layers_of, parse_unit, unit_name
from interp.heads.metrics import METRICS, Metric, metrics_of, sort_of
from interp.heads.outcomes import Outcome, Outcomes, Plan, main_of
from interp.heads.pairs import TokenPair

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class HeadEffects:
    """Effects of every unit on every pair, with their provenance.

        cma, abl_logit, direct_effect   m_clean - m_changed                       per pair, logits
        cma_frac                        mean(m_clean - m_patched) / mean(m_clean + m_base), m_base for base's own answer
        abl_frac                        mean(m_clean - m_changed) / mean(m_clean)
        abl_prob, abl_acc               p_clean - p_changed, right_clean - right_changed
        flip_rate                       share of pairs on which another option wins
        cohen_dz                        mean / sd of the logit effect
        cliff                           P(effect > control) - P(effect < control), controls: 3 norm-matched
                                        heads of the layer

    m = logit(answer) - logit(foil), so that Yang's score δ(patched) - δ(exp) with δ = f[foil] - f[answer] is `cma`.
    An effect is positive where the head helps the answer or, when patched, carries the difference between the prompts.

    Attributes:
        pairs: the kept pairs, in order; `n_dropped` others were left out by `solved`.
        values: by name of `metrics.FIELDS`, [example, unit].
        base_margin: margin of the base run's own right answer [example]; NaN if it was not run.
        write_norms: mean norm of each unit's write into the residual stream [unit]; None if not measured.
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
        arrays = Outcomes.of(outcomes)
        units = tuple(parse_unit(name) for name in plan.units)
        return cls(plan, tuple(pairs), units, arrays.values, arrays.base_margin, arrays.base_right, **kwargs)

    @property
    def groups(self) -> list[str]:
        """The independent unit of each pair."""
        return [pair.unit for pair in self.pairs]

    @property
    def decision_site(self) -> str:
        """Name of the decision that all pairs end in front of; "" where they have none in common."""
        names = {pair.decision_site for pair in self.pairs}
        return names.pop() if len(names) == 1 else ""

    @property
    def label_mass(self) -> float:
        """Mean over pairs of the probability of all options in the unchanged run; NaN if it was not measured."""
        mass = self.values.get("clean_mass")
        return float("nan") if mass is None else float(mass[:, 0].mean())

    @property
    def names(self) -> list[str]:
        return [unit_name(unit) for unit in self.units]

    @property
    def main(self) -> str:
        """The metric of this kind of sweep that is in logits: `cma`, `abl_logit` or `direct_effect`."""
        return main_of(self.plan)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that this sweep has."""
        return metrics_of(sort_of(self.plan.kind, self.plan.effect), self.plan.metrics)

    def per_example(self, metric: str | None = None) -> Float[np.ndarray, "example unit"]:
        """The effect of each unit on each pair, for a metric that is a mean over pairs; default: `main`.

        Raises:
            ValueError: this sweep does not have the metric, or single pairs do not.
        """
        definition = self._definition(metric or self.main)
        if definition.combine != "mean":
            raise ValueError(f"metric {metric!r} is defined over all pairs only; single pairs have {self.main!r}.")
        return definition.effect(self.values)

    def _definition(self, metric: str) -> Metric:
        if metric not in self.metrics and metric != self.main:
            raise ValueError(f"metric {metric!r}: this sweep ({self.plan.kind}) has {', '.join(self.metrics)}.")
        return METRICS[metric]

    @property
    def whole(self) -> Float[np.ndarray, "example"]:
        """Denominator of shares: m_clean, or for patching m_clean + m_base, the distance to a full flip."""
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
        """Estimates of one metric for every unit; metrics by rank (`cliff`) are given head by head, by `at`."""
        options: dict[str, Any] = dict(groups=self.groups, sampling=self.sampling)
        definition = self._definition(metric)
        if definition.combine == "share":
            return fractions(definition.effect(self.values), self.whole, **options)
        if definition.combine == "dz":
            return standardised(definition.effect(self.values), **options)
        return self.tested(metric).estimates

    @cached_property
    def controls(self) -> list[list[int]]:
        """For each unit its norm-matched control units; any of its layer if norms are unknown."""
        norms = np.ones(len(self.units)) if self.write_norms is None else self.write_norms
        return matched_controls([unit[0].layer for unit in self.units], norms)

    def control_difference(self, metric: str | None = None) -> stats.Estimates:
        """The effect of every unit minus the mean effect of its control units, paired over the same examples.

        In the unit of the metric: a share has the difference as a share of the same whole. NaN for a unit without
        controls, and for `cohen_dz` and `cliff`, which are not means.

        Raises:
            ValueError: as `per_example`.
        """
        definition = self._definition(metric or self.main)
        blank = np.full(len(self.units), np.nan)
        if definition.combine in ("dz", "rank"):
            return stats.Estimates(blank, blank, blank, len(self.pairs), len(set(self.groups)))
        is_share = definition.combine == "share"
        effects = less_controls(definition.effect(self.values), self.controls)
        options: dict[str, Any] = dict(groups=self.groups, sampling=self.sampling)
        means = fractions(effects, self.whole, **options) if is_share else stats.cluster_means(effects, **options)
        has_controls = np.array([bool(others) for others in self.controls])
        value, lo, hi = (np.where(has_controls, part, np.nan) for part in (means.value, means.lo, means.hi))
        return stats.Estimates(value, lo, hi, means.n, means.n_groups)

    def keep_difference(self, keep: HeadEffects) -> stats.Estimates:
        """The effect of every unit on these pairs minus the size of its effect on pairs that keep the answer.

            mean over these pairs - |mean over the pairs of `keep`|        by the groups of both together

        The same-answer control of patching: if twins with the same answer move the margin as much, it is not the answer
        that moves it.

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
                f"head {unit_name(unit)} is not in this sweep of {len(self.units)} units of layers "
                f"{layers[0]}-{layers[-1]}. Names count from 0 (L19.H17)."
            )
        return self.units.index(unit)

    def at(self, head: str | HeadId | Unit) -> pd.DataFrame:
        """Every metric of one head or set, `cliff` included, each with interval, n, p and control."""
        import pandas as pd

        unit = self.index(head)
        table = self.table()
        table = table[table["head"] == self.names[unit]]
        if "cliff" in self.metrics:
            delta = self.cliff(unit)
            row = {
                **{c: table.iloc[0][c] for c in ("layer", "head", "p_adjusted", "named")},
                "value": delta.value, "lo": delta.lo, "hi": delta.hi, "n": len(self.pairs),
                "n_groups": delta.n_groups, "control_value": 0.0, **self.provenance("cliff"),
            }  # fmt: skip
            table = pd.concat([table, pd.DataFrame([row])], ignore_index=True)
        return table.reset_index(drop=True)

    def table(self, metrics: Sequence[str] | None = None, *, keep: HeadEffects | None = None) -> pd.DataFrame:
        """One row per unit and metric, with provenance; `layer` is blank for sets of heads.

        `p_adjusted` is max-|t| over all units; it and `null_max95` of a share or of d_z are those of its logit effect;
        `flip_rate`, which cannot be negative, has none. `control_value` is the mean of the norm-matched control heads,
        `control_difference` (with its interval) the paired difference from them. `cliff` is left to `at`.

        Args:
            keep: the pairs of the same-answer control; rows of the logit effect then have `keep_difference`.
        """
        import pandas as pd

        names = [name for name in self.metrics if METRICS[name].combine != "rank"] if metrics is None else metrics
        table = pd.concat([self._rows(name) for name in names], ignore_index=True)
        if keep is not None:
            for name, column in _spread("keep_difference", self.keep_difference(keep)).items():
                table[name] = np.nan
                table.loc[table["metric"] == self.main, name] = column
        return table

    def heatmap(self, metric: str | None = None) -> pd.DataFrame:
        """One row per head, in the columns that `study.figures.head_map` draws; sets of heads are left out."""
        table = self.table([metric or self.main])
        return table[table["layer"].notna()].reset_index(drop=True)

    def forest(self, metric: str | None = None, *, keep: HeadEffects | None = None) -> pd.DataFrame:
        """One row per unit and half of the pairs, in the columns of `study.figures.top_heads`.

        Args:
            keep: the pairs of the same-answer control, for `keep_difference`. They are in the half of their group;
                those of groups that this sweep does not have, in the reporting one.
        """
        import pandas as pd

        chosen = halves(self.groups, seed=self.sampling.seed)
        selecting = {group for group, first in zip(self.groups, chosen, strict=True) if first}
        parts = []
        for half, own in (("select", chosen), ("report", ~chosen)):
            other = None if keep is None else np.array([(g in selecting) == (half == "select") for g in keep.groups])
            control = keep.subset(other) if keep is not None and other is not None and other.any() else None
            parts.append(self.subset(own).table([metric or self.main], keep=control).assign(half=half))
        return pd.concat(parts, ignore_index=True)

    def top(self, k: int = 10, metric: str | None = None) -> pd.DataFrame:
        """The k units with the largest |effect|, chosen on one half of the pairs and reported on the other.

        Raises:
            ValueError: fewer than 4 independent groups of pairs.
        """
        if k < 1:
            raise ValueError(f"top: expected k of at least 1, got {k}.")
        table = self.forest(metric)
        select = table[table["half"] == "select"]
        order = select.assign(size=select["value"].abs()).sort_values("size", ascending=False, kind="stable")["head"]
        report = table[table["half"] == "report"].set_index("head")
        return report.loc[list(order[:k])].reset_index()

    def _repr_html_(self) -> str:
        from interp.show import MOST_ROWS, html_table, interval, p_value

        try:
            rows, how = self.top(MOST_ROWS), "chosen on one half of the pairs, reported on the other"
        except ValueError:  # too few groups for halves
            band = stats.simultaneous_band(self.per_example(), groups=self.groups, sampling=self.sampling)
            table = self.table([self.main]).assign(lo=band.lo, hi=band.hi)
            rows = table.iloc[table["value"].abs().argsort().to_numpy()[::-1][:MOST_ROWS]]
            how = "chosen and reported on all pairs (too few groups for halves): intervals simultaneous over all heads"
        lines = []
        for row in rows.to_dict("records"):
            control, name = row["control_value"], f"{row['head']}{' (named)' if row['named'] else ''}"
            effect = interval(row["value"], row["lo"], row["hi"], signed=True)
            control = "–" if control != control else f"{control:.2f}"
            lines.append([name, effect, p_value(row["p_adjusted"]), control, f"{row['n']:.0f} ({row['n_groups']:.0f})"])
        what = f"{self.plan.model}, {self.plan.kind} at {self.plan.positions}: the largest of {len(self.units)}"
        columns = [f"{self.main}, {METRICS[self.main].unit} [95 %]", "p (max over heads)", "control heads"]
        return html_table(
            ["head", *columns, "pairs (groups)"], lines, title=f"{what}: the largest of {len(self.units)}, {how}."
        )

    def _rows(self, metric: str) -> pd.DataFrame:
        """Rows of `table` of one metric."""
        import pandas as pd

        estimates, (p, null, n_flips) = self.estimates(metric), self._null(metric)
        others = [estimates.value[units] for units in self.controls]
        others = [values[~np.isnan(values)] for values in others]
        columns = {
            "layer": layers_of(self.units), "head": self.names,
            "value": estimates.value, "lo": estimates.lo, "hi": estimates.hi,
            "n": estimates.n, "n_groups": estimates.n_groups, "p_adjusted": p, "null_max95": null,
            "control_value": [float(values.mean()) if len(values) else np.nan for values in others],
            **_spread("control_difference", self.control_difference(metric)),
            "named": [unit in self.named for unit in self.units], "n_perm": n_flips,
        }  # fmt: skip
        table = pd.DataFrame(columns).assign(**self.provenance(metric))
        no_spread = table["value"].notna() & table["lo"].isna()
        return table.assign(interval=table["interval"].mask(no_spread, stats.NO_SPREAD))

    def _null(self, metric: str) -> tuple[np.ndarray, np.ndarray, int]:
        """(p, limit in the unit of the metric, number of flips); shares and d_z have those of their logit effect."""
        nothing = np.full(len(self.units), np.nan)
        combine = METRICS[metric].combine
        if not METRICS[metric].is_tested:
            return nothing, nothing, 0
        tested = self.tested(metric if combine == "mean" else None)
        scale: np.ndarray | float = 1.0
        if combine == "dz":
            spread = self.per_example().std(axis=0, ddof=1)
            scale = np.divide(1.0, spread, out=np.full_like(spread, np.nan), where=spread > 0)
        elif combine == "share":
            scale = 1.0 / abs(self.whole.mean())
        return tested.p, tested.null_max95 * scale, tested.n_flips

    def provenance(self, metric: str) -> dict[str, Any]:
        """Columns that are equal in every row: metric, kind, positions, model, data."""
        plan = self.plan
        return {
            "metric": metric, "metric_unit": METRICS[metric].unit, "kind": plan.kind, "effect": plan.effect,
            "positions": plan.positions, "decision_site": self.decision_site, "interval": stats.RULE, "unit": "pairs",
            "n_dropped": self.n_dropped, "model": plan.model, "adapter": plan.adapter or "none", "dtype": plan.dtype,
            "weights": plan.weights[:12], "data_sha256": plan.pairs_sha256[:12], "seed": self.sampling.seed,
            "label_mass": self.label_mass,
        }  # fmt: skip

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


def _spread(name: str, estimates: stats.Estimates) -> dict[str, np.ndarray]:
    return {name: estimates.value, f"{name}_lo": estimates.lo, f"{name}_hi": estimates.hi}
