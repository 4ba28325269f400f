"""One attempt at a step: its work, its tables, and, where it fails, why in the user's words."""

from __future__ import annotations

import re
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from study.run.folder import digests
from study.run.state import TABLES, Status
from study.run.step import Context, Step

TRACEBACK = "traceback.txt"
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
    from study.cli.common import plain_warnings
    from study.steps import MODULES, steps_of

    assert name in MODULES, f"no step {name}"
    began = time.monotonic()
    trace = context.folder / TRACEBACK
    try:
        with plain_warnings():
            step = steps_of(context.study)[name]
            notes = step.run(context) or ()
            outputs = publish(step, context)
    except Exception as error:
        return Outcome("failed", _cause(error, context), seconds=time.monotonic() - began)
    trace.unlink(missing_ok=True)
    return Outcome("done", "", outputs, tuple(map(clean, notes)), time.monotonic() - began)


def publish(step: Step, context: Context) -> dict[str, str]:
    """Write a step's tables; returns the digests of everything that it made outside its own folder."""
    from study.tables import write_table

    paths = []
    for table, rows in (step.tables(context) if step.tables else {}).items():
        paths += write_table(rows, context.root / TABLES, table)
    return digests(context.root, [*paths, *(step.outputs(context) if step.outputs else ())])


def _cause(error: Exception, context: Context) -> str:
    """What a user can mend, as it was said; of our own bugs, where they are, with the traceback kept beside."""
    from study.cli.common import user_errors

    text = clean(str(error))
    if isinstance(error, user_errors()):
        return text or type(error).__name__
    try:
        (context.folder / TRACEBACK).write_text(traceback.format_exc(), encoding="utf-8")
    except OSError:
        return f"{type(error).__name__}: {text}"
    return f"{type(error).__name__}: {text} (traceback: steps/{context.name}/{TRACEBACK})"


def clean(text: str) -> str:
    """Text that a terminal shows as text: no escape sequences or control characters, and no more than a page."""
    text = _ESCAPES.sub("", text)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ... ({len(text):,} characters)"
