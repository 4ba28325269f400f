"""Worker processes that end with their parent: after Ctrl-C, SIGTERM, an error or a kill."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait


def new_pool(jobs: int, *, threads: int, imports: Sequence[str] = ()) -> ProcessPoolExecutor:
    """Up to `jobs` spawned processes of `threads` torch threads each; forked ones inherit locks of our threads.

    Args:
        imports: modules that a process imports when it starts, so that its first task need not wait for them.
    """
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=(threads, tuple(imports)))


@contextmanager
def ended_on_error() -> Iterator[None]:
    """Terminate processes started inside the block if it raises: a pool would wait for their tasks to end."""
    before = set(multiprocessing.active_children())
    try:
        yield
    except BaseException:
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
        raise


def _begin(threads: int, imports: Sequence[str]) -> None:
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends Ctrl-C to every process; the parent decides
    threading.Thread(target=_die_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    for name in imports:
        with suppress(ImportError):  # the task that needs it says what is missing
            importlib.import_module(name)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
