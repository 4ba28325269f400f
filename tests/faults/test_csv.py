"""No cell of a CSV file that we write is a formula, and what is read back is what was written."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interp.io.csv_text import csv_bytes, inert, live
from interp.io.frames import write_frame
from interp.io.read import read_frame

ROOT = Path(__file__).resolve().parents[2]
FORMULAS = ("=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", '=HYPERLINK("http://x")', "-", "＝1")
NUMBERS = ("-1", "+0.5", "-1e-5", "1", "-3.", "-.5", "12%", "-5%")


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_is_made_text(text: str) -> None:
    assert inert(text) == "'" + text


@pytest.mark.parametrize("text", [*NUMBERS, "a=1", "plain", "", "'quoted'", "−0.5"])
def test_numbers_and_other_texts_are_left_alone(text: str) -> None:
    assert inert(text) == text


@given(st.text(alphabet="'=+-@\t1ae. ", max_size=6))
def test_a_cell_comes_back_as_it_was(text: str) -> None:
    assert live(inert(text)) == text
    assert not inert(text).startswith(("=", "@", "\t", "+a", "-a", "+=", "-=", "+-", "-+"))


def test_a_table_with_formulas_is_inert_in_every_cell_and_comes_back(tmp_path: Path) -> None:
    table = pd.DataFrame({"=name": [*FORMULAS, "x"], "n": range(len(FORMULAS) + 1), "v": [-0.5] * (len(FORMULAS) + 1)})
    data = csv_bytes(table)
    rows = list(csv.reader(io.StringIO(data.decode(), newline="")))
    assert all(cell[:1] not in tuple("=+@\t\r＝") for row in rows for cell in row)
    assert rows[1][2] == "-0.5"
    write_frame(tmp_path / "t.csv", table)
    pd.testing.assert_frame_equal(read_frame(tmp_path / "t.csv"), table.astype({"n": "int64"}))


def test_every_csv_is_written_by_the_one_function() -> None:
    for path in [p for package in ("interp", "probes", "steering", "study") for p in (ROOT / package).rglob("*.py")]:
        if path.name != "csv_text.py":
            assert ".to_csv(" not in path.read_text(encoding="utf-8"), path
