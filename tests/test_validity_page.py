"""The page of measured rates: one row for each rate, and a check of a rate that the page does not have fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.validity import kit
from tests.validity.page import page

RATE = kit.Rate("level", "max-|t|", "noise, 6 groups", "≤ 0.05", 3, 100)


def test_a_row_is_one_line_of_a_table_whatever_its_words_hold() -> None:
    line = next(line for line in page([RATE]).splitlines() if "noise, 6 groups" in line)
    assert line.startswith(RATE.row) and line.replace("\\|", "").count("|") == 7
    assert "0.030 [0.006, 0.085]" in line  # Clopper-Pearson of 3 in 100


def test_a_rate_that_the_page_does_not_have_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words: dict[str, Any] = {"kind": "level", "name": RATE.name, "design": RATE.design}
    monkeypatch.setattr(kit, "PAGE", tmp_path / "validity.md")
    with pytest.raises(AssertionError, match="make test-slow"):
        kit.Recorder(None)([False] * 100, at_most=0.05, **words)
    kit.PAGE.write_text(page([RATE]))
    kit.Recorder(None)([False] * 100, at_most=0.05, **words)


def test_the_committed_page_holds_rates_of_at_least_100_studies_of_each_kind() -> None:
    rows = [line for line in kit.PAGE.read_text().splitlines() if line.startswith("| ") and line.endswith("0 |")]
    assert len(rows) > 200
    assert all(int(line.split("|")[-2].replace(",", "")) >= 100 for line in rows)
