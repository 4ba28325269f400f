"""Match an adapter's safetensors header with a model without weights: where each tensor belongs, or why it cannot."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from torch import nn

from interp.adapters.active import has_adapter_layers
from interp.loading.files import AdapterFiles

_PREFIX = "base_model.model."
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
    the adapter (`.default.`) are removed, and the prefix is added where it is missing. What PEFT saves of a
    `modules_to_save` module besides its trained weights (the base's own, a second copy) is left out.

    Raises:
        ValueError: two tensors with the same name after that.
    Warns:
        UserWarning: the number of changed names, and an example.
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
        first_key: dict[str, str] = {}
        first, second = next((first_key[n], k) for k, n in names.items() if first_key.setdefault(n, k) != k)
        raise ValueError(
            f"{label}: tensors {first!r} and {second!r} are the same tensor under two names. Save the adapter again."
        )
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
    while inner.startswith(_PREFIX):
        inner = inner.removeprefix(_PREFIX)
    inner = inner.removeprefix("base_model.")
    outer = ["", *sorted({f"{name.split('.')[0]}." for name in modules if name})]
    return _PREFIX + next((f"{o}{inner}" for o in outer if _module_of(f"{o}{inner}") in modules), inner)


def _module_of(inner: str) -> str:
    """Path of the module that a tensor belongs to: up to the tuner's part of its name."""
    parts = inner.split(".")
    at = next((i for i, part in enumerate(parts) if _PART.match(part)), len(parts) - 1)
    return ".".join(part for part in parts[:at] if part != "base_layer")


_TO_TEXT = {r"^model\.language_model\.": "model.", r"^language_model\.model\.": "model."}
_TO_MULTIMODAL = {r"^model\.(?!language_model\.|visual\.)": "model.language_model."}
_NOT_TEXT = re.compile(r"^(model\.)?(visual|vision_tower|multi_modal_projector|embed_vision|embed_audio)\.")


@dataclass(frozen=True)
class AdapterPlan:
    """How one adapter is attached to one kind of model, decided from headers alone.

    Args:
        files:       the adapter.
        label:       its name in errors.
        config:      the PEFT config, its module names in the model's own terms.
        key_mapping: regular expression -> replacement on tensor names, for PEFT; empty where they already agree.
        keys:        tensor name in the file -> name in the model's adapter state, for every tensor that must be loaded.
        overwrites:  tensor name in the file -> parameter of the base it would replace (biases, embeddings).
    """

    files: AdapterFiles
    label: str
    config: Any
    key_mapping: Mapping[str, str]
    keys: Mapping[str, str]
    overwrites: Mapping[str, str]


def plan_adapter(skeleton: nn.Module, files: AdapterFiles, *, label: str = "adapter") -> AdapterPlan:
    """Match an adapter's header against a model of the right architecture that holds no weights.

    Text and multimodal classes of one model name their layers differently (`model.layers` and
    `model.language_model.layers`), and PEFT loads nothing from an adapter of the other class without an error; the
    names are mapped here. Tensors of a vision tower are left out on a text model, with a warning.

    Args:
        skeleton: the model on the `meta` device.
    Raises:
        ValueError: prompt learning, another architecture, targets the model does not have, tensors that match no module
            or have another shape, or tensors that the config promises and the file lacks.
    """
    from peft import PeftConfig, get_peft_model, get_peft_model_state_dict

    _check_architecture(files, type(skeleton).__name__, label)
    files = named_as_peft_does(files, skeleton, label)
    with peft_faults(label, "has an adapter_config.json that PEFT cannot read"):
        config: Any = PeftConfig.from_pretrained(str(files.folder))
    if getattr(config, "layer_replication", None):
        raise ValueError(
            f"{label} has layer_replication: it builds a deeper model from copies of the base's layers, so its "
            "base is a different model. Make that model once with PEFT (merge_and_unload, save_pretrained) and "
            "name its folder as `base`."
        )
    _check_vocabulary(files, skeleton, label)
    if config.is_prompt_learning or config.peft_type == "ADAPTION_PROMPT":
        raise ValueError(
            f"{label}: {files.config.get('peft_type')} adds virtual tokens, which shift positions; not supported."
        )
    own = set(skeleton.state_dict())
    mapping = _key_mapping(files.shapes, own)
    config = _mapped_config(config, mapping, files.shapes, skeleton)
    trial = copy.deepcopy(config)
    trial.base_model_name_or_path = None  # PEFT would warn of every base with another name; see warn_other_base
    if hasattr(trial, "init_lora_weights"):
        trial.init_lora_weights = True  # PiSSA and the like would decompose weights, and the skeleton has none
    with peft_faults(label, f"does not fit {type(skeleton).__name__}"):
        peft = get_peft_model(copy.deepcopy(skeleton), trial, low_cpu_mem_usage=True)
    if not has_adapter_layers(peft):
        raise ValueError(f"{label}: {files.config.get('peft_type')} has no adapter layers whose state can be checked.")
    state = get_peft_model_state_dict(peft, adapter_name="default", save_embedding_layers=False)
    expected = {key: tuple(tensor.shape) for key, tensor in state.items()}
    keys = {key: _rename(key, mapping) for key in files.shapes if not _is_foreign(key, mapping)}
    overwrites = {key: name for key in keys if (name := _base_parameter(keys[key], own, peft))}
    _check_fit(keys, overwrites, expected, files, label=label, model=type(skeleton).__name__)
    _warn_dropped(len(files.shapes) - len(keys), label)
    return AdapterPlan(files, label, config, mapping, keys, overwrites)


