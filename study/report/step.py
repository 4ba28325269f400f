"""Step report: one self-contained page of the run, from tables and figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from study.analyses.base import Context, Step, Work
from study.analyses.registry import paths
from study.folders import REPORT

if TYPE_CHECKING:
    from study.config import Study


def run(context: Context) -> None:
    """Write `report.html`; what failed is named in it."""
    from study.report import write_report

    write_report(context.root)


def outputs(context: Context) -> list[Path]:
    """The page."""
    return [context.root / REPORT]


def plan(_: Study) -> Work:
    """Some seconds; nothing is computed."""
    return Work(note="built from tables and figures")


def code(_: Study) -> tuple[str, ...]:
    """Every analysis: claims, and the words of its block."""
    return paths()


STEP = Step(
    "report",
    run,
    after=True,
    reads=("figures",),
    plan=plan,
    outputs=outputs,
    code=code,
    sections=("published", "smallest_effects", "min_label_mass", "name"),
)
