"""The date that chat templates are given: the same for every step of a run, today and when it is resumed."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path

from interp.io.yaml_text import read_yaml
from interp.loading.tokenizer import reads_clock
from study.config.sections import Study
from study.folders import STUDY


def with_date(study: Study, out: Path) -> Study:
    """The study with `load.template_date` filled in where a member's chat template reads the clock.

    The date is that of the run folder's `study.yaml` if it has one, else today's; `study.yaml` will record it.
    """
    if study.load.template_date is not None or not any(map(reads_clock, study.members.values())):
        return study
    date = _recorded(out / STUDY) or datetime.date.today().isoformat()
    return replace(study, load=replace(study.load, template_date=date))


def _recorded(path: Path) -> str | None:
    if not path.is_file():
        return None
    content, _ = read_yaml(path)
    load = content.get("load") if isinstance(content, dict) else None
    date = load.get("template_date") if isinstance(load, dict) else None
    return None if date is None else str(date)
