"""Housekeeping of a run folder: output of another configuration is set aside, never mixed in and never deleted."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from study.run.state import FIGURES, REPORT, STEPS, TABLES, StepState

KEPT, STAMP = ".kept", "step.json"


def is_whole(root: Path, outputs: Mapping[str, str]) -> bool:
    """Whether every output is there with the bytes that it had."""
    return all((root / name).is_file() and digest(root / name) == value for name, value in outputs.items())


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests(root: Path, paths: Iterable[Path]) -> dict[str, str]:
    """Path relative to the run folder -> SHA-256, in order of paths.

    Raises:
        ValueError: a path outside the run folder.
    """
    out = {}
    for path in sorted(paths):
        inside = path.resolve()
        if not inside.is_relative_to(root.resolve()):
            raise ValueError(f"{path} lies outside the run folder {root}. A step writes inside it only.")
        out[inside.relative_to(root.resolve()).as_posix()] = digest(inside)
    return out


def prepare(root: Path, steps: Collection[str], held: Mapping[str, StepState]) -> None:
    """Make the folders; take away tables and figures of steps that are no longer part of the study."""
    from interp.io.files import sweep_temps

    (root / STEPS).mkdir(parents=True, exist_ok=True)
    for folder in (root, root / TABLES):
        sweep_temps(folder)
    for name, state in held.items():
        if name not in steps:
            remove_outputs(root, state.outputs)


def remove_outputs(root: Path, outputs: Mapping[str, str]) -> None:
    """Take away tables and figures that no longer say what the steps hold."""
    allowed = (f"{TABLES}/", f"{FIGURES}/")
    for name in outputs:
        if ".." not in Path(name).parts and (name.startswith(allowed) or name == REPORT):
            (root / name).unlink(missing_ok=True)


def take_over(root: Path, name: str, key: str) -> None:
    """`steps/<name>` for this key: gone on with where it is of this key, taken back from `.kept` where it was there.

    What lies there under another key moves to `steps/.kept/<name>-<key>`.
    """
    from interp.io.files import replace

    folder = root / STEPS / name
    there = _key(folder)
    if there != key:
        kept = root / STEPS / KEPT
        if folder.exists():
            kept.mkdir(exist_ok=True)
            os.rename(folder, _free(kept / f"{name}-{there or 'unknown'}"))
        if (kept / f"{name}-{key}").is_dir():
            os.rename(kept / f"{name}-{key}", folder)
    folder.mkdir(parents=True, exist_ok=True)
    if _key(folder) != key:
        replace(root, folder / STAMP, (json.dumps({"key": key, "done": False}) + "\n").encode())


def mark_done(root: Path, folder: Path, notes: Sequence[str]) -> None:
    """Say in a step's folder that its work is whole: only tables need to be made of it again."""
    from interp.io.files import replace

    content = {"key": _key(folder), "done": True, "notes": list(notes)}
    replace(root, folder / STAMP, (json.dumps(content) + "\n").encode())


def notes_if_done(folder: Path) -> tuple[str, ...] | None:
    """The notes of a step whose work is whole; None where it is not."""
    stamp = _stamp(folder)
    return tuple(stamp.get("notes", ())) if stamp.get("done") else None


def _key(folder: Path) -> str | None:
    return _stamp(folder).get("key")


def _stamp(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / STAMP).read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _free(path: Path) -> Path:
    number = 1
    while (candidate := path if number == 1 else path.with_name(f"{path.name}.{number}")).exists():
        number += 1
    return candidate
