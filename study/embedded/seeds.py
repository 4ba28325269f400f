"""Pairs built with other seeds, and controls, entered into the record of the pair that ships."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from study.embedded.build import write_record
from study.rows import Row


def enter_others(folder: Path, *, others: Sequence[Path] = (), notes: Sequence[str] = ()) -> Row:
    """Add the validation results of pairs in other folders, and notes for the limits, to a pair; rewrites its cards.

    Args:
        folder: the pair that ships; its own validation results come first.
        others: folders with the pair.json of other seeds.
        notes: sentences for the limits section of the cards, kept in the order given; they replace earlier ones.
    Raises:
        ValueError: a pair was built with another recipe (seed apart), so that it says nothing about this one.
    """
    record = json.loads((folder / "pair.json").read_text())
    rows = {str(record["recipe"]["seed"]): outline(record)}
    for other in others:
        found = json.loads((other / "pair.json").read_text())
        if {**found["recipe"], "seed": None} != {**record["recipe"], "seed": None}:
            raise ValueError(
                f"{other / 'pair.json'}: expected the recipe of {folder.name} with another seed; it differs."
            )
        rows[str(found["recipe"]["seed"])] = outline(found)
    if others:
        record["seeds"] = rows
    if notes:
        record["notes"] = list(notes)
    write_record(folder, record)
    return record


def outline(record: Row) -> Row:
    """The validation results of one pair in short: accuracies by cell, equivalence, gates, head readings, seconds."""
    found = record["validation"]
    return {
        "accuracy": {
            member: {cell: row[member]["accuracy"] for cell, row in found["cells"].items()}
            for member in ("engaged", "heuristic")
        },
        "equivalence": found["equivalence"],
        "gates": found["gates"],
        "readers": record["heads"]["readers"],
        "cpu_seconds": record["cpu_seconds"],
        "weights_sha256": record["weights_sha256"],
    }
