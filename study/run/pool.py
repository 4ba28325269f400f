"""Processes for steps that do not read each other; they end with the process that started them, however it ends."""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from interp.processes import ended_on_error, new_pool
from interp.remedy import remedy
from study.analyses.base import Context
from study.run.attempt import Outcome, attempt


class Pool:
    """Up to `jobs` steps at a time, each in a process with one torch thread."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._guard = ExitStack()
        self._guard.enter_context(ended_on_error())
        self._pool = self._new()
        self._running: dict[Future[Outcome], str] = {}

    def _new(self) -> ProcessPoolExecutor:
        return new_pool(self._jobs, threads=1)

    def submit(self, name: str, context: Context) -> None:
        """Start a step as soon as a process is free."""
        try:
            future = self._pool.submit(attempt, name, context)
        except BrokenProcessPool:
            self._pool = self._new()
            future = self._pool.submit(attempt, name, context)
        self._running[future] = name

    def next(self) -> tuple[str, Outcome]:
        """The next step that ends, and how."""
        done, _ = wait(self._running, return_when=FIRST_COMPLETED)
        future = done.pop()
        name = self._running.pop(future)
        try:
            return name, future.result()
        except BrokenProcessPool:
            return name, Outcome(
                "failed",
                f"its process was killed, most often because memory ran out; {remedy('run it again with {jobs:1}')}",
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._guard.__exit__(kind, error, tb)
        self._pool.shutdown(wait=kind is None, cancel_futures=True)
