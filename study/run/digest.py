"""Digests of what a run is made from: data, checkpoints, code. No weight is loaded and no model library imported."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path

from interp.checkpoint import Checkpoint
from interp.loading.files import base_folder, file_sha256, read_adapter, tokenizer_folder, weight_files
from study.task_options import TaskOptions

MEMO = ".digests.json"
_LARGE = 8 << 20
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "tokenizer.model", "vocab.json")


def sha256_of(value: object) -> str:
    """Digest of JSON values, mappings in any order."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


class Digests:
    """Digests of files, large ones remembered by size and time of change so that 30 GB are read once.

    Args:
        folder: where the memory is kept (a hidden file in the run folder); None keeps none.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._path = None if folder is None else folder / MEMO
        self._known: dict[str, str] = {}
        if self._path is not None:
            self._known = _read_memo(self._path)

    def file(self, path: Path) -> str:
        """SHA-256 of a file's bytes."""
        stat = path.stat()
        if stat.st_size < _LARGE:
            return file_sha256(path)
        key = sha256_of([str(path.resolve()), stat.st_size, stat.st_mtime_ns])  # no path is written into the run
        if key not in self._known:
            self._known[key] = file_sha256(path)
        return self._known[key]

    def remembered(self, content: object, make: Callable[[], str]) -> str:
        """A digest that follows from `content`; made where it is not known."""
        key = sha256_of(content)
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    def save(self) -> None:
        """Keep what was learnt."""
        from interp.io.files import replace

        if self._path is not None and self._known:
            self._known = _read_memo(self._path) | self._known  # steps in processes of their own learn too
            content = (json.dumps(self._known, indent=0, sort_keys=True) + "\n").encode()
            if not self._path.is_file() or self._path.read_bytes() != content:
                replace(self._path.parent, self._path, content)

    def data(self, task: TaskOptions) -> str:
        """Digest of the items that a task section selects: the bytes of its data, and every option that selects among
        them."""
        chosen = {key: value for key, value in asdict(task).items() if key != "data"}
        if task.data is None:
            return sha256_of(chosen)
        path = Path(task.data)
        files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        named = [[p.name if p == path else p.relative_to(path).as_posix(), self.file(p)] for p in files]
        return sha256_of([chosen, named])

    def weights(self, checkpoint: Checkpoint) -> str:
        """Digest of what a checkpoint is: config, weights, tokenizer and adapter by content, wherever they lie.

        Raises:
            ValueError: nothing at the path or id, or no network for what is not in the hub's cache.
        """
        folder = base_folder(checkpoint, weights=True)
        where = f"base {checkpoint.base!r} of {checkpoint.name!r}"
        names = [folder / "config.json", *_tokenizer_files(folder)]
        parts = [[p.name, self.file(p)] for p in (*names, *weight_files(folder, where))]
        if checkpoint.tokenizer is not None:
            parts += [["tokenizer/" + p.name, self.file(p)] for p in _tokenizer_files(tokenizer_folder(checkpoint))]
        if checkpoint.adapter is not None:
            files = read_adapter(checkpoint)
            names = [files.folder / "adapter_config.json", *files.weights, *_tokenizer_files(files.folder)]
            parts += [["adapter/" + p.name, self.file(p)] for p in names]
        return sha256_of(parts)


def _read_memo(path: Path) -> dict[str, str]:
    try:
        held = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}  # a memory that cannot be read is made anew
    return {key: value for key, value in held.items() if isinstance(value, str)} if isinstance(held, dict) else {}


def _tokenizer_files(folder: Path) -> list[Path]:
    return [folder / name for name in _TOKENIZER if (folder / name).is_file()]


def shown(checkpoint: Checkpoint) -> dict[str, str]:
    """`base` and `adapter` as run.json and tables name them: a hub id as it is, a local folder by its name."""

    def named(name: str | None, inside: str | None = None) -> str:
        if name is None:
            return "none"
        text = Path(name).expanduser().resolve().name if Path(name).expanduser().is_dir() else name
        return f"{text}/{inside}" if inside else text

    return {"base": named(checkpoint.base), "adapter": named(checkpoint.adapter, checkpoint.subfolder)}


@cache
def versions() -> Mapping[str, str]:
    """Versions of what computes."""
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "transformers", "tokenizers", "peft", "numpy", "scikit-learn")}


@cache
def package_version() -> str:
    """Version of Diptych."""
    from importlib.metadata import version

    return version("diptych")


def commit() -> str:
    """Commit of the checkout that the package runs from, with '+' where files were changed; "" elsewhere."""
    import subprocess

    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return ""
    run = dict(cwd=root, capture_output=True, text=True, timeout=20)
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], **run)  # pyright: ignore[reportCallIssue, reportArgumentType]
        changed = subprocess.run(["git", "status", "--porcelain", "-uno"], **run)  # pyright: ignore[reportCallIssue, reportArgumentType]
    except (OSError, subprocess.SubprocessError):
        return ""
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "") if head.returncode == 0 else ""
