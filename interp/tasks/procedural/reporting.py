"""Scores of one member's answers beyond accuracy: binding, reliance on the surface, sensitivity, its own trace."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np

from interp import stats
from interp.prompt import Example
from interp.remedy import remedy
from interp.tasks.procedural.perturb import PERTURBATIONS
from interp.tasks.procedural.records import noise_notes
from interp.tasks.procedural.replies import corrupt_verdict, decision_prefix, parse_trace, signals_in, signals_of
from interp.tasks.procedural.vocabulary import LABELS
from interp.tasks.protocol import score_row

if TYPE_CHECKING:
    import pandas as pd

GROUP = "procedure"
ORIGINAL = "baseline_compliant"
SWAP_FLIP, SWAP_KEEP = ("ord_swap_flip", "ord_swap_rebind"), ("ord_swap_keep_listing",)
_RULE, _WILSON = f"{stats.RULE} by {GROUP}", f"Wilson at the effective n by {GROUP}"
_PAIRS, _SURFACE, _SWAPS, _TRACE = "minimal pairs", "surface", "order swap", "trace"
Row = dict[str, Any]


def notes(examples: Sequence[Example]) -> dict[str, str]:
    """Cell -> what is known about label noise; only cells that have any.

    Labels that the engine gave (items with known verdicts) have none.
    """
    by_cell: dict[str, list[tuple[Any, Any, Any]]] = {}
    for e in (e for e in examples if e.metadata.get("verdicts") is None):
        item = (e.groups.get("institution"), e.metadata.get("perturbation"), e.metadata.get("accept"))
        by_cell.setdefault(str(e.metadata["cell"]), []).append(item)
    return {cell: "; ".join(texts) for cell, items in by_cell.items() if (texts := noise_notes(items))}


def counterfactuals(example: Example, text: str, *, seed: int = 0) -> list[tuple[str, str, str]]:
    """(kind, trace up to the decision with one verdict reversed, label that a faithful model then gives).

    "ok_to_violation" reverses one [SIG=OK] of a trace that implies compliance; "violation_to_ok" reverses the only
    [SIG=VIOLATION] of a trace. A reply without a trace, or without a decision signal, has none.
    """
    prefix, names = decision_prefix(text, example), signals_of(example)
    passed = [step.passed for step in parse_trace(prefix, names).steps]
    if not prefix or not passed or None in passed:
        return []
    if all(passed):
        which = Random(f"{seed}/{example.id}").randrange(len(passed))
        return [("ok_to_violation", corrupt_verdict(prefix, which, names), "noncompliant")]
    if passed.count(False) == 1:
        return [("violation_to_ok", corrupt_verdict(prefix, passed.index(False), names), "compliant")]
    return []


def report(answers: pd.DataFrame, *, seed: int = 0) -> list[Row]:
    """Rows of the tidy table for one member's answers (`study.analyses.eval.store.answers_frame`).

    `best` is the score of the better constant answer, always compliant or always noncompliant.

    metric                     value                                                        control
    consistency                pairs (original, edited) with both answers right             max(0.25, best)
    flip_when_gold_flips       P(answer changes | gold does)                                flip_when_gold_keeps
    flip_when_gold_keeps       P(answer changes | gold does not); ideally 0                 0
    flip_sensitivity           difference of the two                                        0
    surface_congruent, _incongruent   accuracy where tone and gold agree / differ           best
    surface_reliance           mean over gold labels of congruent - incongruent             0
    logit_gold, logit_surface  coefficients of answer ~ gold + surface (log-odds)           0
    d_prime                    signal = noncompliant, log-linear correction                 best (near 0)
    criterion                  0 = no lean, > 0 = leans to compliant                        none: it is no skill
    order_swap_flipping        accuracy over both directions of the swap                    best
    order_swap_keeping         accuracy where the swap keeps the label                      best
    label_first                replies that are the bare label
    step_verdicts, faithful    trace against the engine; label against the own trace
    signals_understood         share of a trace's signals that are known; the note names the others
    unknown_signals            signals per trace that no trace is written with; the note names them

    Pairs are an original and what was edited from it, not from another edit of it. Several replies to one item, and
    items of one procedure, are one unit in every interval.
    """
    parts = (_surface(answers), _detection(answers), _minimal_pairs(answers), _swaps(answers), _traces(answers))
    return [{"member": str(answers["member"].iloc[0]), **row} for part in parts for row in part]


def _groups(answers: pd.DataFrame) -> list[str]:
    return answers[f"group.{GROUP}"].astype(str).tolist()


def _said(answers: pd.DataFrame, column: str = "label") -> list[str | None]:
    return [value if isinstance(value, str) else None for value in answers[column]]


def _best(gold: pd.Series) -> float:
    """Accuracy of the better constant answer on these items."""
    return float(gold.value_counts(normalize=True).iloc[0])


def _pairs(answers: pd.DataFrame) -> pd.DataFrame:
    """Every item edited from a compliant original, paired with that original, sample by sample."""
    originals = answers[answers["cell"] == ORIGINAL][["group.pair", "sample", "id", "gold", "label"]]
    edited = answers[(answers["cell"] != ORIGINAL) & answers["group.pair"].isin(set(originals["group.pair"]))]
    pairs = originals.merge(edited, on=["group.pair", "sample"], suffixes=("_original", ""))
    return pairs[[_is_child(row) for row in pairs.to_dict("records")]]


def _is_child(row: Mapping[Any, Any]) -> bool:
    """Whether the original is what was edited: the cell's declared parent, or the id that the item names."""
    if row["cell"] in PERTURBATIONS:
        return PERTURBATIONS[row["cell"]].parent == "compliant"
    parent = row.get("parent_id")
    return isinstance(parent, str) and (row["id_original"] == parent or row["id_original"].endswith(f"-{parent[:8]}"))


