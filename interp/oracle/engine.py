"""Forward passes of an oracle: activations are prefilled once; questions and answers continue from the KV cache."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.evaluate.writing import token_steps
from interp.model import Model
from interp.oracle.injection import inject
from interp.oracle.jobs import Job, Kept
from interp.oracle.spec import OracleSpec
from interp.passes import pad, positions_from_mask
from interp.progress import parts

TOKENS_PER_BATCH = 8192


@dataclass(frozen=True)
class Decoding:
    """How answers are generated: greedy unless a temperature is given.

    Raises:
        ValueError: a count below 1, several samples without a temperature or beams, or beams with a temperature.
    """

    max_new_tokens: int = 40
    n: int = 1
    num_beams: int = 1
    temperature: float | None = None
    top_p: float = 0.9
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.max_new_tokens, self.n, self.num_beams) < 1:
            raise ValueError(f"decoding: counts must be at least 1, got {self}.")
        if self.temperature is not None and self.num_beams > 1:
            raise ValueError("decoding: beams do not sample here; leave temperature out or use num_beams=1.")
        if self.n > 1 and self.temperature is None and self.num_beams < self.n:
            raise ValueError(f"decoding: {self.n} greedy answers would be the same; give temperature= or num_beams=.")

    @property
    def copies(self) -> int:
        """Rows of `generate` per prompt, and so copies of its cache."""
        return max(self.num_beams, self.n)


@dataclass(frozen=True)
class Prefix:
    """Cached beginning of a batch of prompts: one row per source, left padded to a common width."""

    cache: Any
    mask: Tensor
    row: dict[Hashable, int]
    lengths: dict[Hashable, int] = field(default_factory=dict)

    def rows(self, jobs: Sequence[Job], copies: int = 1) -> Tensor:
        """Cache row of each job, repeated `copies` times in succession."""
        at = torch.tensor([self.row[job.source] for job in jobs], device=self.mask.device)
        return at.repeat_interleave(copies)


def can_continue(model: Model) -> bool:
    """Whether a pass of several tokens may continue a cached prefix.

    Not for recurrent layers, which accept one token at a time after their first pass, nor for a rope that depends on
    the length of the text, under which the keys of a prefix would be those of a shorter text.
    """
    return not (model.layout.is_hybrid or model.layout.rope.varies)


def batches(jobs: Sequence[Job], model: Model, *, budget: int, extra: int, copies: int = 1) -> Iterator[list[int]]:
    """Indices of jobs that run together: jobs of one source are adjacent, sorted by length, at most `budget` tokens.

    Models whose attention counts columns (sliding windows, recurrence) get batches of equal lengths, since padding
    between prefix and question would shift what they see.
    """
    exact = model.layout.is_hybrid or any(layer.window is not None for layer in model.layout.layers)
    shared = _shared_lengths(jobs)
    groups: dict[Hashable, list[int]] = {}
    for number, job in enumerate(jobs):
        key = (job.source, *_shape(job, shared)) if exact else job.source
        groups.setdefault(key, []).append(number)
    order = sorted(groups.values(), key=lambda of: _shape(jobs[of[0]], shared))
    batch: list[int] = []
    longest = 0
    for number in (n for of in order for n in of):
        length = len(jobs[number].ids)
        longest = max(longest, length)
        mixed = exact and batch and _shape(jobs[batch[0]], shared) != _shape(jobs[number], shared)
        if batch and (mixed or (longest + extra) * (len(batch) + 1) * copies > budget):
            yield batch
            batch, longest = [], length
        batch.append(number)
    if batch:
        yield batch


@torch.no_grad()
def prefill(model: Model, jobs: Sequence[Job], spec: OracleSpec) -> Prefix:
    """Run the shared prefix of each source once, with its vectors injected, and return the cache."""
    shared = _shared_lengths(jobs)
    first: dict[Hashable, Job] = {}
    for job in jobs:
        first.setdefault(job.source, job)
    firsts = list(first.values())
    batch = pad([job.ids[: shared[job.source]] for job in firsts], pad_id=model.pad_id, side="left").to(model.device)
    assert batch.attention_mask is not None and batch.position_ids is not None
    width = batch.input_ids.shape[1]
    # slots are token indices of the prompt; left padding shifts them to columns of the batch
    positions = [[width - shared[job.source] + slot for slot in job.prompt.slots] for job in firsts]
    vectors = torch.cat([job.vectors.to(model.device) for job in firsts])
    names = [name for job in firsts for name in job.names] or None
    with inject(model, vectors, positions, spec, names=names):
        out: Any = model.decoder(**batch.kwargs, use_cache=True)
    rows = {source: i for i, source in enumerate(first)}
    return Prefix(out.past_key_values, batch.attention_mask, rows, shared)


@torch.no_grad()
def answer_logp(
    model: Model,
    jobs: Sequence[Job],
    spec: OracleSpec,
    *,
    share: bool = True,
    budget: int = TOKENS_PER_BATCH,
    kept: Kept | None = None,
) -> list[Float[Tensor, "token"]]:
    """log p of every answer token of every job, natural logarithm, float32, on the CPU.

    Args:
        jobs: jobs whose prompts include the answers.
        share: run the prefix of a source once; False runs every whole prompt.
        kept: store of batch outcomes; stored batches are not run, new ones are added.
    """
    out: list[Tensor] = [torch.empty(0)] * len(jobs)
    longest = max((len(job.prompt.ids) - len(job.ids) for job in jobs), default=0)
    share = share and can_continue(model)
    for batch in parts(list(batches(jobs, model, budget=budget, extra=longest))):
        some = [jobs[n] for n in batch]
        compute = partial(_logp_shared if share else _logp_whole, model, some, spec)
        for number, logp in zip(batch, kept.logp(some, compute) if kept else compute(), strict=True):
            out[number] = logp
    return out


def _logp_shared(model: Model, jobs: Sequence[Job], spec: OracleSpec) -> list[Tensor]:
    prefix = prefill(model, jobs, spec)
    rows = prefix.rows(jobs)
    tails = [job.prompt.ids[prefix.lengths[job.source] : -1] for job in jobs]  # the last token predicts nothing
    tail = pad([t or (model.pad_id,) for t in tails], pad_id=model.pad_id).to(model.device)
    # unlike plain right padding this needs a mask: it must be as wide as cache and tail together
    real = torch.tensor([[1] * len(t) + [0] * (tail.input_ids.shape[1] - len(t)) for t in tails], device=model.device)
    mask = torch.cat([prefix.mask[rows], real.to(prefix.mask.dtype)], dim=1)
    _select(prefix.cache, rows)
    done: Any = model.decoder(
        input_ids=tail.input_ids,
        attention_mask=mask,
        position_ids=positions_from_mask(mask)[:, -tail.input_ids.shape[1] :],
        past_key_values=prefix.cache,
        use_cache=True,
    )
    starts = [prefix.lengths[job.source] for job in jobs]
    return _read(model, done.last_hidden_state, jobs, starts)


def _logp_whole(model: Model, jobs: Sequence[Job], spec: OracleSpec) -> list[Tensor]:
    batch = pad([job.prompt.ids[:-1] for job in jobs], pad_id=model.pad_id).to(model.device)
    vectors = torch.cat([job.vectors.to(model.device) for job in jobs])
    names = [name for job in jobs for name in job.names] or None
    slots = [job.prompt.slots for job in jobs]
    with model.layout.rope.of_texts(batch.lengths), inject(model, vectors, slots, spec, names=names):
        done: Any = model.decoder(**batch.kwargs, use_cache=False)
    return _read(model, done.last_hidden_state, jobs, [0] * len(jobs))


def _read(model: Model, final: Tensor, jobs: Sequence[Job], starts: Sequence[int]) -> list[Tensor]:
    """log p of the answer tokens; `final[b, c]` is the residual stream at token `starts[b] + c`."""
    where = [(b, t) for b, job in enumerate(jobs) for t in range(job.prompt.answer_start, len(job.prompt.ids))]
    rows = final[[b for b, _ in where], [t - 1 - starts[b] for b, t in where]]
    targets = torch.tensor([jobs[b].prompt.ids[t] for b, t in where], device=final.device)
    logp = model.unembed(rows).float().log_softmax(-1).gather(1, targets[:, None])[:, 0].cpu()
    return list(logp.split([len(job.prompt.ids) - job.prompt.answer_start for job in jobs]))


@torch.no_grad()
def generate(
    model: Model,
    jobs: Sequence[Job],
    spec: OracleSpec,
    decoding: Decoding,
    *,
    share: bool = True,
    budget: int = TOKENS_PER_BATCH,
    kept: Kept | None = None,
) -> list[list[tuple[int, ...]]]:
    """Generated token ids of every job, `decoding.n` answers each, without the end-of-text tokens.

    The activations are prefilled here, with explicit position ids, and `generate` continues from the expanded cache: it
    never sees a placeholder, so beams, samples and ragged prompts cannot misplace a vector. `kept` as in `answer_logp`.
    """
    out: list[list[tuple[int, ...]]] = [[] for _ in jobs]
    if not (share and can_continue(model)):  # a source per job: each prefix is all of its prompt but one token
        jobs = [Job(job.prompt, job.vectors, (job.source, n), job.names) for n, job in enumerate(jobs)]
    extra, copies = decoding.max_new_tokens, decoding.copies
    for batch in parts(list(batches(jobs, model, budget=budget, extra=extra, copies=copies))):
        some, seed = [jobs[n] for n in batch], decoding.seed * 1_000_003 + batch[0]
        compute = partial(_generate, model, some, spec, decoding, seed)
        for number, answers in zip(batch, kept.ids(some, seed, compute) if kept else compute(), strict=True):
            out[number] = answers
    return out


def _generate(
    model: Model, jobs: Sequence[Job], spec: OracleSpec, decoding: Decoding, seed: int
) -> list[list[tuple[int, ...]]]:
    torch.manual_seed(seed)
    prefix = prefill(model, jobs, spec)
    rows = prefix.rows(jobs)
    tails = pad([job.ids[prefix.lengths[job.source] :] for job in jobs], pad_id=model.pad_id, side="left")
    assert tails.attention_mask is not None
    width = prefix.mask.shape[1]
    # `generate` derives the length of the cached part from input_ids; the ids themselves are not read again
    before = torch.full((len(jobs), width), model.pad_id, device=model.device)
    ids = torch.cat([before, tails.input_ids.to(model.device)], dim=1)
    mask = torch.cat([prefix.mask[rows], tails.attention_mask.to(prefix.mask)], dim=1)
    _select(prefix.cache, prefix.rows(jobs, decoding.copies))
    stops = _stops(model)
    generated = model.causal_lm.generate(
        input_ids=ids,
        attention_mask=mask,
        past_key_values=prefix.cache,
        generation_config=_config(decoding, model.pad_id, stops),
        stopping_criteria=token_steps(ids.shape[1], decoding.max_new_tokens),
    )
    rows_out = [_until(row, stops) for row in generated[:, ids.shape[1] :].tolist()]
    return [rows_out[i * decoding.n : (i + 1) * decoding.n] for i in range(len(jobs))]


def _config(decoding: Decoding, pad_id: int, stops: set[int]) -> Any:
    """A generation config of our own, so that penalties and sampling defaults of the checkpoint do not apply."""
    from transformers import GenerationConfig

    sampling: dict[str, Any] = {}
    if decoding.temperature is not None:
        sampling = {"temperature": decoding.temperature, "top_p": decoding.top_p, "top_k": 0}  # transformers: top_k=50
    return GenerationConfig(
        do_sample=decoding.temperature is not None,
        num_beams=decoding.num_beams,
        num_return_sequences=decoding.n,
        max_new_tokens=decoding.max_new_tokens,
        pad_token_id=pad_id,
        eos_token_id=sorted(stops) or None,
        **sampling,
    )


def _select(cache: Any, rows: Tensor) -> None:
    """Select rows of a cache in place, repeats allowed. Recurrent layers only have `reorder_cache`, which does that."""
    for layer in cache.layers:
        select = getattr(layer, "batch_select_indices", None) or layer.reorder_cache
        select(rows)


def _stops(model: Model) -> set[int]:
    """Token ids that end an answer: those of the checkpoint's generation config, and the tokenizer's end of turn."""
    shipped = getattr(getattr(model.causal_lm, "generation_config", None), "eos_token_id", None)
    ids = shipped if isinstance(shipped, list) else [shipped]
    return {int(i) for i in (*ids, getattr(model.tokenizer, "eos_token_id", None)) if i is not None}


def _until(ids: list[int], stops: set[int]) -> tuple[int, ...]:
    end = next((i for i, token in enumerate(ids) if token in stops), len(ids))
    return tuple(ids[:end])


def _shared_lengths(jobs: Sequence[Job]) -> dict[Hashable, int]:
    """Length of the prefix that all prompts of a source share; at least one token of each prompt comes after it."""
    out: dict[Hashable, int] = {}
    first: dict[Hashable, tuple[int, ...]] = {}
    for job in jobs:
        ids = first.setdefault(job.source, job.ids)
        same = next((i for i, (a, b) in enumerate(zip(ids, job.ids, strict=False)) if a != b), len(ids))
        out[job.source] = min(out.get(job.source, len(ids)), same, len(job.ids) - 1)
    for job in jobs:
        if job.prompt.slots and out[job.source] <= max(job.prompt.slots):
            raise ValueError(
                f"prompts of source {job.source!r} differ before the last slot, so they cannot share a prefix; "
                f"give them different sources."
            )
    return out


def _shape(job: Job, shared: dict[Hashable, int]) -> tuple[int, int]:
    return shared[job.source], len(job.ids)
