"""A loaded checkpoint: its module, tokenizer, layout and adapters, and the forward pass of a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.adapters import Adapters
from interp.family import Family, Layout
from interp.passes import Batch, TokenLists, pad, positions_from_mask

if TYPE_CHECKING:
    from interp.checkpoint import Checkpoint, Fingerprint


class StopForward(Exception):  # noqa: N818  (control flow, not an error)
    """Raised by a recording hook after the last requested activation."""


class StoppedForward:
    """Result of a pass that ended after the last recorded site: it has no outputs, and accessing them is an error."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"{name!r}: this pass ended after the last recorded site and has no outputs. Record the site 'logits', "
            f"or use record(..., stop=False) to run the whole model."
        )


class Model:
    """A loaded causal LM with its decoder, its layout and its adapters.

    Calling it with token lists (or a tensor) runs a forward pass, right-padded without a mask. While a `record` block
    is open the pass runs the decoder alone and ends after the last layer that is needed; the vocabulary projection is
    computed only for the site `logits`.

    Attributes:
        module: the Hugging Face model, or the PeftModel around it.
        layout: where each site is; see `interp.family.Layout`.
        adapters: `adapters.use("engaged" | None)`; see `interp.adapters.Adapters`.
        checkpoint, fingerprint: what was loaded; None for a module wrapped by hand.
        members: role -> checkpoint of every loaded member, including full fine-tunes; see `member`.
    """

    def __init__(
        self,
        module: nn.Module,
        tokenizer: Any = None,
        *,
        checkpoint: Checkpoint | None = None,
        fingerprint: Fingerprint | None = None,
        family: Family | None = None,
        members: Mapping[str, Checkpoint] | None = None,
    ) -> None:
        self.module = module
        self.tokenizer = tokenizer
        self.checkpoint = checkpoint
        self.fingerprint = fingerprint
        self.members: Mapping[str, Checkpoint] = dict(members or {})
        _refuse_prompt_learning(module)
        base: Any = module
        self.causal_lm: Any = base.get_base_model() if hasattr(base, "get_base_model") else base
        self.decoder: nn.Module = self.causal_lm.get_decoder()
        self.layout = Layout(self.decoder, family=family)
        self.adapters = Adapters(module)
        self._open: list[Callable[[], bool]] = []
        self._batch: Batch | None = None

    @classmethod
    def wrap(cls, module: nn.Module | Model, tokenizer: Any = None, **kwargs: Any) -> Model:
        """`module` itself if it is a Model already, else a Model around a Hugging Face or PEFT module."""
        return module if isinstance(module, Model) else cls(module, tokenizer, **kwargs)

    @property
    def n_layers(self) -> int:
        return self.layout.n_layers

    @property
    def d_model(self) -> int:
        return self.layout.d_model

    @property
    def device(self) -> torch.device:
        """Where inputs go: the device of the embedding."""
        return next(self.layout.embed.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.layout.embed.parameters()).dtype

    @property
    def name(self) -> str:
        return self.checkpoint.name if self.checkpoint else type(self.causal_lm).__name__

    @property
    def current_batch(self) -> Batch | None:
        """The batch of the pass that is running, if this Model runs it; hooks read its lengths."""
        return self._batch

    @property
    def pad_id(self) -> int:
        """The tokenizer's padding id, else the configuration's, else 0; its value never changes a result."""
        candidates = (getattr(self.tokenizer, "pad_token_id", None), getattr(self.layout.config, "pad_token_id", None))
        return next((int(i) for i in candidates if i is not None and i >= 0), 0)

    def batch(
        self,
        ids: TokenLists | Int[Tensor, "batch pos"],
        *,
        lengths: Sequence[int] | None = None,
        attention_mask: Int[Tensor, "batch pos"] | None = None,
        position_ids: Int[Tensor, "batch pos"] | None = None,
    ) -> Batch:
        """The input as one Batch on the model's device.

        Raises:
            ValueError: a tensor with padding but neither mask nor lengths; packed rows (position_ids that restart) on a
                hybrid, whose recurrent state would leak from one text into the next.
        """
        if not isinstance(ids, Tensor):
            if lengths is not None or attention_mask is not None or position_ids is not None:
                raise ValueError("token lists carry their own lengths; lengths, masks and positions go with a tensor.")
            self._check_ids(ids)
            return pad(ids, pad_id=self.pad_id).to(self.device)
        if lengths is not None and attention_mask is not None:
            raise ValueError("lengths= and attention_mask= both say which tokens are real; give one of the two.")
        if attention_mask is not None:
            refuse_gaps(attention_mask)
        if lengths is None and attention_mask is None:
            refuse_unmarked_padding(ids, self.pad_id)
        if attention_mask is not None and position_ids is None:
            position_ids = positions_from_mask(attention_mask)
        if position_ids is not None:
            self._refuse_packing(position_ids, attention_mask)
        batch = Batch(ids, None if lengths is None else tuple(lengths), attention_mask, position_ids)
        return batch.to(self.device)

    def __call__(self, ids: TokenLists | Int[Tensor, "batch pos"], **kwargs: Any) -> Any:
        """Run one forward pass; keyword arguments are those of `batch`.

        Returns:
            The Hugging Face output with `.logits`, or a `StoppedForward` while a `record` block is open.
        """
        batch = self.batch(ids, **kwargs)
        with self._running(batch):
            if not self._open:
                return self.module(**batch.kwargs, use_cache=False)
            try:
                with torch.no_grad():
                    self.decoder(**batch.kwargs, use_cache=False)
            except StopForward:
                pass
        self._check_recordings()
        return StoppedForward()

    def _check_ids(self, ids: TokenLists) -> None:
        """Refuse a token without a row in the embedding: an IndexError on a CPU, but on a GPU it kills the process."""
        rows = int(self.layout.embed.weight.shape[0])  # pyright: ignore[reportArgumentType, reportIndexIssue]
        for row in ids:
            beyond = next((i for i in (min(row), max(row)) if not 0 <= i < rows), None) if len(row) else None
            if beyond is not None:
                size = "" if self.tokenizer is None else f" (its tokenizer has {len(self.tokenizer)} tokens)"
                raise ValueError(
                    f"token id {beyond}: the embedding of {self.name} has {rows} rows{size}. The tokenizer belongs to "
                    f"another model, or tokens were added to it and not to the weights: name the right one with the "
                    f"checkpoint's `tokenizer` key."
                )

    @torch.no_grad()
    def unembed(self, final: Float[Tensor, "... d_model"]) -> Float[Tensor, "... vocab"]:
        """Logits of rows that have passed the final norm, with the model's soft-capping, if any."""
        logits = self.causal_lm.get_output_embeddings()(final)
        cap = getattr(self.layout.config, "final_logit_softcapping", None)
        return logits if cap is None else torch.tanh(logits / cap) * cap

    @contextmanager
    def member(self, role: str | None) -> Iterator[None]:
        """Inside the block this Model computes as the member `role` of its pair.

        A member with an adapter has it applied; one without (a full fine-tune, a base) has none applied. None is the
        bare base. Everything is restored afterwards, as by `adapters.use`.

        Raises:
            ValueError: a role that this Model does not have.
        """
        if role in self.adapters.names:
            with self.adapters.use(role):
                yield
            return
        alone = () if self.members or self.adapters.names else (self.name,)
        roles = dict.fromkeys((*self.members, *self.adapters.names, *alone))
        bare = role is None or role in alone or (role in self.members and self.members[role].adapter is None)
        if not bare:
            raise ValueError(f"member {role!r} is not in this model; members: {', '.join(roles)} (None: the base).")
        with self.adapters.use(None):
            yield

    @contextmanager
    def _running(self, batch: Batch) -> Iterator[None]:
        before, self._batch = self._batch, batch
        try:
            with self.layout.rope.of_texts(batch.lengths):
                yield
        finally:
            self._batch = before

    @contextmanager
    def recording(self, is_done: Callable[[], bool]) -> Iterator[None]:
        """Register a recording: a pass ends early once every open recording has all it needs."""
        self._open.append(is_done)
        try:
            yield
        finally:
            self._open.remove(is_done)

    def may_stop(self) -> bool:
        """Whether this Model runs the present pass and no open recording needs more of it."""
        return self._batch is not None and all(is_done() for is_done in self._open)

    def _check_recordings(self) -> None:
        for is_done in self._open:
            check = getattr(is_done, "check", None)
            if check is not None:
                check()

    def _refuse_packing(self, position_ids: Tensor, attention_mask: Tensor | None) -> None:
        if not self.layout.is_hybrid or position_ids.shape[1] < 2:
            return
        restarts = position_ids.diff(dim=1) < 0
        if attention_mask is not None:
            restarts = restarts & attention_mask[:, 1:].bool()
        if bool(restarts.any()):
            raise ValueError(
                f"packed rows (position_ids that restart) were given to {self.layout.config.model_type}, which has "
                f"recurrent layers: texts would leak into each other. Give the texts as separate token lists."
            )

    def __repr__(self) -> str:
        return f"Model({self.name}, {self.layout!r}, adapters {list(self.adapters.names)})"


