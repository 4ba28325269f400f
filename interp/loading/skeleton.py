"""A base model without its weights: its config, its modules on the meta device, and whether the files' headers fit."""

from __future__ import annotations

import copy
import importlib.util
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from interp.loading.files import read_shapes, weight_files

_PACKAGES = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}
ATTENTION_DEFAULT = "sdpa"


def read_config(folder: Path, where: str) -> Any:
    """The config of a model folder.

    Raises:
        ValueError: transformers cannot read it (damaged, an unknown model type, a value of the wrong type).
    """
    import transformers

    try:
        return transformers.AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as error:  # each config class checks in its own way
        raise ValueError(
            f"{where}: transformers {transformers.__version__} cannot read its config, {folder / 'config.json'} "
            f"({first_line(error)}). Compare it with the config of the model it was made from."
        ) from error


def build_skeleton(config: Any, where: str) -> nn.Module:
    """The causal LM of a config on the meta device.

    Raises:
        ValueError: transformers cannot build it; names the cause (an unknown rope type, activation, size).
    """
    import transformers

    attention = attention_of(config, None, where)
    try:
        with torch.device("meta"):  # on a copy: the model class writes the chosen attention into its config
            return transformers.AutoModelForCausalLM.from_config(
                copy.deepcopy(config), trust_remote_code=False, attn_implementation=attention
            )
    except Exception as error:  # a model class may raise anything for values it does not expect
        raise ValueError(
            f"{where}: transformers {transformers.__version__} cannot build a model from its config.json "
            f"({type(error).__name__}: {first_line(error)}){_hint(config, error)}. Correct the config, or update "
            f"transformers."
        ) from error


def check_headers(skeleton: nn.Module, folder: Path, where: str) -> None:
    """Check that the tensors in the files have the shapes the config gives; only headers are read.

    Names that match only after transformers' own renaming are not compared.

    Raises:
        ValueError: a file that is truncated, or tensors of another shape (a vocabulary that grew, another width).
    """
    own = {name: tuple(tensor.shape) for name, tensor in skeleton.state_dict().items()}
    stored = {name: shape for file in weight_files(folder, where) for name, shape in read_shapes(file, where).items()}
    wrong = sorted(
        name for name, shape in stored.items() if name in own and own[name] != shape and not _packed(stored, name)
    )
    if wrong:
        raise ValueError(
            f"{where}: {len(wrong)} tensors of the weights have another shape than config.json asks for, e.g. "
            f"{wrong[0]} is {stored[wrong[0]]}, the config gives {own[wrong[0]]}. Correct config.json (vocab_size, "
            f"hidden_size, ...), or take the config that was saved with these weights."
        )


def attention_of(config: Any, asked: str | None, where: str) -> str | None:
    """The attention implementation to load with: `asked`, else the config's, else transformers' default (None).

    Raises:
        ValueError: `asked` needs a package that is not installed.
    Warns:
        UserWarning: config.json asks for such a package; sdpa, which computes the same, is used.
    """
    implementation = asked or getattr(config, "_attn_implementation", None)
    package = _PACKAGES.get(str(implementation))
    if package is None or (importlib.util.find_spec(package) is not None and torch.cuda.is_available()):
        return asked
    lacks = f"the package {package} and a CUDA device, and one of them is missing"
    if asked is not None:
        raise ValueError(f"attn_implementation {asked!r} needs {lacks}. Use 'sdpa' or 'eager'.")
    warnings.warn(
        f"{where}: its config.json asks for {implementation!r}, which needs {lacks}; "
        f"{ATTENTION_DEFAULT} is used instead.",
        stacklevel=2,
    )
    return ATTENTION_DEFAULT


def first_line(error: BaseException) -> str:
    """The first non-blank line of an error's text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__


def _packed(stored: dict[str, Any], name: str) -> bool:
    """Whether a weight is stored packed, next to tensors that describe its quantisation."""
    stem = name.removesuffix(".weight")
    return any(f"{stem}.{part}" in stored for part in ("weight.absmax", "qweight", "weight_scale", "SCB", "scales"))


def _hint(config: Any, error: BaseException) -> str:
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    kind = rope.get("rope_type", rope.get("type")) if isinstance(rope, dict) else None
    return f"; rope type {kind!r} is not known to it" if isinstance(error, KeyError) and kind in error.args else ""
