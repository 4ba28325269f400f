"""Tensor names of an adapter as PEFT gives them, whatever training wrappers and savers left in them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from torch import nn

from interp.files import AdapterFiles

PREFIX = "base_model.model."
_WRAPPERS = ("_fsdp_wrapped_module", "_orig_mod", "_checkpoint_wrapped_module", "_forward_module")
_PART = re.compile(r"(?:lora_|hada_|lokr_|ia3_|oft_|boft_|vera_|vblora_|fourierft_|modules_to_save)")
# A tensor of a tuner, with the name of the adapter between its own name and the end.
_NAMED = re.compile(rf"\.(?P<part>{_PART.pattern}\w*)\.(?!weight$|bias$)[^.]+(?P<end>\.weight|\.bias|)$")
# PEFT saves the embeddings of a grown vocabulary under three names: as trained, as the base had them, and once more.
_SAVED, _ORIGINAL = ".modules_to_save.", ".original_module."
V = TypeVar("V")


def named_as_peft_does(files: AdapterFiles, skeleton: nn.Module, label: str) -> AdapterFiles:
    """The files with their tensors under PEFT's names: `base_model.model.` and the module's path, no wrapper in it.

    Wrappers (`_fsdp_wrapped_module.`, `_orig_mod.`, `_checkpoint_wrapped_module.`, a leading `module.`) and the name of
    the adapter (`.default.`) are taken out, and the prefix is put in front where it is missing. What PEFT saves of a
    module to save beside its trained weights (the base's own, a second copy) is left out.

    Raises:
        ValueError: two tensors of one name after that.
    Warns:
        UserWarning: how many names were changed, and an example.
    """
    modules = {name for name, _ in skeleton.named_modules()}
    names = {key: _canonical(key, modules) for key in files.shapes if _ORIGINAL not in key}
    saved = {key: name.replace(_SAVED, ".") for key, name in names.items()}
    held_twice = {key for key, name in saved.items() if name != names[key] and name in names.values()}
    names = {key: name for key, name in saved.items() if key not in held_twice}
    changed = [key for key, name in names.items() if key.replace(_SAVED, ".") != name]
    if len(names) == len(files.shapes) and all(key == name for key, name in names.items()):
        return files
    if len(set(names.values())) != len(names):
        held: dict[str, str] = {}
        first, second = next((held[n], k) for k, n in names.items() if held.setdefault(n, k) != k)
        raise ValueError(f"{label}: tensors {first!r} and {second!r} are the same one under two names. Save it again.")
    if changed:
        _say(label, changed, names)
    shapes, sources = _renamed(files.shapes, names), _renamed(files.sources, names)
    return replace(files, shapes=shapes, sources=sources, n_left_out=len(files.shapes) - len(names))


def _say(label: str, changed: Sequence[str], names: Mapping[str, str]) -> None:
    warnings.warn(
        f"{label}: {len(changed)} of {len(names)} tensors carry names of a training wrapper; {changed[0]!r} is read as "
        f"{names[changed[0]]!r}.",
        stacklevel=5,
    )


def _renamed(values: Mapping[str, V], names: Mapping[str, str]) -> dict[str, V]:
    return {name: values[key] for key, name in names.items()}


def _canonical(key: str, modules: set[str]) -> str:
    inner = ".".join(part for part in key.split(".") if part not in _WRAPPERS)
    while inner.startswith("module."):
        inner = inner.removeprefix("module.")
    inner = _NAMED.sub(r".\g<part>\g<end>", inner)
    while inner.startswith(PREFIX):
        inner = inner.removeprefix(PREFIX)
    inner = inner.removeprefix("base_model.")
    outer = ["", *sorted({f"{name.split('.')[0]}." for name in modules if name})]
    return PREFIX + next((f"{o}{inner}" for o in outer if _module_of(f"{o}{inner}") in modules), inner)


def _module_of(inner: str) -> str:
    """Path of the module that a tensor belongs to: up to the tuner's part of its name."""
    parts = inner.split(".")
    at = next((i for i, part in enumerate(parts) if _PART.match(part)), len(parts) - 1)
    return ".".join(part for part in parts[:at] if part != "base_layer")
