"""Progress of long loops: what a line says, under a clock that the test sets."""

from __future__ import annotations

import re

import pytest

from interp import progress
from interp.progress import clock, parts, reached, showing, stage, track

LINE = re.compile(r"[\d,]+ of [\d,]+ [a-z ,]+, \d+%, [\d:]+, about [\d:]+ left")
"""Steps, share of the work, time taken and time left."""


class Clock:
    """Seconds that pass as the test says, and some more with every look."""

    def __init__(self, per_look: float = 0.0) -> None:
        self.seconds, self.per_look = 0.0, per_look

    def __call__(self) -> float:
        self.seconds += self.per_look
        return self.seconds


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Clock:
    watch = Clock()
    monkeypatch.setattr(progress, "now", watch)
    return watch


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_a_line_has_steps_share_time_taken_and_time_left(time: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with track("eval engaged", 4, unit="items", shown=True) as bar:
        for _ in range(4):
            with bar.step():
                time.seconds += 10
    assert lines(capsys)[:2] == [
        "eval engaged: 1 of 4 items, 25%, 0:10, about 0:30 left",
        "eval engaged: 2 of 4 items, 50%, 0:20, about 0:20 left",
    ]


def test_a_finished_loop_says_how_long_it_took(time: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with track("cache", 2, unit="tokens", shown=True) as bar:
        for _ in range(2):
            time.seconds += 40
            bar.advance()
    assert lines(capsys)[-1] == "cache: 2 of 2 tokens in 1:20"


def test_short_loops_print_nothing(time: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with track("cache", 2, unit="tokens", shown=True) as bar:
        time.seconds += progress.EVERY / 2
        bar.advance(2)
    assert lines(capsys) == []


def test_loops_inside_a_step_move_its_line(time: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """One step of four, with a loop of two members, each of which calls a tracked loop of its own."""
    with track("heads", 4, unit="pairs", shown=True) as bar, bar.step():
        for _ in parts(range(2)):
            with track("inner", 2, unit="rows") as inner:
                for _ in range(2):
                    time.seconds += 10
                    inner.advance()
    assert [line.split(", ")[1] for line in lines(capsys)[:4]] == ["6%", "12%", "19%", "25%"]


def test_a_share_never_goes_backwards(time: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with track("eval", 1, unit="items", shown=True) as bar, bar.step():
        for share in (0.5, 0.2, 0.6):
            time.seconds += 10
            reached(share)
    assert [line.split(", ")[1] for line in lines(capsys)[:3]] == ["50%", "50%", "60%"]


def test_time_left_counts_the_work_not_the_units_and_leaves_out_what_was_done_before(
    time: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    """10 of 20 items were done, 75 of 100 of the work; the next 15 take 30 s, so that the last 10 take 20."""
    with track("eval", 20, unit="items", done=10, work=100, done_work=75, shown=True) as bar, bar.step(6, work=15):
        time.seconds += 30
    assert lines(capsys)[0] == "eval: 16 of 20 items, 90%, 0:30, about 0:20 left"


def test_an_abandoned_loop_leaves_no_step_open(time: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with track("eval", 2, unit="items", shown=True) as bar:
        with pytest.raises(ZeroDivisionError), bar.step():
            for _ in parts(range(3)):
                with stage(0.5, 1):
                    raise ZeroDivisionError
        time.seconds += 10
        bar.advance()
    assert lines(capsys)[0].startswith("eval: 1 of 2 items, 50%")
    assert progress._open.get() is None


def test_nothing_is_shown_unless_it_is_asked_for(time: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    def loop(shown: bool | None) -> None:
        with track("outer", 1, unit="items", shown=shown) as bar, bar.step(), track("inner", 1, unit="rows") as inner:
            time.seconds += 10
            inner.advance()

    loop(None)
    with showing(False):
        loop(None)
    with showing():
        loop(False)
    assert lines(capsys) == []
    with showing():
        loop(None)
    assert lines(capsys)


def test_members_of_a_stream_are_computed_inside_their_steps(time: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    def stream():
        for k in range(2):
            time.seconds += 10
            reached(0.5)
            yield k

    with track("eval", 4, unit="items", shown=True) as bar:
        assert list(bar.over(stream(), [(1, None), (3, None)])) == [0, 1]
    assert [line.split(", ")[1] for line in lines(capsys)[:2]] == ["12%", "62%"]


@pytest.mark.parametrize(("seconds", "text"), [(5, "0:05"), (65.4, "1:05"), (3600, "1:00:00"), (7325, "2:02:05")])
def test_a_clock_has_minutes_and_seconds(seconds: float, text: str) -> None:
    assert clock(seconds) == text
