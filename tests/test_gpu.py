"""What only a CUDA device can show: the asynchronous path to host memory, half precision, and more than one device.

The same properties run on the CPU in test_hooks.py and test_extract.py.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from interp.cache import extract
from interp.hooks import record
from interp.model import Model
from interp.positions import Last
from interp.site import Site
from steering import Direction, DirectionStats, edit_weights, steer
from tests.test_extract import VOCAB, make_examples
from tests.tiny import tiny, tiny_tokenizer

DEVICE = os.environ.get("DIPTYCH_GPU_DEVICE", "cuda")
"""Where the tests run: "cpu" rehearses every line without a GPU."""
needs_cuda = pytest.mark.skipif(
    DEVICE == "cuda" and not torch.cuda.is_available(), reason="no CUDA device is visible; DEVICE=cpu rehearses"
)
pytestmark = [pytest.mark.gpu, needs_cuda]
TEXTS = [[5, 9, 77], [3, 14, 15, 92, 65, 35, 8, 97, 93], [31, 41, 59, 26, 53, 58]]


def test_recording_on_cuda_equals_the_cpu(family: str) -> None:
    cpu, cuda = Model.wrap(tiny(family)), Model.wrap(tiny(family).to(DEVICE))
    for model in (cpu, cuda):
        with record(model, "resid_post.*, z.*", positions=Last()) as acts:
            model(TEXTS)
        if model is cpu:
            expected = {site: acts[site] for site in acts}
    for site, value in expected.items():
        assert torch.allclose(acts[site].cpu(), value, atol=2e-4), site  # fp32 on CUDA may use TF32-free but other sums


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_extraction_through_pinned_memory_equals_direct_recording(tmp_path: Path, dtype: str) -> None:
    model = Model.wrap(tiny("qwen2", vocab_size=VOCAB, dtype=getattr(torch, dtype)).to(DEVICE), tiny_tokenizer())
    examples = make_examples(40)
    cache = extract(model, examples, sites="resid_post.*, z.1", positions="last, stride:3", out=tmp_path,
                    tokens_per_batch=300, shard_bytes=8000, progress=False)  # fmt: skip
    assert cache.verify(level="hash") is None
    rows = cache.rows
    for example in examples[::7]:
        from interp.prompt import render

        ids = list(render(example, model.tokenizer).ids)
        with record(model, "resid_post.2") as acts:
            model([ids])
        mine = rows[rows["example_id"] == example.id]
        got = cache.rows_at(mine.index.tolist(), "resid_post.2")
        want = acts["resid_post.2"][0].cpu()[mine["position"].tolist()]
        assert torch.allclose(got.float(), want.float(), atol=2e-4 if dtype == "float32" else 0.1)


@pytest.mark.filterwarnings("ignore::steering.operators.OtherCheckpointWarning")
def test_steering_and_weight_edits_on_cuda_equal_the_cpu() -> None:
    vec = torch.randn(32, generator=torch.Generator().manual_seed(0))
    d = Direction(vec, Site("resid_post", 1), "a", "b", stats=DirectionStats(resid_norm=10.0))
    ids = torch.tensor(TEXTS[1:2])
    found: list[list[torch.Tensor]] = []
    for device in ("cpu", DEVICE):
        module, at = tiny("qwen2", tie_word_embeddings=True).to(device), ids.to(device)
        with steer(module, d, 0.5, positions="last"):
            found.append([module(at).logits.cpu()])
        with steer(module, d, 1.5, positions="generated"):
            found[-1].append(module.generate(at, max_new_tokens=5, do_sample=False, eos_token_id=None).cpu())
        edit_weights(module, d)
        found[-1].append(module(at).logits.cpu())
    for cpu, cuda in zip(*found, strict=True):
        torch.testing.assert_close(cuda, cpu, rtol=1e-3, atol=1e-3)  # other sums on CUDA
