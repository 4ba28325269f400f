"""Digests of what was loaded: of its files, or of parameter bytes for a model that is only in memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from interp.checkpoint import Fingerprint
from interp.loading.files import AdapterFiles, file_sha256, weight_files


def fingerprint_files(
    folder: Path,
    *,
    adapters: Mapping[str, AdapterFiles],
    tokenizer: Any = None,
    quantization: str | None = None,
    merged: bool = False,
) -> Fingerprint:
    """Fingerprint of a model folder and its adapters: equal bytes give equal digests, wherever the folder is.

    Args:
        folder:   base model with `config.json` and safetensors weights.
        adapters: role -> the adapter's files.
    """
    return Fingerprint(
        config_sha256=file_sha256(folder / "config.json"),
        weights_sha256=_files_sha256(weight_files(folder, str(folder))),
        tokenizer_sha256=None if tokenizer is None else tokenizer_sha256(tokenizer),
        adapters={
            role: _files_sha256((files.folder / "adapter_config.json", *files.weights))
            for role, files in adapters.items()
        },
        quantization=quantization,
        merged=merged,
    )


def fingerprint_module(module: nn.Module, *, tokenizer: Any = None) -> Fingerprint:
    """Fingerprint of a model that is only in memory, over names, dtypes, shapes and bytes of its parameters.

    A PeftModel has the digests of its base as if it were not wrapped. The digests never equal those of files:
    they depend on the dtype that was loaded.
    """
    from peft import PeftModel, get_peft_model_state_dict
    from peft.utils.save_and_load import get_base_model_state_dict

    adapters, config, state = {}, getattr(module, "config", None), module.state_dict()
    if isinstance(module, PeftModel):
        state = get_base_model_state_dict(module)
        for role, settings in module.peft_config.items():
            tensors = get_peft_model_state_dict(module, adapter_name=role, save_embedding_layers=False)
            adapters[role] = _sha256([_json(settings.to_dict()), tensors_sha256(tensors)])
    settings = {} if config is None else config.to_dict()
    quantization = settings.get("quantization_config")
    return Fingerprint(
        config_sha256=_sha256([_json({k: v for k, v in settings.items() if k not in ("_name_or_path", "dtype")})]),
        weights_sha256=tensors_sha256(state),
        tokenizer_sha256=None if tokenizer is None else tokenizer_sha256(tokenizer),
        adapters=adapters,
        quantization=None if quantization is None else quantization_name(quantization),
    )


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over name, dtype, shape and bytes of every tensor, in order of names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def tokenizer_sha256(tokenizer: Any, *, without: Iterable[str] = ()) -> str:
    """SHA-256 of everything that turns text into ids: vocabulary and rules, chat template, special tokens.

    Padding and truncation are left out: a call with `padding=True` changes them, and no result may depend on them.

    Args:
        without: names of special tokens that do not count, e.g. "pad_token".
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = json.loads(backend.to_str()) if backend is not None else tokenizer.get_vocab()
    kept = {k: v for k, v in rules.items() if backend is None or k not in ("padding", "truncation")}
    special = {k: str(v) for k, v in tokenizer.special_tokens_map.items() if k not in without}
    return _sha256([_json([kept, getattr(tokenizer, "chat_template", None), special])])


def quantization_name(config: Any) -> str:
    """Method and digest of a quantization config (object or mapping), e.g. "bitsandbytes:1f0c2a9b6d3e"."""
    settings = dict(config) if isinstance(config, Mapping) else config.to_dict()
    method = settings.get("quant_method", type(config).__name__)
    return f"{getattr(method, 'value', method)}:{_sha256([_json(settings)])[:12]}"


def _files_sha256(paths: Iterable[Path]) -> str:
    paths = sorted(paths)
    with ThreadPoolExecutor(max_workers=4) as pool:  # hashing releases the interpreter lock
        digests = list(pool.map(file_sha256, paths))
    return _sha256([f"{path.name}:{digest}" for path, digest in zip(paths, digests, strict=True)])


def _sha256(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=lambda v: sorted(v) if isinstance(v, set) else str(v))
