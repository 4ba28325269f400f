"""Triage scores and tables: every rate with the same rate of constant answers, by rule, by trigger, between modes.

Levels are integers, 0 where a reply gave none. Not for clinical use.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from interp import stats
from interp.tasks.esi.cases import BANNER
from interp.tasks.esi.triggers import TRIGGERS
from interp.tasks.protocol import score_row

if TYPE_CHECKING:
    import pandas as pd

GROUP = "subject"
REFERENCE = 2  # the constant answer that is the control of every row: 83 % adjacent on MIETIC-36 without any input
Row = dict[str, Any]
NO_LEVEL = 0
Scorer = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def _scorer(hit: Callable[[np.ndarray, np.ndarray], np.ndarray], among: Scorer | None = None) -> Scorer:
    def score(gold: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        keep = np.ones(len(gold), dtype=bool) if among is None else among(gold, predicted)[0]
        return np.asarray(hit(gold, predicted), dtype=bool), keep

    return score


def _parsed(predicted: np.ndarray) -> np.ndarray:
    return np.not_equal(predicted, NO_LEVEL)


def _urgent(gold: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.less_equal(gold, 2), np.ones(len(gold), dtype=bool)


RATES: Mapping[str, Scorer] = {
    "exact": _scorer(lambda g, p: np.equal(p, g)),
    "adjacent": _scorer(lambda g, p: _parsed(p) & (np.abs(p - g) <= 1)),
    "under_triage": _scorer(lambda g, p: _parsed(p) & np.greater(p, g)),
    "over_triage": _scorer(lambda g, p: _parsed(p) & np.less(p, g)),
    "d1_critical_under_triage": _scorer(lambda g, p: ~_parsed(p) | np.greater(p, g), _urgent),
    "d2_severe": _scorer(lambda g, p: np.where(_parsed(p), (p - g >= 2) | ((g <= 2) & (p >= 3)), g <= 2)),
    "no_parse": _scorer(lambda g, p: ~_parsed(p)),
}
"""Metric -> (gold, predicted) -> (hit, counted) [case].

