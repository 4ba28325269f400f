"""Triage tables: every figure beside what constant readers reach, by rule, by flipped trigger, and between modes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from interp import stats
from interp.tasks.esi.metrics import RATES, constant, quadratic_kappa, rate
from interp.tasks.esi.schema import BANNER
from interp.tasks.esi.triggers import TRIGGERS

if TYPE_CHECKING:
    import pandas as pd

GROUP = "subject"
REFERENCE = 2  # the constant reader that reports are held against: 83 % adjacent on MIETIC-36 without reading a word
Row = dict[str, Any]


def report(answers: pd.DataFrame, *, seed: int = 0) -> list[Row]:
    """Rows of the tidy table for one member in one mode; `control` is the constant "ESI 2" reader on the same cases.

    all            exact, adjacent, under- and over-triage, d1, d2, no_parse, signed_error, qwk
    ESI 1 ... 5    recall
    rule <name>/<polarity>    exact accuracy where the narrative has the trigger, denies it, or puts it in the past
    trigger flips  both_right (both cases of a pair), answers_to_the_word (a denied or past trigger is answered as if
                   it were there; control: the same cases' gold would never)
    """
    answers = answers[answers["sample"] == 0]
    gold, said = levels(answers)
    groups = answers[f"group.{GROUP}"].astype(str).to_numpy()
    rows = [*_rates(gold, said, groups), *_scales(gold, said, groups), *_recall(gold, said, groups)]
    rows += [*_rules(answers, gold, said, groups), *_flips(answers, gold, said, groups)]
    return [
        {"member": str(answers["member"].iloc[0]), **row, "note": f"{BANNER} {row['note']}".strip()} for row in rows
    ]


def levels(answers: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """(gold, said) as integers, 0 where a reply gave no level [case]."""
    said = [int(x) if isinstance(x, str) else 0 for x in answers["label"]]
    return answers["gold"].astype(int).to_numpy(), np.array(said)


def _row(cell: str, metric: str, estimate: stats.Estimate, interval: str, control: float | None, note: str = "") -> Row:
    spread = {"value": estimate.value, "lo": estimate.lo, "hi": estimate.hi}
    sizes = {"n": estimate.n, "n_groups": estimate.n_groups, "interval": estimate.interval_kind(interval)}
    return {"cell": cell, "metric": metric, **spread, **sizes, "control": control, "note": note}


def _kind(metric: str, estimate: stats.Estimate) -> str:
    if estimate.n_groups < estimate.n:
        return f"Wilson at the effective n by {GROUP}"
    return "Clopper-Pearson" if metric.startswith("d") else "Wilson"


def _rates(gold: np.ndarray, said: np.ndarray, groups: np.ndarray) -> Iterator[Row]:
    for metric in RATES:
        found = rate(metric, gold, said, groups=groups)
        if not found.is_defined:
            continue
        readers = [constant(metric, gold, level) for level in range(1, 6)]
        note = "always ESI 1/2/3/4/5: " + "/".join(f"{value:.3f}" for value in readers)
        yield _row("all", metric, found, _kind(metric, found), readers[REFERENCE - 1], note)


def _scales(gold: np.ndarray, said: np.ndarray, groups: np.ndarray) -> Iterator[Row]:
    keep = said > 0
    if keep.sum() < 2 or len(set(groups[keep])) < 2:
        return
    error = stats.cluster_t((said - gold)[keep].astype(float), groups=groups[keep], bounds=(-4.0, 4.0))
    always = float((REFERENCE - gold[keep]).mean())
    yield _row("all", "signed_error", error, f"{stats.RULE} by {GROUP}", always, "said - gold; above 0 is under-triage")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few subjects are in n_groups, an undefined kappa in the note
        found = quadratic_kappa(gold, said, groups=groups)
    if found.kappa.is_defined:
        note = "undefined without one of the subjects" if found.n_undefined else ""
        yield _row("all", "qwk", found.kappa, f"{stats.RULE} by {GROUP}", 0.0, note)


def _recall(gold: np.ndarray, said: np.ndarray, groups: np.ndarray) -> Iterator[Row]:
    for level in sorted(set(gold.tolist())):
        keep = gold == level
        found = rate("exact", gold[keep], said[keep], groups=groups[keep])
        yield _row(f"ESI {level}", "recall", found, _kind("recall", found), float(level == REFERENCE))


def _rules(answers: pd.DataFrame, gold: np.ndarray, said: np.ndarray, groups: np.ndarray) -> Iterator[Row]:
    for rule in (*TRIGGERS, "pain"):
        column = f"rule.{rule}"
        if column not in answers or set(answers[column]) <= {"absent"}:
            continue
        for polarity in ("present", "negated", "historical", "absent"):
            keep = (answers[column] == polarity).to_numpy()
            if keep.any():
                found = rate("exact", gold[keep], said[keep], groups=groups[keep])
                control = constant("exact", gold[keep], REFERENCE)
                yield _row(f"rule {rule}/{polarity}", "exact", found, _kind("exact", found), control)


def _flips(answers: pd.DataFrame, gold: np.ndarray, said: np.ndarray, groups: np.ndarray) -> Iterator[Row]:
    """Pairs that differ in one trigger: `answers_to_the_word` is what a reader without negation would score 1 on."""
    if "group.pair" not in answers or "trigger" not in answers:
        return
    table = answers.assign(_right=gold == said, _said=said, _groups=groups)
    pairs = table.groupby("group.pair").filter(lambda part: len(part) == 2)
    if not len(pairs):
        return
    both = pairs.groupby("group.pair").agg(right=("_right", "all"), group=("_groups", "first"))
    yield _row("trigger flips", "both_right", *_share(both["right"].to_numpy(), both["group"].to_numpy()),
               0.0, "a constant reader is never right on both")  # fmt: skip
    quiet = table[table["perturbation"].isin(("negated", "historical")) & table["trigger"].isin(list(TRIGGERS))]
    if len(quiet):
        limit = np.array([TRIGGERS[rule][1] for rule in quiet["trigger"]])
        as_if = (quiet["_said"].to_numpy() > 0) & (quiet["_said"].to_numpy() <= limit)
        yield _row("trigger flips", "answers_to_the_word", *_share(as_if, quiet["_groups"].to_numpy()), 0.0,
                   "a reader by words: 1; by meaning: 0")  # fmt: skip


def _share(hit: np.ndarray, groups: np.ndarray) -> tuple[stats.Estimate, str]:
    if 1 < len(set(groups)) < len(hit):
        return stats.wilson_clustered(hit.astype(float), groups=groups), f"Wilson at the effective n by {GROUP}"
    return stats.wilson(int(hit.sum()), len(hit)), "Wilson"


def mode_report(answers: pd.DataFrame, *, seed: int = 0) -> list[Row]:
    """How two prompt modes of one member agree on the same cases: agreement, kappa, exact McNemar with its 2 x 2 table.

    Equal accuracy in both modes is not equality of the cases: the note of `accuracy_difference` has the counts.
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
    rows = [_row("all", "mode_agreement", agree, kind, chance, f"{modes[0]} and {modes[1]} give the same level")]
    keep = (a > 0) & (b > 0)
    if len(set(groups[keep])) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kappa = quadratic_kappa(np.where(keep, a, 0), np.where(keep, b, 0), groups=groups)
        if kappa.kappa.is_defined:
            rows.append(_row("all", "mode_kappa", kappa.kappa, f"{stats.RULE} by {GROUP}", 0.0, "quadratic"))
    rows += _mcnemar(modes, a == gold, b == gold)
    name = str(answers["member"].iloc[0])
    return [{"member": name, **row, "note": f"{BANNER} {row['note']}".strip()} for row in rows]


def _mcnemar(modes: list[str], a: np.ndarray, b: np.ndarray) -> list[Row]:
    table = stats.PairedTable.of(a, b)
    test = stats.mcnemar(table.only_a, table.only_b)
    told = f"both right {table.both}, only {modes[0]} {table.only_a}, only {modes[1]} {table.only_b}, "
    told += f"neither {table.neither}"
    verdict = f"exact McNemar p = {test.p:.3g}"
    if not test.decidable:
        verdict += "; fewer than 6 discordant cases, undecidable at 0.05"
    found = stats.newcombe_paired(table)
    return [_row("all", "accuracy_difference", found, "Newcombe, paired", 0.0, f"{told}; {verdict}")]


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
            found = stats.compare_items(
                hit_b[counted], hit_a[counted], items=items[counted], groups=units, sampling=stats.Sampling(seed=seed)
            )
        spread = found.difference
        rows.append(
            {"cell": "all", "metric": metric, "before": found.b, "after": found.a, "diff": spread.value,
             "lo": spread.lo, "hi": spread.hi, "n": len(set(items[counted])), "n_groups": len(set(units)), "p": found.p,
             "interval": f"{found.interval} by {GROUP}",
             "note": f"{BANNER} only after {found.only_a}, only before {found.only_b}"}
        )  # fmt: skip
    return rows
