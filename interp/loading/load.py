"""Load checkpoints into Models: what can be checked without weights is checked first, the rest afterwards."""

from __future__ import annotations

import copy
import gc
import importlib.util
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from interp.adapters import MERGED, name_roles, peft_names
from interp.adapters.attach import attach_adapters, merge_adapter, probe_ids, probe_logits
from interp.adapters.plan import AdapterPlan, plan_adapter, warn_other_base
from interp.checkpoint import Checkpoint, CheckpointPair
from interp.loading.files import base_folder, has_weights, read_adapter
from interp.loading.fingerprint import fingerprint_files, quantization_name
from interp.loading.skeleton import attention_of, build_skeleton, check_headers, first_line, read_config
from interp.loading.tokenizer import common_tokenizer, prompts_sha256, tokenizers_of
from interp.remedy import remedy
from interp.template import PromptRules, set_rules

if TYPE_CHECKING:
    from interp.model import Model

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
_DTYPES |= {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def _check_device(device: str | torch.device) -> None:
    if device == "auto":
        return
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise ValueError(f"device {device!r}: expected 'auto', 'cpu', 'cuda', 'cuda:1', 'mps', ...") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {device!r}: no CUDA device is visible. {remedy('Use {device:cpu}, or auto.')}")


@dataclass(frozen=True)
class LoadOptions:
    """Options of `load`."""

    dtype: str | torch.dtype = "auto"
    device: str | torch.device = "auto"
    device_map: Any = None
    quantization: Any = None
    attn_implementation: str | None = None
    merge: bool = False
    control_tokens: str = "text"
    template_date: str | None = None
    allow_closed_turn: bool = False
    template: str = "own"

    def __post_init__(self) -> None:
        _ = self.prompt_rules
        if isinstance(self.dtype, str) and self.dtype not in ("auto", *_DTYPES):
            raise ValueError(f"dtype {self.dtype!r}: expected a torch.dtype, 'auto', or one of {', '.join(_DTYPES)}.")
        _check_device(self.device)
        if self.device_map is not None and self.device != "auto":
            raise ValueError(
                remedy(f"{{device:{self.device}}} and {{device_map:{self.device_map}}}: give one of the two.")
            )
        if self.merge and self.quantization is not None:
            raise ValueError(
                remedy("{merge:True} and {quantization}: rounded weights cannot take the adapter exactly. Drop one.")
            )

    @property
    def prompt_rules(self) -> PromptRules:
        return PromptRules(self.control_tokens, self.template_date, self.allow_closed_turn, self.template)

    @property
    def target(self) -> torch.device:
        auto = "cuda" if torch.cuda.is_available() else "cpu"
        return torch.device(auto if self.device == "auto" else self.device)

    @property
    def torch_dtype(self) -> torch.dtype:
        if isinstance(self.dtype, torch.dtype):
            return self.dtype
        on_gpu = self.target.type == "cuda" or (self.device_map is not None and torch.cuda.is_available())
        return (torch.bfloat16 if on_gpu else torch.float32) if self.dtype == "auto" else _DTYPES[self.dtype]


def load(
    checkpoint: Checkpoint,
    *,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    device_map: Any = None,
    quantization: Any = None,
    attn_implementation: str | None = None,
    merge: bool = False,
    control_tokens: str = "text",
    template_date: str | None = None,
    allow_closed_turn: bool = False,
    template: str = "own",
    siblings: Sequence[Checkpoint] = (),
) -> Model:
    """The checkpoint as a Model in eval mode, its adapter active and verified.

    Args:
        dtype:        "auto" is bfloat16 on CUDA and float32 on the CPU.
        device:       "auto" is CUDA if available.
        device_map:   passed to transformers, e.g. "auto" for a model larger than one GPU.
        quantization: "4bit", "8bit" (bitsandbytes) or a transformers quantization config.
        attn_implementation: passed to transformers, e.g. "eager".
        merge:        merge the adapter into the weights in float32, before casting; the bare base is then no longer
            available.
        control_tokens, template_date, allow_closed_turn, template: how prompts are rendered; see
            `interp.template.PromptRules`.
        siblings:     checkpoints of the same base to hold as further adapters; `adapters.use(name)` switches.
    Raises:
        ValueError: options that exclude each other; no model at the path or id; pickled weights; siblings of another
            base; an adapter that does not fit, was not loaded completely, or changes nothing. All but the last two are
            raised before any weight is read.
    """
    options = LoadOptions(
        dtype,
        device,
        device_map,
        quantization,
        attn_implementation,
        merge,
        control_tokens,
        template_date,
        allow_closed_turn,
        template,
    )
    members = {c.name: c for c in (checkpoint, *siblings)}
    if len(members) != 1 + len(siblings):
        raise ValueError(f"siblings need names of their own, got {[c.name for c in (checkpoint, *siblings)]}.")
    return _load(members, options)


def load_pair(pair: CheckpointPair, **options: Any) -> Model:
    """Both members of a pair in one Model with one copy of their common base; `engaged` is active.

    Args:
        options: as for `load`, without `siblings` and `merge`.
    Raises:
        ValueError: the members have different bases, or kinds of adapters that one model cannot hold; as `load`.
    """
    if not pair.shares_base:
        raise ValueError(
            f"engaged is on {pair.engaged.base!r} and heuristic on {pair.heuristic.base!r}: one Model holds one "
            "base. Iterate over load_members(pair), which loads them one after the other."
        )
    home = _home(pair.engaged)
    return _load({role: c for role, c in pair.members.items() if _home(c) == home}, LoadOptions(**options))


def load_members(pair: CheckpointPair, **options: Any) -> Iterator[tuple[tuple[str, ...], Model]]:
    """Iterate over (roles, Model): members of one base share a Model, different bases are loaded one after the other.

    A Model is emptied before the next one is loaded, so that at most one base is in memory; do not keep it.

    Raises:
        ValueError: as `load`, when the group is reached.
    """
    groups: dict[tuple[Any, ...], dict[str, Checkpoint]] = {}
    for role, member in pair.members.items():
        groups.setdefault(_home(member), {})[role] = member
    settings = LoadOptions(**options)
    parts = [part for members in groups.values() for part in _by_kind(members, settings)]
    for part in parts:  # every member is checked before the first weight is read
        first = next(iter(part.values()))
        _plan(part, settings, f"base {first.base!r} of {first.name!r}")
    for group in parts:
        model = _load(group, settings)
        try:
            yield tuple(group), model
        finally:
            _empty(model.module)
            del model


@dataclass(frozen=True)
class Skeleton:
    """A checkpoint's base without its weights (on the meta device), its tokenizer, and the dtype it would load in."""

    module: Any
    tokenizer: Any
    dtype: torch.dtype


def open_skeleton(checkpoint: Checkpoint, **options: Any) -> Skeleton:
    """The checkpoint's architecture and tokenizer, before any weight is read; its adapter's shapes are checked too.

    Args:
        options: as for `load`, without `siblings`.

    Raises:
        ValueError: as `load`, for everything that is checked before weights are read.
    """
    settings = LoadOptions(**options)
    where = f"base {checkpoint.base!r} of {checkpoint.name!r}"
    config, plans = _plan({checkpoint.name: checkpoint}, settings, where, headers=False)
    files = {role: plan.files for role, plan in plans.items()}
    tokenizers = tokenizers_of(base_folder(checkpoint, weights=False), {checkpoint.name: checkpoint}, files)
    tokenizer = tokenizers[checkpoint.name]
    if tokenizer is not None:
        set_rules(tokenizer, settings.prompt_rules)
    return Skeleton(build_skeleton(config, where), tokenizer, settings.torch_dtype)


def _load(members: Mapping[str, Checkpoint], options: LoadOptions) -> Model:
    from interp.model import Model

    role, first = next(iter(members.items()))
    where = f"base {first.base!r} of {first.name!r}"
    config, plans = _plan(members, options, where)
    quantizer, quantization = _quantization(config, options, where)
    folder = base_folder(first, weights=True)
    module = _base_module(folder, config, options, quantizer, where)
    if plans:
        module = attach_adapters(module, plans, allow_overwrite=options.merge)
    else:
        probe_logits(module, probe_ids(module))
    if plans and options.merge:
        module = merge_adapter(module, plans[role])
        name_roles(module, {role: MERGED})
    elif len(members) > 1:
        peft_name = peft_names(list(plans))
        name_roles(module, {r: peft_name.get(r) for r in members})
    assert not any(m.training for m in module.modules()), "a submodule is in training mode after eval()"
    files = {r: plan.files for r, plan in plans.items()}
    tokenizer = common_tokenizer(tokenizers_of(folder, members, files))
    if tokenizer is not None:
        set_rules(tokenizer, options.prompt_rules)
    merged = options.merge and bool(plans)
    fingerprint = fingerprint_files(
        folder, adapters=files, tokenizer=tokenizer, quantization=quantization, merged=merged
    )
    model = Model.wrap(module, tokenizer=tokenizer, checkpoint=first, fingerprint=fingerprint, members=members)
    if plans and not merged:
        model.adapters.activate(role)
    return model


def _plan(
    members: Mapping[str, Checkpoint], options: LoadOptions, where: str, *, headers: bool = True
) -> tuple[Any, dict[str, AdapterPlan]]:
    """The base's config and a plan per adapter; only small files and headers (`headers`: the base's too) are read."""
    first = next(iter(members.values()))
    strangers = [c.name for c in members.values() if _home(c) != _home(first)]
    if strangers:
        raise ValueError(f"{', '.join(strangers)}: not on the base of {first.name!r} ({first.base!r}, same revision).")
    folder = base_folder(first, weights=False)
    config = read_config(folder, where)
    files = {role: read_adapter(c) for role, c in members.items() if c.adapter is not None}
    if options.merge and len(members) > 1:
        raise ValueError(
            f"{remedy('{merge:True}', 'merging')} allows only one checkpoint, got {', '.join(members)}. Load "
            "them one by one."
        )
    kinds = {role: str(f.config.get("peft_type")) for role, f in files.items()}
    if len(set(kinds.values())) > 1:
        listed = ", ".join(f"{role} is {kind}" for role, kind in kinds.items())
        raise ValueError(f"one model holds adapters of one kind: {listed}. Iterate over load_members(pair) instead.")
    skeleton = build_skeleton(config, where)
    if headers and getattr(config, "quantization_config", None) is None and has_weights(folder):
        check_headers(skeleton, folder, where)
    plans = {}
    for role, adapter in files.items():
        label = f"adapter {members[role].adapter!r} of {members[role].name!r}"
        plans[role] = plan_adapter(skeleton, adapter, label=label)
        warn_other_base(adapter, first.base, label)
    return config, plans


def _base_module(folder: Path, config: Any, options: LoadOptions, quantizer: Any, where: str) -> nn.Module:
    """The base in eval mode without gradients; every parameter was read from the files."""
    from transformers import AutoModelForCausalLM

    settings: dict[str, Any] = {"dtype": options.torch_dtype, "device_map": options.device_map}
    if options.device_map is None and options.target.type != "cpu":
        settings["device_map"] = {"": options.target}
    if quantizer is not None:
        settings["quantization_config"] = quantizer
    attention = attention_of(config, options.attn_implementation, where)
    if attention is not None:
        settings["attn_implementation"] = attention
    if attention != options.attn_implementation:  # the config file asked for an implementation that is not installed
        settings["config"] = copy.deepcopy(config)
        settings["config"]._attn_implementation = attention
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            str(folder), use_safetensors=True, trust_remote_code=False, output_loading_info=True, **settings
        )
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise ValueError(
            f"{where} does not fit into memory as {options.torch_dtype}: "
            + remedy("load it with {dtype:bfloat16}, {quantization} or {device_map:auto}.")
        ) from error
    except Exception as error:  # transformers, its kernels and quantisers raise errors of many types
        import transformers

        raise ValueError(
            f"{where}: transformers {transformers.__version__} cannot load it ({type(error).__name__}: "
            f"{first_line(error)}). Check the files in {folder} and the options of load."
        ) from error
    module, info = loaded
    if missing := sorted(info["missing_keys"]):
        raise ValueError(
            f"{where}: {len(missing)} parameters are in no file and would be random, e.g. {missing[0]}. "
            f"Is it a {type(module).__name__}?"
        )
    if unexpected := sorted(info["unexpected_keys"]):
        warnings.warn(
            f"{where}: {len(unexpected)} tensors are not part of the model, e.g. {unexpected[0]}.", stacklevel=4
        )
    return module.eval().requires_grad_(False)


