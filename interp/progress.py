"""Progress of long loops on standard error: steps done, share of the work, time taken, estimated time left.

    with track("eval engaged", len(items), unit="items") as bar:
        for batch in batches:
            with bar.step(len(batch)):
                answer(batch)                  # may call `parts` and `track` itself: they move this bar

One line shows at a time. Loops inside a step of another loop move its line by their share of that step, so that a line
moves while a step of minutes runs. On a terminal the line is redrawn, elsewhere a new one is printed every few seconds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple, TypeVar

T = TypeVar("T")

EVERY = 3.0
"""Seconds between two lines where standard error is not a terminal."""
EVERY_ON_TERMINAL = 0.2
"""Seconds between two drawings of the line on a terminal."""
now: Callable[[], float] = time.monotonic
"""The clock."""

_is_shown: ContextVar[bool] = ContextVar("diptych_progress_is_shown", default=False)
_open: ContextVar[_Span | None] = ContextVar("diptych_progress_open", default=None)


@contextmanager
def showing(is_shown: bool = True) -> Iterator[None]:
    """Whether loops inside the block that do not say it themselves show their progress; they do not by default."""
    token = _is_shown.set(is_shown)
    try:
        yield
    finally:
        _is_shown.reset(token)


class _Line:
    """The line of one loop: what it says, and when it was last printed."""

    def __init__(self, name: str, total: int, unit: str, done: int, share: float) -> None:
        self.name, self.total, self.unit, self.done = name, total, unit, done
        self.began = self.printed = now()
        self.first = self.share = share
        self.width = 0

    def move(self, share: float, n_done: int = 0) -> None:
        self.done += n_done
        self.share = max(self.share, share)  # never backwards
        self._print_when_due()

    def _print_when_due(self) -> None:
        is_terminal = sys.stderr.isatty()
        if now() - self.printed >= (EVERY_ON_TERMINAL if is_terminal else EVERY):
            self.printed = now()
            self._put(self.text(), is_terminal)

    def text(self) -> str:
        """Where the loop is: "eval engaged: 30 of 120 items, 27 %, 0:41, about 1:50 left"."""
        taken, gained = now() - self.began, self.share - self.first
        left = f"about {clock(taken * (1 - self.share) / gained)} left" if gained > 0 else "time left unknown"
        return f"{self.name}: {self.done:,} of {self.total:,} {self.unit}, {self.share:.0%}, {clock(taken)}, {left}"

    def finish(self) -> None:
        """A last line, of a loop that took so long that it printed any."""
        if self.printed > self.began:
            text = f"{self.name}: {self.done:,} of {self.total:,} {self.unit} in {clock(now() - self.began)}"
            self._put(text, sys.stderr.isatty())
            if sys.stderr.isatty():
                sys.stderr.write("\n")

    def clear(self) -> None:
        """Remove the line from a terminal, so that a message takes its place; it is drawn again with the next step."""
        if self.width and sys.stderr.isatty():
            sys.stderr.write("\r" + " " * self.width + "\r")
            self.width = 0

    def _put(self, text: str, is_terminal: bool) -> None:
        if is_terminal:
            sys.stderr.write("\r" + text.ljust(self.width))
            self.width = len(text)
        else:
            sys.stderr.write(text + "\n")
        sys.stderr.flush()


class _Span(NamedTuple):
    """The part of a line, [low, high] of its work, that belongs to what runs now."""

    line: _Line
    low: float
    high: float

    def part(self, low: float, high: float) -> _Span:
        width = self.high - self.low
        return _Span(self.line, self.low + low * width, self.low + high * width)


class Progress:
    """Steps of one loop; see `track`."""

    def __init__(self, span: _Span | None, total: int, work: float, done: float, *, is_outer: bool) -> None:
        self._span, self._total, self._work, self._done, self._is_outer = span, total, work, done, is_outer

    def advance(self, n: int = 1, *, work: float | None = None) -> None:
        """`n` more units are done, which are `work` of the work (by default as much as any `n` units)."""
        self._done += self._share_of(n, work)
        if self._span is not None:
            self._span.line.move(self._span.part(0, min(1.0, self._done)).high, n if self._is_outer else 0)

    @contextmanager
    def step(self, n: int = 1, *, work: float | None = None) -> Iterator[None]:
        """The next `n` units are done inside the block; loops in it move this one."""
        with _inside(self._span and self._span.part(self._done, min(1.0, self._done + self._share_of(n, work)))):
            yield
        self.advance(n, work=work)

    def over(self, stream: Iterable[T], sizes: Iterable[tuple[int, float | None]] | None = None) -> Iterator[T]:
        """The members of `stream`, each computed in a step of its own: (units, work) in `sizes`, or one unit."""
        members = iter(stream)
        sizes_left = None if sizes is None else iter(sizes)
        while True:
            n, work = (1, None) if sizes_left is None else next(sizes_left, (0, None))
            try:
                with self.step(n, work=work):
                    member = next(members)
            except StopIteration:
                return
            yield member

    def _share_of(self, n: int, work: float | None) -> float:
        if work is not None and self._work:
            return work / self._work
        return n / self._total if self._total else 0.0


@contextmanager
def _inside(span: _Span | None) -> Iterator[None]:
    outer = _open.get()
    if span is not None:
        _open.set(span)
    try:
        yield
    finally:
        # a generator that was abandoned ends late: what is open by then is not its own
        if span is not None and _open.get() is span:
            _open.set(outer)


@contextmanager
def track(
    name: str,
    total: int,
    *,
    unit: str,
    done: int = 0,
    work: float = 0.0,
    done_work: float | None = None,
    shown: bool | None = None,
) -> Iterator[Progress]:
    """A loop of `total` units; inside a step of another loop it moves that one, and shows no line of its own.

    Args:
        unit: what is counted, in the plural.
        done: units that were done before (a run that continues): they count as done, and not in the speed.
        work: all the work, where units differ; `advance` and `step` then say how much of it a unit is. 0: units are
            equal. `done_work`: of the units that were done before.
        shown: None: as `showing` says.
    """
    outer = _open.get()
    before = done_work / work if work and done_work is not None else done / total if total else 0.0
    if outer is not None:
        yield Progress(outer, total, work, before, is_outer=False)
        return
    if not (_is_shown.get() if shown is None else shown):
        with showing(False):
            yield Progress(None, total, work, before, is_outer=True)
        return
    line = _Line(name, total, unit, done, before)
    whole = _Span(line, 0.0, 1.0)
    with _inside(whole.part(before, before)):
        yield Progress(whole, total, work, before, is_outer=True)
    line.finish()


@contextmanager
def stage(low: float, high: float) -> Iterator[None]:
    """The block is this part, [low, high] of 1, of the step that is open; nothing outside of any step."""
    span = _open.get()
    own = span and span.part(low, high)
    with _inside(own):
        yield
    if own is not None:
        own.line.move(own.high)


def reached(share: float) -> None:
    """This share of the step that is open is done, where no block can say it."""
    span = _open.get()
    if span is not None:
        span.line.move(span.part(0, share).high)


def parts(members: Collection[T], *, work: Sequence[float] | None = None) -> Iterator[T]:
    """The members of a loop inside a step of another loop, whose line each of them moves.

    Args:
        work: of each member; None: all are equal.
    """
    shares = [1.0] * len(members) if work is None else list(work)
    total, done = sum(shares) or 1.0, 0.0
    for member, share in zip(members, shares, strict=True):
        with stage(done / total, (done + share) / total):
            yield member
        done += share


def write(text: str) -> None:
    """A message on standard error, on a line of its own."""
    span = _open.get()
    if span is not None:
        span.line.clear()
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def clock(seconds: float) -> str:
    """Minutes and seconds, with hours from an hour on: "1:05", "2:00:00"."""
    whole = round(seconds)
    minutes = f"{whole // 60 % 60}:{whole % 60:02d}" if whole < 3600 else f"{whole // 60 % 60:02d}:{whole % 60:02d}"
    return minutes if whole < 3600 else f"{whole // 3600}:{minutes}"
