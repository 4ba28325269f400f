"""What a sweep reads of every run, and the definitions of a head's effect computed from it, in one table: `METRICS`.

A new definition is one entry of `METRICS`: sweeps, tables, figures and `metric_unit` take it from there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.heads.pairs import TokenPair
from interp.model import Model
from interp.sweep.read import answer_logits

_ROWS = 64


@dataclass(frozen=True)
class LogitDiff:
    """m = logit(answer) - logit(foil); the foil is the best other option if the pair names none."""


@dataclass(frozen=True)
class Prob:
    """p of the answer, softmax over the whole vocabulary. Costs the unembedding of every row."""


@dataclass(frozen=True)
class LabelAccuracy:
    """1 if the answer has the highest logit of the pair's options; a tie counts as wrong."""


Measure = LogitDiff | Prob | LabelAccuracy
MEASURES: tuple[Measure, ...] = (LogitDiff(), Prob(), LabelAccuracy())
FIELDS = ("clean_margin", "margin", "clean_p", "p", "clean_right", "right", "flipped", "clean_mass")
"""Outcomes of one pair, [unit] each: `clean_*` of the unedited run, the others of the run with the unit changed."""
PATCHES = ("patch", "resample:twin")  # names of the kinds that put the base prompt's z into the exp prompt
Sort = Literal["patch", "ablation", "direct"]


@dataclass(frozen=True)
class Metric:
    """One definition of a head's effect, with everything that statistics, tables, figures and help need of it.

    Attributes:
        unit: of its values.
        help: formula and sign, for people.
        reads: measure that the sweep must have read.
        effect: values by name of `FIELDS` -> effect of every unit on every pair; > 0 where the head helps the answer.
        combine: from pairs to one value. "mean"; "share": mean(effect) / mean(whole), see `HeadEffects.whole`; "dz":
            mean / sd; "rank": Cliff's delta over the norm-matched control heads, for one unit at a time.
        sorts: kinds of sweep that have it.
        is_main: the effect in logits of its sort; figures show it, and shares and d_z are made of it.
        is_tested: False if values cannot be negative, so that a test of 0 makes no sense.
    """

    unit: str
    help: str
    reads: type[Measure]
    effect: Callable[[Mapping[str, Float[np.ndarray, "example unit"]]], Float[np.ndarray, "example unit"]]
    combine: Literal["mean", "share", "dz", "rank"] = "mean"
    sorts: tuple[Sort, ...] = ("patch", "ablation", "direct")
    is_main: bool = False
    is_tested: bool = True


def _margin(values: Mapping[str, np.ndarray]) -> np.ndarray:
    return values["clean_margin"] - values["margin"]


METRICS: dict[str, Metric] = {
    "cma": Metric("logits", "m_clean - m_patched, per pair", LogitDiff, _margin, sorts=("patch",), is_main=True),
    "abl_logit": Metric(
        "logits", "m_clean - m_changed, per pair", LogitDiff, _margin, sorts=("ablation",), is_main=True
    ),
    "direct_effect": Metric(
        "logits",
        "m_clean - m_changed along the head's own path to the logits, per pair",
        LogitDiff,
        _margin,
        sorts=("direct",),
        is_main=True,
    ),
    "cma_frac": Metric(
        "share of the gap",
        "mean(m_clean - m_patched) / mean(m_clean + m_base)",
        LogitDiff,
        _margin,
        combine="share",
        sorts=("patch",),
    ),
    "abl_frac": Metric(
        "share of the clean margin",
        "mean(m_clean - m_changed) / mean(m_clean)",
        LogitDiff,
        _margin,
        combine="share",
        sorts=("ablation",),
    ),
    "cohen_dz": Metric("standard deviations", "mean / sd of the logit effect", LogitDiff, _margin, combine="dz"),
    "cliff": Metric(
        "-1 to 1",
        "P(effect > control) - P(effect < control), controls: norm-matched heads",
        LogitDiff,
        _margin,
        combine="rank",
    ),
    "abl_prob": Metric("probability", "p_clean - p_changed of the answer", Prob, lambda v: v["clean_p"] - v["p"]),
    "abl_acc": Metric(
        "accuracy", "right_clean - right_changed", LabelAccuracy, lambda v: v["clean_right"] - v["right"]
    ),
    "flip_rate": Metric(
        "share of pairs",
        "share of pairs on which another option wins",
        LabelAccuracy,
        lambda v: v["flipped"],
        is_tested=False,
    ),
}


def sort_of(kind: str, effect: str) -> Sort:
    """The key of a kind of sweep, from the names of its kind and effect."""
    if effect.startswith("direct"):
        return "direct"
    return "patch" if kind in PATCHES else "ablation"


def metrics_of(sort: Sort, measures: Collection[str]) -> tuple[str, ...]:
    """Names of the metrics of a sweep of this sort that read these measures (names of their classes)."""
    return tuple(name for name, m in METRICS.items() if sort in m.sorts and m.reads.__name__ in measures)


def main_metric(sort: Sort) -> str:
    """The name of the effect in logits for a kind of sweep."""
    return next(name for name, metric in METRICS.items() if metric.is_main and sort in metric.sorts)


def reader(
    model: Model, pair: TokenPair, *, vocabulary: bool
) -> Callable[[Float[Tensor, "row read d_model"]], Float[Tensor, "row read value"]]:
    """Function of the normed residual stream: logits of the pair's options, then log sum exp of all if `vocabulary`."""

    def read(final: Tensor) -> Tensor:
        logits = answer_logits(model, final, pair.options)
        if not vocabulary:
            return logits
        total = [answer_logits(model, part, "all").logsumexp(dim=-1, keepdim=True) for part in final.split(_ROWS)]
        return torch.cat([logits, torch.cat(total)], dim=-1)

    return read


@dataclass(frozen=True)
class Readout:
    """Runs of one pair.

    Attributes:
        margin: m, nats [run].
        p: probability of the answer [run]; NaN unless `Prob` was read.
        choice: index of the best option [run]; 0 is the answer.
        right: whether m over all options is above 0 [run].
        mass: probability of all options together [run]; NaN unless `Prob` was read.
    """

    margin: Float[Tensor, "run"]
    p: Float[Tensor, "run"]
    choice: Float[Tensor, "run"]
    right: Float[Tensor, "run"]
    mass: Float[Tensor, "run"]


def read_values(pair: TokenPair, values: Float[Tensor, "run value"]) -> Readout:
    """Margin, probability and choice from the values of `reader`."""
    wide = values.double().cpu()
    logits = wide[:, : len(pair.options)]
    others = logits[:, 1:]
    margin = logits[:, 0] - (others.amax(dim=1) if pair.foil is None else others[:, 0])
    has_total = wide.shape[1] > len(pair.options)
    p = (logits[:, 0] - wide[:, -1]).exp() if has_total else torch.full_like(margin, torch.nan)
    mass = (logits.logsumexp(dim=1) - wide[:, -1]).exp() if has_total else torch.full_like(margin, torch.nan)
    right = (logits[:, 0] > others.amax(dim=1)).double()
    return Readout(margin, p, logits.argmax(dim=1).double(), right, mass)
