"""The commands of docs/howto/your_checkpoint.md, word for word, on SmolLM2."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "howto" / "your_checkpoint.md").read_text()


def test_six_commands_lead_from_a_folder_to_the_first_figure(real_folder: Path, tmp_path: Path) -> None:
    commands = re.findall(r"```bash\n(.*?)```", PAGE, re.S)[0].strip().splitlines()
    assert len(commands) == 6
    (tmp_path / "smollm2").symlink_to((real_folder / "smollm2").resolve(), target_is_directory=True)
    main = [sys.executable, "-c", "from study.cli import main; main()"]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    outputs = []
    for command in commands:
        name, *words = shlex.split(command)
        assert name == "diptych"
        done = subprocess.run([*main, *words], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stderr[-2000:]}"
        outputs.append(done.stdout + done.stderr)
    assert "tokens per batch" in outputs[0] and "24 rows" in outputs[0]
    figure = re.search(r"`(first/figures/[^`]+\.png)`", PAGE)
    assert figure is not None and (tmp_path / figure[1]).stat().st_size > 10_000
    table = pd.read_csv(tmp_path / "first" / "probes" / "table.csv")
    layers = table[(table.role == "layer") & (table.metric == "auroc")]
    assert layers["site"].nunique() == 30 and layers["n"].eq(24).all()
