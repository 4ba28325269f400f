"""Tidy tables of a reading: answers, controls, accuracies with their floors, confusion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from interp.oracle import Choices, Features
from interp.oracle.evidence import verdict
from interp.stats import Estimate, wilson_clustered
from study.analyses.oracle.probe import probe_accuracy
from study.analyses.oracle.rows import over_floor, right_of_controls

if TYPE_CHECKING:
    import pandas as pd

NAN = float("nan")


def choice_table(choices: Choices, feats: Features) -> pd.DataFrame:
    """One row per reading: best choice, every probability, agreement over phrasings, where it was read."""
    import pandas as pd

    rows = []
    for i, item in enumerate(choices.items):
        slot = feats.slots[feats.rows(item)[0]]
        rows.append(
            {"item": item, "problem": choices.groups[i], "best": choices.best[i], "p": choices.p[i].max(),
             "frequency": choices.frequency[i],
             **{f"p.{c}": p for c, p in zip(choices.choices, choices.p[i], strict=True)},
             "layers": "+".join(map(str, feats.layers(item))), "token": slot.token, "source": slot.source}
        )  # fmt: skip
    return pd.DataFrame(rows)


def dependence_table(choices: Choices) -> pd.DataFrame:
    """Controls of choices without targets: how much less likely the best choice becomes, nats per token."""
    import pandas as pd

    return pd.DataFrame(choices.likelihoods(dict(zip(choices.items, choices.best, strict=True))).rows())


def task_table(
    task: str, choices: Choices, feats: Features, targets: Mapping[str, str], *, seed: int = 0
) -> pd.DataFrame:
    """One row per control: accuracy with interval, its floors, and the gap under that control.

    Columns: task, value, lo, hi, floor, majority, prior, text_only, probe, floor_difference_lo (lower end of the paired
    difference from each floor, the smaller), control, gap, gap_lo, gap_hi, n, n_groups.
    """
    import pandas as pd

    graded, probe = choices.grade(targets), probe_accuracy(feats, targets, seed=seed)
    likelihoods = choices.likelihoods(targets)
    beside = {name: _accuracy(choices, targets, name) for name in ("prior", "text_only")}
    majority = graded.majority.value
    floor = max(v for v in (majority, beside["prior"]) if v == v)
    over = {name: choices.over(targets, right) for name, right in right_of_controls(choices, targets, None).items()}
    rows = []
    for control in choices.controls:
        gap = likelihoods.gap(control)
        rows.append(
            {"task": task, "metric": "accuracy", "value": graded.accuracy.value, "lo": graded.accuracy.lo,
             "hi": graded.accuracy.hi, "balanced": graded.balanced.value, "macro_f1": graded.macro_f1.value,
             "floor": floor, "majority": majority, **beside, "probe": NAN if probe is None else probe.value,
             "floor_difference_lo": over_floor(over).lo,
             "control": control, "gap": gap.value, "gap_lo": gap.lo, "gap_hi": gap.hi, "verdict": verdict(gap),
             "modal_share": graded.modal_share, "n": graded.accuracy.n, "n_groups": graded.accuracy.n_groups,
             "unit": "readings", "group_unit": "problems", "interval": "clustered Wilson"}
        )  # fmt: skip
    return pd.DataFrame(rows)


def confusion_table(choices: Choices, targets: Mapping[str, str]) -> pd.DataFrame:
    """One row per (target, answer): count, and the target's recall with its interval and n."""
    import pandas as pd

    wanted = [targets[item] for item in choices.items]
    rows: list[dict[str, Any]] = []
    for target in [c for c in choices.choices if c in wanted]:
        at = [i for i, t in enumerate(wanted) if t == target]
        right, groups = [float(choices.best[i] == target) for i in at], [choices.groups[i] for i in at]
        recall = _rate(right, groups)
        rows += [
            {"target": target, "answer": answer, "count": sum(choices.best[i] == answer for i in at),
             "value": recall.value, "lo": recall.lo, "hi": recall.hi, "n": recall.n, "n_groups": recall.n_groups,
             "unit": "readings", "group_unit": "problems", "interval": "clustered Wilson"}
            for answer in choices.choices
        ]  # fmt: skip
    return pd.DataFrame(rows)


def _accuracy(choices: Choices, targets: Mapping[str, str], control: str) -> float:
    return choices.grade(targets, control).accuracy.value if control in choices.controls else NAN


def _rate(right: list[float], groups: list[str]) -> Estimate:
    """Clustered where there are groups to speak of; [0, 1] inside a single problem, which says nothing about others."""
    if len(set(groups)) == len(groups):
        return wilson_clustered(right, groups=None)
    if len(set(groups)) == 1:
        return Estimate(sum(right) / len(right), 0.0, 1.0, len(right), 1)
    return wilson_clustered(right, groups=groups)
