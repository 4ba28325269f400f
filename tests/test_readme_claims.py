"""Every claim of the README that has a test names one that exists, and what is no claim any more is gone."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from interp.model import Model
from tests.tiny import tiny

ROOT = Path(__file__).resolve().parent.parent
README = " ".join((ROOT / "README.md").read_text().split())
ROWS = re.findall(r"^\| (.+?) \| `(tests/[^`]+)` \|$", (ROOT / "docs" / "readme_claims.md").read_text(), re.M)


def test_the_table_is_read() -> None:
    assert len(ROWS) > 20


@pytest.mark.parametrize(("claim", "test"), ROWS, ids=[claim[:40] for claim, _ in ROWS])
def test_a_claim_stands_in_the_readme_and_its_test_exists(claim: str, test: str) -> None:
    assert " ".join(claim.split()) in README
    path, _, name = test.partition("::")
    assert (ROOT / path).is_file()
    assert not name or f"def {name}(" in (ROOT / path).read_text()


def test_every_benchmark_is_run_by_make_bench() -> None:
    from benchmarks import run

    written = {path.stem for path in (ROOT / "benchmarks").glob("*.py") if "def main()" in path.read_text()}
    assert written - {"run", "science"} == set(run.CPU), "`make science` runs science"
    assert set(run.GPU) <= set(run.CPU)


def test_a_remote_trace_is_refused_and_the_readme_promises_none() -> None:
    pytest.importorskip("nnsight")
    from interp.bridges import to_nnsight

    assert "| remote execution, vLLM | – | yes | – | – | vLLM hook | – |" in README
    tracer = to_nnsight(Model.wrap(tiny("qwen2")))
    for asked in ({"remote": True}, {"backend": "https://somewhere"}):
        with pytest.raises(ValueError, match=f"{next(iter(asked))}.*no server has"):
            tracer.trace(torch.tensor([[3, 5, 8]]), **asked)


@pytest.mark.parametrize(("hint", "warns"), [("qwen3_5_text", True), ("qwen35", True), ("qwen2", False)])
def test_a_control_vector_for_a_hybrid_says_that_llama_cpp_cannot_load_it(
    hint: str, warns: bool, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    from interp.site import Site
    from steering import Direction, export_gguf

    export_gguf(Direction(torch.ones(8), Site("resid_post", 1), "a", "b"), tmp_path / "d.gguf", model_hint=hint)
    assert (tmp_path / "d.gguf").is_file()
    assert any("llama.cpp" in str(one.message) for one in recwarn) == warns
