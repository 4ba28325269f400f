"""This process as a user meets it: errors and warnings in words, Ctrl-C and SIGTERM, threads."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from interp.progress import write
from interp.remedy import remedy

EXTRAS = {"matplotlib": "report", "jinja2": "report", "datasets": "datasets", "transformer_lens": "bridges",
          "nnsight": "bridges"}  # fmt: skip
"""Optional packages and the extra of ours that brings them."""

_FULL = ("no room left on the disk", "Free some space and run the same command again: what is finished is kept")
_PERMISSION = ("permission denied", "Change its permissions, or name another file or folder")
_MANY = ("too many open files", "Close some, or allow more (ulimit -n 4096)")
_DISK = ("the disk or network share failed", "Check it, or copy the file again from its source")
_ADVICE = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EFBIG: _FULL,
    errno.EROFS: ("a read-only file system", "Name a folder that can be written"),
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.ENOENT: ("no such file or folder", "Check the path"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "Check the path"),
    errno.EISDIR: ("expected a file, got a folder", "Name a file"),
    errno.EEXIST: ("exists already", "Name another, or remove it"),
    errno.ENOTEMPTY: ("the folder is not empty", "Name another, or empty it"),
    errno.ENAMETOOLONG: ("the name is too long for this file system", "Choose a shorter one"),
    errno.ELOOP: ("a symbolic link leads back to itself", "Name the file itself"),
    errno.EINVAL: ("not a path or file that can be used like this", "Check the path"),
    errno.EMFILE: _MANY,
    errno.ENFILE: _MANY,
    errno.EIO: _DISK,
    errno.ESTALE: _DISK,
    errno.ENOMEM: ("not enough memory", "Free some, or take fewer items at a time"),
}
"""What the system reports -> what it means, and what to do."""


class Terminated(KeyboardInterrupt):
    """SIGTERM: ends a run the way Ctrl-C does, so that what it holds is released."""


def user_errors() -> tuple[type[BaseException], ...]:
    """Errors that a user can act on."""
    from interp.cache.errors import CacheError

    torch = sys.modules.get("torch")
    full = (torch.OutOfMemoryError,) if torch is not None else ()
    return (ValueError, OSError, ImportError, MemoryError, CacheError, *full)


def words(error: BaseException) -> str:
    """An error as a message: what was expected, what it got, where and what to do."""
    text = str(error)
    if isinstance(error, OSError) and error.errno in _ADVICE and (error.strerror or "") in text:
        what, do = _ADVICE[error.errno]
        names = " -> ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
        return f"{names or 'a file'}: {what}. {do}."
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        detail = f" ({text.splitlines()[0]})" if text else ""
        do = remedy("Lower {tokens_per_batch}, or take fewer items.", "Take fewer items.")
        return f"not enough memory{detail}. {do}"
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").split(".")[0]
        return f"{text}: pip install 'diptych[{EXTRAS[package]}]'" if package in EXTRAS else text
    return text or type(error).__name__


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM raises `Terminated` in here, so that locks and temporary files are released; left alone elsewhere."""
    is_ours = threading.current_thread() is threading.main_thread()
    if not is_ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def stop(*_: object) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Each warning once and in one line, without the place in our code; nothing of transformers' own chatter."""
    seen: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        text = str(message)
        if text not in seen and not issubclass(category, FutureWarning | DeprecationWarning):
            seen.add(text)
            write(f"note: {text}")

    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def one_thread() -> None:
    """One torch thread in this process: two that contend for a core are up to ten times slower than one."""
    import torch

    torch.set_num_threads(1)
