"""Files that appear atomically, with temp names, fsync and first-writer-wins; and what can go wrong with a folder."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TEMP = ".tmp"
_STARTED_NS = time.time_ns()
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)
_DAY_NS = 24 * 3600 * 10**9


class FolderError(Exception):
    """A folder of results cannot be written or read as asked."""


class FolderBusyError(FolderError):
    """Another live process is writing this folder."""


class FolderFullError(FolderError):
    """The disk, or the budget that was given, is too small; `needed` and `free` are in bytes."""

    def __init__(self, message: str, *, needed: int, free: int) -> None:
        super().__init__(message)
        self.needed = needed
        self.free = free


class DamagedFileError(FolderError):
    """Bytes on disk are not the bytes that were written, or lie under another name than they were written to."""


def host() -> str:
    return socket.gethostname()


def temp_path(root: Path, stem: str) -> Path:
    """`.tmp/<stem>.<host>.<pid>.<ns>`: private to this process, and its owner can be read from the name."""
    folder = root / TEMP
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{stem}.{host()}.{os.getpid()}.{time.time_ns()}"


def fsync_dir(folder: Path) -> None:
    """Make the names in a folder durable (a rename is not, until its folder is synced); Windows has no such call."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def umask_mode() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def write_durable(path: Path, data: bytes) -> None:
    """Write and fsync a file that no reader looks for yet."""
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def publish(temp: Path, final: Path) -> bool:
    """Give a finished, synced temp file its name, if the name is free; True when this call won it.

    link(2) fails where the name exists, so the first writer wins. On a file system without hard links a lock
    file made with O_EXCL stands in; it is left behind only by a crash in between, and then named in the error.
    """
    try:
        os.link(temp, final)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        return _publish_without_links(temp, final)
    return True


def _publish_without_links(temp: Path, final: Path) -> bool:
    lock = final.with_name(final.name + ".lock")
    try:
        os.close(os.open(lock, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        raise FolderBusyError(
            f"{final}: this file system has no hard links, and the lock file {lock.name} next to it is taken. "
            "Wait for its writer; if no process writes this folder, delete the lock file and run again."
        ) from None
    try:
        if final.exists():
            return False
        os.rename(temp, final)
        return True
    finally:
        os.unlink(lock)


def write_once(root: Path, final: Path, data: bytes) -> bool:
    """Durable content under a name that no later writer can change; True when this call wrote it."""
    temp = temp_path(root, final.stem)
    with disk_errors(root, len(data), temp):
        write_durable(temp, data)
        won = publish(temp, final)
        temp.unlink(missing_ok=True)
        fsync_dir(final.parent)
    return won


def replace(root: Path, final: Path, data: bytes) -> None:
    """Durable content under a name, atomically in the place of what was there; the name's own folder is made.

    Args:
        root: folder whose `.tmp` holds the file while it is written.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    temp = temp_path(root, final.stem)
    with disk_errors(root, len(data), temp):
        write_durable(temp, data)
        os.replace(temp, final)
        fsync_dir(final.parent)


def write_file(path: Path, data: bytes) -> None:
    """A result file, atomically in the place of what was there; nothing else of it is left in its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace(path.parent, path, data)
    tidy(path.parent)


def write_json(path: Path, value: object, *, indent: int = 1, sort_keys: bool = False) -> None:
    """A JSON value as a result file, indented, with a final newline."""
    write_file(path, (json.dumps(value, indent=indent, sort_keys=sort_keys) + "\n").encode())


def write_json_lines(path: Path, rows: Iterable[object]) -> None:
    """One JSON value a line as a result file, in UTF-8."""
    write_file(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def tidy(root: Path) -> None:
    """Remove the files of dead writers, and the folder of temporary files if no process uses it."""
    sweep_temps(root)
    with suppress(OSError):  # another writer may be using it
        (root / TEMP).rmdir()


@contextmanager
def disk_errors(root: Path, needed: int, *temps: Path) -> Iterator[None]:
    """Turn "disk full" into FolderFullError, and remove the temp files of whatever failed.

    Args:
        needed: bytes that were being written.
    Raises:
        FolderFullError: ENOSPC, EDQUOT (quota) or EFBIG (file size limit). Other errors pass unchanged.
    """
    try:
        yield
    except BaseException as error:
        for temp in temps:
            temp.unlink(missing_ok=True)
        if not isinstance(error, OSError) or error.errno not in _FULL:
            raise
        free = shutil.disk_usage(root).free
        raise FolderFullError(
            f"{root}: no room to write {needed:,} bytes ({free:,} free; the system says: {error.strerror}). "
            "Nothing committed is lost: free some space and run the same command, it continues.",
            needed=needed,
            free=free,
        ) from error


def sweep_temps(root: Path) -> list[str]:
    """Remove temp files whose writer is dead on this host, or that are older than a day; returns their names."""
    folder = root / TEMP
    swept = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if _is_orphan(path):
            path.unlink(missing_ok=True)
            swept.append(path.name)
    return swept


def _is_orphan(path: Path) -> bool:
    owner, pid, stamp = ([*path.name.rsplit(".", 2), "", ""])[:3]
    if not (pid.isdigit() and stamp.isdigit()):
        return False
    if time.time_ns() - int(stamp) > _DAY_NS:
        return True
    if not owner.endswith("." + host()):
        return False
    if int(pid) == os.getpid():
        return int(stamp) < _STARTED_NS  # a container restarts with the same pid
    return not is_alive(int(pid))


def is_alive(pid: int) -> bool:
    if os.name == "nt":
        return True  # os.kill would end it; a file of a dead writer goes after a day
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
