"""What `diptych oracle` leaves behind: tables, figures, and the text that it prints."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interp.io.files import replace as write_whole
from interp.oracle import Answers, Choices, Features, PairedReading
from interp.oracle.controls import HEADLINE
from interp.oracle.evidence import verdict
from study.oracle.tables import choice_table, confusion_table, dependence_table, task_table


def write_answers(out: Path, answers: Answers, tested: Mapping[str, Any] | None) -> str:
    """`answers.csv` and `controls.csv`; returns what is printed."""
    import pandas as pd

    out.mkdir(parents=True, exist_ok=True)
    answers.table().to_csv(out / "answers.csv", index=False)
    rows = [{"question": q, **row} for q, found in answers.likelihoods.items() for row in found.rows()]
    pd.DataFrame(rows).to_csv(out / "controls.csv", index=False)
    _record(out, tested, kind="answers", n=len(answers))
    return str(answers)


def write_choices(
    out: Path, chosen: Choices, feats: Features, targets: Mapping[str, str] | None, tested: Mapping[str, Any] | None
) -> str:
    """`choices.csv`, `controls.csv`; with targets `tasks.csv`, `confusion.csv` and figures. Returns what is printed."""
    out.mkdir(parents=True, exist_ok=True)
    choice_table(chosen, feats).to_csv(out / "choices.csv", index=False)
    dependence_table(chosen).to_csv(out / "controls.csv", index=False)
    _record(out, tested, kind="choices", n=len(chosen.items))
    lines = [chosen.question, *_counts(chosen)]
    best = dict(zip(chosen.items, chosen.best, strict=True))
    if HEADLINE in chosen.controls and targets is None:
        gap = chosen.likelihoods(best).gap()
        lines.append(f"  control gap ({HEADLINE}) {gap} nats/token: {verdict(gap)}")
    if targets is not None:
        lines += _graded(out, chosen, feats, targets)
    return "\n".join(lines)


def write_comparison(out: Path, got: PairedReading) -> str:
    """`comparison.csv`; returns what is printed."""
    import pandas as pd

    out.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(got.rows()).to_csv(out / "comparison.csv", index=False)
    for name, side in zip(got.names, (got.a, got.b), strict=True):
        dependence_table(side).to_csv(out / f"controls.{name}.csv", index=False)
    lines = [str(got)]
    for name, side in zip(got.names, (got.a, got.b), strict=True):
        gap = side.likelihoods(dict(zip(side.items, side.best, strict=True))).gap()
        lines.append(f"  {name}: control gap ({HEADLINE}) {gap} nats/token: {verdict(gap)}")
    if got.comparison is not None:
        lines.append(f"  accuracy {got.comparison.a} against {got.comparison.b}, p {got.comparison.p_groups:.3g}")
    return "\n".join(lines)


def _graded(out: Path, chosen: Choices, feats: Features, targets: Mapping[str, str]) -> list[str]:
    from study.figures import oracle, oracle_confusion, save

    table = task_table(chosen.question, chosen, feats, targets)
    table.to_csv(out / "tasks.csv", index=False)
    confusion = confusion_table(chosen, targets)
    confusion.to_csv(out / "confusion.csv", index=False)
    if HEADLINE in chosen.controls:
        save(oracle(table.assign(task=_short(chosen.question))), out / "figures" / "oracle")
    save(oracle_confusion(confusion), out / "figures" / "confusion")
    first = table.iloc[0]
    lines = [
        f"  accuracy {chosen.grade(targets).accuracy}; floor {first['floor']:.3f} (majority {first['majority']:.3f}), "
        f"linear probe on the same vectors {first['probe']:.3f}"
    ]
    for row in table.to_dict("records"):
        gap = f"{row['gap']:.3f} [{row['gap_lo']:.3f}, {row['gap_hi']:.3f}]"
        lines.append(f"  {row['control']} - real {gap} nats/token: {row['verdict']}")
    return lines


def _counts(chosen: Choices) -> list[str]:
    n = len(chosen.items)
    return [f"  {c:<26} {chosen.best.count(c):>5} of {n}" for c in chosen.choices if c in chosen.best]


def _short(question: str, most: int = 34) -> str:
    return question if len(question) <= most else question[: most - 1].rstrip() + "…"


def _record(out: Path, tested: Mapping[str, Any] | None, **about: Any) -> None:
    """`run.json`: how the wiring of the oracle was tested, and what was asked."""
    content = {"selftest": dict(tested) if tested else None, **about}
    write_whole(out, out / "run.json", json.dumps(content, indent=1, sort_keys=True).encode())
