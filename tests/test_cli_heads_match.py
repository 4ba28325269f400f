"""`diptych heads match`: heads are found by what they do, beside the self-match control and the null."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from study.cli import main
from tests.tiny import save_checkpoint

ARGS = ["--task", "interp.tasks.procedural", "--n", "6", "--slot", "Answer:", "--quiet", "--load-dtype", "float32"]


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(main, ["heads", *map(str, args)])


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("heads")
    base = save_checkpoint(folder / "model", max_position_embeddings=4096)
    done = run("--base", base, "--name", "b5", *ARGS, "--kind", "mean", "--named", "L1.H2", "--no-figures", "--out",
               folder / "b5")  # fmt: skip
    assert done.exit_code == 0, done.output
    return folder / "b5"


def test_a_model_matched_with_itself_finds_every_head_again(swept: Path, tmp_path: Path) -> None:
    done = run("match", swept, f"{swept}:b5", "--control", swept, "--perm", "99", "--out", tmp_path / "m")
    assert done.exit_code == 0, done.output
    table = pd.read_csv(tmp_path / "m" / "match.csv")
    pairs = table[table["arm"] == "match"]
    assert (pairs["layer_a"] == pairs["layer_b"]).all() and (pairs["head_a"] == pairs["head_b"]).all()
    np.testing.assert_allclose(pairs["r"], 1.0, atol=1e-9)
    assert pairs["mutual"].astype(bool).all() and (pairs["p"] == 1 / 100).all() and (pairs["margin"] >= 0).all()
    named = pairs[pairs["named"].astype(bool)]
    assert named[["layer_a", "head_a"]].to_numpy().tolist() == [[1, 2]]
    assert (table["arm"] == "permuted").sum() == 99 and (table[table["arm"] == "permuted"]["r"] < 1).all()
    assert table["self_match_r"].iloc[0] == pytest.approx(1.0)
    assert (tmp_path / "m" / "match_heads.png").stat().st_size > 10_000


def test_a_member_that_is_not_there_is_refused_with_those_that_are(swept: Path, tmp_path: Path) -> None:
    done = run("match", f"{swept}:v7", swept, "--control", swept, "--out", tmp_path / "m")
    assert done.exit_code == 1 and "expected FOLDER:MEMBER with a member of b5" in done.output
    done = run("match", tmp_path, swept, "--control", swept, "--out", tmp_path / "m")
    assert done.exit_code == 1 and "holds no head sweep" in done.output
