"""Attempts at steps, here or in other processes: work, tables, and, where one fails, why in the user's words."""

from __future__ import annotations

import os
import re
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Self

from interp.io.files import FolderError, write_file
from interp.io.paths import without_folder, without_paths
from interp.processes import ended_on_error, new_pool
from interp.progress import showing
from interp.remedy import remedy
from study.analyses.base import Context, Step
from study.folders import TABLES
from study.run.digest import Digests
from study.run.folder import TRACEBACK, WARNINGS, digests, mark_done, notes_if_done
from study.run.state import Status

IMPORTS = ("transformers.modeling_utils", "peft", "sklearn", "scipy.stats")
"""What takes the process of a step seconds to import."""
_LONGEST = 2000
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended; fields as in `StepState`."""

    status: Status
    cause: str = ""
    outputs: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    seconds: float = 0.0


def attempt(name: str, context: Context) -> Outcome:
    """Run a step and write its tables; an error becomes the cause, and what the step has made stays."""
    from study.run.steps import steps_of

    began = time.monotonic()
    context = replace(context, root=context.root.absolute())  # no other text looks like this folder's name
    trace = context.folder / TRACEBACK
    try:
        with _kept_warnings(context):
            notes, outputs = _work(steps_of(context.study)[name], context)
    except Exception as error:
        return Outcome("failed", _cause(error, context), seconds=time.monotonic() - began)
    trace.unlink(missing_ok=True)
    return Outcome("done", "", outputs, notes, time.monotonic() - began)


@contextmanager
def _kept_warnings(context: Context) -> Iterator[None]:
    """Each warning once in `steps/<name>/warnings.txt`: a run has dozens, and none may be lost."""
    from interp.remedy import entered
    from study.doors import study_door
    from study.run.process import plain_warnings

    texts: dict[str, None] = {}

    def keep(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        if not issubclass(category, FutureWarning | DeprecationWarning):
            texts[told(str(message), context)] = None

    with plain_warnings(), warnings.catch_warnings(), entered(study_door(context.name)):
        warnings.showwarning = keep
        try:
            yield
        finally:
            with suppress(OSError, FolderError):  # a disk that is full must not hide how the step ended
                write_file(context.folder / WARNINGS, "".join(f"{text}\n" for text in texts).encode())


def _work(step: Step, context: Context) -> tuple[Sequence[str], dict[str, str]]:
    """Notes and outputs of a step; where its work is whole already, only its tables are made of it again."""
    known = Digests(context.root)
    notes, outputs = None if step.after else notes_if_done(context.folder, known), None
    if notes is not None:
        with suppress(Exception):  # something in the folder is gone: do the work again, it fills in what is missing
            outputs = publish(step, context)
    if notes is None or outputs is None:
        with showing(context.progress):
            notes = tuple(told(note, context) for note in step.run(context) or ())
        outputs = publish(step, context)
    mark_done(context.root, context.folder, notes, known)  # tables in the folder may be new
    known.save()
    return notes, outputs


def publish(step: Step, context: Context) -> dict[str, str]:
    """Write a step's tables; returns the digests of everything that it made outside its own folder."""
    from study.schema import write_table

    paths = []
    for table, rows in (step.tables(context) if step.tables else {}).items():
        paths += write_table(rows, context.root / TABLES, table)
    return digests(context.root, [*paths, *(step.outputs(context) if step.outputs else ())])


def _cause(error: Exception, context: Context) -> str:
    """What a user can fix, as it was said; of our own bugs, where they are, with the traceback kept beside."""
    from study.run.process import user_errors, words

    if isinstance(error, user_errors()):
        return told(words(error), context)
    text, trace = told(str(error), context), traceback.format_exc()
    try:
        write_file(context.folder / TRACEBACK, without_paths(trace).encode())
    except (OSError, FolderError):
        return f"{type(error).__name__}: {text}"
    return f"{type(error).__name__}: {text} (traceback: steps/{context.name}/{TRACEBACK})"


def told(text: str, context: Context) -> str:
    """A message as the run folder keeps it: clean, its own files by their place in it, other folders left out."""
    return clean(without_paths(without_folder(text, context.root, "the run folder")))


def clean(text: str) -> str:
    """Text that a terminal shows as text: no escape sequences or control characters, and no more than a page."""
    text = _ESCAPES.sub("", text)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ... ({len(text):,} characters)"


class Pool:
    """Up to `jobs` steps at a time, each in a process with one torch thread.

    The processes start at once, and import what steps need while the caller still checks the study.
    """

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._guard = ExitStack()
        self._guard.enter_context(ended_on_error())
        self._pool = self._new()
        self._running: dict[Future[Outcome], str] = {}
        self._pool.submit(os.getpid)  # an executor starts its processes with its first task

    def _new(self) -> ProcessPoolExecutor:
        return new_pool(self._jobs, threads=1, imports=IMPORTS)

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
