"""Attach PEFT adapters to a loaded model and verify that all their tensors were loaded and change its output."""

from __future__ import annotations

import copy
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.adapters.active import Adapters, name_roles, peft_names
from interp.adapters.plan import AdapterPlan, peft_faults
from interp.loading.files import ADAPTER_WEIGHTS, AdapterFiles
from interp.remedy import remedy

_PROBE = (3, 5, 8, 13, 21, 34, 55, 89)


def attach_adapters(base: nn.Module, plans: Mapping[str, AdapterPlan], *, allow_overwrite: bool = False) -> nn.Module:
    """`base` wrapped by PEFT with one adapter per role, the first active, in eval mode and without gradients.

    Verified before returning, on the tensors and on the logits of a fixed probe: every tensor of every file is in the
    module bit for bit (after PEFT's cast); each adapter changes the logits; without adapters they equal those of
    `base`, bit for bit.

    Args:
        plans:           role -> plan.
        allow_overwrite: accept an adapter that brings its own biases or embeddings, so that the base is lost.
    Raises:
        ValueError: a check fails; the error names the tensors.
    """
    for plan in plans.values() if not allow_overwrite else ():
        _check_overwrites(base, plan)
    with peft_faults(", ".join(plan.label for plan in plans.values()), "names tokens that do not exist"):
        probe = probe_ids(base, [plan.config for plan in plans.values()])
    bare = probe_logits(base, probe)
    with_adapter = "has a configuration with which the model cannot run"
    names = peft_names(list(plans))
    peft = _wrap(base, {names[role]: plan for role, plan in plans.items()})
    name_roles(peft, dict(names))
    for role, plan in plans.items():
        _check_values(peft, names[role], plan)
        with Adapters(peft).use(role), peft_faults(plan.label, with_adapter):
            is_inert = torch.equal(probe_logits(peft, probe), bare)
        if is_inert:
            raise ValueError(
                f"{plan.label}: its tensors are loaded, but the logits of a probe prompt are those of the base, "
                f"bit for bit. Is it untrained, or are its changes too small for {next(base.parameters()).dtype}?"
            )
    with Adapters(peft).use(None):
        is_base_intact = torch.equal(probe_logits(peft, probe), bare)
    if not is_base_intact and not allow_overwrite:
        raise ValueError(
            f"{', '.join(plan.label for plan in plans.values())}: loading changed the base itself (PiSSA, OLoRA and "
            f"CorDA do). Convert the adapter to plain LoRA when saving it, "
            f"{remedy('or load it alone with {merge:True}', 'or leave it out of the pair')}."
        )
    return peft


def _wrap(base: nn.Module, plans: Mapping[str, AdapterPlan]) -> Any:
    """A PeftModel with the adapters of `plans` by PEFT name; tensors are read on the CPU and moved by PEFT."""
    from peft import PeftModel

    peft: Any = None
    for name, plan in plans.items():
        config = copy.deepcopy(plan.config)
        how: dict[str, Any] = {"key_mapping": dict(plan.key_mapping), "torch_device": "cpu"}
        with _peft_folder(plan.files) as folder, peft_faults(plan.label, "cannot be loaded"):
            if peft is None:
                peft = PeftModel.from_pretrained(base, str(folder), adapter_name=name, config=config, **how)
            else:
                peft.add_adapter(name, config)
                peft.load_adapter(str(folder), name, **how)
    return peft.eval().requires_grad_(False)


