"""Tables of oracle readings: `oracle` (accuracy, controls, gaps) and others in schema columns, and the readings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from interp.oracle import Choices, Features, PairedReading
from interp.oracle.evidence import accuracy_over, verdict
from interp.stats import Estimate, wilson_clustered
from study.rows import Row
from study.schema import tidy

if TYPE_CHECKING:
    import pandas as pd

PRIOR = "prior"
FLOORS = ("majority", PRIOR)
GAPS = {
    "shuffled": "matched shuffle: another reading's activations",
    "zero": "nothing injected",
    "mean": "the layer's mean activation",
    "gaussian": "a random direction",
    "no_adapter": "the base without the oracle's adapter",
    "text_only": "the base reads the text",
    PRIOR: "oracle trained on zeroed activations",
}
LEVEL = "by problem: Wilson at the effective n, or jackknife t"
PAIRED = "paired difference by reading, by problem"
RECALL = "clustered Wilson"


def oracle_table(rows: Sequence[Row], **same: object) -> pd.DataFrame:
    """The schema table of `oracle_rows`; `same` holds what all rows share (member, target, model, ...)."""
    return tidy(rows, analysis="oracle", unit="readings", group_unit="problems", **same)


def oracle_rows(choices: Choices, gold: Mapping[str, str], probe: np.ndarray | None) -> list[Row]:
    """Rows of one question asked of one source: accuracy, balanced accuracy, a gap per control, macro F1.

    `accuracy` carries its paired difference from each control: `text_only_difference`, `probe_difference`, and
    `floor_difference`, from prior-only oracle and majority both (`over_floor`). A gap is a paired difference itself.

    Args:
        gold: reading -> right choice.
        probe: whether a probe on the same vectors has each reading right, None where none could be fitted [reading].
    """
    graded, likelihoods = choices.grade(gold), choices.likelihoods(gold)
    right = right_of_controls(choices, gold, probe)
    accuracy = {name: float(np.nanmean(hits)) for name, hits in right.items()}
    over = {name: choices.over(gold, hits) for name, hits in right.items()}
    differences = {"floor": over_floor(over)} | {name: over[name] for name in ("text_only", "probe") if name in over}
    gaps = {name: likelihoods.gap(name) for name in choices.controls}
    floor = max(accuracy[name] for name in FLOORS if name in accuracy)
    levels = {name: accuracy.get(name) for name in ("majority", PRIOR, "text_only", "probe")}
    first = _row(
        "accuracy",
        graded.accuracy,
        control="the larger of prior-only oracle and majority",
        control_value=floor,
        floor=floor,
        top_answer=max(choices.choices, key=choices.best.count),
        top_share=graded.modal_share,
    )
    first |= levels | _gap(gaps.get("shuffled"))
    for name, difference in differences.items():
        first |= _difference(name, difference)
    chance = {"control": "chance", "control_value": 1 / len(choices.choices)}
    rows = [first, _row("balanced_accuracy", graded.balanced, **chance)]
    for name, gap in gaps.items():
        words = {"interval": PAIRED, "control": GAPS[name], "control_value": 0.0, "verdict": verdict(gap)}
        rows.append(_row(f"gap_{name}", gap, "nats per answer token", **words))
    return [*rows, *_nothing_injected(choices, gold, right["majority"]), _row("macro_f1", graded.macro_f1)]


def _nothing_injected(choices: Choices, gold: Mapping[str, str], majority: np.ndarray) -> list[Row]:
    """Accuracy minus that of the most common answer with zeroed activations: what is above 0 was not read from them."""
    if "zero" not in choices.controls:
        return []
    over = accuracy_over(choices.right(gold, "zero"), majority, choices.groups, seed=choices.seed)
    row = _row("accuracy_zero", over, interval=PAIRED, control="always the most common answer", is_difference=True)
    return [row | {"control_value": float(majority.mean())}]


def right_of_controls(choices: Choices, gold: Mapping[str, str], probe: np.ndarray | None) -> dict[str, np.ndarray]:
    """Whether each control has each reading right [reading]."""
    labels = [gold[item] for item in choices.items]
    common = max(sorted(set(labels)), key=labels.count)
    out = {"majority": np.array([float(label == common) for label in labels])}
    out |= {name: choices.right(gold, name) for name in (PRIOR, "text_only") if name in choices.controls}
    return out if probe is None else out | {"probe": probe}


def over_floor(over: Mapping[str, Estimate]) -> Estimate:
    """Value, lower and upper end that the differences from majority and prior-only oracle both reach.

    Its lower end is above 0 only where the accuracy is above each of them.
    """
    floors = [over[name] for name in FLOORS if name in over]
    if not all(one.is_defined for one in floors):
        return floors[0]
    value, lo, hi = (min(getattr(one, key) for one in floors) for key in ("value", "lo", "hi"))
    return Estimate(value, lo, hi, floors[0].n, floors[0].n_groups)


def confusion_table(choices: Choices, targets: Mapping[str, str], **same: object) -> pd.DataFrame:
    """One row per right label `gold` and answer `pred`: `count`, and the recall of `gold` with its interval and n."""
    labels = [targets[item] for item in choices.items]
    rows: list[Row] = []
    for gold in [c for c in choices.choices if c in labels]:
        at = [i for i, label in enumerate(labels) if label == gold]
        hits, groups = [float(choices.best[i] == gold) for i in at], [choices.groups[i] for i in at]
        recall = _row("recall", _rate(hits, groups), interval=RECALL)
        rows += [
            {"gold": gold, "pred": c, "count": sum(choices.best[i] == c for i in at), **recall} for c in choices.choices
        ]
    return oracle_table(rows, **same)


def comparison_table(pair: PairedReading, **same: object) -> pd.DataFrame:
    """One row per choice: how much more probable the first member's activations make it, Holm over the choices."""
    rows = [
        _row("p_answer", one, interval=PAIRED)
        | {"pred": choice, "p_adjusted": pair.p[choice], "correction": "Holm over choices", "is_difference": True}
        for choice, one in pair.difference.items()
    ]
    return oracle_table(rows, member=" - ".join(pair.names), **same)


