"""Data sets of records: generated on a balanced grid, deduplicated, checked for leakage and for shortcuts.

The grid has each original with several of its perturbations, and equally many of both labels.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Any

from interp.tasks.procedural.cells import Item, item
from interp.tasks.procedural.generate import DEFAULT, GeneratorConfig, Split, originals
from interp.tasks.procedural.latent import Instance, from_json
from interp.tasks.procedural.records import instance_id, normalise, record_of, to_row
from interp.tasks.procedural.render import Rendering
from interp.tasks.procedural.vocabulary import ACTIONS, DISTRACTORS, DOMAINS, TONES

# One row per original, six originals per round. Labels are 17 to 17; on either side 3 of the 17 sound like the other
# label; exceptions hold, lines are shuffled and words are replaced about equally often on both sides.
_EXCEPTION = ("exception_trigger", "exception_handled", "baseline_noncompliant", "adversarial_surface_compliant")
_BINDING = ("ord_swap_flip", "ord_swap_rebind", "step_reorder_invalid")
_RULES = ("prerequisite_omission", "hierarchy_violation", "adversarial_surface_noncompliant")
_KEPT = ("lexical_paraphrase_compliant", "distractor_injection_compliant", "adversarial_surface_compliant")
_BROKEN = ("baseline_noncompliant_aligned", "lexical_paraphrase_noncompliant", "distractor_injection_noncompliant")
GRID: tuple[tuple[str, ...], ...] = (
    ("baseline_compliant", *_EXCEPTION),
    ("baseline_compliant", *_EXCEPTION),
    ("baseline_compliant", *_BINDING, "ord_swap_keep_listing"),
    ("baseline_compliant", *_BINDING, "exception_handled"),
    ("baseline_compliant", *_RULES, *_KEPT),
    ("baseline_compliant", *_RULES, *_BROKEN),
)
_MAX_TRIES = 100


def generate_items(seed: int, *, split: Split | None = None, config: GeneratorConfig = DEFAULT) -> Iterator[Item]:
    """Endless items of `GRID` in rounds of 34; no procedure comes from two originals, no item of an original twice."""
    stream = originals(Random(f"{seed}/{split}/grid"), split=split, config=config)
    for index, base in enumerate(stream):
        instances: list[Instance] = []
        for cell in GRID[index % len(GRID)]:
            drawn = _new_item(base, cell, index, instances, key=f"{seed}/grid", split=split)
            instances.append(drawn.instance)
            yield drawn


def _new_item(
    base: Instance, cell: str, index: int, instances: list[Instance], *, key: str, split: Split | None
) -> Item:
    """An item that differs from those `made` from the same original: two random edits may coincide."""
    for attempt in range(_MAX_TRIES):
        drawn = item(base, cell, index, key=key, split=split, attempt=attempt)
        if drawn.instance not in instances:
            return drawn
    raise AssertionError(f"{cell}: {_MAX_TRIES} draws from one original gave no new item")


def generate_records(
    n: int,
    seed: int = 0,
    *,
    rendering: Rendering = "plain",
    split: Split | None = None,
    config: GeneratorConfig = DEFAULT,
) -> list[dict[str, Any]]:
    """`n` records as JSON-ready dicts, all texts distinct; a longer run begins with the shorter one.

    Args:
        n: how many.
        seed: seed of all random choices.
        rendering: plain English or the log of the embedded pair.
        split: only procedures of this split; None draws all three (80, 10, 10 of 100), each record naming its own.
        config: how originals are drawn.
    Raises:
        ValueError: n below 1.
    """
    if n < 1:
        raise ValueError(f"n: expected at least 1, got {n}.")
    items = islice(generate_items(seed, split=split, config=config), n)
    return [to_row(record_of(drawn, rendering=rendering)) for drawn in items]


_GRAM = 8


@dataclass(frozen=True, slots=True)
class Leakage:
    """What two sets share.

    Attributes:
        n_train, n_test: sizes.
        shared_ids, shared_procedures, shared_pairs: how many values of `id`, `procedure_id`, `pair_id` occur in both.
        max_jaccard: largest overlap of word 8-grams between a scenario of one set and one of the other,
            |A & B| / |A | B|.
        nearest: ids (train, test) of that pair; None where no 8-gram is shared.
        held_out_words: held-out synonyms, tone sentences and distractors found in train scenarios.
    """

    n_train: int
    n_test: int
    shared_ids: int
    shared_procedures: int
    shared_pairs: int
    max_jaccard: float
    nearest: tuple[str, str] | None
    held_out_words: tuple[str, ...]


def dedup(records: Iterable[Mapping[str, Any]]) -> tuple[list[Mapping[str, Any]], int]:
    """The records without repeated texts (first one kept), and how many were dropped.

    Raises:
        ValueError: two records with the same text and different labels.
    """
    first: dict[str, Mapping[str, Any]] = {}
    dropped = 0
    for record in records:
        key = instance_id(record["procedure"], record["scenario"], record["question"])
        kept = first.setdefault(key, record)
        if kept is record:
            continue
        if kept["label"] != record["label"]:
            what = f"records {kept['id']} and {record['id']}: the same text has the labels {kept['label']} and "
            raise ValueError(what + f"{record['label']}. Correct one of them.")
        dropped += 1
    return list(first.values()), dropped


def check_leakage(train: Sequence[Mapping[str, Any]], test: Sequence[Mapping[str, Any]]) -> Leakage:
    """What a training and a test set share; only numbers, no verdict.

    Real data guarantee distinct instances at most, so the overlap of procedures is reported next to that of instances.
    """
    jaccard, nearest = _max_jaccard(train, test)
    return Leakage(
        len(train),
        len(test),
        _shared(train, test, "id"),
        _shared(train, test, "procedure_id"),
        _shared(train, test, "pair_id"),
        jaccard,
        nearest,
        held_out_words(record["scenario"] for record in train),
    )


def held_out_words(scenarios: Iterable[str]) -> tuple[str, ...]:
    """The held-out phrases of the plain rendering that occur in these scenarios, sorted."""
    text = "\n".join(scenarios)
    phrases = {f"{a.syn_past} {a.syn_noun}" for a in ACTIONS.values()}
    phrases |= {x.sentence for x in (*TONES, *DISTRACTORS) if x.held_out}
    return tuple(sorted(phrase for phrase in phrases if phrase in text))


def _shared(train: Sequence[Mapping[str, Any]], test: Sequence[Mapping[str, Any]], key: str) -> int:
    def values(rows: Sequence[Mapping[str, Any]]) -> set[Any]:
        return {row[key] for row in rows if row.get(key) is not None}

    return len(values(train) & values(test))


def _max_jaccard(
    train: Sequence[Mapping[str, Any]], test: Sequence[Mapping[str, Any]]
) -> tuple[float, tuple[str, str] | None]:
    grams = [_grams(row["scenario"]) for row in train]
    holders: dict[int, list[int]] = defaultdict(list)
    for k, own in enumerate(grams):
        for gram in own:
            holders[gram].append(k)
    best, nearest = 0.0, None
    for row in test:
        own = _grams(row["scenario"])
        common = Counter(k for gram in own for k in holders.get(gram, ()))
        for k, n in common.items():
            value = n / (len(own) + len(grams[k]) - n)
            if value > best:
                best, nearest = value, (str(train[k]["id"]), str(row["id"]))
    return best, nearest


def _grams(text: str) -> frozenset[int]:
    words = normalise(text).split()
    return frozenset(hash(tuple(words[i : i + _GRAM])) for i in range(max(1, len(words) - _GRAM + 1)))


_OMISSION = re.compile(r"\b(skip\w*|omit\w*|undone|left out|did not|without)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ShortcutRow:
    """How well one shallow feature predicts the label.

    Attributes:
        feature: name of the feature; "joint_without_tone" and "joint" are all of them together.
        accuracy: mean over records of (majority label of the value, learned on the other half) == label. Halves are
            formed by procedure, so a value seen once cannot vote for itself.
        in_sample: the same with the table learned on all records, never below `accuracy` by more than noise.
        shuffled: `accuracy` with the labels permuted: the chance level.
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
    omission is overt. That ceiling is what a model that ignores the procedure can reach.

    Args:
        records: rows with `label`, `scenario`, `procedure`, optionally `latent`, `procedure_id`, `surface_label`.
        seed: seed of the two halves and of the permutation.
    Raises:
        ValueError: fewer than 4 records.
    """
    if len(records) < 4:
        raise ValueError(f"audit: expected at least 4 records, got {len(records)}.")
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