def merge_adapter(peft: Any, plan: AdapterPlan) -> nn.Module:
    """The base with the active adapter added into its weights: W + scaling * B A in float32, then cast to W's dtype.

    Verified on the probe: the merged logits differ from the adapter's by less than a hundredth (float32) or half
    (other dtypes) of what the adapter changes.

    Raises:
        ValueError: that does not hold, as with an adapter on tied embeddings, or one whose effect is below rounding.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    probe = probe_ids(peft, [plan.config])
    adapted = probe_logits(peft, probe)
    with Adapters(peft).use(None):
        effect = (adapted - probe_logits(peft, probe)).abs().max()
    for layer in [m for m in peft.modules() if isinstance(m, BaseTunerLayer)]:
        weight: Any = layer.get_base_layer().weight
        dtype = weight.dtype
        weight.data = weight.data.float()
        with peft_faults(plan.label, "cannot be merged", remedy("Leave {merge} out.")):
            layer.merge(safe_merge=True)
        weight.data = weight.data.to(dtype)
    with warnings.catch_warnings():  # every layer is merged already, and PEFT remarks on each
        warnings.filterwarnings("ignore", message="Already following adapters were merged|All adapters are already")
        merged = peft.merge_and_unload().eval().requires_grad_(False)
    is_float32 = all(p.dtype == torch.float32 for p in merged.parameters())
    error, bound = (probe_logits(merged, probe) - adapted).abs().max(), 0.01 if is_float32 else 0.5
    if not error <= bound * effect:
        raise ValueError(
            f"{plan.label}: merged logits differ from the adapter's by {error:.3g}, where the adapter itself changes "
            f"them by {effect:.3g}; merging is not faithful here (tied embeddings? an effect below rounding?). "
            f"{remedy('Leave {merge} out.')}"
        )
    return merged


def probe_ids(module: nn.Module, configs: Iterable[Any] = ()) -> Tensor:
    """Token ids [1, pos] of the probe prompt: eight fixed ids, and up to four of the tokens an adapter trains."""
    vocab = module.get_input_embeddings().weight.shape[0]  # pyright: ignore[reportCallIssue]
    trained: list[int] = []
    for config in configs:
        tokens = getattr(config, "token_indices", None) or getattr(config, "trainable_token_indices", None) or []
        trained += [i for group in (tokens.values() if isinstance(tokens, Mapping) else [tokens]) for i in group[:4]]
    return torch.tensor([[i % vocab for i in (*trained, *_PROBE)]])


@torch.no_grad()
def probe_logits(module: nn.Module, ids: Tensor) -> Float[Tensor, "pos vocab"]:
    """Logits of the probe prompt, in float32 on the CPU.

    Raises:
        ValueError: a logit is NaN or infinite.
    """
    device = module.get_input_embeddings().weight.device  # pyright: ignore[reportCallIssue]
    logits = module(input_ids=ids.to(device), use_cache=False).logits[0].float().cpu()
    if not bool(logits.isfinite().all()):
        raise ValueError(
            "the model's logits on a probe prompt are not finite; are its weights damaged, or float16 too small for it?"
        )
    return logits


def _check_overwrites(base: nn.Module, plan: AdapterPlan) -> None:
    parameters, changed = base.state_dict(), []
    for key, tensor in plan.files.tensors(plan.overwrites):
        own = parameters[plan.overwrites[key]]
        if own.shape != tensor.shape or not torch.equal(own.cpu(), tensor.to(own.dtype)):
            changed.append(plan.overwrites[key])
    if changed:
        raise ValueError(
            f"{plan.label} brings its own values for {len(changed)} parameters of the base, e.g. {changed[0]}: the "
            f"base and other adapters on it would silently change. {remedy('Load it alone with {merge:True}.')}"
        )


def _check_values(peft: nn.Module, name: str, plan: AdapterPlan) -> None:
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(peft, adapter_name=name, save_embedding_layers=False)
    lost, damaged, is_nonzero = [], [], {}
    for key, tensor in plan.files.tensors([k for k in plan.keys if k not in plan.overwrites]):
        loaded = state.get(plan.keys[key])
        if not bool(tensor.isfinite().all()):
            damaged.append(key)
        elif loaded is None or not torch.equal(loaded.cpu(), tensor.to(loaded.dtype)):
            lost.append(key)
        is_nonzero[key] = bool(tensor.any())
    if damaged:
        raise ValueError(
            f"{plan.label}: {len(damaged)} of {len(plan.keys)} tensors hold NaN or infinities, e.g. {damaged[0]}: its "
            f"training diverged, or the file was damaged. Use an earlier checkpoint of it, or copy it again."
        )
    if lost:
        raise ValueError(f"{plan.label}: {len(lost)} of {len(plan.keys)} tensors were not loaded, e.g. {lost[0]}.")
    outputs = [key for key in is_nonzero if "lora_B" in key]
    if len(outputs) * 2 == len(is_nonzero) and outputs and not any(is_nonzero[key] for key in outputs):
        raise ValueError(f"{plan.label}: all {len(outputs)} lora_B are zero: an untrained adapter, equal to the base.")


@contextmanager
def _peft_folder(files: AdapterFiles) -> Iterator[Path]:
    """A folder that PEFT can read: the adapter's own, or a temporary one with its tensors under PEFT's names."""
    if files.is_plain:
        yield files.folder
        return
    from safetensors.torch import save

    with TemporaryDirectory(prefix="diptych-adapter-") as name:
        folder = Path(name)
        shutil.copyfile(files.folder / "adapter_config.json", folder / "adapter_config.json")
        data = save({key: tensor.contiguous() for key, tensor in files.tensors(files.sources)})
        with (folder / ADAPTER_WEIGHTS).open("wb") as file:
            file.write(data)
        yield folder
