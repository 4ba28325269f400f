"""Module names of each model family, layer by layer. To add a family, add one entry to `FAMILIES`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.rope import RowRope
from interp.site import SITE_KINDS, Site, check_site, format_ranges

Side = Literal["in", "out"]


@dataclass(frozen=True)
class Family:
    """Module names of one family, relative to the decoder (`layers`, `embed`, `norm`) or to a block (the rest).

    `mid` is the module of a block whose *input* is the residual stream between attention and MLP; None where attention
    and MLP read the same stream. `attn_branch` and `mlp_branch` name the module whose output is added to the stream
    where that is a norm rather than the attention or MLP itself. `qkv` holds three projection names, or one fused
    projection and how it is laid out: `"part-major"` is [q | k | v], `"head-major"` is [q | k | v] within each head.
    `gated_q` marks query projections of twice the width, [query | gate] within each head. `windows` names the
    layers that use the configuration's `sliding_window`: those of the kind `sliding_attention`, or all of them.
    """

    layers: str = "layers"
    embed: str = "embed_tokens"
    norm: str = "norm"
    attn: Mapping[str, str] = field(default_factory=lambda: {"full_attention": "self_attn"})
    out_proj: Mapping[str, str] = field(default_factory=lambda: {"full_attention": "o_proj"})
    qkv: tuple[str, ...] = ("q_proj", "k_proj", "v_proj")
    fused: Literal["part-major", "head-major"] | None = None
    gated_q: bool = False
    mid: str | None = "post_attention_layernorm"
    attn_branch: str | None = None
    mlp: str = "mlp"
    mlp_branch: str | None = None
    windows: Literal["by kind", "every layer"] = "by kind"


_SLIDING = {"full_attention": "self_attn", "sliding_attention": "self_attn"}
_SLIDING_OUT = {"full_attention": "o_proj", "sliding_attention": "o_proj"}
_LLAMA = Family(attn=_SLIDING, out_proj=_SLIDING_OUT)
_GEMMA = Family(
    attn=_SLIDING,
    out_proj=_SLIDING_OUT,
    mid="pre_feedforward_layernorm",
    attn_branch="post_attention_layernorm",
    mlp_branch="post_feedforward_layernorm",
)
_QWEN3_5 = Family(
    attn={"full_attention": "self_attn", "linear_attention": "linear_attn"},
    out_proj={"full_attention": "o_proj", "linear_attention": "out_proj"},
    gated_q=True,
)

FAMILIES: dict[str, Family] = {
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "llama": _LLAMA,
    "mistral": Family(attn=_SLIDING, out_proj=_SLIDING_OUT, windows="every layer"),
    "qwen3_5": _QWEN3_5,
    "qwen3_5_text": _QWEN3_5,
    "gemma2": _GEMMA,
    "gemma3": _GEMMA,
    "gemma3_text": _GEMMA,
    "olmo2": Family(mid="mlp", attn_branch="post_attention_layernorm", mlp_branch="post_feedforward_layernorm"),
    "gpt2": Family(
        layers="h",
        embed="wte",
        norm="ln_f",
        attn={"full_attention": "attn"},
        out_proj={"full_attention": "c_proj"},
        qkv=("c_attn",),
        fused="part-major",
        mid="ln_2",
    ),
    "gpt_neox": Family(
        embed="embed_in",
        norm="final_layer_norm",
        attn={"full_attention": "attention"},
        out_proj={"full_attention": "dense"},
        qkv=("query_key_value",),
        fused="head-major",
    ),
}


@dataclass(frozen=True)
class View:
    """The part of a module's last axis that a site names: unflatten to `shape`, then pick `index` along `axis`.

    `axis` counts from the end of the unflattened tensor. With `head` set, it is one head of the result.
    """

    shape: tuple[int, ...] = ()
    axis: int | None = None
    index: int = 0
    head: int | None = None

    def read(self, output: Tensor) -> Tensor:
        """The site's activation as a view of the module's tensor."""
        part = output.unflatten(-1, self.shape) if self.shape else output
        part = part if self.axis is None else part.select(self.axis, self.index)
        return part if self.head is None else part.select(-2, self.head)

    def write(self, output: Tensor, new: Tensor) -> Tensor:
        """A new module tensor in which the site's part is `new`; `output` is not changed."""
        if not self.shape:
            return new
        out = output.clone()
        self.read(out).copy_(new)
        return out


