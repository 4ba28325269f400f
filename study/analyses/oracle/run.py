"""What `diptych oracle` leaves behind: tables, figures, and the text that it prints."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from interp.io.csv_text import csv_bytes
from interp.io.files import write_file
from interp.io.items import ITEMS, PLAN, ItemStore
from interp.loading.fingerprint import tensors_sha256
from interp.oracle import Answers, Choices, Features, PairedReading
from interp.oracle.controls import HEADLINE
from interp.oracle.evidence import verdict
from study.analyses.oracle.figures import figures
from study.analyses.oracle.probe import probe_right
from study.analyses.oracle.tables import (
    choice_table,
    comparison_table,
    confusion_table,
    dependence_table,
    oracle_rows,
    oracle_table,
)

if TYPE_CHECKING:
    import pandas as pd

    from interp.oracle import Oracle
    from study.analyses.oracle.load import SelfTestRecord

KIND, RESULT = "reading of an oracle", "result"


def reading_store(
    out: Path, oracle: Oracle, feats: Sequence[Features], asked: Mapping[str, object]
) -> AbstractContextManager[ItemStore]:
    """The folder of one question, held for writing.

    Args:
        feats: the activations that are read, of every source.
        asked: question, choices, controls, seeds and whatever else changes an answer; JSON values.
    Raises: as `ItemStore.writing`.
    """
    from study.analyses.oracle.load import key_of

    fingerprint = oracle.model.fingerprint
    prior = None if oracle.prior is None or fingerprint is None else fingerprint.select(oracle.prior).sha256
    identity = {
        **asked,
        "oracle": key_of(oracle),
        "prior": prior,
        "dtype": str(oracle.model.dtype).removeprefix("torch."),
        "activations": [_digest(one) for one in feats],
    }
    return ItemStore.writing(out, KIND, identity)


def _digest(feats: Features) -> str:
    """Of the vectors that are read, where each is from, and the problems and texts that they belong to."""
    from study.run.digest import sha256_of

    slots = [repr(slot) for slot in feats.slots]
    return sha256_of([tensors_sha256({"": feats.vectors}), slots, dict(feats.groups), dict(feats.texts)])


def printed(store: ItemStore) -> str | None:
    """What was printed of a finished reading whose files are all there; None where it is to be made."""
    return store.get_json(RESULT)["printed"] if store.is_finished(RESULT) else None


def finish(store: ItemStore, text: str) -> str:
    """Keep the digests of all files of a reading, and what is printed of it; returns that."""
    paths = [path.relative_to(store.root) for path in sorted(store.root.rglob("*")) if path.is_file()]
    own = [
        p.as_posix() for p in paths if p.parts[0] not in (PLAN, ITEMS) and not any(w.startswith(".") for w in p.parts)
    ]
    store.put_files(RESULT, own, printed=text)
    return text


def _write(path: Path, table: pd.DataFrame) -> None:
    write_file(path, csv_bytes(table))


def write_answers(out: Path, answers: Answers, tested: SelfTestRecord | None) -> str:
    """`answers.csv` and `controls.csv`; returns what is printed."""
    import pandas as pd

    _write(out / "answers.csv", answers.table())
    rows = [{"question": q, **row} for q, likelihoods in answers.likelihoods.items() for row in likelihoods.rows()]
    _write(out / "controls.csv", pd.DataFrame(rows))
    _record(out, tested, kind="answers", n=len(answers))
    return str(answers)


def write_choices(
    out: Path, chosen: Choices, feats: Features, targets: Mapping[str, str] | None, tested: SelfTestRecord | None
) -> str:
    """`choices.csv`, `controls.csv`; with targets `tasks.csv`, `confusion.csv` and figures. Returns what is printed."""
    _write(out / "choices.csv", choice_table(chosen, feats))
    _write(out / "controls.csv", dependence_table(chosen))
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
    _write(out / "comparison.csv", comparison_table(got, target=got.a.question))
    for name, side in zip(got.names, (got.a, got.b), strict=True):
        _write(out / f"controls.{name}.csv", dependence_table(side))
    lines = [str(got)]
    for name, side in zip(got.names, (got.a, got.b), strict=True):
        gap = side.likelihoods(dict(zip(side.items, side.best, strict=True))).gap()
        lines.append(f"  {name}: control gap ({HEADLINE}) {gap} nats/token: {verdict(gap)}")
    if got.comparison is not None:
        lines.append(f"  accuracy {got.comparison.a} against {got.comparison.b}, p {got.comparison.p_groups:.3g}")
    return "\n".join(lines)


def _graded(out: Path, chosen: Choices, feats: Features, targets: Mapping[str, str]) -> list[str]:
    from study.figures import save

    rows = oracle_rows(chosen, targets, probe_right(feats, targets))
    same = {"target": chosen.question, "member": "+".join(dict.fromkeys(slot.source for slot in feats.slots))}
    tables = {"oracle": oracle_table(rows, **same), "oracle_confusion": confusion_table(chosen, targets, **same)}
    _write(out / "tasks.csv", tables["oracle"])
    _write(out / "confusion.csv", tables["oracle_confusion"])
    notes = []
    for stem, drawn in figures({**tables, "oracle": tables["oracle"].assign(target=_short(chosen.question))}):
        if isinstance(drawn, str):
            notes.append(f"  figure {stem} was not drawn: {drawn}")
        else:
            save(drawn, out / "figures" / stem)
    first = rows[0]
    probe = math.nan if first["probe"] is None else first["probe"]
    lines = [
        f"  accuracy {chosen.grade(targets).accuracy}; floor {first['floor']:.3f} (majority {first['majority']:.3f}), "
        f"linear probe on the same vectors {probe:.3f}"
    ]
    likelihoods = chosen.likelihoods(targets)
    for control in chosen.controls:
        gap = likelihoods.gap(control)
        ends = f"{gap.value:.3f} [{gap.lo:.3f}, {gap.hi:.3f}]"
        lines.append(f"  {control} - real {ends} nats/token: {verdict(gap)}")
    return [*lines, *notes]


def _short(question: str, most: int = 34) -> str:
    """A question as a label of a figure's row."""
    return question if len(question) <= most else question[: most - 1].rstrip() + "…"


def _counts(chosen: Choices) -> list[str]:
    n = len(chosen.items)
    return [f"  {c:<26} {chosen.best.count(c):>5} of {n}" for c in chosen.choices if c in chosen.best]


def _record(out: Path, tested: SelfTestRecord | None, **about: object) -> None:
    """`run.json`: how the wiring of the oracle was tested, and what was asked."""
    content = {"selftest": dict(tested) if tested else None, **about}
    write_file(out / "run.json", json.dumps(content, indent=1, sort_keys=True).encode())