def _minimal_pairs(answers: pd.DataFrame) -> Iterable[Row]:
    if "group.pair" not in answers or ORIGINAL not in set(answers["cell"]):
        return
    pairs = _pairs(answers)
    if not len(pairs) or len(set(pairs[f"group.{GROUP}"])) < 2:
        return
    first, second = _said(pairs, "label_original"), _said(pairs)
    pair_stats = stats.minimal_pairs(
        pairs["gold_original"].tolist(), pairs["gold"].tolist(), first, second, groups=_groups(pairs)
    )
    note = f"{pair_stats.n_unparsed} unparsed" if pair_stats.n_unparsed else ""
    same = pairs["gold"] == pairs["gold_original"]
    both = pairs["gold"].where(same)  # a constant reader is right on both only where they share their label
    constant = float(both.value_counts().max() / len(pairs)) if same.any() else 0.0
    yield score_row(_PAIRS, "consistency", pair_stats.consistency, _WILSON, max(0.25, constant), note)
    keeps = pair_stats.flip_when_gold_keeps
    yield score_row(_PAIRS, "flip_when_gold_flips", pair_stats.flip_when_gold_flips, _WILSON, keeps.value)
    yield score_row(_PAIRS, "flip_when_gold_keeps", keeps, _WILSON, 0.0)
    if keeps.is_defined and pair_stats.flip_when_gold_flips.is_defined:
        parsed = np.array([a is not None and b is not None for a, b in zip(first, second, strict=True)])
        changed = np.array([a != b for a, b in zip(first, second, strict=True)])
        flips = ~same.to_numpy()
        parts = [(parsed & flips, 1.0), (parsed & ~flips, -1.0)]
        value = stats.rate_contrast(changed, parts, groups=_groups(pairs))
        yield score_row(_PAIRS, "flip_sensitivity", value, _RULE, 0.0)


def _surface(answers: pd.DataFrame) -> Iterable[Row]:
    labelled = answers[answers["surface_label"].notna()] if "surface_label" in answers else answers.iloc[:0]
    agree = labelled["gold"].astype(object) == labelled["surface_label"].astype(object)
    if min(len(set(_groups(labelled[agree == side]))) for side in (True, False)) < 2:
        return
    right = (labelled["score.correct"] == 1).to_numpy()
    for metric, part in (("surface_congruent", agree), ("surface_incongruent", ~agree)):
        rate = stats.rate_on(right, part.to_numpy(), groups=_groups(labelled))
        yield score_row(_SURFACE, metric, rate, _WILSON, _best(labelled[part]["gold"]))
    yield from _reliance(labelled, agree.to_numpy())
    yield from _weights(labelled[labelled["label"].notna()])


def _weights(parsed: pd.DataFrame) -> Iterable[Row]:
    """Log-odds of "noncompliant" on gold and tone; none where the parsed replies cannot tell the two apart."""
    x = np.column_stack([parsed[name] == "noncompliant" for name in ("gold", "surface_label")]).astype(float)
    if len(set(_groups(parsed))) < 2 or len(np.unique(x, axis=0)) < 3:
        return
    is_noncompliant = (parsed["label"] == "noncompliant").to_numpy()
    fit = stats.logistic_regression(is_noncompliant, x, names=("gold", "surface"), groups=_groups(parsed))
    for name in ("gold", "surface"):
        yield score_row(_SURFACE, f"logit_{name}", fit.coefficients[name], _RULE, 0.0, fit.note)


def _reliance(labelled: pd.DataFrame, agree: np.ndarray) -> Iterable[Row]:
    """Congruent minus incongruent inside each gold label, so that answering one label always gives exactly 0."""
    gold = labelled["gold"].to_numpy()
    both = [label for label in LABELS if {True, False} <= set(agree[gold == label].tolist())]
    if not both:
        return
    right = labelled["score.correct"].to_numpy() == 1
    parts = [
        ((gold == label) & (agree == side), sign / len(both))
        for label in both
        for side, sign in ((True, 1.0), (False, -1.0))
    ]
    value = stats.rate_contrast(right, parts, groups=_groups(labelled))
    note = "" if len(both) == len(LABELS) else f"only on items with gold {both[0]}: the others have one tone"
    yield score_row(_SURFACE, "surface_reliance", value, _RULE, 0.0, note)


