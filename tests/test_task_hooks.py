"""Hooks of a task: every name that the library looks for is declared once, documented, and checked by `check_task`."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from interp.tasks import esi, procedural
from interp.tasks.conformance import check_task
from interp.tasks.protocol import HOOKS, builtin_tasks, hook, load_task
from tests.import_graph import ROOT

SOURCES = [path.read_text() for package in ("interp", "steering", "study") for path in (ROOT / package).rglob("*.py")]


def named(pattern: str) -> set[str]:
    return {name for text in SOURCES for name in re.findall(pattern, text)}


def test_every_name_that_the_library_looks_for_in_a_task_is_a_declared_hook_and_every_hook_is_looked_for() -> None:
    looked_for = named(r"(?:getattr|hook)\(task, \"(\w+)\"")
    assert looked_for - set(HOOKS) == set()
    assert set(HOOKS) - looked_for - named(r"\btask\.(\w+)\(") == set()


def test_the_page_about_tasks_names_every_hook() -> None:
    page = (ROOT / "docs" / "howto" / "tasks.md").read_text()
    assert [name for name in HOOKS if f"`{name}" not in page] == []


def test_built_in_tasks_are_the_packages_and_each_defines_what_every_task_needs() -> None:
    assert builtin_tasks() == [f"interp.tasks.{name}" for name in ("bbq", "cot", "esi", "procedural")]
    for path in builtin_tasks():
        assert all(hook(load_task(path), name) for name in ("examples", "parse", "score"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"report": lambda answers: []}, "report(answers): called with (answers, seed=)"),
        ({"labels": ("1", "2")}, "labels: expected a function"),
        ({"MAX_NEW_TOKENS": "512"}, "MAX_NEW_TOKENS: expected int"),
        ({"GROUP": "ward"}, "GROUP is 'ward'"),
        ({"CELL_ROLES": {"ESI 1": "urgent"}}, "CELL_ROLES['ESI 1']"),
        ({"notes": lambda examples: {"ESI 9": "noisy"}}, "notes: 'ESI 9' is no cell"),
        ({"spellings": lambda label: ("x",)}, "spellings of 1, 2, 3, 4, 5"),
        ({"counterfactuals": lambda example, text: [("turned", text, "6")]}, "turned expects '6'"),
        ({"sides": lambda example: {"urgent": (7,)}}, "got [7]"),
        ({"choice_columns": lambda examples, logp: {"n": logp[:, 0, 0]}}, "choice_columns: 'n' has shape"),
        ({"read": lambda example, text: ("3", "rule")}, "is read as '3'"),
        ({"averages": lambda answers: answers}, "averages is not used; did you mean averaged?"),
        ({"twin_examples": lambda n: [("a", "b")]}, "twin_examples: expected (original, twin)"),
    ],
)
def test_each_fault_of_a_hook_is_found_and_named(change: dict[str, object], words: str) -> None:
    task = SimpleNamespace(**{**vars(esi), **change})
    (fault,) = [finding for finding in check_task(task, esi.examples(per_cell=1)) if not finding.ok]
    assert words in fault.got


def test_a_metric_of_choices_must_be_made_of_columns_that_there_are() -> None:
    from interp.tasks.bbq.metrics import CHOICE_METRICS

    columns = {"choice_columns": lambda examples, logp: {"n": logp[:, :, 0]}, "CHOICE_METRICS": CHOICE_METRICS}
    task = SimpleNamespace(**{**vars(procedural), **columns})
    faults = [finding.got for finding in check_task(task, procedural.examples(per_cell=1)) if not finding.ok]
    assert len(faults) == 1
    assert "no choice column" in faults[0]