@dataclass(frozen=True)
class Tap:
    """Where a site is read or changed: one side of one module, and the part of its tensor that is meant.

    `element` is the position in a tuple output (None where the output is a tensor). `head_axis` is set for `pattern`,
    whose heads have their own axis.
    """

    module: nn.Module
    side: Side
    view: View = View()
    element: int | None = None


@dataclass(frozen=True)
class Layer:
    """One block: kind, head geometry, modules. `n_heads` counts query heads (value heads of a DeltaNet layer).

    `window` is how many tokens a token attends to, including itself; None: all before it.
    """

    index: int
    kind: str
    n_heads: int
    n_kv_heads: int
    d_head: int
    window: int | None
    block: nn.Module = field(repr=False)
    attn: nn.Module = field(repr=False)
    out_proj: nn.Module = field(repr=False)
    mlp: nn.Module = field(repr=False)


def _child(parent: nn.Module, name: str, *, of: str) -> nn.Module:
    child = getattr(parent, name, None)
    if not isinstance(child, nn.Module):
        have = ", ".join(n for n, _ in parent.named_children())
        raise ValueError(f"{of}: expected a submodule {name!r} in {type(parent).__name__}; it has: {have}.")
    return child


class Layout:
    """The parts of one loaded decoder: `layers[i]`, and `tap(site)` for every site of the table.

    Args:
        decoder: the transformer without its unembedding (`model.get_decoder()`), including PEFT wrappers inside.
        family: module names; by default looked up by `config.model_type`.
    Raises:
        ValueError: unknown family, a module that is not where the family says, or an o_proj whose width is not
            n_heads * d_head.
    """

    def __init__(self, decoder: nn.Module, *, family: Family | None = None) -> None:
        self.decoder = decoder
        self.config: Any = decoder.config
        model_type: str = self.config.model_type
        if family is None and model_type not in FAMILIES:
            raise ValueError(
                f"model type {model_type!r} ({type(decoder).__name__}) is not a known family. Known: "
                f"{', '.join(FAMILIES)}. Pass family=interp.Family(...) with its module names to use it anyway."
            )
        self.family = family or FAMILIES[model_type]
        self.embed = _child(decoder, self.family.embed, of=model_type)
        self.final_norm = _child(decoder, self.family.norm, of=model_type)
        blocks = _child(decoder, self.family.layers, of=model_type)
        self._kinds = _layer_kinds(self.config, self.family)
        self.layers: tuple[Layer, ...] = tuple(self._layer(i, block) for i, block in enumerate(blocks.children()))
        self.d_model: int = self.config.hidden_size
        self.rope = RowRope.on(decoder)

    @property
    def n_layers(self) -> int:
        return len(self.layers)

    @cached_property
    def head_layers(self) -> tuple[int, ...]:
        """Layers with softmax attention, i.e. with `q`, `k`, `v` and `pattern`."""
        return tuple(layer.index for layer in self.layers if layer.kind != "linear_attention")

    @property
    def is_hybrid(self) -> bool:
        """Whether some layers are recurrent, so that padding, packing and K/V prefixes need care."""
        return len(self.head_layers) < self.n_layers

    def _layer(self, index: int, block: nn.Module) -> Layer:
        kind = self._kinds[index] if self._kinds else "full_attention"
        if kind not in self.family.attn:
            raise ValueError(
                f"layer {index} is of kind {kind!r}; {self.config.model_type} knows {list(self.family.attn)}."
            )
        attn = _child(block, self.family.attn[kind], of=f"layer {index}")
        out_proj = _child(attn, self.family.out_proj[kind], of=f"layer {index} ({kind})")
        n_heads, n_kv_heads, d_head = _head_geometry(self.config, kind)
        width = _in_features(out_proj)
        if width != n_heads * d_head:
            raise ValueError(
                f"layer {index} ({kind}): expected an output projection of width {n_heads} heads x {d_head}, "
                f"found {width}. Heads that are split over devices must be gathered first."
            )
        mlp = _child(block, self.family.mlp, of=f"layer {index}")
        window = self.config.sliding_window if kind == "sliding_attention" else None
        return Layer(index, kind, n_heads, n_kv_heads, d_head, window, block, attn, out_proj, mlp)

    def has(self, kind: str, layer: int) -> bool:
        """Whether this layer has sites of this kind."""
        if kind in ("q", "k", "v", "pattern"):
            return self.layers[layer].kind != "linear_attention"
        return kind != "resid_mid" or self.mid_name is not None

    @cached_property
    def mid_name(self) -> str | None:
        """The module of a block that reads `resid_mid`; None for parallel residuals, which have no such point."""
        return None if getattr(self.config, "use_parallel_residual", False) else self.family.mid

    def row_shape(self, site: Site) -> tuple[int, ...]:
        """Shape of the site's activation at one position; `pattern` has no fixed one.

        Raises:
            ValueError: the model has no such site, or the site is a `pattern`.
        """
        check_site(site, self)
        if site.kind == "pattern":
            raise ValueError(f"site '{site}' has one entry per attended position, so rows of it have no common shape.")
        if site.kind == "logits":
            return (self.config.vocab_size,)
        if SITE_KINDS[site.kind].heads is None:
            return (self.d_model,)
        layer = self.layers[site.layer or 0]
        heads = layer.n_kv_heads if SITE_KINDS[site.kind].heads == "kv" else layer.n_heads
        return (layer.d_head,) if site.head is not None else (heads, layer.d_head)

    def tap(self, site: Site) -> Tap:
        """Where to read or change `site`; `logits` taps the final norm, whose output the unembedding reads.

        Raises:
            ValueError: the model has no such site.
        """
        check_site(site, self)
        if site.kind == "embed":
            return Tap(self.embed, "out")
        if site.kind == "logits":
            return Tap(self.final_norm, "out")
        layer = self.layers[site.layer or 0]
        return _TAPS[site.kind](self, layer, site)

    def branch(self, layer: Layer, which: Literal["attn", "mlp"]) -> Tap:
        """What the attention or MLP adds to the residual stream (a post-norm's output where there is one)."""
        name = self.family.attn_branch if which == "attn" else self.family.mlp_branch
        if name is not None:
            return Tap(_child(layer.block, name, of=f"layer {layer.index}"), "out")
        return _attn_out(self, layer, None) if which == "attn" else Tap(layer.mlp, "out")

    def __repr__(self) -> str:
        kinds = {k: [x.index for x in self.layers if x.kind == k] for k in dict.fromkeys(x.kind for x in self.layers)}
        parts = ", ".join(f"{kind} {format_ranges(at)}" for kind, at in kinds.items())
        return f"Layout({self.config.model_type}: {self.n_layers} layers, d_model {self.d_model}, {parts})"


