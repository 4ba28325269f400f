"""Names of files for output that is shared: no folder of this machine, and so no user name."""

from __future__ import annotations

import os
import re
from pathlib import Path

_ABSOLUTE = re.compile(r"(?<![\w.:/~\\-])(?:~|[A-Za-z]:)?[/\\](?:[^\s/\\'\",;:()<>|]+[/\\])+")


def shown(name: str) -> str:
    """Name of a model, adapter or data set in tables and manifests: a hub id unchanged, a local path by its last part.

    Example:
        >>> shown("Qwen/Qwen2.5-7B"), shown("/home/ada/models/tuned")
        ('Qwen/Qwen2.5-7B', 'tuned')
    """
    path = Path(name).expanduser()
    if not is_local(name):
        return name
    for part in path.parts[:-1]:
        if part.startswith("models--"):  # the hub's cache: models--owner--name/snapshots/commit
            return part.removeprefix("models--").replace("--", "/", 1)
    return path.name if path.name not in ("", "..") else path.resolve().name


def is_local(name: str) -> bool:
    """Whether a name is a file or folder rather than a hub repository."""
    path = Path(name).expanduser()
    return path.is_absolute() or name.startswith(("./", "../", "~")) or path.exists()


def portable(path: str | Path, folder: Path) -> str:
    """A path as a file in `folder` should store it: relative, or from `~` if that would spell out the home folder."""
    target, home, start = (Path(os.path.abspath(Path(p).expanduser())) for p in (path, Path.home(), folder))
    if target.is_relative_to(home) and not start.is_relative_to(home) and home != Path("/"):
        return f"~/{target.relative_to(home)}"
    return os.path.relpath(target, start)


def without_folder(text: str, folder: Path, name: str) -> str:
    """The text with an absolute `folder` replaced by `name`, and paths inside it made relative.

    Only a complete path is replaced: `/x/b` is not part of `/x/bar`.
    """
    pattern = re.escape(str(folder.absolute()).rstrip("/"))
    ends = r"(?:(?P<inside>/+(?=[^\s:,;)\]'\"]))|/?(?![\w/-]|\.\w))"
    return re.sub(rf"(?<![\w./-]){pattern}{ends}", lambda match: "" if match["inside"] else name, text)


def without_paths(text: str) -> str:
    """The text with every absolute path shortened to `.../name`.

    Example:
        >>> without_paths("/home/ada/models/tuned/config.json: no such file")
        '.../config.json: no such file'
    """
    home = str(Path.home())
    if home != "/":  # may hold blanks, at which the pattern ends
        text = text.replace(f"{home}/", "/~/")
    return _ABSOLUTE.sub(".../", text)
