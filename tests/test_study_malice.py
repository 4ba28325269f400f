"""Words that a model or a file brings along stay words: no path, no markup, no control character."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from click.testing import CliRunner

from study.analyses.probes.step import file_name
from study.cli import main
from study.figures.drawn import stem as _stem
from study.report.draw import draw
from study.run.attempt import clean
from study.schema import tidy, write_table

EVIL = "../../<script>alert(1)</script>\x1b[2J"
LONG = "word" * 250_000


def rows(cell: str, mode: str) -> list[dict[str, Any]]:
    same = {"cell": cell, "mode": mode, "n": 40, "n_groups": 20, "note": "", "model": EVIL, "interval": "Wilson"}
    sides = [{**same, "member": name, "metric": "accuracy", "value": v, "lo": v - 0.1, "hi": v + 0.1,
              "control_value": 0.5} for name, v in (("engaged", 0.8), ("heuristic", 0.6))]  # fmt: skip
    return [*sides, {**same, "member": "engaged - heuristic", "metric": "accuracy_difference", "value": 0.2, "lo": 0.1,
                     "hi": 0.3, "interval": "paired", "p": 0.01, "p_adjusted": 0.02, "verdict": ""}]  # fmt: skip


def test_figures_of_evil_names_stay_in_the_run_folder(tmp_path: Path) -> None:
    run = tmp_path / "inside" / "run"
    evil = [*rows(EVIL, "../up"), *rows("plain", "../up"), *rows("plain", "/etc/passwd")]
    write_table(tidy(evil, analysis="eval", seed=0), run / "tables", "pair")
    drawn, notes = draw(run, formats=("svg",), wide=False)
    assert len(drawn) == 2, notes
    made = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert all(path.parts[:2] == ("inside", "run") and ".." not in path.parts for path in made)
    for path in (run / "figures").glob("*.svg"):
        assert "<script" not in path.read_text()


def test_tables_are_printed_as_text_alone(tmp_path: Path) -> None:
    table = tidy([{**row, "note": LONG} for row in rows(EVIL, "")], analysis="eval", seed=0)
    write_table(table, tmp_path / "tables", "pair")
    shown = CliRunner().invoke(main, ["tables", str(tmp_path), "--table", "pair", "--where", "mode="])
    assert shown.exit_code == 0, shown.output
    assert "\x1b" not in shown.output and len(shown.output) < 10_000


def test_no_name_becomes_a_path() -> None:
    for word in (EVIL, "..", ".", "/etc/passwd", "a\\b", "", "\x00"):
        for name in (_stem("x", word), file_name(word)):
            assert name and "/" not in name and "\\" not in name and "\x00" not in name and not name.startswith(".")


def test_a_cause_is_cut_and_its_escapes_are_taken_out() -> None:
    assert clean("\x1b]0;title\x07red \x1b[31mred\x1b[0m\r\n") == "]0;titlered red\n"
    assert len(clean(LONG)) < 2_100
