"""Shortcut audit: how far a reader gets who looks at shallow features and never checks a step.

For every feature, and for all of them together, the accuracy of the best lookup table "value -> majority label".
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from interp.tasks.procedural.latent import Instance, from_json
from interp.tasks.procedural.vocabulary import DOMAINS, TONES

_OMISSION = re.compile(r"\b(skip\w*|omit\w*|undone|left out|did not|without)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ShortcutRow:
    """How well one shallow reader does.

    Attributes:
        feature: name of the feature; "joint_without_tone" and "joint" are all of them together.
        accuracy: mean over records of (majority label of the value, learned on the other half) == label. Halves are
            formed by procedure, so a value seen once cannot vote for itself.
        in_sample: the same with the table learned on all records, never below `accuracy` by more than noise.
        shuffled: `accuracy` with the labels permuted: the level of a reader who knows nothing.
        n, n_right: records, and how many the cross-fitted table gets right.
        n_values: distinct values.
    """

    feature: str
    accuracy: float
    in_sample: float
    shuffled: float
    n: int
    n_right: int
    n_values: int


Feature = Callable[[Mapping[str, Any], Instance], object]
LATENT_FEATURES: dict[str, Feature] = {
    "extra_events": lambda r, x: len(x.scenario.events) - len(x.procedure.steps),
    "any_skipped": lambda r, x: any(not e.done for e in x.scenario.events),
    "reworded": lambda r, x: any(e.wording != "plain" for e in x.scenario.events),
    "exception_holds": lambda r, x: any(dict(x.scenario.facts).get(p.condition) for p in x.procedure.provisos),
    "n_senior": lambda r, x: sum(e.actor == DOMAINS[x.procedure.domain].roles[-1].word for e in x.scenario.events),
    "n_distractors": lambda r, x: len(x.scenario.distractors),
    "lines_shuffled": lambda r, x: list(x.procedure.listing) != sorted(x.procedure.listing),
    "domain": lambda r, x: x.procedure.domain,
    "tone": lambda r, x: TONES[x.scenario.tone].polarity,
}
TEXT_FEATURES: dict[str, Callable[[Mapping[str, Any]], object]] = {
    "scenario_words": lambda r: len(r["scenario"].split()) // 10,
    "procedure_words": lambda r: len(r["procedure"].split()) // 10,
    "mentions_omission": lambda r: bool(_OMISSION.search(r["scenario"])),
    "institution": lambda r: r.get("institution"),
    "surface_label": lambda r: r.get("surface_label"),
}
_TONE_FEATURES = ("tone", "surface_label")


def audit_records(records: Sequence[Mapping[str, Any]], *, seed: int = 0) -> list[ShortcutRow]:
    """One row per shallow feature, then the joint ceiling without and with the tone.

    Latent features where every record has `latent`, text features otherwise. The grid of `generate_records` has every
    single feature at about one half; the joint table stays above it, because an omission shortens the list and an overt
    omission is overt. That ceiling is what a reader who ignores the procedure can reach.

    Args:
        records: rows with `label`, `scenario`, `procedure`, optionally `latent`, `procedure_id`, `surface_label`.
        seed: of the two halves and of the permutation.
    Raises:
        ValueError: fewer than 4 records.
    """
    if len(records) < 4:
        raise ValueError(f"audit: expected at least 4 records; got {len(records)}.")
    columns = _columns(records)
    labels = [record["label"] for record in records]
    halves = _halves(records, Random(seed))
    mixed = Random(seed).sample(labels, len(labels))
    columns["joint_without_tone"] = list(
        zip(*(c for name, c in columns.items() if name not in _TONE_FEATURES), strict=True)
    )
    columns["joint"] = list(zip(*(columns[name] for name in columns if name != "joint_without_tone"), strict=True))
    return [_row(name, values, labels, halves, mixed) for name, values in columns.items()]


def label_balance(records: Sequence[Mapping[str, Any]], by: str = "perturbation") -> dict[str, Counter[str]]:
    """How many of each label, for every value of a field and for "all"."""
    out: dict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        out["all"][record["label"]] += 1
        out[str(record.get(by))][record["label"]] += 1
    return dict(out)


def _columns(records: Sequence[Mapping[str, Any]]) -> dict[str, list[object]]:
    if all(record.get("latent") is not None for record in records):
        latents = [x if isinstance(x := r["latent"], Instance) else from_json(x) for r in records]
        pairs = list(zip(records, latents, strict=True))
        return {name: [get(r, x) for r, x in pairs] for name, get in LATENT_FEATURES.items()}
    return {name: [get(r) for r in records] for name, get in TEXT_FEATURES.items()}


def _halves(records: Sequence[Mapping[str, Any]], rng: Random) -> list[bool]:
    keys = [record.get("procedure_id") or record["procedure"] for record in records]
    side = {key: rng.random() < 0.5 for key in sorted(set(keys))}
    return [side[key] for key in keys]


def _row(
    name: str, values: Sequence[object], labels: Sequence[str], halves: Sequence[bool], mixed: Sequence[str]
) -> ShortcutRow:
    right = _right(values, labels, halves)
    in_sample = _right(values, labels, [True] * len(labels), same=True)
    n = len(labels)
    return ShortcutRow(name, right / n, in_sample / n, _right(values, mixed, halves) / n, n, right, len(set(values)))


def _right(values: Sequence[object], labels: Sequence[str], halves: Sequence[bool], *, same: bool = False) -> int:
    """How many labels the table of the other half (`same`: of the own half) gets; an unseen value gets the majority."""
    tables: dict[bool, dict[object, Counter[str]]] = {True: defaultdict(Counter), False: defaultdict(Counter)}
    overall: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    for value, label, half in zip(values, labels, halves, strict=True):
        tables[half][value][label] += 1
        overall[half][label] += 1
    n = 0
    for value, label, half in zip(values, labels, halves, strict=True):
        source = half if same else not half
        votes = tables[source].get(value) or overall[source]
        n += bool(votes) and max(sorted(votes), key=votes.__getitem__) == label
    return n
