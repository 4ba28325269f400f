"""One instance as one JSON line: the schema, the way from generated items, and the reader of the user's own data."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any

from interp.tasks.procedural.cells import TRAINING, Item
from interp.tasks.procedural.engine import VERDICTS, audit
from interp.tasks.procedural.generate import split_of
from interp.tasks.procedural.latent import Instance, from_json, to_json
from interp.tasks.procedural.perturb import PERTURBATIONS
from interp.tasks.procedural.render import Rendering, render
from interp.tasks.procedural.replies import normalize_label, trace
from interp.tasks.procedural.vocabulary import LABELS, TONES
from interp.tasks.row_files import field_error

ORDER_SWAPS = ("flip", "rebind", "keep_listing")  # the variants that exchange what two numbers are bound to
REQUIRED = ("procedure", "scenario", "question", "label", "perturbation")
# (institution, perturbation): share of generated items that the data's authors accepted; labels there are noisy
ACCEPT_RATES = {("Cornell", "adversarial_surface_compliant"): 0.723, ("FDA", "prerequisite_omission"): 0.652}


@dataclass(frozen=True)
class Record:
    """One instance with everything known about it.

    Attributes:
        id: sha1 of the normalised text, or the user's own.
        procedure, scenario, question: the three sections of the only user message, in that order.
        label: "compliant" or "noncompliant".
        perturbation, variant: which cell; variant is free text.
        procedure_id: what must not be split; pair_id: an original with its perturbations; parent_id: what was edited.
        domain, institution, cohort: free text. The cohorts of a data set need not add up to anything.
        surface_label: the label that the tone alone suggests.
        flips_label: whether the label differs from the parent's. flipping: for `ord_swap`, whether the swap flips it.
        trace: a gold reply. latent: what the text was made from. verdicts: one per due step, probe targets.
        accept: whether a reviewer accepted the item. split: train, validation or test.
        rendering: plain or log, for generated items. extra: keys that the schema does not know, unchanged.
    """

    id: str
    procedure: str
    scenario: str
    question: str
    label: str
    perturbation: str
    variant: str = ""
    procedure_id: str = ""
    pair_id: str | None = None
    parent_id: str | None = None
    domain: str | None = None
    institution: str | None = None
    cohort: str | None = None
    surface_label: str | None = None
    flips_label: bool | None = None
    flipping: bool | None = None
    trace: str | None = None
    latent: Instance | None = None
    verdicts: tuple[str, ...] | None = None
    accept: bool | None = None
    split: str | None = None
    rendering: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


FIELDS = tuple(f.name for f in fields(Record) if f.name != "extra")
_BOOLS = ("flips_label", "flipping", "accept")
_LABELLED = ("label", "surface_label")
_NOT_WORD = re.compile(r"[^\w]+", re.UNICODE)


def normalise(text: str) -> str:
    """Casefolded words separated by single spaces, without punctuation.

    Numbers stay: an `ord_swap` twin differs from its original in the numbers of two steps and in nothing else.
    """
    return _NOT_WORD.sub(" ", text.casefold()).strip()


def instance_id(procedure: str, scenario: str, question: str) -> str:
    """sha1 of the normalised `procedure|scenario|question`, 40 hex digits."""
    return hashlib.sha1("|".join(map(normalise, (procedure, scenario, question))).encode()).hexdigest()


def text_procedure_id(procedure: str) -> str:
    """Stand-in for the latent hash where only the text of a procedure is known: sha1 of it, 16 hex digits."""
    return hashlib.sha1(normalise(procedure).encode()).hexdigest()[:16]


def record_of(item: Item, *, rendering: Rendering = "plain", question: str | None = None) -> Record:
    """The record of a generated item."""
    instance = item.instance
    text, finding = render(instance, rendering=rendering, question=question), audit(instance)
    parent = item.parent and render(item.parent, rendering=rendering, question=question)
    row = PERTURBATIONS.get(item.cell)
    return Record(
        id=instance_id(text.procedure, text.scenario, text.question),
        procedure=text.procedure,
        scenario=text.scenario,
        question=text.question,
        label=finding.label,
        perturbation=item.name,
        variant=item.variant,
        procedure_id=item.procedure_id,
        pair_id=item.pair_id,
        parent_id=instance_id(parent.procedure, parent.scenario, parent.question) if parent else None,
        domain=instance.procedure.domain,
        institution=instance.procedure.institution,
        cohort="synthetic",
        surface_label=LABELS[TONES[instance.scenario.tone].polarity < 0],
        flips_label=audit(item.parent).label != finding.label if item.parent else None,
        flipping=row.flips if row and row.variant in ORDER_SWAPS else None,
        trace=trace(instance, finding, rendering=rendering),
        latent=instance,
        verdicts=finding.verdicts,
        split=split_of(item.procedure_id),
        rendering=rendering,
    )


def to_row(record: Record) -> dict[str, Any]:
    """The record as a JSON-ready dict; absent values are left out."""
    row = {name: getattr(record, name) for name in FIELDS}
    row["latent"] = to_json(record.latent) if record.latent else None
    row["verdicts"] = list(record.verdicts) if record.verdicts is not None else None
    return {**{k: v for k, v in row.items() if v is not None}, **record.extra}


def from_row(row: Mapping[str, Any], where: str = "record", *, known: Collection[str] | None = None) -> Record:
    """A record from one input row.

    Labels may be spelled "Non-Compliant". A missing id or procedure_id is derived from the text; a missing split stays
    absent. Unknown keys go to `extra`, unless they look like a misspelled field.

    Args:
        row: the JSON object.
        where: file and line, for messages.
        known: perturbation names; None takes `perturbation_names()`.
    Raises:
        ValueError: `where`, the field, what was expected, what it got and what to do.
    """
    fields = {key: value for key, value in row.items() if value is not None}
    for name in REQUIRED:
        if name not in fields:
            raise field_error(where, name, "a value", sorted(fields), _missing(name, fields))
    extra = {key: value for key, value in fields.items() if key not in FIELDS}
    for key in extra:
        if near := get_close_matches(key, [f for f in FIELDS if f not in fields], n=1, cutoff=0.85):
            raise field_error(where, key, f"a known field; did you mean '{near[0]}'?", key, "Rename it.")
    clean = {key: _checked(where, key, fields[key]) for key in FIELDS if key in fields}
    _check_perturbation(where, clean["perturbation"], known)
    clean.setdefault("id", instance_id(clean["procedure"], clean["scenario"], clean["question"]))
    clean.setdefault("procedure_id", text_procedure_id(clean["procedure"]))
    record = Record(**clean, extra=extra)
    if record.latent and (rule_label := audit(record.latent).label) != record.label:
        raise field_error(
            where, "label", f"'{rule_label}', which the rules give for 'latent'", record.label, "Correct one."
        )
    return record


def perturbation_names() -> tuple[str, ...]:
    """Names that the field `perturbation` may have: the ten published ones, ord_swap, training_distribution."""
    return tuple(dict.fromkeys([*(row.name for row in PERTURBATIONS.values()), TRAINING]))


def accept_notes(records: Collection[Record]) -> list[str]:
    """Footnotes on label noise: the two published cells where present, and the data's own `accept` field by cell."""
    return noise_notes([(r.institution, r.perturbation, r.accept) for r in records])


