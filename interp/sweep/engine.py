"""The fast engine: every intervention on a prompt is a row of one pass, in chunks that fit in memory; see `sweep`."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.family import FAMILIES, Layer, Layout
from interp.memory import sizes_of, wide
from interp.model import Model, refuse_training_mode
from interp.positions import Last
from interp.progress import stage
from interp.prompt import Prompt
from interp.sweep.clean import clean_run
from interp.sweep.intervention import Intervention, Planner, Row, Tokens
from interp.sweep.read import Read, read_out
from interp.sweep.reference import check_rows, reference_rows
from interp.sweep.staircase import run_rows

AnswerIds = Sequence[int] | Literal["all"]
Engine = Literal["auto", "reference"]


@dataclass(frozen=True)
class SweepResult:
    """Outcomes of one prompt: a value per row at every read token.

    Attributes:
        rows: [row, read, ...], in the order of the interventions.
        clean: [row, read, ...], the unedited row of each row's own chunk: in half precision its rounding depends on the
            batch, and cancels in `effects` only within one chunk.
        read_at: tokens at which rows are read.
        start: first token that rows recompute.
        engine: the engine that computed the rows.
        n_verified: number of rows recomputed by the reference engine; all agreed.
    """

    rows: Float[Tensor, "row read ..."]
    clean: Float[Tensor, "row read ..."]
    names: tuple[str, ...]
    read_at: tuple[int, ...]
    start: int
    engine: Literal["staircase", "reference"]
    n_verified: int = 0

    @property
    def effects(self) -> Float[Tensor, "row read ..."]:
        """rows - clean: effect of each intervention, in the unit of `read`."""
        return self.rows - self.clean


def sweep(
    model: Model | nn.Module,
    prompt: Prompt | Sequence[int] | Int[Tensor, "pos"],
    interventions: Sequence[Intervention],
    *,
    read: Read = "logits",
    answer_ids: AnswerIds = "all",
    read_at: Tokens = Last(),  # noqa: B008  (a frozen value)
    start: int | None = None,
    chunk_bytes: int | None = None,
    verify: float = 0.0,
    seed: int = 0,
    engine: Engine = "auto",
) -> SweepResult:
    """Outcomes of many interventions on one prompt, at little more than the cost of one forward pass.

    A clean pass stores the keys and values of the tokens before `start`, the first token that is changed or read. In a
    second pass each intervention is a row: it joins as a copy of the unedited row at the layer of its first change,
    attends to the shared prefix, and computes the tokens from `start` on. In units of a clean forward of S tokens, n
    rows spread evenly over the layers cost about

        1 + n (S - start) / (2 S)          instead of n

    Blocks, adapters and norms are the library's own modules; only attention is replaced, by one that shares the prefix.

    Args:
        read: "logits" (of `answer_ids`), "final" (the residual stream after the final norm), or a function of the
            latter, [row, read, d_model] -> [row, read, ...]. All in float32, or float64 for a float64 model.
        read_at: tokens at which rows are read.
        start: recompute from this token on, even if the first change or reading is later.
        chunk_bytes: memory for rows computed together; default: what the device can spare
            (`interp.memory.Sizes`). Halved when memory runs out.
        verify: share of the rows (at least one, if not 0) that the reference engine recomputes, drawn by `seed`.
        engine: "reference" computes each row by its own forward pass. "auto" does so, with a warning, for a model
            type that the fast engine does not support.
    Raises:
        ValueError: the model has no such site, the prompt has no such token, or `start` is after the first of them.
        RuntimeError: a submodule is in training mode, or a verified row disagrees.
    Source: specs of head effects and steering; equality with `interp.hooks.edit` per family in tests/test_sweep.py.
    """
    model = Model.wrap(model)
    refuse_training_mode(model.module)
    if not 0.0 <= verify <= 1.0:
        raise ValueError(f"verify: expected a share of the rows between 0 and 1, got {verify}.")
    if not interventions:
        raise ValueError("interventions: expected at least one; Intervention() is the clean run.")
    planner = Planner(model.layout, prompt if isinstance(prompt, Prompt) else [int(token) for token in prompt])
    job = _Job(model, planner, planner.rows(interventions), read, answer_ids, planner.tokens(read_at), start)
    names = tuple(one.name or f"#{index}" for index, one in enumerate(interventions))
    if engine == "reference" or not _is_known(model):
        clean, rows = job.slowly(job.rows)
        clean = clean.expand_as(rows)
        return SweepResult(rows, clean, names, job.read_at, job.start, "reference")
    clean, rows = job.quickly(chunk_bytes)
    n_verified = job.verify(names, clean, rows, share=verify, seed=seed)
    return SweepResult(rows, clean, names, job.read_at, job.start, "staircase", n_verified)


@dataclass(frozen=True)
class SweepItem:
    """One prompt of `sweep_all`, with its own interventions and answer tokens."""

    prompt: Prompt | Sequence[int]
    interventions: Sequence[Intervention]
    answer_ids: AnswerIds = "all"


def sweep_all(model: Model | nn.Module, items: Iterable[SweepItem], **options) -> Iterator[SweepResult]:
    """`sweep` over prompts of any lengths, one result at a time; `options` are those of `sweep`.

    Prompts are not batched with each other: the rows of one prompt already fill the matrix products.
    """
    model = Model.wrap(model)
    for item in items:
        yield sweep(model, item.prompt, item.interventions, answer_ids=item.answer_ids, **options)


def _is_known(model: Model) -> bool:
    name = model.layout.config.model_type
    if name not in FAMILIES:
        warnings.warn(
            f"model type {name!r} is not supported by the fast sweep engine (supported: {', '.join(FAMILIES)}); its "
            f"rows are computed by the reference engine, one forward pass each. Results are the same.",
            stacklevel=3,
        )
    return name in FAMILIES


def _refuse_open_blocks(model: Model) -> None:
    if set(model.decoder._forward_pre_hooks) - model.layout.rope.own_hooks:
        raise ValueError(
            "a record or edit block (or another hook on the decoder) is open around this sweep, but the rows of "
            "a sweep are not the passes that it expects. Close it, and write its edits as changes of the "
            "interventions."
        )


class _Job:
    """One prompt with its rows: the input of both engines."""

    def __init__(
        self,
        model: Model,
        planner: Planner,
        rows: list[Row],
        read: Read,
        answer_ids: AnswerIds,
        read_at: tuple[int, ...],
        start: int | None,
    ) -> None:
        self.model, self.rows = model, rows
        self.read: Read = read
        self.answer_ids: AnswerIds = answer_ids
        prompt = planner.prompt
        self.ids = list(prompt.ids if isinstance(prompt, Prompt) else prompt)
        if not read_at:
            raise ValueError("read_at: expected at least one token of the prompt, got none.")
        self.read_at = read_at
        self.start = self._start(start)

    def _start(self, start: int | None) -> int:
        first = min([*self.read_at, *(op.tokens[0] for row in self.rows for op in row.ops)])
        if start is None:
            return first
        if not 0 <= start <= first:
            raise ValueError(f"start: token {first} is changed or read, so expected 0-{first}, got {start}.")
        return start

    def slowly(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        return reference_rows(self.model, self.ids, rows, self.read_at, self.read, self.answer_ids)

    def quickly(self, chunk_bytes: int | None) -> tuple[Tensor, Tensor]:
        """(clean value of each row, value of each row), in the order of the interventions."""
        layout, device = self.model.layout, self.model.device
        _refuse_open_blocks(self.model)
        clean = clean_run(layout, torch.tensor([self.ids], device=device), start=self.start)
        ordered = sorted(
            self.rows, key=lambda row: row.join
        )  # late rows share chunks, which then begin at a late layer

        def run(chunk: Sequence[Row]) -> Tensor:
            resid = run_rows(layout, clean, chunk, read=self.read_at)
            return read_out(self.model, resid, self.read, self.answer_ids)

        n_new = len(self.ids) - self.start
        per_row = row_bytes(layout, n_new=n_new, n_past=self.start, itemsize=clean.resid[0].element_size())
        budget = sizes_of(self.model).chunk_bytes if chunk_bytes is None else chunk_bytes
        done = in_chunks(ordered, run, n_per_chunk=budget // per_row)
        return self._assemble(done)

    def _assemble(self, done: list[tuple[Sequence[Row], Tensor]]) -> tuple[Tensor, Tensor]:
        # the first row of every chunk is the unedited one
        rows = torch.cat([values[1:] for _, values in done])
        clean = torch.cat([values[:1].expand_as(values[1:]) for _, values in done])
        order = torch.tensor([row.index for chunk, _ in done for row in chunk], device=rows.device).argsort()
        return clean[order], rows[order]

    def verify(self, names: Sequence[str], clean: Tensor, rows: Tensor, *, share: float, seed: int) -> int:
        """Compare a random share of the rows with the reference engine; returns their number."""
        if share == 0.0:
            return 0
        count = max(1, round(share * len(self.rows)))
        picked = sorted(random.Random(seed).sample(range(len(self.rows)), min(count, len(self.rows))))
        slow_clean, slow_rows = self.slowly([self.rows[index] for index in picked])
        fast = clean[picked], rows[picked]
        slow = slow_clean.expand_as(slow_rows), slow_rows
        check_rows([names[index] for index in picked], fast, slow, dtype=self.model.dtype)
        return len(picked)


def row_bytes(layout: Layout, *, n_new: int, n_past: int, itemsize: int) -> int:
    """Upper bound of one row's peak memory, in bytes.

    n_new · itemsize · (6 d_model + 3 d_mlp + 3 (n_heads + 2 n_kv) d_head)      streams, MLP, projections
    + 3 · n_heads · n_new · (n_past + n_new) · 4                                scores in float32
    or, in a recurrent layer, + 3 · n_heads · d_head² · 4                       its state
    """
    return max(_layer_bytes(layer, n_new * itemsize * wide(layout, layer), n_new, n_past) for layer in layout.layers)


def _layer_bytes(layer: Layer, streams: int, n_new: int, n_past: int) -> int:
    if layer.kind == "linear_attention":
        return streams + 3 * layer.n_heads * layer.d_head * layer.d_head * 4
    return streams + 3 * layer.n_heads * n_new * (n_past + n_new) * 4


def in_chunks(
    rows: Sequence[Row], run: Callable[[Sequence[Row]], Tensor], *, n_per_chunk: int
) -> list[tuple[Sequence[Row], Tensor]]:
    """`run` over consecutive chunks of rows; a chunk that does not fit is halved, and so are those after it.

    Raises:
        torch.OutOfMemoryError: (or the device's own error) a single row does not fit.
    """
    done: list[tuple[Sequence[Row], Tensor]] = []
    at, size = 0, max(1, n_per_chunk)
    while at < len(rows):
        chunk = rows[at : at + size]
        with stage(at / len(rows), (at + len(chunk)) / len(rows)):
            out = _or_none_if_out_of_memory(run, chunk)
        if out is None:
            size = max(1, len(chunk) // 2)
            continue
        done.append((chunk, out))
        at += len(chunk)
    return done


def _or_none_if_out_of_memory(run: Callable[[Sequence[Row]], Tensor], chunk: Sequence[Row]) -> Tensor | None:
    try:
        return run(chunk)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        out_of_memory = isinstance(error, torch.OutOfMemoryError | MemoryError) or "allocate memory" in str(error)
        if not out_of_memory or len(chunk) == 1:
            raise
    # after the except clause, which would keep the failed pass's tensors alive through the traceback
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None
