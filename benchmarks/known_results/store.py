"""Results as JSON files, one per experiment and checkpoint, and whether a file is still the result of this code."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import importlib.util
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.kit import HERE
from benchmarks.known_results.registry import EXPERIMENTS, Experiment
from benchmarks.known_results.rows import Findings

RESULTS = HERE / "results"


@dataclass(frozen=True)
class Result:
    """Findings with where they come from.

    Attributes:
        seconds: CPU time of the experiment, without loading.
        code: digest of the experiment's module and settings.
    """

    experiment: str
    model: str
    dtype: str
    settings: dict[str, Any]
    findings: Findings
    seconds: float
    code: str
    date: str
    versions: dict[str, str]


def result_of(
    experiment: Experiment, model: str, settings: Any, findings: Findings, seconds: float, code: str
) -> Result:
    """The result of a run; `code` is `code_of` from before the run, whatever happened to the file meanwhile."""
    versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers")}
    return Result(experiment.name, model, experiment.dtype, asdict(settings), findings, round(seconds, 1),
                  code, datetime.date.today().isoformat(), versions)  # fmt: skip


def path_of(experiment: str, model: str, folder: Path = RESULTS) -> Path:
    return folder / f"science.{experiment}.{model}.json"


def code_of(experiment: Experiment, settings: Any) -> str:
    """Digest of the source of the experiment's module and of its settings; the library's code is not in it."""
    spec = importlib.util.find_spec(experiment.module_name)
    assert spec is not None and spec.origin is not None, f"{experiment.module_name} is a module with a file"
    content = Path(spec.origin).read_text() + json.dumps(asdict(settings), sort_keys=True) + experiment.dtype
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def write(result: Result, folder: Path = RESULTS) -> Path:
    """Write the file atomically, so that a run that is stopped leaves the old result or the new one."""
    path = path_of(result.experiment, result.model, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = {**vars(result), "findings": result.findings.as_json()}
    part = path.with_suffix(".part")
    part.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")
    part.replace(path)
    return path


def read(path: Path) -> Result:
    data = json.loads(path.read_text())
    return Result(**{**data, "findings": Findings.from_json(data["findings"])})


def is_current(experiment: Experiment, model: str, settings: Any, folder: Path = RESULTS) -> bool:
    """Whether the results file of this experiment and checkpoint comes from this code and these settings."""
    path = path_of(experiment.name, model, folder)
    return path.is_file() and read(path).code == code_of(experiment, settings)


def results(folder: Path = RESULTS) -> Iterator[Result]:
    """All results of the registered experiments, in the order of `EXPERIMENTS`, by checkpoint."""
    for name in EXPERIMENTS:
        for path in sorted(folder.glob(f"science.{name}.*.json")):
            yield read(path)