@contextmanager
def peft_faults(label: str, fault: str, remedy: str = "") -> Iterator[None]:
    """Re-raise whatever PEFT raises inside the block as a ValueError that names the adapter and the fault."""
    from peft import __version__

    try:
        yield
    except Exception as error:  # a config may hold anything, and PEFT checks little of it
        text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        raise ValueError(
            f"{label} {fault}: {text[:300]} ({type(error).__name__} of PEFT {__version__}). "
            + (remedy or "Does it belong to this base, and was it saved by a similar version of PEFT?")
        ) from error


def _check_vocabulary(files: AdapterFiles, skeleton: nn.Module, label: str) -> None:
    """Refuse an adapter with more embedding rows than the base: tokens were added before it was trained."""
    rows = int(skeleton.get_input_embeddings().weight.shape[0])  # pyright: ignore[reportCallIssue]
    tables = ("embed_tokens", "lm_head", "wte", "embed_in", "embed_out")
    ends = tuple(f"{t}.{end}" for t in tables for end in ("weight", "modules_to_save.weight", "lora_B.weight"))
    for key, shape in files.shapes.items():
        at = 1 if key.endswith("lora_embedding_A") else 0 if key.endswith(ends) else None  # the axis of tokens
        if at is None or len(shape) != 2 or shape[at] == rows:
            continue
        raise ValueError(
            f"{label} was trained on a vocabulary of {shape[at]} tokens ({key} is {shape}), its base has {rows}: "
            f"tokens were added before training. Make that base once and name its folder as `base`: "
            f"model = AutoModelForCausalLM.from_pretrained(base); model.resize_token_embeddings({shape[at]}); "
            f"model.save_pretrained(folder); and the adapter's tokenizer.save_pretrained(folder)."
        )


def warn_other_base(adapter: AdapterFiles, base: str, label: str) -> None:
    """Warn if the adapter names another base than the one it is loaded on; a copy in another folder is the same."""
    named = adapter.config.get("base_model_name_or_path")
    if named and _base_name(named) != _base_name(base):
        warnings.warn(
            f"{label} names {named!r} as its base and is loaded on {base!r}: the shapes fit, but whether the weights "
            f"are the same is unknown.",
            stacklevel=5,
        )


def _check_architecture(adapter: AdapterFiles, model: str, label: str) -> None:
    named = (adapter.config.get("auto_mapping") or {}).get("base_model_class")
    if named and _stem(named) != _stem(model):
        raise ValueError(f"{label} was trained on a {named}; its base here is a {model}.")


def _stem(class_name: str) -> str:
    return class_name.split("For")[0].removesuffix("Model").removesuffix("LMHead")


