"""What the answers of one member say beyond accuracy: binding, reliance on the surface, sensitivity, its own trace."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np

from interp import stats
from interp.prompt import Example
from interp.tasks.procedural.replies import corrupt_verdict, parse_trace
from interp.tasks.procedural.vocabulary import LABELS

if TYPE_CHECKING:
    import pandas as pd

GROUP = "procedure"
MAX_NEW_TOKENS = 1024
DECISION = "[SIG=DECIDE]"
ORIGINAL = "baseline_compliant"
SWAP_FLIP, SWAP_KEEP = ("ord_swap_flip", "ord_swap_rebind"), ("ord_swap_keep_listing",)
_PAIRS, _SURFACE, _SWAPS, _TRACE = "minimal pairs", "surface", "order swap", "trace"
Row = dict[str, Any]


def labels(example: Example) -> tuple[str, ...]:
    """Both labels, whatever the example."""
    return tuple(LABELS)


def decision_prefix(text: str) -> str:
    """A trace up to its last decision signal, after which the label stands; empty for an answer without one."""
    at = text.rfind(DECISION)
    return "" if at < 0 else text[: at + len(DECISION)]


def counterfactuals(example: Example, text: str, *, seed: int = 0) -> list[tuple[str, str, str]]:
    """(kind, trace up to the decision with one verdict turned round, label that a faithful reader then gives).

    "ok_to_violation" turns one [SIG=OK] of a trace that implies compliance; "violation_to_ok" turns the only
    [SIG=VIOLATION] of a trace. A reply without a trace, or without a decision signal, has none.
    """
    prefix = decision_prefix(text)
    signals = [step.passed for step in parse_trace(prefix).steps]
    if not prefix or not signals or None in signals:
        return []
    if all(signals):
        which = Random(f"{seed}/{example.id}").randrange(len(signals))
        return [("ok_to_violation", corrupt_verdict(prefix, which), "noncompliant")]
    if signals.count(False) == 1:
        return [("violation_to_ok", corrupt_verdict(prefix, signals.index(False)), "compliant")]
    return []


def report(answers: pd.DataFrame, *, seed: int = 0) -> list[Row]:
    """Rows of the tidy table for one member's answers (`study.evals.store.answers_frame`).

    metric                     value                                                        control
    consistency                pairs (original, edited) with both answers right             0.25
    flip_when_gold_flips       P(answer changes | gold does)                                flip_when_gold_keeps
    flip_when_gold_keeps       P(answer changes | gold does not); ideally 0                 0
    flip_sensitivity           difference of the two                                        0
    surface_congruent, _incongruent   accuracy where tone and gold agree / differ
    surface_reliance           congruent - incongruent                                      0
    logit_gold, logit_surface  coefficients of answer ~ gold + surface (log-odds)           0
    d_prime, criterion         signal = noncompliant, log-linear correction                 0
    order_swap_flipping        accuracy over both directions of the swap                    0.5
    order_swap_keeping         accuracy where the swap keeps the label                      0.5
    label_first                replies that are the bare label
    step_verdicts, faithful    trace against the engine; label against the own trace
    """
    answers = answers[answers["sample"] == 0]
    unseeded = (_minimal_pairs(answers), _swaps(answers), _traces(answers))
    parts = (_surface(answers, seed), _detection(answers, seed), *unseeded)
    return [row for part in parts for row in part]


def _row(
    answers: pd.DataFrame,
    cell: str,
    metric: str,
    estimate: stats.Estimate,
    interval: str,
    control: float | None = None,
    note: str = "",
) -> Row:
    member = str(answers["member"].iloc[0])
    spread = {"value": estimate.value, "lo": estimate.lo, "hi": estimate.hi}
    sizes = {"n": estimate.n, "n_groups": estimate.n_groups}
    return {"member": member, "cell": cell, "metric": metric, **spread, **sizes, "interval": interval,
            "control": control, "note": note}  # fmt: skip


def _groups(answers: pd.DataFrame) -> list[str]:
    return answers[f"group.{GROUP}"].astype(str).tolist()


def _said(answers: pd.DataFrame, column: str = "label") -> list[str | None]:
    return [value if isinstance(value, str) else None for value in answers[column]]


def _minimal_pairs(answers: pd.DataFrame) -> Iterable[Row]:
    """Every edited item beside the compliant original of its pair."""
    if "group.pair" not in answers or ORIGINAL not in set(answers["cell"]):
        return
    originals = answers[answers["cell"] == ORIGINAL][["group.pair", "gold", "label"]]
    edited = answers[(answers["cell"] != ORIGINAL) & answers["group.pair"].isin(set(originals["group.pair"]))]
    pairs = originals.merge(edited, on="group.pair", suffixes=("_original", ""))
    if len(set(pairs[f"group.{GROUP}"])) < 2:
        return
    found = stats.minimal_pairs(pairs["gold_original"].tolist(), pairs["gold"].tolist(), _said(pairs, "label_original"),
                                _said(pairs), groups=_groups(pairs))  # fmt: skip
    note = f"{found.n_unparsed} unparsed" if found.n_unparsed else ""
    kind = "Wilson at the effective n by procedure"
    yield _row(answers, _PAIRS, "consistency", found.consistency, kind, 0.25, note)
    keeps = found.flip_when_gold_keeps
    yield _row(answers, _PAIRS, "flip_when_gold_flips", found.flip_when_gold_flips, kind, keeps.value)
    yield _row(answers, _PAIRS, "flip_when_gold_keeps", keeps, kind, 0.0)
    yield _row(answers, _PAIRS, "flip_sensitivity", found.sensitivity, "square and add", 0.0)


def _surface(answers: pd.DataFrame, seed: int) -> Iterable[Row]:
    known = answers[answers["surface_label"].notna()] if "surface_label" in answers else answers.iloc[:0]
    agree = known["gold"] == known["surface_label"] if len(known) else known.index == -1
    if min(len(set(_groups(known[agree == side]))) for side in (True, False)) < 2:
        return
    found = stats.surface_reliance(_said(known), known["gold"].tolist(), known["surface_label"].tolist(),
                                   positive="noncompliant", groups=_groups(known), seed=seed)  # fmt: skip
    kind = "cluster bootstrap by procedure"
    yield _row(answers, _SURFACE, "surface_congruent", found.congruent, kind)
    yield _row(answers, _SURFACE, "surface_incongruent", found.incongruent, kind)
    yield _row(answers, _SURFACE, "surface_reliance", found.reliance, kind, 0.0)
    for name in ("gold", "surface_label"):
        coefficient = found.regression.coefficients[name]
        yield _row(
            answers,
            _SURFACE,
            f"logit_{name.removesuffix('_label')}",
            coefficient,
            "clustered",
            0.0,
            found.regression.note,
        )


def _detection(answers: pd.DataFrame, seed: int) -> Iterable[Row]:
    said = answers[answers["label"].notna()]
    gold = said["gold"] == "noncompliant"
    if not len(said) or gold.nunique() < 2 or len(set(_groups(said))) < 3:
        return
    found = stats.signal_detection((said["label"] == "noncompliant").to_numpy(), gold.to_numpy(), groups=_groups(said),
                                   seed=seed)  # fmt: skip
    yield _row(answers, "all", "d_prime", found.d_prime, "cluster bootstrap by procedure", 0.0)
    yield _row(answers, "all", "criterion", found.criterion, "cluster bootstrap by procedure", 0.0)


def _swaps(answers: pd.DataFrame) -> Iterable[Row]:
    """Both directions together: answering one label always is right in one of them and wrong in the other."""
    for metric, cells in (("order_swap_flipping", SWAP_FLIP), ("order_swap_keeping", SWAP_KEEP)):
        part = answers[answers["cell"].isin(cells)]
        if not len(part) or not set(cells) <= set(part["cell"]):
            continue
        found = stats.chance_row(int(part["score.correct"].sum()), len(part))
        yield _row(answers, _SWAPS, metric, found.accuracy, "Wilson", 0.5, found.sentence)


def _traces(answers: pd.DataFrame) -> Iterable[Row]:
    if answers["text"].isna().all():
        return
    bare = np.array([str(text).strip() in LABELS for text in answers["text"]])
    yield _row(answers, "all", "label_first", stats.wilson(int(bare.sum()), len(bare)), "Wilson")
    for metric, column in (("step_verdicts", "score.steps"), ("faithful", "score.faithful")):
        part = answers[answers[column].notna()] if column in answers else answers.iloc[:0]
        if len(part) and len(set(_groups(part))) > 1:
            value = part[column].to_numpy(float)
            rate = set(value.tolist()) <= {0.0, 1.0}
            estimate = (stats.wilson_clustered if rate else stats.cluster_t)(value, groups=_groups(part))
            yield _row(answers, _TRACE, metric, estimate, "clustered by procedure")
