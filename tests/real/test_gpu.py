"""Real weights in bfloat16 on a GPU against float32 on the CPU; DIPTYCH_GPU_DEVICE=cpu rehearses it without a GPU."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from interp import Checkpoint, load
from interp.hooks import record
from interp.model import Model
from interp.positions import Last
from tests.real.kit import relative

DEVICE = os.environ.get("DIPTYCH_GPU_DEVICE", "cuda")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="no CUDA device is visible"),
]


def test_bfloat16_on_the_device_equals_float32_on_the_cpu(checkpoint: Path, texts: list[list[int]]) -> None:
    """Residual streams within 5 % of their largest value, which the 8 bits of every sum over 30 layers allow."""
    template = "own" if (checkpoint / "chat_template.jinja").is_file() else "plain"
    acts = []
    for device, dtype in (("cpu", "float32"), (DEVICE, "bfloat16")):
        model: Model = load(Checkpoint("m", str(checkpoint)), dtype=dtype, device=device, template=template)
        with record(model, "resid_post.*", positions=Last()) as recording:
            model(texts)
        acts.append({site: recording[site].float().cpu() for site in recording})
    for site, exact in acts[0].items():
        assert relative(acts[1][site], exact) < 0.05, site
