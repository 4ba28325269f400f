"""`run.json`: what a run folder holds, which step made it, from what, and how it ended."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from interp.io.digest import is_own_digest, sha256_of
from interp.io.read import read_json
from study.folders import RUN

Status = Literal["done", "failed", "skipped"]


@dataclass(frozen=True)
class StepState:
    """How one step ended.

    Attributes:
        key: digest of its configuration, code, checkpoints, data and the keys of the steps that it reads.
        status: done, failed, or skipped (a step that it needs failed).
        cause: why it failed or was skipped, in words; "" where it is done.
        outputs: path in the run folder -> SHA-256 of the tables, figures and report that it made.
        notes: what was left out and why (a figure that could not be drawn).
        table_key: digest of what changes its tables and not its work.
        asked: digest of all that is in `key` but the code; code: digest of the code that made its work.
    """

    key: str
    status: Status
    cause: str = ""
    outputs: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    table_key: str = ""
    asked: str = ""
    code: str = ""


@dataclass(frozen=True)
class RunState:
    """The content of `run.json`; the same run writes the same bytes.

    Attributes:
        name, seed, dtype: name, seed and dtype of the study.
        diptych, commit: version of the package, and its commit where it runs from a checkout ("" elsewhere).
        packages: name -> version of what computes.
        checkpoints: member -> {base, adapter, weights}.
        data_sha256: digest of the data.
        steps: name -> how it ended, in the order of the study.
        sha256: digest of all this, in the file.
    """

    name: str
    seed: int
    dtype: str
    diptych: str
    commit: str
    packages: Mapping[str, str]
    checkpoints: Mapping[str, Mapping[str, str]]
    data_sha256: str
    steps: Mapping[str, StepState] = field(default_factory=dict)
    sha256: str = ""


def read_run(folder: Path) -> RunState:
    """What `run.json` of a run folder says.

    Raises:
        ValueError: no run folder, or a `run.json` that cannot be read.
    """
    path = folder / RUN
    if not path.is_file():
        raise ValueError(
            f"{folder}: no run of a study (no {RUN}); expected a folder that `diptych study run ... --out` wrote."
        )
    remedy = "Delete it and run the study again; nothing is lost."
    state = read_json(path, RunState, remedy)
    held = json.loads(path.read_bytes())
    if not is_own_digest(held.pop("sha256", None), held):
        raise ValueError(f"{path}: changed after it was written (its digest differs). {remedy}")
    return state


def write_run(folder: Path, state: RunState) -> None:
    """Write `run.json` whole, or leave it alone where it says the same already."""
    from interp.io.files import replace as put

    told = {key: value for key, value in asdict(state).items() if key != "sha256"}
    content = (json.dumps(told | {"sha256": sha256_of(told)}, indent=1) + "\n").encode()
    path = folder / RUN
    if not path.is_file() or path.read_bytes() != content:
        put(folder, path, content)