def noise_notes(items: Collection[tuple[str | None, str, bool | None]]) -> list[str]:
    """`accept_notes` of bare (institution, perturbation, accept)."""
    notes = []
    cells = {(institution, name) for institution, name, _ in items}
    for (institution, name), rate in ACCEPT_RATES.items():
        if (institution, name) in cells:
            notes.append(f"{institution} x {name}: the authors accepted {rate:.1%} of the items; labels are noisy.")
    for name in dict.fromkeys(perturbation for _, perturbation, _ in items):
        judged = [accept for _, perturbation, accept in items if perturbation == name and accept is not None]
        if judged and not all(judged):
            notes.append(f"{name}: {sum(judged)} of {len(judged)} judged items are marked as accepted.")
    return notes


def _missing(name: str, fields: Mapping[str, Any]) -> str:
    near = get_close_matches(name, [k for k in fields if k not in FIELDS], n=1)
    return f"Did you mean {near[0]!r}? Rename it." if near else "Add it to the row."


def _checked(where: str, name: str, value: Any) -> Any:
    """One field in the type that `Record` declares."""
    if name in _LABELLED:
        if (label := normalize_label(value)) is None:
            raise field_error(where, name, "compliant or noncompliant", value, "Correct the spelling.")
        return label
    if name in _BOOLS:
        if not isinstance(value, bool):
            raise field_error(where, name, "true or false", value, "Write it without quotes.")
        return value
    if name == "latent":
        try:
            return from_json(value)
        except ValueError as error:
            raise ValueError(f"{where}, field 'latent': {error} Write it as `diptych data procedural` does.") from None
    if name == "verdicts":
        if not isinstance(value, list) or any(v not in VERDICTS for v in value):
            raise field_error(where, name, f"a list out of {', '.join(VERDICTS)}", value, "Correct it.")
        return tuple(value)
    if name == "id" and isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or (name in (*REQUIRED, "id") and not value.strip()):
        raise field_error(where, name, "text", value, "Fill it in or remove the row.")
    return value


def _check_perturbation(where: str, name: str, allowed: Collection[str] | None) -> None:
    names = tuple(allowed) if allowed is not None else perturbation_names()
    if name not in names:
        near = get_close_matches(name, names, n=1)
        do = f"Did you mean '{near[0]}'?" if near else "Rename it, or pass a table with a row of that name."
        raise field_error(where, "perturbation", f"one of {', '.join(names)}", name, do)
