"""Names of what lies in a run folder."""

from __future__ import annotations

RUN, STUDY, STEPS, TABLES, FIGURES, REPORT = "run.json", "study.yaml", "steps", "tables", "figures", "report.html"
REGISTRATION = "registration.json"