def _layer_kinds(config: Any, family: Family) -> list[str] | None:
    """Kind of every layer; None if all have full attention.

    A `sliding_window` that the family's attention ignores is removed from the configuration: the caches of transformers
    would still drop keys by it, and generated text would come from another model than the activations.
    """
    window, kinds = getattr(config, "sliding_window", None), getattr(config, "layer_types", None)
    if family.windows == "every layer":
        return None if window is None else ["sliding_attention"] * config.num_hidden_layers
    if window is not None and not kinds:
        warnings.warn(
            f"config key sliding_window: {window} is ignored: attention of {config.model_type} has no window.",
            stacklevel=5,
        )
        config.sliding_window = None
    return kinds


def _head_geometry(config, kind: str) -> tuple[int, int, int]:
    """(query heads, key-value heads, head width) of a layer kind; a DeltaNet layer's heads are its value heads."""
    if kind == "linear_attention":
        return config.linear_num_value_heads, config.linear_num_key_heads, config.linear_value_head_dim
    n_heads = config.num_attention_heads
    d_head = getattr(config, "head_dim", None) or config.hidden_size // n_heads
    return n_heads, getattr(config, "num_key_value_heads", None) or n_heads, d_head


def _in_features(linear: nn.Module) -> int:
    """Input width of a linear module, a GPT-2 `Conv1D` (`nx`) or a PEFT wrapper of either."""
    wrapper: Any = linear
    base: Any = wrapper.get_base_layer() if hasattr(linear, "get_base_layer") else linear
    return base.in_features if hasattr(base, "in_features") else base.nx


