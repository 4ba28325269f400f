"""Identity, deduplication and leakage of instances, generated or the user's own.

The split of a procedure is `generate.split_of(procedure_id)`: by procedure, never by instance, so that an original and
everything made from it stay together.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from interp.tasks.procedural.vocabulary import ACTIONS, DISTRACTORS, TONES

_NOT_WORD = re.compile(r"[^\w]+", re.UNICODE)
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


def normalise(text: str) -> str:
    """Casefolded words separated by one blank, without punctuation.

    Numbers stay: an `ord_swap` twin differs from its original in the numbers of two steps and in nothing else.
    """
    return _NOT_WORD.sub(" ", text.casefold()).strip()


def instance_id(procedure: str, scenario: str, question: str) -> str:
    """sha1 of the normalised `procedure|scenario|question`, 40 hex digits."""
    return hashlib.sha1("|".join(map(normalise, (procedure, scenario, question))).encode()).hexdigest()


def text_procedure_id(procedure: str) -> str:
    """Stand-in for the latent hash where only the text of a procedure is known: sha1 of it, 16 hex digits."""
    return hashlib.sha1(normalise(procedure).encode()).hexdigest()[:16]


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
