"""Columns of the MIETIC validation file, which of them a triage nurse knows, and which give the outcome away."""

from __future__ import annotations

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
"""The 57 columns, outcome after what is known at the door."""
ESSENTIAL = ("subject_id", "acuity", NARRATIVE, "chiefcomplaint", "Final Decision")
LEAKS = (*FLAGS, *COUNTS, *EXPERTS, "disposition", "outtime", "acuity")
"""Columns that are known only afterwards; none of them may reach a prompt."""