def _attn_out(layout: Layout, layer: Layer, site: Site | None) -> Tap:
    return Tap(layer.attn, "out", element=None if layer.kind == "linear_attention" else 0)


def _mid(layout: Layout, layer: Layer, site: Site) -> Tap:
    return Tap(_child(layer.block, layout.mid_name or "", of=f"layer {layer.index}"), "in")


def _z(layout: Layout, layer: Layer, site: Site) -> Tap:
    return Tap(layer.out_proj, "in", View((layer.n_heads, layer.d_head), head=site.head))


def _projection(layout: Layout, layer: Layer, site: Site) -> Tap:
    family, part = layout.family, "qkv".index(site.kind)
    heads = layer.n_heads if site.kind == "q" else layer.n_kv_heads
    if family.fused == "part-major":
        view = View((3, layer.n_heads, layer.d_head), axis=-3, index=part, head=site.head)
    elif family.fused == "head-major":
        view = View((layer.n_heads, 3, layer.d_head), axis=-2, index=part, head=site.head)
    elif family.gated_q and site.kind == "q":
        view = View((heads, 2, layer.d_head), axis=-2, index=0, head=site.head)
    else:
        view = View((heads, layer.d_head), head=site.head)
    name = family.qkv[0] if family.fused else family.qkv[part]
    return Tap(_child(layer.attn, name, of=f"layer {layer.index}"), "out", view)


_TAPS: dict[str, Callable[[Layout, Layer, Site], Tap]] = {
    "resid_pre": lambda layout, layer, site: Tap(layer.block, "in"),
    "resid_mid": _mid,
    "resid_post": lambda layout, layer, site: Tap(layer.block, "out"),
    "attn_out": _attn_out,
    "mlp_out": lambda layout, layer, site: Tap(layer.mlp, "out"),
    "z": _z,
    "q": _projection,
    "k": _projection,
    "v": _projection,
    "pattern": lambda layout, layer, site: Tap(layer.attn, "out", element=1),
}


@torch.no_grad()
def head_output_weights(layer: Layer) -> tuple[Float[Tensor, "head d_head d_model"], Float[Tensor, "d_model"]]:
    """Each head's map into the residual stream, including adapters of any PEFT type, and the projection's bias.

        attn_out = sum_h z[h] @ weights[h] + bias

    The output projection is affine in its input, so it is probed with the identity: bias = f(0), rows = f(I) - f(0).

    Returns:
        weights[head, d_head, d_model] and bias[d_model], in the dtype and on the device of the projection.
    Source: linearity of o_proj under LoRA, rsLoRA and DoRA, asserted in tests/test_family.py.
    """
    weight = next(p for p in layer.out_proj.parameters() if p.is_floating_point())
    width = layer.n_heads * layer.d_head
    eye = torch.eye(width, dtype=weight.dtype, device=weight.device)
    bias = layer.out_proj(eye.new_zeros(1, width))[0]
    return (layer.out_proj(eye) - bias).unflatten(0, (layer.n_heads, layer.d_head)), bias
