"""What the embedded oracle is asked in a study: kinds of prompt sentences, right by construction of the documents."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interp.model import Model
    from interp.oracle import Features

N_DOCUMENTS = 24


def sentence_kinds(model: Model, *, sources: Sequence[str], seed: int) -> tuple[dict[str, Features], dict[str, str]]:
    """(source -> activations at the "." of every sentence of held-out documents, reading -> kind of its sentence)."""
    from interp.tasks.procedural.documents import documents
    from study.embedded.oracle_reading import sentence_readings

    readings = sentence_readings(
        model, list(documents(Random(f"study {seed}"), N_DOCUMENTS, split="test")), sources=sources
    )
    return readings.feats, readings.kinds