def _quantization(config: Any, options: LoadOptions, where: str) -> tuple[Any, str | None]:
    """The quantization config for transformers (None if the checkpoint has one), and its name in the fingerprint."""
    stored, requested = getattr(config, "quantization_config", None), options.quantization
    if stored is not None and (requested is not None or options.merge):
        asked = remedy("leave out {quantization} and {merge}", "leave out {quantization}")
        raise ValueError(f"{where} is already quantised; {asked}.")
    if isinstance(requested, str):
        requested = _bitsandbytes(requested, options.torch_dtype)
    if stored is None and requested is None:
        return None, None
    name = quantization_name(requested if stored is None else stored)
    warnings.warn(
        f"{where} is quantised ({name}): results may differ in the last bits between machines, and edits of weights, "
        f"merging and per-head output weights are approximate.",
        stacklevel=4,
    )
    return requested, name


def _bitsandbytes(name: str, dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig

    if name not in ("4bit", "8bit"):
        raise ValueError(f"quantization {name!r}: expected '4bit', '8bit' or a transformers quantization config.")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError(f"quantization {name!r} needs bitsandbytes, which is not installed: pip install bitsandbytes")
    if name == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def _home(checkpoint: Checkpoint) -> tuple[str, str | None]:
    return checkpoint.base, checkpoint.revision


def _by_kind(members: dict[str, Checkpoint], options: LoadOptions) -> list[dict[str, Checkpoint]]:
    """Members of one base in groups that can share a Model: one kind of adapter, and one tokenizer for all.

    A member without an adapter joins the first group whose tokenizer makes the same prompts as the base's own.
    """
    groups: dict[tuple[str, str], dict[str, Checkpoint]] = {}
    bare: dict[str, Checkpoint] = {}
    files = {role: read_adapter(member) for role, member in members.items() if member.adapter is not None}
    base = replace(next(iter(members.values())), adapter=None, tokenizer=None, adapter_revision=None, subfolder=None)
    read = tokenizers_of(base_folder(base, weights=False), {**members, "": base}, files)
    digests = {role: prompts_sha256(tokenizer) for role, tokenizer in read.items()}
    own = digests[""]
    for role, member in members.items():
        reads = digests[role]
        if member.adapter is None and not options.merge and reads == own:
            bare[role] = member
            continue
        kind = "" if role not in files else str(files[role].config.get("peft_type"))
        groups.setdefault((f"{kind}{role if options.merge else ''}", reads), {})[role] = member
    host = next((key for key in groups if key[1] == own), None)
    if host is not None:
        groups[host] |= bare
    elif bare:
        groups["", own] = bare
    return list(groups.values())


def _empty(module: nn.Module) -> None:
    """Free the storage of every parameter and buffer, even if a caller still has a reference to the module."""
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = tensor.data.new_empty(0)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