def refuse_training_mode(module: nn.Module) -> None:
    """Raise a RuntimeError if any submodule is in training mode, where dropout makes activations random."""
    if any(part.training for part in _parts(module)):
        training = [name or type(module).__name__ for name, part in module.named_modules() if part.training]
        raise RuntimeError(
            f"{len(training)} submodules are in training mode ({', '.join(training[:3])}, ...), so dropout would make "
            f"activations random. Call .eval() on the module that you pass (an adapter loaded later may "
            f"be training while the model is not)."
        )


def _parts(module: nn.Module) -> Iterator[nn.Module]:
    """The module and all below it; without their names, which take longer than the walk."""
    waiting: list[nn.Module | None] = [module]
    while waiting:
        part = waiting.pop()
        if part is not None:
            yield part
            waiting += part._modules.values()


def refuse_unmarked_padding(ids: Tensor, pad_id: int) -> None:
    """Raise a ValueError if rows begin or end with the padding id and neither mask nor lengths mark the real tokens."""
    if ids.shape[0] > 1 and bool(((ids[:, 0] == pad_id) | (ids[:, -1] == pad_id)).any()):
        raise ValueError(
            f"the batch tensor {tuple(ids.shape)} holds the padding id {pad_id} at its edge, but neither "
            f"attention_mask nor lengths came with it, so pads would be read as text. "
            f"Pass token lists, attention_mask=, or lengths=."
        )


def refuse_gaps(attention_mask: Int[Tensor, "batch pos"]) -> None:
    """Raise a ValueError unless the real tokens of every row are one run of columns; positions are counted along it."""
    before = attention_mask.new_zeros(len(attention_mask), 1)
    edges = attention_mask.diff(dim=1, prepend=before).clamp(min=0).sum(dim=1)
    if bool((edges != 1).any()):
        row = int((edges != 1).nonzero()[0])
        raise ValueError(
            f"attention_mask, row {row}: expected one run of real tokens, found {int(edges[row])}. "
            f"A mask with gaps has no token numbers; give the tokens as lists."
        )


def _refuse_prompt_learning(module: nn.Module) -> None:
    for name, config in getattr(module, "peft_config", {}).items():
        if getattr(config, "is_prompt_learning", False):
            raise ValueError(
                f"adapter {name!r} is {config.peft_type}: it adds virtual tokens rather than changing weights, so "
                f"token positions would shift. Expected an adapter on the weights (LoRA, DoRA, IA3, ...)."
            )
