"""Content-addressed keys of steps: equal keys, equal output, so a step with its key on disk is not run again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

from study.config import Study
from study.run.digest import Digests, package_version, sha256_of, shown
from study.run.state import REGISTRATION, TABLES, StepState
from study.run.step import Step

_LENGTH = 16


@dataclass(frozen=True)
class Inputs:
    """Digests that several steps share.

    Attributes:
        data: of the items.
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


def key_of(study: Study, step: Step, inputs: Inputs, keys: Mapping[str, str]) -> str:
    """Key of a step: its section, code version, checkpoints, data, and the keys of the steps that it reads.

    Args:
        keys: of the steps before it.
    """
    named = step.files(study) if step.files else {}
    files = {word: sha256_of([[p.name, Digests().file(p)] for p in paths]) for word, paths in named.items()}
    content: dict[str, Any] = {
        "step": step.name,
        "version": [package_version(), step.version],
        "section": _by_content(_plain(getattr(study, step.name)), files),
        "files": sorted(files.values()),
        "others": {name: _plain(getattr(study, name)) for name in step.sections if name != "task"},
        "inputs": {name: keys[name] for name in step.inputs(study) if name in keys},
    }
    if "task" in step.sections:
        content |= {"data": inputs.data, "weights": dict(inputs.weights)}
    return sha256_of(content)[:_LENGTH]


def table_key_of(study: Study, step: Step) -> str:
    """Digest of what changes a step's tables and nothing else of it; "" where nothing does."""
    if not step.table_sections:
        return ""
    return sha256_of({name: _plain(getattr(study, name)) for name in step.table_sections})[:_LENGTH]


def key_after(study: Study, step: Step, root: Path, digests: Digests, ended: Mapping[str, StepState]) -> str:
    """Key of a step that reads whatever tables there are: its section and their bytes; of one that reads how the other
    steps ended (`reads`), that and what they made too."""
    tables = [[path.name, digests.file(path)] for path in sorted((root / TABLES).glob("*.parquet"))]
    content = {
        "step": step.name,
        "version": [package_version(), step.version],
        "section": _plain(getattr(study, step.name)),
        "others": {name: _plain(getattr(study, name)) for name in step.sections},
        "tables": tables,
        "registration": digests.file(root / REGISTRATION) if step.reads and (root / REGISTRATION).is_file() else "",
        "ended": {name: asdict(state) for name, state in ended.items() if step.reads and name != step.name},
    }
    return sha256_of(content)[:_LENGTH]


def _by_content(value: Any, files: Mapping[str, str]) -> Any:
    """The section with the digest of each of its files in the place of the path, which may move."""
    if isinstance(value, dict):
        return {key: _by_content(inner, files) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_by_content(inner, files) for inner in value]
    return files.get(value, value) if isinstance(value, str) else value


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value
