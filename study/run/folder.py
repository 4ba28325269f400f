"""Housekeeping of a run folder: output of another configuration is set aside, never mixed in and never deleted."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from interp.io.digest import sha256_of
from study.folders import FIGURES, REPORT, STEPS, TABLES
from study.rows import Row
from study.run.digest import Digests
from study.run.state import StepState

KEPT, STAMP = ".kept", "step.json"
TRACEBACK, WARNINGS = "traceback.txt", "warnings.txt"
_NOT_WORK = (STAMP, TRACEBACK, WARNINGS)


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


def take_over(root: Path, name: str, key: str, *, held: str | None = None) -> None:
    """`steps/<name>` for this key: continued if it has this key, restored from `.kept` if it is there.

    What lies there under another key moves to `steps/.kept/<name>-<key>`.

    Args:
        held: the step's key in `run.json`; it stands for the one in the folder where that cannot be read.
    """
    from interp.io.files import replace

    folder = root / STEPS / name
    there = _key(folder)
    if there is None and (folder / STAMP).exists():
        there = held
    if there != key:
        kept = root / STEPS / KEPT
        if folder.exists():
            kept.mkdir(exist_ok=True)
            os.rename(folder, _free(kept / f"{name}-{there or 'unknown'}"))
        if (kept / f"{name}-{key}").is_dir():
            os.rename(kept / f"{name}-{key}", folder)
    folder.mkdir(parents=True, exist_ok=True)
    if _key(folder) != key:
        replace(root, folder / STAMP, _sealed({"key": key, "done": False}))


def mark_done(root: Path, folder: Path, notes: Sequence[str], digests: Digests) -> None:
    """Seal a step's folder: its work is whole, and these are its files, each by size and digest."""
    from interp.io.files import replace

    files = {name: [path.stat().st_size, digests.file(path)] for name, path in _files(folder).items()}
    content = {"key": _key(folder), "done": True, "notes": list(notes), "files": files}
    replace(root, folder / STAMP, _sealed(content))


def altered(folder: Path, digests: Digests) -> list[str] | None:
    """Files of a finished step that are gone or are not what its seal says; None where it is not finished."""
    stamp = _stamp(folder)
    if not stamp.get("done") or not isinstance(stamp.get("files"), dict):
        return None
    return [name for name, held in sorted(stamp["files"].items()) if _measured(folder / name, held[0], digests) != held]


def _measured(path: Path, size: int, digests: Digests) -> list[int | str] | None:
    try:
        found = path.stat().st_size
        return [found, digests.file(path)] if found == size else None
    except OSError:
        return None


def set_aside(root: Path, folder: Path, names: Sequence[str]) -> None:
    """Move altered files of a step to `steps/.kept/<name>-altered`, so that the step makes them again."""
    present = [name for name in names if (folder / name).is_file()]
    if present:
        kept = _free(root / STEPS / KEPT / f"{folder.name}-altered")
        for name in present:
            (kept / name).parent.mkdir(parents=True, exist_ok=True)
            os.rename(folder / name, kept / name)


def notes_if_done(folder: Path, digests: Digests) -> tuple[str, ...] | None:
    """The notes of a step whose work is whole, which its seal proves; None where it is not."""
    return tuple(_stamp(folder).get("notes", ())) if altered(folder, digests) == [] else None


def _files(folder: Path) -> dict[str, Path]:
    """What a step has made in its folder: no hidden files, no links, nothing that only says how an attempt went."""
    found = {}
    for at, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(at) / name for name in names):
            if not path.name.startswith(".") and path.name not in _NOT_WORK and not path.is_symlink():
                found[path.relative_to(folder).as_posix()] = path
    return dict(sorted(found.items()))


def _sealed(content: Mapping[str, object]) -> bytes:
    return (json.dumps({**content, "sha256": sha256_of(content)}) + "\n").encode()


def _key(folder: Path) -> str | None:
    return _stamp(folder).get("key")


def _stamp(folder: Path) -> Row:
    try:
        content = json.loads((folder / STAMP).read_bytes())
        held = content.pop("sha256")
        return content if held == sha256_of(content) else {}
    except (OSError, ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return {}


def _free(path: Path) -> Path:
    number = 1
    while (candidate := path if number == 1 else path.with_name(f"{path.name}.{number}")).exists():
        number += 1
    return candidate
