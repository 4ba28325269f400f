"""Directions for other programs: a GGUF control vector, or a Hugging Face model with the directions ablated."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.family import FAMILIES
from interp.io.files import replace
from interp.model import Model
from interp.remedy import remedy
from steering.direction import Direction, Directions, Unit
from steering.weights import WeightEdit, edit_weights

_RECURRENT = tuple(name for name, family in FAMILIES.items() if "linear_attention" in family.attn)
HYBRIDS = (*_RECURRENT, "qwen35", "qwen3next", "qwen3_next")
"""Architectures with recurrent layers, by the names of transformers and of llama.cpp."""


def export_gguf(
    directions: Direction | Directions, path: str | Path, *, model_hint: str, alpha: float = 1.0, unit: Unit = "raw"
) -> Path:
    """A control vector for llama.cpp and EasySteer, which add it at every position, times their own scale.

        direction.{layer} = alpha · scale(unit) · unit vector       added to the output of block `layer`

    With the default strength, raw 1 of the unit vector, their scale is the norm that is added. Layers count from 0 in
    both; the format has no layer 0.

    Args:
        path: a name ending in .gguf.
        model_hint: architecture the vector is for, such as "qwen2".
    Raises:
        ValueError: a direction of another site than `resid_post`, of layer 0, or a path of another kind.
    Warns:
        UserWarning: a hybrid architecture (`HYBRIDS`), whose control vectors llama.cpp cannot load yet.
    Source: architecture "controlvector" as written by repeng/extract.py and read by llama.cpp common.cpp.
    """
    path = Path(path)
    if any(model_hint.startswith(name) for name in HYBRIDS):
        warnings.warn(
            f"{model_hint}: llama.cpp applies control vectors in architectures whose every block attends; it "
            "does not load any for a hybrid yet. The file is written as its format says. To use the direction "
            "now, steer in Python, or ablate it in a model folder: export_hf, `diptych steer export --format "
            "hf-weights`.",
            stacklevel=2,
        )
    vectors = Directions({directions.site: directions}) if isinstance(directions, Direction) else directions
    if path.suffix != ".gguf" or not path.parent.is_dir():
        raise ValueError(f"{path}: expected a name ending in .gguf, in an existing folder.")
    for site in vectors:
        if site.kind != "resid_post" or not site.layer:
            raise ValueError(
                f"site '{site}': a GGUF control vector acts on the output of a block after the first; expected "
                f"resid_post of layer 1 or later. {remedy('Choose others with {sites}.', 'Choose others.')}"
            )
    first = next(iter(vectors.values()))
    keys: dict[str, str | int | float] = {
        "general.architecture": "controlvector",
        "controlvector.model_hint": model_hint,
        "controlvector.layer_count": len(vectors),
        "diptych.toward": first.toward,
        "diptych.away_from": first.away_from,
        "diptych.name": first.label,
        "diptych.alpha": float(alpha),
        "diptych.unit": unit,
        "diptych.checkpoint": str(first.provenance.get("checkpoint") or ""),
    }
    tensors = {f"direction.{s.layer}": (alpha * d.scale(unit) * d.unit.double()).float() for s, d in vectors.items()}
    replace(path.parent, path, gguf_bytes(keys, tensors))
    return path


def export_hf(
    model: Model | nn.Module, direction: Direction | Directions | Sequence[Direction], folder: str | Path
) -> WeightEdit:
    """A model folder with the directions ablated, for transformers, vLLM and anything else that loads such folders.

    Calls `edit_weights` and saves the result, with the tokenizer if the Model has one. An additive vector cannot be
    stored this way: the architectures have no bias for it, and a saved one would be silently dropped. The model in
    memory is changed too, and equals what was written.

    Args:
        model: without an adapter, or with the adapter merged into its weights (`interp.load(..., merge=True)`).
    Raises:
        ValueError: the folder already contains files; a model with an adapter; anything that `edit_weights` refuses.
    """
    folder, model = Path(folder), Model.wrap(model)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder}: expected a new or an empty folder.")
    if hasattr(model.module, "get_base_model"):
        raise ValueError(
            f"{model.name} has an unmerged adapter, and a model folder contains only weights. Load it with merge=True."
        )
    edited = edit_weights(model, direction)
    model.causal_lm.save_pretrained(folder)
    if model.tokenizer is not None:
        model.tokenizer.save_pretrained(folder)
    return edited


def source_checkpoint(direction: Direction) -> Mapping[str, Any]:
    """Name, base, adapter and revisions of the checkpoint that the direction was fitted on.

    Raises:
        ValueError: it is not known.
    """
    source: Any = direction.provenance.get("source") or {}
    if not source.get("base"):
        raise ValueError(f"direction {direction.label!r} does not say which checkpoint it was fitted on; name it.")
    if local := source.get("local"):
        named = ", ".join(f"{key} {source[key]!r}" for key in local)
        raise ValueError(
            f"direction {direction.label!r} was fitted on local folders ({named}), whose paths it does not "
            f"store; {remedy('name the checkpoint with {base} and {adapter}.', 'name the checkpoint.')}"
        )
    return {key: value for key, value in source.items() if value is not None and key != "local"}


_MAGIC, _VERSION, _ALIGNMENT, _F32 = b"GGUF", 3, 32, 0
_INT32, _FLOAT32, _STRING = 5, 6, 8


def gguf_bytes(keys: Mapping[str, str | int | float], tensors: Mapping[str, Float[Tensor, "d"]]) -> bytes:
    """The file: header, keys, tensor table, then each tensor at a multiple of 32 bytes, little-endian.

    Args:
        keys: text as string, whole numbers as int32, others as float32.
        tensors: vectors, written as float32.
    Raises:
        ValueError: a tensor with other than one axis.
    Source: the GGUF specification, version 3; read back with the `gguf` package in the tests.
    """
    out = bytearray(_MAGIC + struct.pack("<IQQ", _VERSION, len(tensors), len(keys)))
    for key, value in keys.items():
        out += _text(key) + _value(value)
    offset, blobs = 0, []
    for name, tensor in tensors.items():
        if tensor.ndim != 1:
            raise ValueError(f"{name}: expected a vector, got shape {list(tensor.shape)}.")
        blob = tensor.detach().cpu().to(torch.float32).contiguous().numpy().astype("<f4").tobytes()
        out += _text(name) + struct.pack("<IQIQ", 1, len(tensor), _F32, offset)
        blobs.append(_padded(blob))
        offset += len(blobs[-1])
    return _padded(bytes(out)) + b"".join(blobs)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: str | int | float) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _text(value)
    return struct.pack("<Ii", _INT32, value) if isinstance(value, int) else struct.pack("<If", _FLOAT32, value)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNMENT)
