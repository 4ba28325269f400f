"""Readings of embedded documents for an oracle: step ends of traces and sentence ends of prompts, with their kinds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from interp.model import Model
from interp.oracle.collection import TOKENS_PER_BATCH, Reading, features_of, read_activations
from interp.oracle.features import Features
from interp.prompt import Example, Message, Prompt, render
from interp.tasks.procedural.documents import Document
from study.embedded.oracle_items import LAYER, sentence_ends, step_ends

Ends = Callable[[Prompt], list[tuple[int, str]]]


@dataclass(frozen=True, eq=False)
class Readings:
    """Positions of one kind in some documents.

    Attributes:
        feats: source -> features of the same readings; the document is the problem.
        kinds: reading -> what stands there, by construction of the document.
    """

    feats: dict[str, Features]
    kinds: dict[str, str]


def step_readings(model: Model, documents: Sequence[Document], *, sources: Sequence[str] = ("base",)) -> Readings:
    """The verdict at the end of every step of the gold traces; kinds as in `STEP_KINDS`."""
    return _readings(
        model, documents, sources, "step_ends", lambda p: step_ends(p.tokens[p.n_prompt :], offset=p.n_prompt)
    )


def sentence_readings(model: Model, documents: Sequence[Document], *, sources: Sequence[str] = ("base",)) -> Readings:
    """The "." at the end of every sentence of the prompts; kinds as in `SENTENCE_KINDS`."""
    return _readings(model, documents, sources, "sentence_ends", lambda p: sentence_ends(p.tokens[: p.n_prompt]))


def _readings(model: Model, documents: Sequence[Document], sources: Sequence[str], rule: str, ends: Ends) -> Readings:
    readings, kinds = [], {}
    for number, document in enumerate(documents):
        name = f"document {number}"
        example = Example(name, (Message("user", document.prompt),), answer=document.answer, groups={"document": name})
        prompt = render(example, model.tokenizer)
        for token, kind in ends(prompt):
            kinds[f"{name}@{token}"] = kind
            readings.append(Reading(f"{name}@{token}", example, prompt, (token,), rule))
    roles = [None if source == "base" else source for source in sources]
    taken = read_activations(model, readings, roles, [LAYER], TOKENS_PER_BATCH)
    return Readings(
        {
            source: features_of(readings, taken[role], [LAYER], source=source, group="document")
            for source, role in zip(sources, roles, strict=True)
        },
        kinds,
    )