def choice_table(choices: Choices, feats: Features) -> pd.DataFrame:
    """One row per reading: best choice, every probability, agreement over phrasings, where it was read."""
    import pandas as pd

    rows = []
    for i, item in enumerate(choices.items):
        slot = feats.slots[feats.rows(item)[0]]
        rows.append(
            {
                "item": item,
                "problem": choices.groups[i],
                "best": choices.best[i],
                "p": choices.p[i].max(),
                "frequency": choices.frequency[i],
                **{f"p.{c}": p for c, p in zip(choices.choices, choices.p[i], strict=True)},
                "layers": "+".join(map(str, feats.layers(item))),
                "token": slot.token,
                "source": slot.source,
            }
        )
    return pd.DataFrame(rows)


def dependence_table(choices: Choices) -> pd.DataFrame:
    """Controls of choices without targets: how much less likely the best choice becomes, nats per token."""
    import pandas as pd

    return pd.DataFrame(choices.likelihoods(dict(zip(choices.items, choices.best, strict=True))).rows())


def _row(metric: str, e: Estimate, unit: str = "", *, interval: str = LEVEL, **more: object) -> Row:
    ends = (e.value, e.lo, e.hi) if e.is_defined else (None, None, None)
    row = dict(zip(("value", "lo", "hi"), ends, strict=True)) | {"n": e.n, "n_groups": e.n_groups}
    note = "" if e.is_defined else "fewer than two problems"
    return {"metric": metric, "metric_unit": unit, **row, "interval": interval, "note": note, **more}


def _difference(name: str, e: Estimate) -> Row:
    names = (f"{name}_difference", f"{name}_difference_lo", f"{name}_difference_hi")
    return dict(zip(names, (e.value, e.lo, e.hi), strict=True)) if e.is_defined else {}


def _gap(e: Estimate | None) -> dict[str, float]:
    return {} if e is None or not e.is_defined else {"gap": e.value, "gap_lo": e.lo, "gap_hi": e.hi}


def _rate(right: list[float], groups: list[str]) -> Estimate:
    """Clustered where groups hold several readings; [0, 1] inside a single problem, which says nothing about others."""
    if len(set(groups)) == len(groups):
        return wilson_clustered(right, groups=None)
    if len(set(groups)) == 1:
        return Estimate(sum(right) / len(right), 0.0, 1.0, len(right), 1)
    return wilson_clustered(right, groups=groups)
