"""Attacks on folders of results: a process that ends before any call into the file system, damaged and exchanged files.

Work runs in forked children, so nothing is imported again.
"""

from __future__ import annotations

import os
import random
import stat
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from interp.io.digest import sha256_of

KILLED, FAILED = 77, 99
_CHANGES = {"os.rename", "os.link", "os.symlink", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT

Work = Callable[[Path], object]


def fork(work: Callable[[], object]) -> int:
    """Exit status of `work` in a child; what it prints or raises goes to stderr."""
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(2, 1)
            work()
            os._exit(0)
        except BaseException:  # reported through the exit status: the child must never return into pytest
            traceback.print_exc()
            os._exit(FAILED)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class Calls:
    """Counts the calls that change files under `root`, and ends the process before the `deadly`-th of them.

    A file that was being written is cut in half first.
    """

    def __init__(self, root: Path, deadly: int = 0) -> None:
        self.root, self.deadly, self.n = str(root), deadly, 0
        self._fsync = os.fsync
        os.fsync = self._sync
        sys.addaudithook(self._heard)

    def _heard(self, event: str, args: tuple[object, ...]) -> None:
        if event == "open":
            path, flags = args[0], args[2]
            if not isinstance(flags, int) or not flags & _WRITING:
                return
        elif event in _CHANGES:
            path = args[0]
        else:
            return
        if isinstance(path, str | os.PathLike) and str(path).startswith(self.root):
            self._count()

    def _sync(self, descriptor: int) -> None:
        self.n += 1
        if self.n == self.deadly:
            found = os.fstat(descriptor)
            if stat.S_ISREG(found.st_mode):
                os.ftruncate(descriptor, found.st_size // 2)
            os._exit(KILLED)
        self._fsync(descriptor)

    def _count(self) -> None:
        self.n += 1
        if self.n == self.deadly:
            os._exit(KILLED)


def count_calls(work: Work, root: Path) -> int:
    """Calls that change files under `root` while `work(root)` runs undisturbed, in a child."""
    told = root.with_name(f"{root.name}.calls")

    def count() -> None:
        calls = Calls(root)
        work(root)
        told.write_text(str(calls.n))

    assert fork(count) == 0, "the undisturbed run failed"
    return int(told.read_text())


def kill_at(work: Work, root: Path, call: int) -> int:
    """Exit status of `work(root)` in a child that ends before its `call`-th change of a file."""

    def run() -> None:
        Calls(root, call)
        work(root)

    return fork(run)


def check_kills(work: Work, folder: Path, *, kills: int, again: Work | None = None) -> None:
    """Killed before calls that are spread over the whole run, and run again: the files of an undisturbed run, byte for
    byte; no temporary file is left, and no lock file says anything.

    Args:
        again: how it is run again; None: the same way.
    """
    total = count_calls(work, folder / "calm")
    want = tree(folder / "calm")
    assert total >= 4, "the audit hook saw nothing"
    for call in spread(total, kills):
        root = folder / f"killed-{call}"
        assert kill_at(work, root, call) == KILLED, call
        assert fork(lambda root=root: (again or work)(root)) == 0, f"killed before call {call} of {total}"
        assert tree(root) == want, f"killed before call {call} of {total}"
        assert not leftovers(root), call


def spread(total: int, n: int) -> list[int]:
    """`n` numbers of 1..total, the first and the last among them."""
    return sorted({1 + round(i * (total - 1) / max(1, n - 1)) for i in range(n)})


def tree(root: Path) -> dict[str, bytes]:
    """Every result file under a folder; hidden ones are of the machinery."""
    found = {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not _is_hidden(name)}


def leftovers(root: Path) -> list[str]:
    """Temporary files, and lock files that still name a host."""
    temps = list(root.rglob(".tmp/*"))
    locks = [path for path in root.rglob(".writer/*") if path.stat().st_size]
    return [path.relative_to(root).as_posix() for path in (*temps, *locks)]


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))


def signed(content: Any, key: str = "digest") -> Any:
    """The content with the digest that it should have, so that what is looked at behind the digest is tested too."""
    if not isinstance(content, dict) or key not in content:
        return content
    rest = {name: value for name, value in content.items() if name != key}
    try:
        return rest | {key: sha256_of(rest)}
    except ValueError:
        return content


def flips(path: Path, n: int, *, seed: int = 0) -> Iterator[int]:
    """The file with one bit flipped, `n` times at places spread over it, restored afterwards; yields the place."""
    data, dice = path.read_bytes(), random.Random(seed)
    places = sorted({0, len(data) - 1, *(dice.randrange(len(data)) for _ in range(n))})
    try:
        for at in places:
            path.write_bytes(data[:at] + bytes([data[at] ^ (1 << dice.randrange(8))]) + data[at + 1 :])
            yield at
    finally:
        path.write_bytes(data)
