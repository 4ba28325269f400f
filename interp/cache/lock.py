"""One job at a time writes a cache; the ranks of one job share it."""

from __future__ import annotations

import errno
import json
import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    raise ImportError(
        "Diptych writes its folders on Linux and macOS (it needs fcntl). On Windows, run it in WSL."
    ) from None

from interp.cache.errors import CacheBusyError
from interp.cache.files import host

FOLDER = ".writer"
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


@contextmanager
def writer_lock(root: str | Path, *, rank: int = 0, world: int = 1) -> Iterator[None]:
    """Hold a cache for writing, as rank `rank` of `world` processes that split its shards.

    The lock is flock(2) on a file in `.writer/`: the kernel drops it when the holder dies, however it dies, so a
    dead writer never blocks the next one. One process (world = 1) holds the job lock alone; ranks of one job hold
    it together, and each its own rank. The file's content says who holds it.

    Raises:
        ValueError: rank outside 0..world-1.
        CacheBusyError: a live process holds the cache: another job, or the same rank of the same job size.
    Warns: on a file system without flock, that nothing guards against a second writer. The commit protocol still
        makes every shard come from one writer only; the work may be done twice.
    """
    if not 0 <= rank < world:
        raise ValueError(f"rank {rank} of {world}: expected 0 <= rank < world.")
    folder = Path(root) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    me = {"host": host(), "pid": os.getpid(), "rank": rank, "world": world}
    with ExitStack() as stack:
        job = _open(stack, folder / "job")
        if _flock(job, fcntl.LOCK_EX):
            _write_holder(job, me)
        else:
            _join(job, me, root)
        if world > 1:
            _flock(job, fcntl.LOCK_SH)
            own = _open(stack, folder / f"rank-{rank}-of-{world}")
            if not _flock(own, fcntl.LOCK_EX):
                raise _busy(root, own, me)
            _write_holder(own, me)
        yield


def _join(job: int, me: dict[str, object], root: str | Path) -> None:
    if me["world"] == 1 or not _flock(job, fcntl.LOCK_SH) or _read_holder(job).get("world") != me["world"]:
        raise _busy(root, job, me)


def _open(stack: ExitStack, path: Path) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    stack.callback(os.close, descriptor)
    return descriptor


def _flock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        warnings.warn(
            f"this file system has no flock ({error.strerror}): a second writer of this cache is not noticed. "
            "Shards stay whole and are committed once; the work may be done twice.",
            stacklevel=4,
        )
    return True


def _write_holder(descriptor: int, holder: dict[str, object]) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(holder).encode(), 0)


def _read_holder(descriptor: int) -> dict[str, object]:
    text = os.pread(descriptor, 4096, 0)
    return json.loads(text) if text else {}  # empty: the holder has locked and not yet written


def _busy(root: str | Path, descriptor: int, me: dict[str, object]) -> CacheBusyError:
    holder = _read_holder(descriptor)
    return CacheBusyError(
        f"{root}: already being written by process {holder.get('pid', '?')} on host {holder.get('host', '?')} "
        f"(rank {holder.get('rank', '?')} of {holder.get('world', '?')}); this is process {me['pid']}, rank "
        f"{me['rank']} of {me['world']}. Wait for it, stop it, or choose another folder."
    )