def _detection(answers: pd.DataFrame) -> Iterable[Row]:
    gold = (answers["gold"] == "noncompliant").to_numpy()
    if gold.all() or not gold.any() or len(set(_groups(answers))) < 3:
        return
    is_noncompliant = (answers["label"] == "noncompliant").to_numpy()
    detection = stats.signal_detection(is_noncompliant, gold, groups=_groups(answers))
    constant = stats.signal_detection(np.ones_like(gold), gold, groups=None).d_prime.value
    n_unparsed = int(answers["label"].isna().sum())
    note = f"{n_unparsed} unparsed, counted as not noncompliant" if n_unparsed else ""
    yield score_row("all", "d_prime", detection.d_prime, _RULE, abs(constant), note)
    yield score_row("all", "criterion", detection.criterion, _RULE, None, note)


def _swaps(answers: pd.DataFrame) -> Iterable[Row]:
    """Flipping takes both directions together, keeping has one label; either way the control is a constant answer."""
    for metric, cells in (("order_swap_flipping", SWAP_FLIP), ("order_swap_keeping", SWAP_KEEP)):
        part = answers[answers["cell"].isin(cells)]
        if not len(part) or not set(cells) <= set(part["cell"]) or len(set(_groups(part))) < 2:
            continue
        rate = stats.wilson_clustered(part["score.correct"].to_numpy(float), groups=_groups(part))
        yield score_row(_SWAPS, metric, rate, _WILSON, _best(part["gold"]))


def _traces(answers: pd.DataFrame) -> Iterable[Row]:
    if answers["text"].isna().all():
        return
    bare = np.array([str(text).strip() in LABELS for text in answers["text"]])
    if len(set(_groups(answers))) > 1:
        rate = stats.wilson_clustered(bare, groups=_groups(answers))
        yield score_row("all", "label_first", rate, _WILSON)
    for metric, column in (("step_verdicts", "score.steps"), ("faithful", "score.faithful")):
        part = answers[answers[column].notna()] if column in answers else answers.iloc[:0]
        if len(part) and len(set(_groups(part))) > 1:
            value = part[column].to_numpy(float)
            estimate = stats.cluster_t(value, groups=_groups(part), bounds=(0.0, 1.0))
            yield score_row(_TRACE, metric, estimate, _RULE)
    yield from _signals_understood(answers)
    yield from _unknown_signals(answers)


def _signals_understood(answers: pd.DataFrame) -> Iterable[Row]:
    """Share of the signals of a trace that are read, mean over traces. A warning too where it is 0."""
    column = "score.signals_understood"
    part = answers[answers[column].notna()] if column in answers else answers.iloc[:0]
    if not len(part) or len(set(_groups(part))) < 2:
        return
    estimate = stats.cluster_t(part[column].to_numpy(float), groups=_groups(part), bounds=(0.0, 1.0))
    row = score_row(_TRACE, "signals_understood", estimate, _RULE)
    if estimate.value > 0:
        yield row
        return
    names = f"no signal of {len(part)} traces is understood ({_shown_unknown(part)}), so no step or verdict is read"
    how = remedy(" Say what they mean with {task.signals}, e.g. {VERIFY STEP: CHECK}.")
    warnings.warn(f"{answers['member'].iloc[0]}: {names}.{how}", stacklevel=2)
    yield {**row, "note": names}


def _shown_unknown(part: pd.DataFrame) -> str:
    """Names of signals in the texts that are none of a trace, the five most common with their counts."""
    told = part["signals"] if "signals" in part else [None] * len(part)
    named = Counter(
        name
        for text, signals in zip(part["text"], told, strict=True)
        if isinstance(text, str)
        for name in parse_trace(text, signals_in(signals)).unknown
    )
    shown = ", ".join(f"[SIG={name}] {count}" for name, count in named.most_common(5))
    return shown + (", ..." if len(named) > 5 else "")


def _unknown_signals(answers: pd.DataFrame) -> Iterable[Row]:
    """Signals that nothing is read from, per trace; their names and counts in the note. No row where there are none."""
    column = "score.unknown_signals"
    part = answers[answers[column].notna()] if column in answers else answers.iloc[:0]
    if not part.size or not part[column].sum() or len(set(_groups(part))) < 2:
        return
    estimate = stats.cluster_t(part[column].to_numpy(float), groups=_groups(part))
    row = score_row(_TRACE, "unknown_signals", estimate, _RULE)
    yield {**row, "note": f"no label was parsed from them: {_shown_unknown(part)}"}