def _base_name(name: str) -> str:
    """Last part of a hub id or folder, lower case; of a folder of the hub's cache, the repository's."""
    parts = name.replace("\\", "/").rstrip("/").split("/")
    if len(parts) > 2 and parts[-2] == "snapshots":
        return parts[-3].split("--")[-1].lower()
    return parts[-1].lower()


def _key_mapping(keys: Iterable[str], own: Iterable[str]) -> dict[str, str]:
    has_inner = any("language_model." in key for key in own)
    wants_inner = any("language_model." in key for key in keys)
    if wants_inner == has_inner:
        return {}
    return _TO_TEXT if wants_inner else _TO_MULTIMODAL


def _rename(key: str, mapping: Mapping[str, str]) -> str:
    """The tensor's name after PEFT's own renaming: the first pattern that matches behind the prefix is applied."""
    inner = key.removeprefix(_PREFIX)
    for pattern, replacement in mapping.items():
        renamed, n_matches = re.subn(pattern, replacement, inner)
        if n_matches:
            return key[: len(key) - len(inner)] + renamed
    return key


def _is_foreign(key: str, mapping: Mapping[str, str]) -> bool:
    return mapping is _TO_TEXT and _NOT_TEXT.match(key.removeprefix(_PREFIX)) is not None


def _mapped_config(config: Any, mapping: Mapping[str, str], keys: Iterable[str], skeleton: nn.Module) -> Any:
    """The config with module names renamed like the tensors; a pattern of targets becomes the list of its modules."""
    config.inference_mode = True
    if not mapping:
        return config
    if isinstance(getattr(config, "target_modules", None), str) and config.target_modules != "all-linear":
        modules = {name for name, _ in skeleton.named_modules()}
        paths = [_rename(key, mapping).removeprefix(_PREFIX).split(".") for key in keys]
        targets = {max((p for p in _prefixes(path) if p in modules), key=len, default="") for path in paths}
        config.target_modules = sorted(targets - {""})
    for name in ("rank_pattern", "alpha_pattern"):
        pattern = getattr(config, name, None) or {}
        setattr(config, name, {_rename(key, mapping): value for key, value in pattern.items()})
    return config


def _prefixes(path: Sequence[str]) -> list[str]:
    return [".".join(path[:n]) for n in range(1, len(path) + 1)]


def _base_parameter(key: str, own: set[str], peft: nn.Module) -> str | None:
    """The base parameter a tensor of the file would replace; None for the adapter's own tensors."""
    from peft.utils.other import AuxiliaryTrainingWrapper

    name = key.removeprefix(_PREFIX).replace(".base_layer.", ".")
    if name not in own:
        return None
    wrapped = [n.removeprefix(_PREFIX) for n, m in peft.named_modules() if isinstance(m, AuxiliaryTrainingWrapper)]
    return None if any(name.startswith(f"{path}.") for path in wrapped) else name


def _check_fit(
    keys: Mapping[str, str],
    overwrites: Mapping[str, str],
    expected: Mapping[str, tuple[int, ...]],
    files: AdapterFiles,
    *,
    label: str,
    model: str,
) -> None:
    shapes = {new: files.shapes[key] for key, new in keys.items() if key not in overwrites}
    problems = []
    if unknown := sorted(set(shapes) - set(expected)):
        problems.append(f"{len(unknown)} of {len(keys)} tensors match no module of {model}, e.g. {unknown[0]}")
    if wrong := sorted(key for key in shapes if key in expected and shapes[key] != expected[key]):
        at = f"{wrong[0]} is {shapes[wrong[0]]}, the model needs {expected[wrong[0]]}"
        problems.append(f"{len(wrong)} of {len(keys)} tensors have another shape, e.g. {at}")
    if absent := sorted(set(expected) - set(shapes) - {keys[key] for key in overwrites}):
        problems.append(
            f"{len(absent)} tensors that adapter_config.json asks for are not in the file, e.g. {absent[0]}"
        )
    if problems:
        raise ValueError(
            f"{label} does not fit its base: {'; '.join(problems)}. It names its base as "
            f"{files.config.get('base_model_name_or_path')!r}."
        )


def _warn_dropped(n_dropped: int, label: str) -> None:
    if n_dropped:
        warnings.warn(
            f"{label}: {n_dropped} tensors of the vision tower are left out; a text model never runs it.", stacklevel=4
        )
