"""Columns of the MIETIC validation file, and synthetic cases in them with gold levels from the rule engine.

Every synthetic case belongs to a pair of cases that differ in one sentence or one number, which separates the response
to a trigger from the response to the word. Not for clinical use.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from random import Random

from interp.tasks.esi.engine import Patient, triage

BANNER = "Not for clinical use."
LEVELS = ("1", "2", "3", "4", "5")

IDS = ("subject_id", "stay_id", "hadm_id", "intime", "outtime")
KNOWN = ("gender", "age", "arrival_transport", "chiefcomplaint", "temperature", "heartrate", "resprate", "o2sat", "sbp")
KNOWN += ("dbp", "pain")
NARRATIVE = "tiragecase"  # so spelled in the file
NUMBERS = ("age", "temperature", "heartrate", "resprate", "o2sat", "sbp", "dbp")
FLAGS = ("invasive_ventilation", "invasive_ventilation_beyond_1h", "non_invasive_ventilation", "transfer2surgeryin1h")
FLAGS += ("transfer_to_surgery_beyond_1h", "transfer_to_icu_in_1h", "transfer_to_icu_beyond_1h", "transfer_within_1h")
FLAGS += ("transfer_beyond_1h", "expired_within_1h", "expired_beyond_1h", "tier1_med_usage_1h")
FLAGS += ("tier1_med_usage_beyond_1h", "tier2_med_usage", "tier3_med_usage", "tier4_med_usage")
FLAGS += ("psychotropic_med_within_120min", "transfusion_within_1h", "transfusion_beyond_1h")
FLAGS += ("red_cell_order_more_than_1", "intraosseous_line_placed", "critical_procedure")
COUNTS = ("lab_event_count", "microbio_event_count", "exam_count", "intravenous_fluids", "intravenous", "intramuscular")
COUNTS += ("nebulized_medications", "oral_medications", "consults_count", "procedure_count", "resources_used")
EXPERTS = ("Expert 1 Opinion", "Expert 2 Opinion", "Expert 3 Opinion", "Final Decision")

COLUMNS = (*IDS, "race", "disposition", *KNOWN, "acuity", NARRATIVE, *FLAGS, *COUNTS, *EXPERTS)
"""The 57 columns: first what is known at triage, then outcomes."""
ESSENTIAL = ("subject_id", "acuity", NARRATIVE, "chiefcomplaint", "Final Decision")
LEAKS = (*FLAGS, *COUNTS, *EXPERTS, "disposition", "outtime", "acuity")
"""Columns that are known only afterwards; none of them may reach a prompt."""


Row = dict[str, str]


@dataclass(frozen=True)
class Template:
    """A presentation without a trigger: complaint, story with {trigger}, resources, and where a trigger may stand."""

    name: str
    complaint: str
    story: str
    resources: frozenset[str]


_STORIES = {
    "ankle": ("Ankle injury", "twisted the ankle on a kerb and limps. {trigger}Skin warm, pulses good.", "imaging"),
    "laceration": ("Hand laceration", "cut the palm on a tin. {trigger}Moves all fingers.", "simple_procedure"),
    "refill": ("Medication refill", "ran out of tablets and asks for a prescription. {trigger}Feels well.", ""),
    "rash": ("Rash", "has had an itchy rash on both arms for three days. {trigger}Breathing easily.", ""),
    "abdomen": ("Abdominal pain", "has had cramps since last night. {trigger}Abdomen soft.", "labs iv_fluids"),
    "fever": ("Fever and cough", "has had a cough for two days. {trigger}Speaks in full sentences.", "labs imaging"),
    "fall": ("Fall", "slipped on the stairs and has a sore wrist. {trigger}Remembers everything.", "imaging"),
    "migraine": ("Headache", "has a headache with nausea. {trigger}Neurologically intact.", "medication iv_fluids"),
}
TEMPLATES = tuple(Template(name, a, b, frozenset(c.split())) for name, (a, b, c) in _STORIES.items())
"""The level without a trigger: ankle, laceration, fall 4; refill, rash 5; abdomen, fever, migraine 3."""

SENTENCES: Mapping[str, Mapping[str, str]] = {
    "intubation": {
        "present": "Paramedics intubated on scene for failing respirations. ",
        "negated": "Paramedics report that intubation was not needed. ",
        "historical": "Was intubated for pneumonia last year. ",
    },
    "chest tube": {
        "present": "A chest tube was placed on scene for a collapsed lung with shock. ",
        "negated": "There is no chest tube. ",
        "historical": "Had a chest tube three years ago. ",
    },
    "central line": {
        "present": "A central line with pressors is running for shock. ",
        "negated": "Arrives without a central line. ",
        "historical": "Previously had a central line during chemotherapy. ",
    },
    "open fracture": {
        "present": "There is an open fracture of the forearm. ",
        "negated": "There is no open fracture. ",
        "historical": "Had an open fracture of the leg in 2009. ",
    },
    "penetrating": {
        "present": "There is a penetrating wound to the flank. ",
        "negated": "Denies any penetrating injury. ",
        "historical": "Reports a penetrating injury two years ago. ",
    },
}
_LEVEL_ONE = ("intubation", "chest tube", "central line")
KINDS = ("negated", "historical", "pain", "spo2", "heart rate")


def generate_rows(per_kind: int, *, seed: int) -> Iterator[tuple[int, Row]]:
    """(number, row) of `per_kind` pairs of every kind; the same for the same seed.

        negated, historical   the trigger present | denied, or long past          gold of a 1 or 2 | the template's own
        pain                  7 | 6 of 10                                         2 | the template's own
        spo2, heart rate      just inside | just outside the danger zone          2 | 3; templates with two resources

    Raises:
        ValueError: per_kind below one.
    """
    if per_kind < 1:
        raise ValueError(f"per_cell: expected at least 1 pair per kind, got {per_kind}.")
    number = 0
    for kind in KINDS:
        for index in range(per_kind):
            for row in _pair(kind, index, Random(f"{seed}/{kind}/{index}"), f"{seed}-{kind.replace(' ', '_')}-{index}"):
                yield number, {**row, "subject_id": str(10_000_000 + number), "stay_id": str(30_000_000 + number)}
                number += 1


def _pair(kind: str, index: int, rng: Random, pair: str) -> list[Row]:
    rich = kind in ("spo2", "heart rate")
    template = rng.choice([t for t in TEMPLATES if not rich or len(t.resources) > 1])
    patient = _calm(template, rng)
    who = rng.choice(("man", "woman"))
    if kind in ("negated", "historical"):
        rule = list(SENTENCES)[index % len(SENTENCES)]
        flag = "needs_life_saving" if rule in _LEVEL_ONE else "is_high_risk"
        sentences = SENTENCES[rule]
        cases = [("present", replace(patient, **{flag: True}), sentences["present"]), (kind, patient, sentences[kind])]
    else:
        rule = kind
        inside, outside = {"pain": (7, 6), "spo2": (91, 92), "heart rate": (101, 100)}[kind]
        name = {"pain": "pain", "spo2": "spo2", "heart rate": "heart_rate"}[kind]
        cases = [(f"{kind} {value}", replace(patient, **{name: float(value)}), "") for value in (inside, outside)]
    columns = {"template": f"{template.name}/{rule}", "pair": pair, "trigger": rule, "synthetic": "1"}
    return [_row(template, p, sentence, who) | columns | {"perturbation": name} for name, p, sentence in cases]


def _calm(template: Template, rng: Random) -> Patient:
    """Vital signs outside every danger zone, pain below severe."""
    return Patient(
        age=float(rng.randint(19, 78)),
        heart_rate=float(rng.randint(64, 96)),
        resp_rate=float(rng.randint(12, 18)),
        spo2=float(rng.randint(95, 100)),
        temperature=round(rng.uniform(36.4, 37.4), 1),
        pain=float(rng.randint(0, 5)),
        resources=template.resources,
    )


def _row(template: Template, patient: Patient, sentence: str, who: str) -> Row:
    decision = triage(patient)
    story = template.story.format(trigger=sentence)
    row = dict.fromkeys(COLUMNS, "")
    row |= dict.fromkeys(FLAGS, "0") | dict.fromkeys(COUNTS, "0") | _used(patient)
    row |= {
        "gender": "F" if who == "woman" else "M",
        "age": f"{patient.age:.0f}",
        "arrival_transport": "WALK IN",
        "temperature": f"{(patient.temperature or 37.0) * 9 / 5 + 32:.1f}",
        "heartrate": f"{patient.heart_rate:.0f}",
        "resprate": f"{patient.resp_rate:.0f}",
        "o2sat": f"{patient.spo2:.0f}",
        "sbp": "124",
        "dbp": "78",
        "pain": f"{patient.pain:.0f}",
        "chiefcomplaint": template.complaint,
        "acuity": str(decision.level),
        NARRATIVE: f"A {patient.age:.0f}-year-old {who} {story} Pain {patient.pain:.0f}/10.",
        "disposition": "ADMITTED" if decision.level < 3 else "HOME",
        "Final Decision": "RETAIN",
    }
    return row


def _used(patient: Patient) -> Row:
    """Outcome columns that agree with the case; the prompt never shows them."""
    columns = {"labs": "lab_event_count", "imaging": "exam_count", "iv_fluids": "intravenous_fluids"}
    columns |= {"medication": "intravenous", "consult": "consults_count", "simple_procedure": "procedure_count"}
    used = {columns.get(r, "procedure_count"): "1" for r in patient.resources}
    return used | {
        "resources_used": str(patient.n_resources),
        "critical_procedure": str(int(patient.needs_life_saving)),
    }
