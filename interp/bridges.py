"""The same model in TransformerLens and nnsight, with our names of sites: independent checks, and their tools.

Neither is an engine here. TransformerLens has its hooks and circuitsvis; nnsight has remote execution. Both are in the
extra `bridges` and are imported inside the functions that need them.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.model import Model
from interp.site import Site

if TYPE_CHECKING:
    from nnsight import NNsight
    from transformer_lens.model_bridge import TransformerBridge

# TransformerLens's `hook_attn_out` and `hook_mlp_out` are the branches (after a post-norm where there is one); our
# words name the modules' outputs, to which the heads sum: `attn.hook_out` and `mlp.hook_out` there.
LENS_NAMES = {
    "resid_pre": "hook_resid_pre", "resid_mid": "hook_resid_mid", "resid_post": "hook_resid_post",
    "attn_out": "attn.hook_out", "mlp_out": "mlp.hook_out",
    "z": "attn.hook_z", "q": "attn.hook_q", "k": "attn.hook_k", "v": "attn.hook_v", "pattern": "attn.hook_pattern",
}  # fmt: skip
"""Kind of site -> name in a block of TransformerLens."""
NNSIGHT_KINDS = ("resid_pre", "attn_out", "mlp_out", "resid_post", "z")


def to_transformer_lens(model: Model, *, tokenizer: Any = None) -> TransformerBridge:
    """A TransformerBridge over the same weights; `model` itself is not changed (the bridge replaces submodules).

    Active adapters are included, but not on a fused q-k-v projection (GPT-2, NeoX): the bridge splits the
    base weight and drops the adapter's part. Merge there first (`load(..., merge=True)`).

    Args:
        tokenizer: default: the model's own.
    Raises:
        ImportError: the extra `bridges` is not installed.
        ValueError: no tokenizer.
    Source: tests/test_family.py compares both with our recording, ten families, with and without LoRA.
    """
    bridge = _import("transformer_lens.model_bridge").TransformerBridge
    tokenizer = tokenizer if tokenizer is not None else model.tokenizer
    if tokenizer is None:
        raise ValueError(f"to_transformer_lens: {model.name} has no tokenizer, which the bridge requires. Pass one.")
    shared = {id(tensor): tensor for tensor in (*model.causal_lm.parameters(), *model.causal_lm.buffers())}
    twin = copy.deepcopy(model.causal_lm, memo=shared)
    return bridge.boot_transformers(model.name, hf_model=twin, tokenizer=tokenizer, device=str(model.device))


def read_transformer_lens(
    bridge: TransformerBridge, ids: Int[Tensor, "batch pos"], sites: Sequence[str | Site]
) -> dict[str, Tensor]:
    """Activations of one forward pass of the bridge under our names of sites, as TransformerLens shapes them.

    Raises:
        ValueError: a site of a kind that TransformerLens does not have, or that its cache lacks; lists the kinds.
    """
    named = {str(site): Site.parse(str(site)) for site in sites}
    strange = [name for name, site in named.items() if site.kind not in LENS_NAMES]
    if strange:
        raise ValueError(f"TransformerLens has no name for {', '.join(strange)}. Kinds: {', '.join(LENS_NAMES)}.")
    names = {name: f"blocks.{site.layer}.{LENS_NAMES[site.kind]}" for name, site in named.items()}
    with torch.no_grad():
        _, cache = bridge.run_with_cache(ids)
    missing = [site for site, name in names.items() if name not in cache.cache_dict]
    if missing:
        raise ValueError(f"this bridge records no {', '.join(missing)} ({names[missing[0]]} is not in its cache).")
    return {site: cache.cache_dict[name] for site, name in names.items()}


def to_nnsight(model: Model) -> NNsight:
    """The decoder in nnsight: the same modules, including adapters; nothing is copied. Its traces run locally.

    Raises:
        ImportError: the extra `bridges` is not installed.
        ValueError: (from a `trace`, `session` or `edit`) remote=True or backend=: a server of nnsight has its own copy
            of a hub model, not these weights, and nnsight itself would silently run such a trace locally.
    """
    tracer = _import("nnsight").NNsight(model.decoder)
    for name in ("trace", "session", "edit", "scan"):
        inner = getattr(tracer, name, None)
        if callable(inner):
            object.__setattr__(tracer, name, _local_only(name, inner))
    return tracer


def _local_only(name: str, inner: Callable[..., Any]) -> Callable[..., Any]:
    """`inner`, but remote execution is an error."""

    @functools.wraps(inner)
    def run(*args: Any, **kwargs: Any) -> Any:
        asked = [key for key in ("remote", "backend") if kwargs.get(key)]
        if asked:
            raise ValueError(
                f"{name}({asked[0]}={kwargs[asked[0]]!r}): this is the model in memory, which no server has. Leave "
                f"{asked[0]} out, or open the hub model with nnsight.LanguageModel for remote execution."
            )
        return inner(*args, **kwargs)

    return run


def read_nnsight(
    model: Model, ids: Int[Tensor, "batch pos"], sites: Sequence[str | Site]
) -> dict[str, Float[Tensor, "batch pos d"]]:
    """Activations of one nnsight trace per layer under our names of sites; `z` with its heads in one axis.

    Raises:
        ValueError: a site of another kind than `NNSIGHT_KINDS`, or a layer that the model lacks.
    """
    named = {str(site): Site.parse(str(site)) for site in sites}
    strange = [name for name, site in named.items() if site.kind not in NNSIGHT_KINDS]
    if strange:
        raise ValueError(f"read_nnsight reads {', '.join(NNSIGHT_KINDS)}, not {', '.join(strange)}. Use interp.record.")
    tracer, paths = to_nnsight(model), {id(module): name for name, module in model.decoder.named_modules()}
    recorded: dict[str, Tensor] = {}
    for index in sorted({int(site.layer or 0) for site in named.values()}):
        taken = _trace_layer(tracer, paths, model, index, ids)
        recorded |= {name: taken[site.kind] for name, site in named.items() if site.layer == index}
    return {name: recorded[name] for name in named}


def _trace_layer(tracer: Any, paths: dict[int, str], model: Model, index: int, ids: Tensor) -> dict[str, Tensor]:
    """Everything of one block in one trace; nnsight reads in the order in which modules run."""
    layers = model.layout.layers
    if not 0 <= index < len(layers):
        raise ValueError(f"layer {index}: {model.name} has {len(layers)} layers (0-{len(layers) - 1}).")
    layer = layers[index]
    parts = (layer.block, layer.attn, layer.out_proj, layer.mlp)
    block, attn, out_proj, mlp = (_at(tracer, paths[id(module)]) for module in parts)
    with torch.no_grad(), tracer.trace(ids, use_cache=False):
        pre = block.input.save()
        z = out_proj.input.save()
        attn_out = attn.output.save()
        mlp_out = mlp.output.save()
        post = block.output.save()
    named = {"resid_pre": pre, "z": z, "attn_out": attn_out, "mlp_out": mlp_out, "resid_post": post}
    return {kind: value[0] if isinstance(value, tuple) else value for kind, value in named.items()}


def logit_lens(model: Model, resid: Float[Tensor, "... d_model"]) -> Float[Tensor, "... vocab"]:
    """Logits of the residual stream at this point, as if the model ended here.

        logits = unembed(final_norm(resid))

    Middle layers write in a basis that the last norm was not fitted to: a token that the lens does not show may
    still be encoded. For the last layer it is the model's own output.

    Args:
        resid: a residual stream, from a cache or a recording, of any layer.
    Raises:
        ValueError: another width than the model's.
    Source: nostalgebraist 2020, "interpreting GPT: the logit lens".
    """
    if resid.shape[-1] != model.d_model:
        raise ValueError(
            f"logit_lens: the residual stream of {model.name} is {model.d_model} wide, got {resid.shape[-1]}."
        )
    norm: nn.Module = model.layout.final_norm
    with torch.no_grad():
        return model.unembed(norm(resid.to(device=model.device, dtype=model.dtype)))


def _at(root: Any, path: str) -> Any:
    for part in path.split("."):
        root = root[int(part)] if part.isdigit() else getattr(root, part)
    return root


def _import(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.split(".")[0]
        raise ImportError(f"{package} is not installed: pip install 'diptych[bridges]'. ({error})") from error
