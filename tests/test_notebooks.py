"""Every notebook runs from top to bottom on the embedded pair, is saved with its outputs, and is small."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.notebooks
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_it_runs_from_top_to_bottom(path: Path) -> None:
    command = [sys.executable, str(ROOT / "notebooks" / "execute.py"), "--check", path.stem]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_it_is_saved_with_outputs_without_errors_and_small(path: Path) -> None:
    cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    outputs = [out for cell in cells for out in cell["outputs"]]
    assert outputs
    assert not [out for out in outputs if out["output_type"] == "error"]
    assert path.stat().st_size < 1_500_000
    text = path.read_text()
    assert not [word for word in ("/tmp/", "/home/", "/Users/", str(ROOT)) if word in text], "a path of this machine"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_one_cell_names_the_pair_and_nothing_else_is_bound_to_it(path: Path) -> None:
    cells = ["".join(c["source"]) for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
    assert sum("embedded_pair()" in cell for cell in cells) == (0 if path.stem.startswith("07") else 1)
    assert not [cell for cell in cells if 'rendering="log"' in cell]
    loads = ("engaged = load(", "model = load(pair", "for roles, model in load_members(")
    doors = [line for cell in cells for line in cell.splitlines() if line.strip().startswith(loads)]
    assert all("**loading" in line for line in doors), "how weights are held reaches every door that loads them"


def test_the_embedded_pair_is_asked_in_its_own_words_and_others_in_plain_ones() -> None:
    from interp.checkpoint import Checkpoint, CheckpointPair
    from study.embedded import embedded_pair, rendering_of

    other = CheckpointPair(Checkpoint("engaged", "a/b"), Checkpoint("heuristic", "a/c"))
    assert (rendering_of(embedded_pair()), rendering_of(other)) == ("log", "plain")
