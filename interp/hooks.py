"""The reference engine: record and edit activations with plain forward hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from interp.edits import Edit
from interp.family import Layout, Tap
from interp.model import Model, StopForward, refuse_training_mode, refuse_unmarked_padding
from interp.passes import Pass, PromptEnd, Where
from interp.site import Site, expand_sites


@dataclass
class Recorded:
    """Recording of one pass: a tensor per site and, if positions were chosen, the (item, token) of each row."""

    acts: dict[Site, Tensor] = field(default_factory=dict)
    rows: list[tuple[int, int]] | None = None


class Recording(Mapping[str, Tensor]):
    """Activations by site string, filled by the forward passes inside a `record` block.

    With positions="all" a residual site is [batch, pos, d_model] (columns of right padding included, as computed), `z`
    is [batch, pos, head, d_head], `pattern` [batch, head, pos, pos]. With chosen positions every site is [row, ...]
    and `rows` gives the (item, token) of each row. Tensors are copies, so a recording keeps no batch alive.
    """

    def __init__(self, sites: Sequence[Site]) -> None:
        self.sites = tuple(sites)
        self.passes: list[Recorded] = []

    def _only(self) -> Recorded:
        if len(self.passes) != 1:
            n, do = len(self.passes), "Use .passes[i].acts for several passes, or one block per pass."
            raise ValueError(f"expected one forward pass in the record block, {n} ran. {do}")
        return self.passes[0]

    def __getitem__(self, site: str | Site) -> Tensor:
        acts = self._only().acts
        key = site if isinstance(site, Site) else Site.parse(site)
        if key not in acts:
            raise KeyError(f"site '{key}' was not recorded; recorded: {', '.join(map(str, self.sites))}")
        return acts[key]

    @property
    def rows(self) -> list[tuple[int, int]] | None:
        """(item, token) of each row; None if all positions were recorded."""
        return self._only().rows

    def __iter__(self) -> Iterator[str]:
        return iter(str(site) for site in self.sites)

    def __len__(self) -> int:
        return len(self.sites)


@contextmanager
def record(
    model: Model | nn.Module,
    sites: str | Site | Sequence[str | Site],
    *,
    positions: Where = "all",
    stop: bool = True,
) -> Iterator[Recording]:
    """Record sites during the forward passes that run inside the block.

    A recording sees the same values as the rest of the network: inside an `edit` block the edited ones, whichever block
    was opened first. Recording does not change the computation: logits keep every bit. `pattern` switches the model
    to eager attention inside the block.

    Args:
        sites: sites, globs or slices; see `interp.site.expand_sites`.
        positions: "all", a rule that needs no text (`Last()`, `Stride(8)`), or one list of token numbers per item,
            counted from the item's first real token.
        stop: end a pass of a `Model` after the last recorded site, without outputs. A pass of a raw Hugging Face module
            always runs to its end.
    Raises:
        ValueError: the model has no such site (raised before any hook is placed), a position is outside the pass,
            padding has no mask, or no pass ran in the block.
        RuntimeError: a site did not fire exactly once in a pass (a compiled model that skips hooks), or a submodule is
            in training mode.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> shape = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
        >>> model = LlamaForCausalLM(LlamaConfig(vocab_size=99, **shape)).eval()
        >>> with record(model, "resid_post.*", positions=[[3], [0, 4]]) as acts:
        ...     _ = model(torch.arange(1, 11).view(2, 5))
        >>> acts["resid_post.1"].shape, acts.rows
        (torch.Size([3, 32]), [(0, 3), (1, 0), (1, 4)])
    """
    model = Model.wrap(model)
    expanded = expand_sites(sites, model.layout) if sites else ()
    taps = {site: model.layout.tap(site) for site in expanded}
    recorder = _Recorder(model, taps, positions, stop)
    with ExitStack() as stack:
        if any(site.kind == "pattern" for site in expanded):
            stack.enter_context(eager_attention(model.layout))
        stack.enter_context(_pass_hooks(model, recorder.begin, recorder.check))
        for site, tap in taps.items():
            stack.callback(place(tap, recorder.hook(site, tap), last=True).remove)
        if expanded:
            stack.enter_context(model.recording(recorder.is_done))
        yield recorder.recording
    if expanded and not recorder.recording.passes:
        raise ValueError(
            "no forward pass reached the hooks of this record block. Run the model inside the block; a model that was "
            "compiled and warmed up before skips hooks that are added later (compile layer by layer, or not at all)."
        )


class _Recorder:
    """State of a `record` block; owns the tensors of the running pass."""

    def __init__(self, model: Model, taps: Mapping[Site, Tap], positions: Where, stop: bool) -> None:
        self.model, self.positions, self.stop = model, positions, stop
        self.recording = Recording(tuple(taps))
        self.now: Recorded | None = None
        self.rows: dict[torch.device, Tensor] = {}
        self.is_done = _Done(self)

    def begin(self, what: Pass) -> None:
        self.now = Recorded()
        if not isinstance(self.positions, str):
            flat, self.now.rows = what.rows(self.positions)
            self.rows = {flat.device: flat}

    def take(self, site: Site, tap: Tap, whole: Tensor) -> Tensor:
        if site.kind == "pattern":  # [batch, head, query, key]; rows are queries
            whole = whole if site.head is None else whole[:, site.head]
            if isinstance(self.positions, str):
                return whole.detach().clone()
            whole = whole.movedim(-2, 1)
            return whole.flatten(0, 1).index_select(0, self._rows_on(whole.device)).detach()
        if isinstance(self.positions, str):
            # clone: a view would keep the whole tensor alive, and show later in-place changes of the library
            return tap.view.read(whole).detach().clone(memory_format=torch.contiguous_format)
        # select rows before reading heads: index_select copies, and the copy is small
        rows = whole.detach().flatten(0, 1).index_select(0, self._rows_on(whole.device))
        picked = tap.view.read(rows)
        return picked if picked.is_contiguous() else picked.contiguous()

    def _rows_on(self, device: torch.device) -> Tensor:
        if device not in self.rows:
            self.rows[device] = next(iter(self.rows.values())).to(device, non_blocking=True)
        return self.rows[device]

    def hook(self, site: Site, tap: Tap) -> Callable[[Tensor], None]:
        def see(whole: Tensor) -> None:
            if self.now is None:
                raise RuntimeError(f"site '{site}' fired outside a pass of the decoder.")
            if site in self.now.acts:
                raise RuntimeError(f"site '{site}' fired twice in one pass; expected exactly once.")
            taken = self.take(site, tap, whole)
            self.now.acts[site] = self.model.unembed(taken) if site.kind == "logits" else taken
            if self.stop and len(self.now.acts) == len(self.recording.sites) and self.model.may_stop():
                raise StopForward

        return see

    def check(self) -> None:
        """End of a pass: raise unless every site has fired and every submodule is in evaluation mode."""
        if self.now is None:
            raise RuntimeError(
                "the pass did not reach the recording hooks: the model was probably compiled and warmed up before "
                "they were placed. Use an uncompiled model, or compile its layers one by one."
            )
        missing = [str(site) for site in self.recording.sites if site not in self.now.acts]
        if missing:
            raise RuntimeError(
                f"{len(missing)} of {len(self.recording.sites)} sites did not fire in this pass: "
                f"{', '.join(missing[:5])}. A compiled module skips hooks that are added after its warm-up; use the "
                "uncompiled module."
            )
        refuse_training_mode(self.model.module)
        self.recording.passes.append(self.now)
        self.now = None


class _Done:
    """Tells a Model whether a recorder is done with the current pass, and closes a pass that was stopped."""

    def __init__(self, recorder: _Recorder) -> None:
        self.recorder = recorder

    def __call__(self) -> bool:
        now = self.recorder.now
        return self.recorder.stop and now is not None and len(now.acts) == len(self.recorder.recording.sites)

    def check(self) -> None:
        # a stopped pass never reaches the decoder's forward hook, which would have called this
        if self.recorder.now is not None or not self.recorder.recording.passes:
            self.recorder.check()


@contextmanager
def edit(
    model: Model | nn.Module, edits: Mapping[str | Site, Edit], *, positions: Where | Bool[Tensor, "item pos"] = "all"
) -> Iterator[None]:
    """Change activations during the forward passes that run inside the block.

    Edits are pure: the hook calls the edit with the site's activation and replaces it by the result, in a new tensor.
    Edits of one site act in the order in which their blocks were opened. An edit of `resid_mid` changes both the input
    of the MLP and the residual stream that the block passes on.

    Args:
        edits: site -> edit; a glob applies to each of its sites.
        positions: tokens to change, counted from each item's first real token, or a mask over the columns of the
            prompt; all others keep every bit. They are the same tokens with and without a KV cache, under padding and
            in the beams of `generate`.
    Raises:
        ValueError: the model has no such site or it cannot be edited (`logits`, `pattern`), raised before any hook is
            placed; an edit returned another shape or changed its input in place.
        RuntimeError: a site did not fire exactly once in a pass.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> shape = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
        >>> model = LlamaForCausalLM(LlamaConfig(vocab_size=99, **shape)).eval()
        >>> from interp.edits import Replace
        >>> with edit(model, {"resid_post.0": Replace(0.0)}, positions=[[2]]), record(model, "resid_post.0") as acts:
        ...     _ = model(torch.arange(1, 6).view(1, 5))
        >>> acts["resid_post.0"].abs().sum(-1).gt(0)
        tensor([[ True,  True, False,  True,  True]])
    """
    model = Model.wrap(model)
    plan = [(site, change) for word, change in edits.items() for site in expand_sites(word, model.layout)]
    for site, _ in plan:
        _refuse_uneditable(site)
    editor = _Editor(model, tuple(site for site, _ in plan), positions)
    with ExitStack() as stack:
        stack.enter_context(_pass_hooks(model, editor.begin, editor.check))
        for site, change in plan:
            for tap, see in editor.hooks(site, change):
                stack.callback(place(tap, see, last=False).remove)
        yield


def _refuse_uneditable(site: Site) -> None:
    reason = {
        "logits": "nothing is computed from them; change them in your own code",
        "pattern": "attention has used it before the hook runs; edit 'z', 'q', 'k' or 'v' instead",
    }.get(site.kind)
    if reason:
        raise ValueError(f"site '{site}' cannot be edited: {reason}.")


class _Editor:
    """State of an `edit` block: the mask of the current pass and how often each site fired."""

    def __init__(self, model: Model, sites: tuple[Site, ...], positions: Where | Tensor) -> None:
        self.model, self.sites, self.positions = model, sites, positions
        self.mask: Tensor | None = None
        self.fired: dict[Site, int] = {}
        self.changed: dict[Site, Tensor] = {}

    def begin(self, what: Pass) -> None:
        self.fired = dict.fromkeys(self.sites, 0)
        self.mask = None if isinstance(self.positions, str) else what.is_chosen(self.positions)

    def check(self) -> None:
        wrong = [f"{site} ({n} times)" for site, n in self.fired.items() if n != 1]
        if wrong:
            raise RuntimeError(f"edited sites must fire exactly once in a pass; these did not: {', '.join(wrong[:5])}.")

    def hooks(self, site: Site, change: Edit) -> list[tuple[Tap, Callable[[Tensor], Tensor]]]:
        tap = self.model.layout.tap(site)
        if site.kind != "resid_mid":
            return [(tap, lambda whole: self.apply(site, tap, change, whole))]
        # No module outputs resid_mid alone: the block adds the MLP branch to its own, unedited residual stream. So edit
        # the MLP's input, add the MLP branch to the edited value, and replace the block's output by that sum.
        layer = self.model.layout.layers[site.layer or 0]
        mlp, block = self.model.layout.branch(layer, "mlp"), self.model.layout.tap(Site("resid_post", site.layer))
        return [(tap, self._mid(site, tap, change)), (mlp, self._keep(site)), (block, self._rejoin(site))]

    def apply(self, site: Site, tap: Tap, change: Edit, whole: Tensor) -> Tensor:
        old = tap.view.read(whole)
        version = whole._version  # autograd's count of in-place changes; also counts those of views
        new = change(old)
        if whole._version != version:
            raise ValueError(f"the edit of '{site}' changed its input in place; an edit must return a new tensor.")
        if new.shape != old.shape:
            raise ValueError(f"the edit of '{site}' returned {tuple(new.shape)}, expected {tuple(old.shape)}.")
        if self.mask is not None:
            mask = self.mask.to(old.device)
            new = torch.where(mask.view(*mask.shape, *[1] * (old.ndim - 2)), new, old)
        self.fired[site] += 1
        return tap.view.write(whole, new.to(old.dtype))

    def _mid(self, site: Site, tap: Tap, change: Edit) -> Callable[[Tensor], Tensor]:
        def see(whole: Tensor) -> Tensor:
            self.changed[site] = self.apply(site, tap, change, whole)
            return self.changed[site]

        return see

    def _keep(self, site: Site) -> Callable[[Tensor], Tensor]:
        def see(branch: Tensor) -> Tensor:
            self.changed[site] = self.changed[site] + branch
            return branch

        return see

    def _rejoin(self, site: Site) -> Callable[[Tensor], Tensor]:
        return lambda whole: self.changed.pop(site)


def place(tap: Tap, see: Callable[[Tensor], Tensor | None], *, last: bool) -> Any:
    """Register `see` on the tap. Recordings (`last`) always run after edits, in any order of opening the blocks."""
    if tap.side == "in":

        def pre(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
            if args:
                new = see(args[0])
                return None if new is None else ((new, *args[1:]), kwargs)
            key = "hidden_states" if "hidden_states" in kwargs else next(iter(kwargs))
            new = see(kwargs[key])
            return None if new is None else (args, {**kwargs, key: new})

        handle = tap.module.register_forward_pre_hook(pre, with_kwargs=True)
    else:

        def post(module: nn.Module, args: tuple, output: Any) -> Any:
            if tap.element is None:
                whole = output[0] if isinstance(output, tuple) else output
                new = see(whole)
                return new if new is None or not isinstance(output, tuple) else (new, *output[1:])
            new = see(output[tap.element])
            return None if new is None else (*output[: tap.element], new, *output[tap.element + 1 :])

        handle = tap.module.register_forward_hook(post)
    _keep_recordings_last(handle, last)
    return handle


def _keep_recordings_last(handle: Any, is_recording: bool) -> None:
    """Torch runs the hooks of a module in the order of an OrderedDict: move recordings behind a new edit."""
    hooks = handle.hooks_dict_ref()
    if is_recording:
        hooks[handle.id]._is_recording = True
        return
    for key in [k for k, hook in hooks.items() if getattr(hook, "_is_recording", False)]:
        hooks.move_to_end(key)


@contextmanager
def _pass_hooks(model: Model, begin: Callable[[Pass], None], end: Callable[[], None]) -> Iterator[None]:
    """Call `begin` with the Pass before the decoder runs, and `end` after it."""
    prompt = PromptEnd()

    def pre(module: nn.Module, args: tuple, kwargs: dict) -> None:
        begin(prompt.complete(_pass_of(model, args, kwargs)))

    with ExitStack() as stack:
        stack.enter_context(prompt.watch(model.causal_lm))
        stack.callback(model.decoder.register_forward_pre_hook(pre, with_kwargs=True).remove)
        stack.callback(model.decoder.register_forward_hook(lambda module, args, output: end()).remove)
        yield


def _pass_of(model: Model, args: tuple, kwargs: dict) -> Pass:
    ids = kwargs.get("input_ids", args[0] if args else None)
    tokens = ids if ids is not None else kwargs["inputs_embeds"]
    cache = kwargs.get("past_key_values")
    mask = kwargs.get("attention_mask")
    mask = mask if isinstance(mask, Tensor) and mask.ndim == 2 else None
    batch = model.current_batch
    lengths = batch.lengths if batch is not None else None
    if ids is not None and mask is None and lengths is None and cache is None:  # a bare call with plain token ids
        refuse_unmarked_padding(ids, model.pad_id)
    past = 0 if cache is None else int(cache.get_seq_length())
    return Pass(tokens.shape[0], tokens.shape[1], past, lengths, mask)


@contextmanager
def eager_attention(layout: Layout) -> Iterator[None]:
    """Compute attention with explicit probabilities inside the block; restores the implementation afterwards."""
    before = layout.config._attn_implementation
    layout.config._attn_implementation = "eager"
    try:
        yield
    finally:
        layout.config._attn_implementation = before
