"""One job at a time writes a folder; the ranks of one job share it."""

from __future__ import annotations

import errno
import json
import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Literal

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

from interp.io.files import FolderBusyError, host

FOLDER, JOB = ".writer", "job"
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
_Kind = Literal["exclusive", "shared"]


@contextmanager
def writer_lock(root: str | Path, *, rank: int = 0, world: int = 1, name: str = JOB) -> Iterator[None]:
    """Hold a folder for writing, as rank `rank` of `world` processes that split its work.

    The lock is flock(2) on a file in `.writer/`: the kernel releases it when the holder dies, for whatever reason, so a
    dead writer never blocks the next one. One process (world = 1) holds the job lock alone; ranks of one job hold it
    together, and each its own rank. The file names the holder, and is empty again when the last holder has released it.

    Args:
        name: name of the lock; if a folder holds several results, each has its own lock.
    Raises:
        ValueError: rank outside 0..world-1; several ranks on Windows, which has no shared locks.
        FolderBusyError: a live process holds the folder: another job, or the same rank of the same job size.
    Warns: on a file system without flock, where a second writer cannot be detected.
    """
    if not 0 <= rank < world:
        raise ValueError(f"rank {rank} of {world}: expected 0 <= rank < world.")
    if fcntl is None and world > 1:
        raise ValueError(f"{world} ranks: Windows has no shared file locks. Run one process, or use WSL.")
    folder = Path(root) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    me = {"host": host(), "pid": os.getpid(), "rank": rank, "world": world}
    with ExitStack() as stack:
        job = _open(stack, folder / name)
        if _lock(job, "exclusive"):
            _write_holder(job, me)
        else:
            _join(job, me, root)
        if world > 1:
            _lock(job, "shared")
            own = _open(stack, folder / f"rank-{rank}-of-{world}")
            if not _lock(own, "exclusive"):
                raise _busy(root, own, me)
            _write_holder(own, me)
        yield


def _join(job: int, me: dict[str, object], root: str | Path) -> None:
    if me["world"] == 1 or not _lock(job, "shared") or _read_holder(job).get("world") != me["world"]:
        raise _busy(root, job, me)


def _open(stack: ExitStack, path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    stack.callback(_leave, descriptor)
    return descriptor


def _leave(descriptor: int) -> None:
    """Close a lock file; its last holder empties it, so that no host name stays in a folder that is shared."""
    try:
        with suppress(OSError):
            if _lock(descriptor, "exclusive") if fcntl else _lock_on_windows(descriptor, release=True):
                os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, kind: _Kind) -> bool:
    """Take a lock without waiting, or change the kind of one that is held; False where another holds it."""
    try:
        if fcntl is None:
            return _lock_on_windows(descriptor)
        fcntl.flock(descriptor, (fcntl.LOCK_EX if kind == "exclusive" else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        warnings.warn(
            f"this file system has no flock ({error.strerror}): a second writer in this folder would not be detected.",
            stacklevel=4,
        )
    return True


_AT = 1 << 20  # a byte far behind the content: on Windows a locked byte cannot be read by others


def _lock_on_windows(descriptor: int, *, release: bool = False) -> bool:
    """Lock one byte, or release it; False where that cannot be done because this descriptor does not hold it."""
    import msvcrt

    os.lseek(descriptor, _AT, os.SEEK_SET)
    try:
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK if release else msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]
    except OSError:
        return False
    return True


def _write_holder(descriptor: int, holder: dict[str, object]) -> None:
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, json.dumps(holder).encode())


def _read_holder(descriptor: int) -> dict[str, object]:
    os.lseek(descriptor, 0, os.SEEK_SET)
    text = os.read(descriptor, 4096)
    try:
        return dict(json.loads(text)) if text else {}  # empty: the holder has locked and not yet written
    except (ValueError, TypeError):
        return {}


def _busy(root: str | Path, descriptor: int, me: dict[str, object]) -> FolderBusyError:
    holder = _read_holder(descriptor)
    return FolderBusyError(
        f"{root}: already being written by process {holder.get('pid', '?')} on host {holder.get('host', '?')} "
        f"(rank {holder.get('rank', '?')} of {holder.get('world', '?')}); this is process {me['pid']}, rank "
        f"{me['rank']} of {me['world']}. Wait for it, stop it, or choose another folder."
    )
