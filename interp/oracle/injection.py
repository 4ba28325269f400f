"""Injection into a running model: one hook on the oracle's block, which tracks the columns that each pass computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Literal

from jaxtyping import Float
from torch import Tensor, nn

from interp.hooks import place
from interp.injection import Slots, check_vectors, inject_at, norm_matched_injection
from interp.model import Model
from interp.site import Site

if TYPE_CHECKING:
    from interp.oracle.spec import OracleSpec

__all__ = ["inject", "norm_matched_injection"]


@contextmanager
def inject(
    model: Model | nn.Module,
    vectors: Float[Tensor, "slots d_model"],
    positions: Sequence[Sequence[int]],
    spec: OracleSpec,
    *,
    names: Sequence[str] | None = None,
    grad: Literal["residual", "vector"] = "residual",
) -> Iterator[None]:
    """Inject the vectors at their slots into the output of the oracle's block, during the passes inside this block.

        with inject(model, vectors, positions, spec):
            logits = model(input_ids=..., attention_mask=..., position_ids=...).logits

    A slot is a column of the padded batch, counted over cached and new columns together. It is injected in the pass
    that computes it and in no other: chunked prefill, decoding steps and cached continuations are correct, and a pass
    without a cache injects at the same columns every time. With gradient checkpointing, call `backward` inside the
    block, since it runs the hooked layer again.

    Args:
        vectors: one per slot, row by row of the batch.
        positions: columns of each row of the batch (left padding counts).
        names: descriptions of the slots, for error messages.
        grad: "vector" lets gradients through to the vectors.
    Raises:
        ValueError: as `norm_matched_injection`, or the model has no such block, before any forward; inside, a pass with
            another batch size than `positions` (beams and samples share a prompt: expand its cache instead).
    """
    model = Model.wrap(model)
    check_vectors(vectors, d_model=model.d_model, names=names)
    slots = Slots.of(positions, n_vectors=len(vectors), batch=len(positions))
    tap = model.layout.tap(Site("resid_post", spec.hook_layer))
    injector = _Injector(vectors.to(model.device), slots.to(model.device), len(positions), spec, grad)
    with ExitStack() as stack:
        stack.callback(model.decoder.register_forward_pre_hook(injector.begin, with_kwargs=True).remove)
        stack.callback(place(tap, injector.see, last=False).remove)
        yield
        injector.check()


class _Injector:
    """State of an `inject` block: the slots of the current pass.

    They stay set after the pass, since gradient checkpointing runs the hooked block again during the backward pass.
    """

    def __init__(self, vectors: Tensor, slots: Slots, batch: int, spec: OracleSpec, grad: Any) -> None:
        self.vectors, self.slots, self.batch, self.spec, self.grad = vectors, slots, batch, spec, grad
        self.last = int(slots.columns.max()) if len(slots) else -1
        self.current: tuple[Tensor, Slots] | None = None
        self.reached = 0  # number of columns computed so far; `check` compares it with the last slot

    def begin(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        ids = kwargs.get("input_ids", args[0] if args else None)
        tokens = ids if ids is not None else kwargs["inputs_embeds"]
        cache = kwargs.get("past_key_values")
        past = 0 if cache is None else int(cache.get_seq_length())
        self.current = self.chosen(past=past, shape=tokens.shape[:2])
        self.reached = max(self.reached, past + tokens.shape[1])

    def chosen(self, *, past: int, shape: Sequence[int]) -> tuple[Tensor, Slots] | None:
        """(vectors, slots) within a pass of `shape` [batch, columns] after `past` cached columns."""
        batch, width = shape[0], shape[1]
        if past > self.last:  # before the batch check: decoding steps may have more rows (beams) and need no injection
            return None
        if batch != self.batch:
            raise ValueError(
                f"positions: expected a pass of {self.batch} rows, got {batch}. Prefill the prompts once inside "
                f"this block, then expand the cache with `batch_repeat_interleave` and continue outside of it."
            )
        if past == 0 and self.last < width:  # the usual pass holds all slots: no mask, so no sync with the device
            return self.vectors, self.slots
        keep = (self.slots.columns >= past) & (self.slots.columns < past + width)
        return self.vectors[keep], self.slots.where(keep).shifted(past)

    def see(self, resid: Tensor) -> Tensor | None:
        if self.current is None:
            return None
        vectors, slots = self.current
        spec = self.spec
        return inject_at(resid, vectors, slots, spec.coefficient, spec.precision, formula=spec.formula, grad=self.grad)

    def check(self) -> None:
        """End of the block: raise if no pass computed a slot, since the answer would lack its activation."""
        if 0 < self.reached <= self.last:
            raise ValueError(f"slot at column {self.last}: the passes computed only {self.reached} columns.")
