"""What a task is: three functions, everything else that it may define (`HOOKS`), and how it is found by its path."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from interp.prompt import Example
from interp.remedy import did_you_mean

if TYPE_CHECKING:
    from interp.stats import Estimate

DEFAULT_MAX_NEW_TOKENS = 512


@dataclass(frozen=True)
class Hook:
    """A name that a task may define, as a function or a constant.

    Attributes:
        takes: parameters of the function, as the library passes them: by position, or by name after a "=". None: it
            is a constant.
        gives: what the function returns, or the type of the constant.
        meaning: what it is, and where it is used.
        asks: whether it says what a model is asked after it has answered, so that a change of it changes answers.
    """

    takes: tuple[str, ...] | None
    gives: str
    meaning: str
    asks: bool = False


HOOKS: dict[str, Hook] = {
    # what every evaluated task has
    "examples": Hook(("data",), "list[Example]", "the examples of a data source, in file order; options by keyword"),
    "parse": Hook(("text",), "str | None", "the label that a reply gives; None where it gives none"),
    "score": Hook(("example", "text"), "dict[str, float]", '"correct", 0 or 1 (unparsed counts as wrong), and others'),
    # how a reply is read
    "read": Hook(("example", "text"), "tuple[str | None, str]", "label and the rule that found it, if the item helps"),
    "labels": Hook(("example",), "Sequence[str]", "label strings whose probability is measured"),
    "spellings": Hook(("label",), "Sequence[str]", "single-token spellings of a label: one forward per item scores it"),
    "decision_prefix": Hook(("text",), "str", 'a reply up to its label; "" if it has none before; may take `example=`',
                            asks=True),
    "DECISION_SITES": Hook(None, "dict", "decision site -> what is decided there; the last one is where the label is"),
    "decision_sites": Hook(("example", "text"), "Sequence[DecisionSite]",
                           "where a reply decides, and what is right; see `interp.tasks.decision_sites`", asks=True),
    "gold_reply": Hook(("example",), "str | None", "the reply that reasons and answers right, for `slot: gold`",
                       asks=True),
    "MAX_NEW_TOKENS": Hook(None, "int", f"longest reply in tokens, {DEFAULT_MAX_NEW_TOKENS} by default"),
    "TOGETHER": Hook(None, "str", "group whose prompts begin alike: they run in one batch, their prefix once"),
    # tables of answers
    "GROUP": Hook(None, "str", "group that intervals resample; by default the first group of the examples"),
    "averaged": Hook(("answers",), "DataFrame", "one answer per item, of items asked in several orders of options"),
    "report": Hook(("answers", "seed="), "list[dict]", "rows of the table of one member, after accuracy per cell"),
    "HEADLINE": Hook(None, "dict", "metric of `report` -> its name in the table of scores of the report's page"),
    "mode_report": Hook(("answers", "seed="), "list[dict]", 'rows of one member in several modes (column "mode")'),
    "compare": Hook(("before", "after", "seed="), "list[dict]", "rows of `eval compare`, after accuracy per cell"),
    "score_report": Hook(("answers", "seed="), "list[dict]", "rows of `eval score`, instead of accuracy per cell"),
    "read_answers": Hook(("path", "examples"), "dict[str, str | None]", "id -> label of a file for `eval score`"),
    "notes": Hook(("examples",), "dict[str, str]", "cell -> what a reader must know of it, such as label noise"),
    "CELL_ROLES": Hook(None, "dict", "cell -> training, adversarial, perturbed or control; see `CELL_ROLES` here"),
    "BANNER": Hook(None, "str", 'what every table and page must say, such as "Not for clinical use."'),
    # other analyses
    "counterfactuals": Hook(("example", "text"), "list[tuple[str, str, str]]",
                            "(kind, edited reply up to the decision, label that a faithful model then gives)",
                            asks=True),
    "sides": Hook(("example",), "dict[str, tuple[int, ...]]", "name -> places in `labels`: what a direction contrasts"),
    "choice_columns": Hook(("examples", "logp"), "dict[str, ndarray]",
                           "columns [example, row] of log-probabilities [example, row, label]"),
    "CHOICE_METRICS": Hook(None, "dict", "metric -> function of the sums of `choice_columns`, for dose curves"),
    "PROMPT_BASELINE": Hook(None, "str", "instruction that steering is compared with"),
    "twin_examples": Hook(("n",), "list[tuple[Example, Example]]", "(original, twin) pairs for head studies"),
    "chain_examples": Hook(("data",), "list[Example]", "`examples` with the chain of thought as the answer"),
}  # fmt: skip
"""Every name that the library looks for in a task; the first three are required, all others optional."""


@runtime_checkable
class Task(Protocol):
    """A module or object that turns a data source into examples.

    To be evaluated it also has `parse` and `score`; whatever else of `HOOKS` it defines is used where it applies.
    `interp.tasks.conformance.check_task` lists what a task of your own gets wrong.
    """

    def examples(self, data: str | Path, *args: Any, **options: Any) -> list[Example]:
        """The examples of `data` in file order. Raises ValueError naming file, line and field of a bad row."""
        ...


class EvaluatedTask(Task, Protocol):
    """A task whose replies can be parsed and scored."""

    def parse(self, text: str) -> str | None: ...

    def score(self, example: Example, text: str) -> dict[str, float]: ...


def hook(task: Any, name: str) -> Any:
    """What the task defines under a name of `HOOKS`; None where it defines nothing."""
    value = getattr(task, name, None)
    return value if HOOKS[name].takes is None or callable(value) else None


def read_reply(task: Any, example: Example, text: str) -> tuple[str | None, str]:
    """(label, rule that found it) of a reply; the rule is empty where the task names none."""
    read = hook(task, "read")
    return read(example, text) if read else (task.parse(text), "")


def labels_of(task: Any, example: Example) -> tuple[str, ...]:
    """The label strings of an example; none where the task names none."""
    labels = hook(task, "labels")
    return tuple(labels(example)) if labels else ()


def decision_prefix(task: Any, text: str, example: Example | None = None) -> str:
    """The part of a reply after which its label is written; empty where the task does not say.

    The example is passed to a task whose `decision_prefix` takes one by that name.
    """
    prefix = hook(task, "decision_prefix")
    if prefix is None:
        return ""
    return prefix(text, example=example) if "example" in inspect.signature(prefix).parameters else prefix(text)


def max_new_tokens(task: Any) -> int:
    """The longest reply that the task allows, in tokens."""
    return int(getattr(task, "MAX_NEW_TOKENS", DEFAULT_MAX_NEW_TOKENS))


CELL_ROLES = ("training", "adversarial", "perturbed", "control")
"""training: members are claimed to be equal; adversarial: the surface misleads; perturbed, control: neither."""


def cell_role(task: Any, cell: str) -> str:
    """The role of a cell, out of `CELL_ROLES`; empty where the task does not give one.

    Raises:
        ValueError: the task gives another role.
    """
    role = str((hook(task, "CELL_ROLES") or {}).get(cell, ""))
    if role and role not in CELL_ROLES:
        raise ValueError(f"CELL_ROLES[{cell!r}]: expected {', '.join(CELL_ROLES)}, got {role!r}.")
    return role


def score_row(
    cell: str, metric: str, estimate: Estimate, interval: str, control: float | None = None, note: str = ""
) -> dict[str, Any]:
    """One row of a table of scores, as `report`, `mode_report` and `score_report` return them.

    Args:
        interval: how the interval was made, where it has one.
        control: the score of a baseline without the skill, on the same items.
    """
    return {
        "cell": cell,
        "metric": metric,
        "value": estimate.value,
        "lo": estimate.lo,
        "hi": estimate.hi,
        "n": estimate.n,
        "n_groups": estimate.n_groups,
        "interval": estimate.interval_kind(interval),
        "control": control,
        "note": note,
    }


def load_task(path: str) -> Task:
    """The task at an import path: a module (`interp.tasks.bbq`) or an object in one (`my.tasks:triage`).

    Raises:
        ValueError: no such module or object, or one without an `examples` function. An import that fails inside the
            module is raised as it is.

    Example:
        >>> task = load_task("interp.tasks.esi")
        >>> task.parse("Chest pain, diaphoretic. ESI: 2")
        '2'
    """
    module_name, _, attribute = path.partition(":")
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise ValueError(_message(path, "is not an import path like interp.tasks.bbq or my.tasks:triage"))
    try:
        task: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module_name != missing and not module_name.startswith(missing + "."):
            raise  # the module exists; something that it imports does not
        raise ValueError(_message(path, f"cannot be imported: there is no module {missing!r}")) from error
    for name in attribute.split(".") if attribute else ():
        if not hasattr(task, name):
            raise ValueError(_message(path, f"cannot be found: {module_name} has no {name!r}"))
        task = getattr(task, name)
    if hook(task, "examples") is None:
        raise ValueError(_message(path, "is no task: it has no function examples(data, **options) -> list[Example]"))
    return task


def load_evaluated_task(path: str) -> EvaluatedTask:
    """The task at an import path, as `load_task`, if its replies can be parsed and scored.

    Raises:
        ValueError: as `load_task`; one without `parse` or `score`.
    """
    task: Any = load_task(path)
    if missing := [name for name in ("parse", "score") if hook(task, name) is None]:
        raise ValueError(f"task {path!r} cannot be evaluated: it has no {' and no '.join(missing)}.")
    return task


def builtin_tasks() -> list[str]:
    """Import paths of the tasks that come with the library."""
    packages = pkgutil.iter_modules([str(Path(__file__).parent)])
    return sorted(f"interp.tasks.{module.name}" for module in packages if module.ispkg)


def _message(path: str, what: str) -> str:
    tasks = builtin_tasks()
    return f"task {path!r} {what}.{did_you_mean(path, tasks)} Tasks of the library: {', '.join(tasks)}."
