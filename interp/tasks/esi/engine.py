"""The ESI v4 algorithm, decision points A to D, on facts about a patient. Not for clinical use.

Source: AHRQ, Emergency Severity Index implementation handbook, version 4, chapters 2 and 6. Two thresholds that the
handbook leaves to the nurse are arguments here: severe pain, and vital signs in the danger zone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

RESOURCES = ("labs", "imaging", "iv_fluids", "medication", "consult", "simple_procedure", "complex_procedure")
Avpu = Literal["A", "V", "P", "U"]
Number: TypeAlias = float | int


@dataclass(frozen=True)
class Patient:
    """What is known at the door. A vital sign that was not taken is None and is never in the danger zone.

    Attributes:
        age: years. heart_rate, resp_rate: per minute. spo2: percent. temperature: °C. pain: 0-10.
        needs_life_saving: airway, emergency medication or other haemodynamic intervention now (a line, oxygen, a
            monitor, an ECG or blood tests are none); or intubated, apneic, pulseless.
        is_high_risk: a situation that should not wait. is_confused: new confusion, lethargy or disorientation.
        resources: different types that will be needed, of `RESOURCES`; a complex procedure counts as two.
    """

    age: Number | None = None
    heart_rate: Number | None = None
    resp_rate: Number | None = None
    spo2: Number | None = None
    temperature: Number | None = None
    pain: Number | None = None
    avpu: Avpu = "A"
    needs_life_saving: bool = False
    is_high_risk: bool = False
    is_confused: bool = False
    resources: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if unknown := sorted(self.resources - set(RESOURCES)):
            raise ValueError(f"resources: expected some of {', '.join(RESOURCES)}, got {', '.join(unknown)}.")

    @property
    def n_resources(self) -> int:
        return len(self.resources) + ("complex_procedure" in self.resources)


@dataclass(frozen=True)
class Decision:
    """A level, the decision point that gave it (A, B, C or D), and why."""

    level: int
    point: str
    reason: str


def triage(patient: Patient, *, severe_pain: Number | None = 7, danger_zone_level: Literal[2, 3] = 2) -> Decision:
    """The level of a patient.

        A  life-saving intervention, SpO2 < 90, P or U on AVPU         -> 1
        B  high risk; confused, lethargic, disoriented; severe pain    -> 2
        C  no resource -> 5;  one -> 4;  two or more -> D
        D  vital signs in the danger zone -> consider 2;  else -> 3

    Args:
        severe_pain: rating at which pain alone makes a 2; None never. In the handbook 7 *may*, here it does.
        danger_zone_level: what "consider" is resolved to.
    """
    if patient.needs_life_saving:
        return Decision(1, "A", "immediate life-saving intervention")
    if patient.spo2 is not None and patient.spo2 < 90:
        return Decision(1, "A", "SpO2 below 90")
    if patient.avpu in ("P", "U"):
        return Decision(1, "A", "unresponsive")
    if patient.is_high_risk:
        return Decision(2, "B", "high-risk situation")
    if patient.is_confused or patient.avpu == "V":
        return Decision(2, "B", "confused, lethargic or disoriented")
    if severe_pain is not None and patient.pain is not None and patient.pain >= severe_pain:
        return Decision(2, "B", "severe pain")
    if patient.n_resources < 2:
        return Decision(5 - patient.n_resources, "C", f"{patient.n_resources} resources")
    if reason := danger_zone(patient):
        return Decision(danger_zone_level, "D", reason)
    return Decision(3, "D", "two or more resources, vital signs outside the danger zone")


def danger_zone(patient: Patient) -> str:
    """Which vital sign is in the danger zone of the age; "" where none is, or the age is not known.

        age      < 3 months   3 months - 3 years   3 - 8 years   > 8 years
        HR       > 180        > 160                > 140         > 100
        RR       > 50         > 40                 > 30          > 20          and SpO2 < 92 at any age

    Fever, which also counts: above 38.0 °C under three months, above 39.0 °C from three months to three years.
    """
    if patient.spo2 is not None and patient.spo2 < 92:
        return "SpO2 below 92"
    if patient.age is None:
        return ""
    heart, breath = next(limits for upto, limits in _ZONES if patient.age < upto)
    if patient.heart_rate is not None and patient.heart_rate > heart:
        return f"heart rate above {heart}"
    if patient.resp_rate is not None and patient.resp_rate > breath:
        return f"respiratory rate above {breath}"
    fever = 38.0 if patient.age < 0.25 else 39.0
    if patient.age < 3 and patient.temperature is not None and patient.temperature > fever:
        return f"fever above {fever} °C under three years"
    return ""


_ZONES = ((0.25, (180, 50)), (3, (160, 40)), (8, (140, 30)), (float("inf"), (100, 20)))