exact, adjacent       predicted == gold; |predicted - gold| <= 1; no level is wrong in both
under_, over_triage   predicted less, or more, urgent than gold
d1                    of cases with gold <= 2: predicted > gold, or no level
d2                    predicted - gold >= 2, or gold <= 2 and (predicted >= 3 or no level)
"""


def rate(metric: str, gold: np.ndarray, predicted: np.ndarray, *, groups: np.ndarray | None) -> stats.Estimate:
    """One rate of `RATES` with its interval: Clopper-Pearson for d1 and d2, Wilson for others, clustered where grouped.

    An empty denominator (no urgent case) is undefined.
    """
    hit, counted = RATES[metric](gold, predicted)
    hit = hit[counted]
    if not len(hit):
        return stats.Estimate.undefined()
    units = None if groups is None else groups[counted]
    if units is not None and 1 < len(set(units)) < len(hit):
        return stats.wilson_clustered(hit.astype(float), groups=units)
    return (stats.clopper_pearson if metric.startswith("d") else stats.wilson)(int(hit.sum()), len(hit))


def constant(metric: str, gold: np.ndarray, level: int) -> float:
    """The metric of one constant answer for every case; NaN where no case counts."""
    hit, counted = RATES[metric](gold, np.full_like(gold, level))
    return float(hit[counted].mean()) if counted.any() else float("nan")


def quadratic_kappa(gold: np.ndarray, predicted: np.ndarray, *, groups: np.ndarray | None) -> stats.Kappa:
    """QWK = 1 - sum w·O / sum w·E, w = (i - j)²/16 over levels 1-5, over the cases with a level.

    0 for a constant answer; NaN where gold is constant too; interval by group.
    """
    keep = _parsed(predicted)
    units = None if groups is None else groups[keep]
    return stats.weighted_kappa(gold[keep], predicted[keep], levels=[1, 2, 3, 4, 5], groups=units)


def report(answers: pd.DataFrame, *, seed: int = 0) -> list[Row]:
    """Rows of the tidy table for one member in one mode; `control` is always answering "ESI 2" on the same cases.

    all            exact, adjacent, under- and over-triage, d1, d2, no_parse, signed_error, qwk
    ESI 1 ... 5    recall
    rule <name>/<polarity>    exact accuracy where the trigger is present, negated, past or absent
    trigger flips  both_right (both cases of a pair), answers_to_the_word (the answer to a denied or past trigger
                   is as urgent as if it were present; 0 for the gold levels)
    """
    answers = answers[answers["sample"] == 0]
    gold, predicted = levels(answers)
    groups = answers[f"group.{GROUP}"].astype(str).to_numpy()
    rows = [*_rates(gold, predicted, groups), *_scales(gold, predicted, groups), *_recall(gold, predicted, groups)]
    rows += [*_rules(answers, gold, predicted, groups), *_flips(answers, gold, predicted, groups)]
    return [
        {"member": str(answers["member"].iloc[0]), **row, "note": f"{BANNER} {row['note']}".strip()} for row in rows
    ]


def levels(answers: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """(gold, predicted) as integers, 0 where a reply gave no level [case]."""
    predicted = [int(x) if isinstance(x, str) else 0 for x in answers["label"]]
    return answers["gold"].astype(int).to_numpy(), np.array(predicted)


def _kind(metric: str, estimate: stats.Estimate) -> str:
    if estimate.n_groups < estimate.n:
        return f"Wilson at the effective n by {GROUP}"
    return "Clopper-Pearson" if metric.startswith("d") else "Wilson"


def _rates(gold: np.ndarray, predicted: np.ndarray, groups: np.ndarray) -> Iterator[Row]:
    for metric in RATES:
        estimate = rate(metric, gold, predicted, groups=groups)
        if not estimate.is_defined:
            continue
        constants = [constant(metric, gold, level) for level in range(1, 6)]
        note = "always ESI 1/2/3/4/5: " + "/".join(f"{value:.3f}" for value in constants)
        yield score_row("all", metric, estimate, _kind(metric, estimate), constants[REFERENCE - 1], note)


def _scales(gold: np.ndarray, predicted: np.ndarray, groups: np.ndarray) -> Iterator[Row]:
    keep = predicted > 0
    if keep.sum() < 2 or len(set(groups[keep])) < 2:
        return
    error = stats.cluster_t((predicted - gold)[keep].astype(float), groups=groups[keep], bounds=(-4.0, 4.0))
    always = float((REFERENCE - gold[keep]).mean())
    yield score_row(
        "all", "signed_error", error, f"{stats.RULE} by {GROUP}", always, "predicted - gold; above 0 is under-triage"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few subjects are in n_groups, an undefined kappa in the note
        agreement = quadratic_kappa(gold, predicted, groups=groups)
    if agreement.kappa.is_defined:
        note = "undefined without one of the subjects" if agreement.n_undefined else ""
        yield score_row("all", "qwk", agreement.kappa, f"{stats.RULE} by {GROUP}", 0.0, note)


def _recall(gold: np.ndarray, predicted: np.ndarray, groups: np.ndarray) -> Iterator[Row]:
    for level in sorted(set(gold.tolist())):
        keep = gold == level
        estimate = rate("exact", gold[keep], predicted[keep], groups=groups[keep])
        yield score_row(f"ESI {level}", "recall", estimate, _kind("recall", estimate), float(level == REFERENCE))


def _rules(answers: pd.DataFrame, gold: np.ndarray, predicted: np.ndarray, groups: np.ndarray) -> Iterator[Row]:
    for rule in (*TRIGGERS, "pain"):
        column = f"rule.{rule}"
        if column not in answers or set(answers[column]) <= {"absent"}:
            continue
        for polarity in ("present", "negated", "historical", "absent"):
            keep = (answers[column] == polarity).to_numpy()
            if keep.any():
                estimate = rate("exact", gold[keep], predicted[keep], groups=groups[keep])
                control = constant("exact", gold[keep], REFERENCE)
                yield score_row(f"rule {rule}/{polarity}", "exact", estimate, _kind("exact", estimate), control)


def _flips(answers: pd.DataFrame, gold: np.ndarray, predicted: np.ndarray, groups: np.ndarray) -> Iterator[Row]:
    """Pairs that differ in one trigger: `answers_to_the_word` is 1 for a model that ignores negation."""
    if "group.pair" not in answers or "trigger" not in answers:
        return
    table = answers.assign(_right=gold == predicted, _predicted=predicted, _groups=groups)
    pairs = table.groupby("group.pair").filter(lambda part: len(part) == 2)
    if not len(pairs):
        return
    both = pairs.groupby("group.pair").agg(right=("_right", "all"), group=("_groups", "first"))
    yield score_row(
        "trigger flips",
        "both_right",
        *_share(both["right"].to_numpy(), both["group"].to_numpy()),
        0.0,
        "a constant answer is never right on both",
    )
    quiet = table[table["perturbation"].isin(("negated", "historical")) & table["trigger"].isin(list(TRIGGERS))]
    if len(quiet):
        limit = np.array([TRIGGERS[rule][1] for rule in quiet["trigger"]])
        as_if = (quiet["_predicted"].to_numpy() > 0) & (quiet["_predicted"].to_numpy() <= limit)
        yield score_row(
            "trigger flips",
            "answers_to_the_word",
            *_share(as_if, quiet["_groups"].to_numpy()),
            0.0,
            "1 for a model that reacts to the word, 0 for one that reacts to the meaning",
        )


def _share(hit: np.ndarray, groups: np.ndarray) -> tuple[stats.Estimate, str]:
    if 1 < len(set(groups)) < len(hit):
        return stats.wilson_clustered(hit.astype(float), groups=groups), f"Wilson at the effective n by {GROUP}"
    return stats.wilson(int(hit.sum()), len(hit)), "Wilson"


def mode_report(answers: pd.DataFrame, *, seed: int = 0) -> list[Row]:
    """How two prompt modes of one member agree on the same cases: agreement, kappa, exact McNemar with its 2 x 2 table.

    Equal accuracy does not mean that the same cases are right: the note of `accuracy_difference` has the counts.
    """
    answers = answers[answers["sample"] == 0]
    modes = list(dict.fromkeys(answers["mode"]))
    if len(modes) != 2:
        return []
    first, second = (answers[answers["mode"] == m].set_index("id") for m in modes)
    second = second.loc[first.index]
    (gold, a), (_, b) = levels(first), levels(second)
    groups = first[f"group.{GROUP}"].astype(str).to_numpy()
    agree, kind = _share((a == b) & (a > 0), groups)
    chance = sum(float((a == k).mean() * (b == k).mean()) for k in range(1, 6))
    rows = [score_row("all", "mode_agreement", agree, kind, chance, f"{modes[0]} and {modes[1]} give the same level")]
    keep = (a > 0) & (b > 0)
    if len(set(groups[keep])) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kappa = quadratic_kappa(np.where(keep, a, 0), np.where(keep, b, 0), groups=groups)
        if kappa.kappa.is_defined:
            rows.append(score_row("all", "mode_kappa", kappa.kappa, f"{stats.RULE} by {GROUP}", 0.0, "quadratic"))
    rows += _mcnemar(modes, a == gold, b == gold)
    name = str(answers["member"].iloc[0])
    return [{"member": name, **row, "note": f"{BANNER} {row['note']}".strip()} for row in rows]


def _mcnemar(modes: list[str], a: np.ndarray, b: np.ndarray) -> list[Row]:
    table = stats.PairedTable.of(a, b)
    test = stats.mcnemar(table.only_a, table.only_b)
    counts = f"both right {table.both}, only {modes[0]} {table.only_a}, only {modes[1]} {table.only_b}, "
    counts += f"neither {table.neither}"
    verdict = f"exact McNemar p = {test.p:.3g}"
    if not test.decidable:
        verdict += "; fewer than 6 discordant cases, undecidable at 0.05"
    estimate = stats.newcombe_paired(table)
    return [score_row("all", "accuracy_difference", estimate, "Newcombe, paired", 0.0, f"{counts}; {verdict}")]


def compare(before: pd.DataFrame, after: pd.DataFrame, *, seed: int = 0) -> list[Row]:
    """Rows of `eval compare`: change of adjacent accuracy and of both kinds of dangerous error on the same cases.

    Cases that were asked several times enter with the share of their replies; `p` has the subject as its unit.
    """
    (gold, a), (_, b) = levels(before), levels(after)
    groups, items = (before[c].astype(str).to_numpy() for c in (f"group.{GROUP}", "id"))
    rows = []
    for metric in ("adjacent", "d1_critical_under_triage", "d2_severe"):
        (hit_a, counted), (hit_b, _) = RATES[metric](gold, a), RATES[metric](gold, b)
        units = groups[counted]
        if counted.sum() < 2 or len(set(units)) < 2:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.TooFewFlipsWarning)  # few subjects are seen in n_groups
            paired = stats.compare_items(
                hit_b[counted], hit_a[counted], items=items[counted], groups=units, sampling=stats.Sampling(seed=seed)
            )
        change = paired.difference
        rows.append(
            {
                "cell": "all",
                "metric": metric,
                "before": paired.b,
                "after": paired.a,
                "diff": change.value,
                "lo": change.lo,
                "hi": change.hi,
                "n": len(set(items[counted])),
                "n_groups": len(set(units)),
                "p": paired.p,
                "interval": f"{paired.interval} by {GROUP}",
                "note": f"{BANNER} only after {paired.only_a}, only before {paired.only_b}",
            }
        )
    return rows
