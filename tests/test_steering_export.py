"""Directions for other programs: files that the other side's reader reads, a model that loads as it computed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from interp.loading.fingerprint import tensors_sha256
from interp.site import Site
from steering import Direction, Directions, DirectionStats, export_gguf, export_hf, read_probe_vector, steer
from steering.export import gguf_bytes
from tests.tiny import add_lora, tiny

D = 32


def directions(*layers: int) -> Directions:
    rng = torch.Generator().manual_seed(0)
    made = {}
    for layer in layers:
        stats = DirectionStats(delta_norm=3.0, resid_norm=20.0 + layer)
        site = Site("resid_post", layer)
        made[site] = Direction(torch.randn(D, generator=rng), site, "anti", "stereo", stats=stats, name="bias")
    return Directions(made)


def test_the_gguf_packages_own_reader_reads_what_was_written(tmp_path: Path) -> None:
    import gguf

    held = directions(1, 2, 11)
    path = export_gguf(held, tmp_path / "bias.gguf", model_hint="qwen2", alpha=-0.1, unit="resid")
    reader = gguf.GGUFReader(path)
    read = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    assert list(read) == ["direction.1", "direction.2", "direction.11"]
    for site, one in held.items():
        np.testing.assert_allclose(read[f"direction.{site.layer}"], -0.1 * one.scale("resid") * one.unit, rtol=1e-6)
    assert all(t.tensor_type == gguf.GGMLQuantizationType.F32 and list(t.shape) == [D] for t in reader.tensors)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.architecture"] == "controlvector" and fields["controlvector.model_hint"] == "qwen2"
    assert fields["controlvector.layer_count"] == 3 and fields["diptych.toward"] == "anti"
    assert fields["diptych.alpha"] == pytest.approx(-0.1) and fields["diptych.unit"] == "resid"


def test_gguf_bytes_are_those_of_the_specification() -> None:
    """One key and one vector, written out by hand."""
    got = gguf_bytes({"k": 7}, {"t": torch.tensor([1.0, -2.0])})
    head = b"GGUF" + bytes([3, 0, 0, 0]) + bytes([1] + [0] * 7) * 2
    key = bytes([1] + [0] * 7) + b"k" + bytes([5, 0, 0, 0]) + bytes([7, 0, 0, 0])
    info = bytes([1] + [0] * 7) + b"t" + bytes([1, 0, 0, 0]) + bytes([2] + [0] * 7) + bytes(4) + bytes(8)
    start = head + key + info
    data = np.array([1.0, -2.0], "<f4").tobytes()
    assert got == start + bytes(-len(start) % 32) + data + bytes(24)


def test_what_the_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="acts on the output of a block"):
        export_gguf(directions(0, 1), tmp_path / "d.gguf", model_hint="qwen2")
    with pytest.raises(ValueError, match=r"expected a name ending in .gguf"):
        export_gguf(directions(1), tmp_path / "d.bin", model_hint="qwen2")
    one = Direction(torch.ones(D), Site("resid_pre", 2), "a", "b")
    with pytest.raises(ValueError, match="expected resid_post of layer 1 or later"):
        export_gguf(one, tmp_path / "d.gguf", model_hint="qwen2")
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore::steering.operators.OtherCheckpointWarning")
@pytest.mark.parametrize("tied", [False, True])
def test_a_model_folder_loads_with_the_logits_of_the_hooks(tmp_path: Path, tied: bool, ids: Tensor) -> None:
    from transformers import AutoModelForCausalLM

    module, held = tiny("qwen2", tie_word_embeddings=tied), directions(1)
    with torch.no_grad(), steer(module, held, op="ablate_everywhere", positions="all"):
        want = module(ids).logits
    export_hf(module, held, tmp_path / "out")
    back = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert torch.equal(back(ids).logits, module(ids).logits)
    assert (back(ids).logits - want).abs().max() < 2e-5


def test_a_model_folder_is_never_written_over_or_beside_an_adapter(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("x")
    with pytest.raises(ValueError, match="a new or an empty folder"):
        export_hf(tiny("qwen2"), directions(1), tmp_path)
    with pytest.raises(ValueError, match="merge=True"):
        export_hf(add_lora(tiny("qwen2")), directions(1), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_probes_weights_are_found_by_what_they_are_of(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    names = [f"label|last|resid_post.{layer}|{kind}" for layer in (1, 2) for kind in ("logistic", "ridge")]
    vectors = {name: torch.full((4,), float(i)) for i, name in enumerate(names)}
    about = {name: {"sha256": tensors_sha256({"": vector})} for name, vector in vectors.items()}
    save_file(vectors, tmp_path / "directions.safetensors", {"probes": json.dumps(about)})
    assert torch.equal(read_probe_vector(tmp_path, site="resid_post.2", kind="ridge"), vectors[names[3]])
    with pytest.raises(ValueError, match=r"expected one probe \*\|\*\|resid_post.3\|logistic .* 0 of 4 match"):
        read_probe_vector(tmp_path, site="resid_post.3")
    with pytest.raises(ValueError, match="no such file"):
        read_probe_vector(tmp_path / "nowhere", site="resid_post.3")
