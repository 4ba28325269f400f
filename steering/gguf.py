"""A minimal writer of GGUF files: float32 vectors and a few keys, as llama.cpp reads control vectors."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

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
