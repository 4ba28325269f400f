"""Limits: the largest value of every count (beyond it is a typing error, or hours), and the time of foreign code."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

ANY = 1_000_000_000
LARGEST = {
    "boot": 1_000_000, "n_boot": 1_000_000, "n_resamples": 1_000_000, "n_permutations": 1_000_000, "perm": 1_000_000,
    "logistic_perm": 100_000, "shuffled": 100_000, "orders": 1_000, "n_folds": 1_000, "split_seeds": 1_000,
    "n_seeds": 1_000, "samples": 10_000, "max_new_tokens": 1_000_000, "n_random": 10_000, "n_complement": 10_000,
    "n_shuffled": 10_000, "n_partners": 100_000, "partners": 100_000, "n": 1_000_000, "per_cell": 1_000_000,
    "studies": 1_000_000, "groups": 1_000_000, "size": 1_000_000, "jobs": 1_024, "seed": 2**63 - 1,
}  # fmt: skip
"""Name of an option -> its largest value; any other count has `ANY`."""


def refusal(name: str, value: object) -> str | None:
    """What is wrong with a count or seed, in words; None if nothing is, and for values that are not whole numbers.

    Example:
        >>> refusal("boot", 10**12)
        'expected at most 1,000,000, got 1,000,000,000,000'
    """
    if isinstance(value, float) and value.is_integer():  # `per_cell: 1e12` of a YAML file
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    if name == "seed" and value < 0:
        return f"expected 0 or more, got {value}"
    largest = LARGEST.get(name, ANY)
    return f"expected at most {largest:,}, got {_shown(value)}" if value > largest else None


def _shown(value: int) -> str:
    return f"{value:,}" if value < 10**30 else "a number of more than 30 digits"


_EVERY = 0.25  # seconds between checks of the clocks


class OutOfTime(BaseException):  # not an Exception: the code under the limit must not swallow it
    """Raised in the thread whose time is up."""


@dataclass(eq=False)
class _Watch:
    thread: int
    seconds: float
    started: float = field(default=0.0)
    fired: bool = False

    def used(self) -> float:
        return _clock(self.thread) - self.started


_lock = threading.Lock()
_watched: list[_Watch] = []
_watcher: threading.Thread | None = None


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `OutOfTime` inside the block once this thread has used `seconds` of processor time.

    For code of others, such as a chat template. Wall time on systems that do not count processor time per thread. A
    watching thread raises it between two bytecodes, so a call into C is not interrupted.
    """
    watch = _Watch(threading.get_ident(), seconds)
    watch.started = _clock(watch.thread)
    with _lock:
        _watched.append(watch)
        _start_watcher()
    try:
        yield
    finally:
        while not _released(watch):
            pass


def _released(watch: _Watch) -> bool:
    """Stop watching; False if the exception was raised just now, after the code that it was meant for."""
    try:
        with _lock:
            if watch in _watched:
                _watched.remove(watch)
            if watch.fired:  # set and perhaps not yet raised: it must not reach the caller's code
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(watch.thread), None)
    except OutOfTime:
        return False
    return True


def _start_watcher() -> None:
    global _watcher
    if _watcher is None or not _watcher.is_alive():
        _watcher = threading.Thread(target=_watch, name="diptych-time-limit", daemon=True)
        _watcher.start()


def _watch() -> None:
    """Check the clocks while anything is limited, and for ten more seconds."""
    idle = 0
    while idle < 40:
        time.sleep(_EVERY)
        with _lock:
            idle = 0 if _watched else idle + 1
            for watch in _watched:
                if not watch.fired and watch.used() > watch.seconds:
                    watch.fired = True
                    raised = ctypes.py_object(OutOfTime)
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(watch.thread), raised)


def _clock(thread: int) -> float:
    try:
        return time.clock_gettime(time.pthread_getcpuclockid(thread))
    except (AttributeError, OSError):  # macOS
        return time.monotonic()
