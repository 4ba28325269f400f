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
