"""What a task is, and how one is found by its import path."""

from __future__ import annotations

import importlib
import pkgutil
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from interp.prompt import Example

DEFAULT_MAX_NEW_TOKENS = 512


@runtime_checkable
class Task(Protocol):
    """A module or object that turns a data source into examples.

    To be evaluated it also has

        parse(text) -> str | None                      the label read off a reply; None where there is none
        score(example, text) -> dict[str, float]       by name; "correct" is 0 or 1, unparsed counts as wrong

    and it may have

        read(example, text) -> tuple[str | None, str]  label, and the rule that found it, where the item helps
        labels(example) -> Sequence[str]               label strings whose probability is worth knowing
        spellings(label) -> Sequence[str]              single-token spellings of a label; scored by one forward per item
        decision_prefix(text) -> str                   the part before the label; "" = starts with it, or none
        averaged(answers) -> answers                   one answer per item, of items asked in several orders of options
        report(answers, seed=0) -> list[dict]          rows of the tidy table beside accuracy per cell
        compare(before, after, seed=0) -> list[dict]   rows of `eval compare` beside accuracy per cell
        notes(examples) -> dict[str, str]              cell -> what must be known of its items, such as label noise
        counterfactuals(example, text) -> list[tuple]  (kind, changed reply up to the decision, label it should give)
        read_answers(path, examples) -> dict           example id -> label or None, of a file of answers (`eval score`)
        score_report(answers, seed=0) -> list[dict]    rows of `eval score`, in place of accuracy per cell
        mode_report(answers, seed=0) -> list[dict]     rows of one member's answers in several modes (column "mode")
        choice_columns(examples, logp[example, row, label]), CHOICE_METRICS    scores of choices (`steering.outcomes`)
        sides(example) -> dict[str, tuple]             labels by what they say, for the two sides of a direction
        CELL_ROLES: dict[str, str]                     cell -> training, adversarial, perturbed or control
        BANNER: str                                    what every table and page must say, e.g. "Not for clinical use."
        PROMPT_BASELINE: str                           instruction that steering is compared with
        TOGETHER: str                                  group whose examples begin alike (run together, read once)
        MAX_NEW_TOKENS: int                            longest reply, 512 unless said

    `interp.tasks.conformance.check_task` tells what a task of your own lacks.
    """

    def examples(self, data: str | Path, **options: Any) -> list[Example]:
        """The examples of `data` in file order. Raises ValueError naming file, line and field of a bad row."""
        ...


class EvaluatedTask(Task, Protocol):
    """A task whose replies can be read and scored."""

    def parse(self, text: str) -> str | None: ...

    def score(self, example: Example, text: str) -> dict[str, float]: ...


def read_reply(task: Any, example: Example, text: str) -> tuple[str | None, str]:
    """(label, rule that found it) of a reply; the rule is empty where the task does not name one."""
    return task.read(example, text) if callable(getattr(task, "read", None)) else (task.parse(text), "")


def labels_of(task: Any, example: Example) -> tuple[str, ...]:
    """The label strings of an example; none where the task names none."""
    return tuple(task.labels(example)) if callable(getattr(task, "labels", None)) else ()


def decision_prefix(task: Any, text: str) -> str:
    """The part of a reply after which its label is written; empty where the task does not say."""
    return task.decision_prefix(text) if callable(getattr(task, "decision_prefix", None)) else ""


def max_new_tokens(task: Any) -> int:
    """The longest reply that the task allows for."""
    return int(getattr(task, "MAX_NEW_TOKENS", DEFAULT_MAX_NEW_TOKENS))


CELL_ROLES = ("training", "adversarial", "perturbed", "control")
"""training: members are claimed to be equal; adversarial: the surface misleads; perturbed, control: neither."""


def cell_role(task: Any, cell: str) -> str:
    """What a cell of a task is for, out of `CELL_ROLES`; empty where the task does not say.

    Raises:
        ValueError: the task names another role.
    """
    role = str(getattr(task, "CELL_ROLES", {}).get(cell, ""))
    if role and role not in CELL_ROLES:
        raise ValueError(f"CELL_ROLES[{cell!r}]: expected {', '.join(CELL_ROLES)}, got {role!r}.")
    return role


def load_task(path: str) -> Task:
    """The task at an import path: a module (`interp.tasks.bbq`) or an object in one (`my.tasks:triage`).

    Raises:
        ValueError: no such module or object, or one without an `examples` function. An import that fails inside the
            module is raised as it is.
    """
    module_name, _, attribute = path.partition(":")
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise ValueError(_message(path, "is not an import path like interp.tasks.bbq or my.tasks:triage"))
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module_name != missing and not module_name.startswith(missing + "."):
            raise  # the module is there; something that it imports is not
        raise ValueError(_message(path, f"cannot be imported: there is no module {missing!r}")) from error
    for name in attribute.split(".") if attribute else ():
        if not hasattr(found, name):
            raise ValueError(_message(path, f"cannot be found: {module_name} has no {name!r}"))
        found = getattr(found, name)
    if not callable(getattr(found, "examples", None)):
        raise ValueError(_message(path, "is no task: it has no function examples(data, **options) -> list[Example]"))
    return found


def builtin_tasks() -> list[str]:
    """Import paths of the tasks that come with the library."""
    packages = pkgutil.iter_modules([str(Path(__file__).parent)])
    return sorted(f"interp.tasks.{module.name}" for module in packages if module.ispkg)


def _message(path: str, what: str) -> str:
    known = builtin_tasks()
    near = get_close_matches(path, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"task {path!r} {what}.{hint} Tasks of the library: {', '.join(known)}."
