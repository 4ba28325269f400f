"""Content-addressed keys of steps: equal keys, equal output, so a step with its key on disk is not run again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

from study.analyses.base import Step
from study.config import Study
from study.folders import REGISTRATION, TABLES
from study.run.attempt import publish
from study.run.code import code_of
from study.run.digest import Digests, sha256_of, shown
from study.run.state import StepState

_LENGTH = 16


@dataclass(frozen=True)
class Inputs:
    """Digests that several steps share.

    Attributes:
        data: digest of the items.
        weights: member -> digest of its files.
        provenance: member -> {base, adapter, weights}, by name.
    """

    data: str
    weights: Mapping[str, str]
    provenance: Mapping[str, Mapping[str, str]]


def inputs_of(study: Study, digests: Digests) -> Inputs:
    """Digests of a study's data and checkpoints.

    Raises:
        ValueError: a checkpoint that is not there.
    """
    weights = {role: digests.weights(checkpoint) for role, checkpoint in study.members.items()}
    named = {role: {**shown(c), "weights": weights[role][:12]} for role, c in study.members.items()}
    return Inputs(digests.data(study.task), weights, named)


@dataclass(frozen=True)
class Key:
    """What a step's work follows from: `asked` is everything but its code, `key` is both."""

    asked: str
    code: str

    @property
    def key(self) -> str:
        return sha256_of([self.asked, self.code])[:_LENGTH]


def key_of(study: Study, step: Step, inputs: Inputs, keys: Mapping[str, str], digests: Digests | None = None) -> Key:
    """Key of a step's work: its section, checkpoints, data, items, the keys of the steps that it reads, and its code.

    The code is what `step.run` reaches (see `study.run.code`), so an edit of a statistic that only tables use leaves
    the key as it is.

    Args:
        keys: keys of the steps before it.
        digests: where the digest of the items is remembered.
    """
    named = step.files(study) if step.files else {}
    files = {word: sha256_of([[p.name, Digests().file(p)] for p in paths]) for word, paths in named.items()}
    before = step.inputs(study)
    content: dict[str, object] = {
        "step": step.name,
        "section": _by_content(_plain(study.section(step.name)), files),
        "files": sorted(files.values()),
        "others": {name: _plain(study.section(name)) for name in step.sections if name != "task"},
        "inputs": {name: keys[name] for name in before if name in keys},
    }
    if "eval" in before and "eval" in keys:
        content["reads"] = code_of(study.task.path)  # answers are read by the task as it is now
    if "task" in step.sections:
        content |= {"data": inputs.data, "weights": dict(inputs.weights)}
    if step.items is not None:
        content["items"] = _items(study, step, inputs, digests or Digests())
    code = code_of(step.run, *(step.code(study) if step.code else ()))
    return Key(sha256_of(content)[:_LENGTH], code)


def made_with(old: str, new: str) -> str:
    """What is said of work that other code made."""
    return f"made with code {old or 'unknown'}, this is {new}"


def _items(study: Study, step: Step, inputs: Inputs, digests: Digests) -> str:
    """Digest of what models are asked, and of how the task has it answered: the rest of the task's code is for tables.

    Made anew only where data, task or choices changed.
    """
    from interp.tasks.protocol import HOOKS, hook, labels_of, load_task, max_new_tokens

    assert step.items is not None
    make, task = step.items, load_task(study.task.path)

    def digest() -> str:
        items: Any = make(study)
        examples = [e for one in items for e in (one if isinstance(one, tuple) else (one,))]
        labels = [labels_of(task, example) for example in examples]
        names = sorted({label for of in labels for label in of})
        spelled = [task.spellings(name) for name in names] if callable(getattr(task, "spellings", None)) else []  # pyright: ignore[reportAttributeAccessIssue]
        return sha256_of([[_plain(example) for example in examples], labels, spelled])

    chosen = [_plain(study.task), _plain(study.section(step.name)), study.seed]
    asked = digests.remembered(["items", step.name, inputs.data, code_of(study.task.path), chosen], digest)
    hooks = [hook(task, name) for name, one in HOOKS.items() if one.asks]
    together = getattr(task, "TOGETHER", None)
    return sha256_of([asked, code_of(*filter(None, hooks)), max_new_tokens(task), together])


def table_key_of(study: Study, step: Step) -> str:
    """Digest of what changes a step's tables and not its work: the code that makes them, the task's, some sections."""
    sections = {name: _plain(study.section(name)) for name in step.table_sections}
    task = study.task.path if "task" in step.sections else None
    return sha256_of([sections, code_of(step.tables, publish, task)])[:_LENGTH]


def key_after(study: Study, step: Step, root: Path, digests: Digests, ended: Mapping[str, StepState]) -> str:
    """Key of a step that reads whatever tables the analyses left: its section and their bytes; of one that reads how
    the other steps ended (`reads`), that and what they made too."""
    from study.known_truth.show import TABLE

    late = set() if step.reads else {TABLE}
    read = [path for path in sorted((root / TABLES).glob("*.parquet")) if path.stem not in late]
    tables = [[path.name, digests.file(path)] for path in read]
    content = {
        "step": step.name,
        "code": code_of(step.run, *(step.code(study) if step.code else ())),
        "section": _plain(study.section(step.name)),
        "others": {name: _plain(study.section(name)) for name in step.sections},
        "tables": tables,
        "registration": digests.file(root / REGISTRATION) if step.reads and (root / REGISTRATION).is_file() else "",
        "ended": {name: asdict(state) for name, state in ended.items() if step.reads and name != step.name},
    }
    return sha256_of(content)[:_LENGTH]


def _by_content(value: object, files: Mapping[str, str]) -> object:
    """The section with the digest of each of its files in the place of the path, which may move."""
    if isinstance(value, dict):
        return {key: _by_content(inner, files) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_by_content(inner, files) for inner in value]
    return files.get(value, value) if isinstance(value, str) else value


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value
