"""`dose_response`: the effect of a direction at every strength, next to that of directions of equal length."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from interp.model import Model
from interp.remedy import remedy
from interp.stats import Estimate, Sampling
from interp.stats.jackknife import RULE
from steering.arms import CONTROLS, ROLES, SORTS
from steering.curves import Curves, beyond_controls, dose_curves, p_values, slope_p, smallest_p
from steering.dose import DoseItem, DoseOutcome, DoseSweep
from steering.entangle import Entanglement, entanglement
from steering.levels import Level, anti_steerable
from steering.outcomes import GroupSums, Outcomes, group_sums, margins, prompted_sums
from steering.strengths import DosePlan

if TYPE_CHECKING:
    import pandas as pd

MIN_ITEMS, MIN_GROUPS = 50, 10
INTERVAL = f"{RULE} over groups"
BAND = "simultaneous over strengths, bootstrap of the largest |t| over groups,"
Row = dict[str, Any]


def dose_response(
    model: Model | nn.Module,
    items: Sequence[DoseItem],
    plan: DosePlan,
    *,
    outcomes: Outcomes | None = None,
    sampling: Sampling = Sampling(),
    min_items: int = MIN_ITEMS,
    min_groups: int = MIN_GROUPS,
    n_tables: int = 1,
    **options: Any,
) -> DoseResult:
    """Every arm of `plan` at every strength on all items, in memory, with statistics.

    One clean prefix per item serves every layer, direction, strength and control; see `DoseSweep` for `options`
    (verify, engine, chunk_bytes), `steering.curves.dose_curves` for `n_tables`, and `DoseResult` for what comes back.

    Raises:
        ValueError: fewer than 50 items or 10 groups (unless lower limits are passed), a vector of another width, an
            item id twice. RuntimeError: a verified row disagrees.
    """
    check_size([item.group for item in items], min_items=min_items, min_groups=min_groups)
    job = DoseSweep(Model.wrap(model), items, plan, **options)
    outcomes_of = [outcome for _, outcome in job.run()]
    kind = outcomes or Outcomes.of(None)
    return DoseResult.of(items, outcomes_of, plan, kind, sampling=sampling, n_tables=n_tables)


def check_size(groups: Sequence[str], *, min_items: int = MIN_ITEMS, min_groups: int = MIN_GROUPS) -> None:
    """Raise a ValueError if there are too few items or groups for a curve."""
    n_items, n_groups = len(groups), len(set(groups))
    if n_items < min_items or n_groups < min_groups:
        raise ValueError(
            f"dose curve over {n_items} items in {n_groups} groups: expected at least {min_items} items and "
            f"{min_groups} groups. Take more items{remedy(', or ask for less with {min_items} and {min_groups}')} "
            "and say so next to the result."
        )


@dataclass(frozen=True, eq=False)
class DoseResult:
    """A dose curve with its controls and baselines.

    Attributes:
        curves: levels, changes, slopes and their intervals.
        prompted: sums under the prompt baseline, where items have one.
        anti: share of items that each arm moves the wrong way; None where no two groups have items with sides.
        n_tables: tables out of which one strength is chosen together.
    """

    plan: DosePlan
    kind: Outcomes
    sums: GroupSums
    curves: Curves
    prompted: GroupSums | None = None
    anti: Level | None = None
    n_tables: int = 1

    @classmethod
    def of(
        cls,
        items: Sequence[DoseItem],
        outcomes: Sequence[DoseOutcome],
        plan: DosePlan,
        kind: Outcomes,
        *,
        sampling: Sampling = Sampling(),
        n_tables: int = 1,
    ) -> DoseResult:
        """From the outcomes of all items, in the order of the items."""
        sums = group_sums(kind, items, outcomes)
        counted = {name: score for name, score in kind.scores.items() if any(sums.sums[c].any() for c in score.n)}
        curves = dose_curves(sums, plan, counted, sampling=sampling, n_tables=n_tables)
        values, groups = margins(kind, items, outcomes)
        anti = anti_steerable(values, groups, plan) if len(set(groups)) > 1 else None
        return cls(plan, kind, sums, curves, prompted_sums(kind, items, outcomes), anti, n_tables)

    def table(self) -> pd.DataFrame:
        """One row per arm, strength and score; `control_value` is the mean of the random directions at
        that strength.

        value, lo, hi: the level. change, change_lo, change_hi: paired change from strength 0, of that strength alone.
        band_lo, band_hi: band of the change, simultaneous over the strengths; selection_lo, selection_hi: over
        strengths and layers. control_difference...: change minus the mean change of the random controls. null_lo,
        null_hi: 95 % of all controls. p...: see `steering.curves.p_values`.
        """
        import pandas as pd

        return pd.DataFrame([*self._rows(), *self._prompt_rows()])

    def _rows(self) -> Iterator[Row]:
        curves = self.curves
        for arm in range(len(curves.arms)):
            for score in range(len(curves.scores)):
                tested = {} if curves.arms[arm].is_control else p_values(curves, arm, score)
                null = curves.value[curves.controls(arm)][:, :, score]
                mean = curves.value[curves.controls(arm, ("random",))][:, :, score]
                for k in range(len(curves.alphas)):
                    yield (
                        self._row(arm, k, score)
                        | _null(null[:, k], mean[:, k])
                        | {name: float(p[k]) for name, p in tested.items()}
                    )

    def _row(self, arm: int, k: int, score: int) -> Row:
        c = self.curves
        names = (
            "value",
            "lo",
            "hi",
            "change",
            "change_lo",
            "change_hi",
            "band_lo",
            "band_hi",
            "selection_lo",
            "selection_hi",
        )
        beyond = {f"control_difference{end}": getattr(c, f"excess{end}") for end in ("", "_lo", "_hi")}
        return self._who(arm) | {
            "alpha": c.alphas[k],
            "alpha_norm": self._share(arm, c.alphas[k]),
            "alpha_unit": self.plan.unit,
            "metric": c.scores[score],
            **{name: float(getattr(c, name)[arm, k, score]) for name in names},
            **{name: float(values[arm, k, score]) for name, values in beyond.items()},
            "n": int(c.n[arm, k, score]),
            "n_groups": int(c.n_groups[arm, k, score]),
            "interval": INTERVAL,
            "band": BAND,
            "n_tables": self.n_tables,
        }

    def _who(self, arm: int) -> Row:
        one = self.curves.arms[arm]
        where = {"site": str(one.site), "layer": one.site.layer, "length": one.length}
        return {"arm": one.role, "draw": one.draw, "arm_label": one.name, **where}

    def _share(self, arm: int, alpha: float) -> float:
        site = self.curves.arms[arm].site
        return alpha * self.plan.scale[site] / self.plan.resid_norm[site]

    def _prompt_rows(self) -> Iterator[Row]:
        """The prompt baseline: no strength, one level per score, and its paired change."""
        if self.prompted is None:
            return
        for name in (one for one in self.curves.scores if "kl" not in one):
            level = Level.of(self.prompted, self.kind.scores[name], [0, 1])
            (lo, hi), (change_lo, change_hi) = level.limits(), level.change(0).limits()
            yield {
                "arm": "prompt",
                "draw": 0,
                "arm_label": "prompt baseline",
                "alpha_unit": self.plan.unit,
                "metric": name,
                "value": float(level.value[1]),
                "lo": float(lo[1]),
                "hi": float(hi[1]),
                "change": float(level.value[1] - level.value[0]),
                "change_lo": float(change_lo[1]),
                "change_hi": float(change_hi[1]),
                "n": int(level.n[1]),
                "n_groups": int(level.n_groups[1]),
                "interval": INTERVAL,
                "control_value": float(level.value[0]),
            }

    def slopes(self) -> pd.DataFrame:
        """One row per arm and score: slope per unit of alpha, its interval, p against the controls, monotonicity.

        control_value: mean slope of the random directions; control_difference...: slope minus that, with an interval
        that includes the spread of the controls; shuffled_difference...: the same for the shuffled directions.
        smallest_p: the smallest p that this number of controls can give.
        """
        import pandas as pd

        c, rows = self.curves, []
        for arm in range(len(c.arms)):
            for score, name in enumerate(c.scores):
                slope = {"value": c.slope, "lo": c.slope_lo, "hi": c.slope_hi}
                sizes = {"n": int(c.n[arm, c.zero, score]), "n_groups": int(c.n_groups[arm, c.zero, score])}
                rows.append(
                    self._who(arm)
                    | {"metric": name, "alpha_unit": self.plan.unit}
                    | {key: float(values[arm, score]) for key, values in slope.items()}
                    | {"monotone": c.monotone(arm, score), **sizes}
                    | self._apart(arm, c.slope[:, score])
                    | _differences({sort: c.apart[sort][:, arm, score] for sort in SORTS})
                    | ({} if c.arms[arm].is_control else slope_p(c, arm, score))
                    | {"interval": INTERVAL}
                )
        return pd.DataFrame(rows + ([] if self.anti is None else self._anti_rows(self.anti)))

    def _apart(self, arm: int, values: np.ndarray) -> Row:
        """The range of an arm's controls, and the smallest p that they allow."""
        arms = self.curves.arms
        null, random = (values[self.curves.controls(arm, roles)] for roles in (CONTROLS, ("random",)))
        here = [one for one in arms if one.site == arms[arm].site]
        return _null(null, random) | {"smallest_p": smallest_p(here)}

    def _anti_rows(self, anti: Level) -> list[Row]:
        (lo, hi), apart = anti.limits(), {sort: beyond_controls(anti, self.curves.arms, sort) for sort in SORTS}
        rows = []
        for arm in range(len(self.curves.arms)):
            level = {
                "metric": "anti_steerable",
                "value": float(anti.value[arm]),
                "lo": float(lo[arm]),
                "hi": float(hi[arm]),
            }
            sizes = {"n": int(anti.n[arm]), "n_groups": int(anti.n_groups[arm]), "interval": INTERVAL}
            beyond = _differences({sort: np.array([part[arm] for part in apart[sort]]) for sort in SORTS})
            null = self._apart(arm, anti.value) | beyond
            rows.append(self._who(arm) | level | sizes | {"alpha_unit": self.plan.unit} | null)
        return rows

    @cached_property
    def entangled(self) -> Mapping[int, Entanglement]:
        """Main arm -> coverage and commit bias together; empty where the task has no such scores."""
        if not {"coverage", "amb_commit_bias"} <= set(self.curves.scores):
            return {}
        arms = self.curves.arms
        main = [k for k, arm in enumerate(arms) if not arm.is_control and arm.role != "opposite"]
        out = {}
        for k in main:
            references = tuple(
                j for j in main if arms[j].role == "nuisance" and arms[j].site == arms[k].site and j != k
            )
            out[k] = entanglement(self.sums, self.plan, self.kind.scores, k, references=references)
        return out

    def plane(self) -> pd.DataFrame:
        """Coverage against commit bias at every strength, in the columns of `study.figures.bias_plane`."""
        import pandas as pd

        rows = []
        for arm, joint in self.entangled.items():
            n = self.curves.n[arm, self.curves.zero, self.curves.scores.index("coverage")]
            for k, alpha in enumerate(self.curves.alphas):
                x, y, xx, xy, yy, behind = joint.plane[k].tolist()
                rows.append(
                    self._who(arm)
                    | {
                        "alpha": alpha,
                        "alpha_norm": self._share(arm, alpha),
                        "coverage": x,
                        "commit_bias": y,
                        "cov_xx": xx,
                        "cov_xy": xy,
                        "cov_yy": yy,
                        "n": int(n),
                        "n_groups": joint.n_groups,
                        "effective_groups": behind,
                        "interval": f"{RULE} over groups",
                    }
                )
        return pd.DataFrame(rows)

    def entangle_table(self) -> pd.DataFrame:
        """Both slopes of every main arm with their correlation, their ratio by Fieller, and commit bias at matched
        coverage."""
        import pandas as pd

        rows = []
        for arm, joint in self.entangled.items():
            sd = np.sqrt(np.diag(joint.covariance))
            r = float(joint.covariance[0, 1] / sd.prod()) if sd.prod() > 0 else float("nan")
            for name, one in zip(("d coverage / d alpha", "d commit bias / d alpha"), joint.slopes, strict=True):
                rows.append(self._who(arm) | {"reference": "", "metric": name, **_numbers(one), "correlation": r})
            ratio = {"reference": "", "metric": "d commit bias / d coverage", "interval": "Fieller over groups"}
            rows.append(self._who(arm) | ratio | _numbers(joint.exchange))
            for reference, ones in joint.matched.items():
                for alpha, one in zip(self.curves.alphas, ones, strict=True):
                    rows.append(
                        self._who(arm)
                        | {
                            "reference": reference,
                            "metric": "commit bias at matched coverage",
                            "alpha": alpha,
                            **_numbers(one),
                        }
                    )
        return pd.DataFrame(rows).fillna({"interval": INTERVAL}) if rows else pd.DataFrame()


def _numbers(one: Estimate) -> Row:
    return {"value": one.value, "lo": one.lo, "hi": one.hi, "n": one.n, "n_groups": one.n_groups}


def _differences(apart: Mapping[str, np.ndarray]) -> Row:
    """(value, lo, hi) minus the mean of each kind of control, in columns; the mean of the random ones is the
    control."""
    return {
        f"{ROLES[sort].difference}{end}": float(number)
        for sort, numbers in apart.items()
        for end, number in zip(("", "_lo", "_hi"), numbers, strict=True)
    }


def _null(null: np.ndarray, random: np.ndarray) -> Row:
    """Mean of the random controls, and the middle 95 % of all of them."""
    finite, mean = null[~np.isnan(null)], random[~np.isnan(random)]
    lo, hi = np.quantile(finite, (0.025, 0.975)).tolist() if len(finite) else (float("nan"),) * 2
    control = float(mean.mean()) if len(mean) else float("nan")
    return {"control_value": control, "null_lo": lo, "null_hi": hi, "n_perm": len(finite)}
