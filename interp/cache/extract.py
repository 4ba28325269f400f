"""Run examples through a model once and store the chosen activations: resumable, streaming, byte-identical."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from interp.cache.activation_cache import ActivationCache
from interp.cache.layout import ExampleRows
from interp.cache.manifest import create_cache
from interp.cache.plan import CachePlan
from interp.cache.request import Request
from interp.cache.store import commit_shard, drop_damaged, pending, seal
from interp.checkpoint import Checkpoint, CheckpointPair
from interp.hooks import Recording, record
from interp.io.files import write_file
from interp.io.lock import writer_lock
from interp.loading import load_members
from interp.loading.fingerprint import fingerprint_module
from interp.memory import sizes_of
from interp.model import Model
from interp.progress import Progress, track
from interp.prompt import Example, Prompt
from interp.remedy import remedy
from interp.replies import ReplyPrompt, check_context
from interp.rope import context_length
from interp.template import clock_of


def extract(
    model: Model | nn.Module,
    examples: Sequence[Example],
    *,
    out: str | Path,
    max_bytes: int | str | None = None,
    progress: bool = True,
    **request: Any,
) -> ActivationCache:
    """Record sites at chosen positions of every example and store them in the folder `out`.

        cache = extract(model, examples, sites="resid_post.*, z.*", positions=[Last()], out="caches/b5")

    A second call with the same arguments resumes an interrupted extraction, and returns a finished cache at once.
    Memory holds one shard (256 MB by default) for any number of examples. Under torchrun or a Slurm array each rank
    makes its share of the shards; the last one to finish seals the cache.

    Args:
        model: the model; its active adapter is recorded.
        out: folder of this cache; one with a cache of another model, adapter or data is refused.
        max_bytes: refuse a cache larger than this, e.g. "40GB"; required for positions "all".
        request: `sites`, `positions`, `dtype`, `thinking`, ...; see `interp.cache.Request`.
    Raises:
        ValueError: bad sites, positions or examples, or a prompt longer than the context; before any forward pass.
        CacheFullError, CacheBusyError, IdentityMismatchError, NonFiniteActivationError: see `interp.cache.errors`.

    Example:
        >>> import tempfile
        >>> items = [Example("a", text="the quick fox"), Example("b", text="the dog")]
        >>> extract(model, items, sites="resid_post.*, z.1", out=tempfile.mkdtemp(), progress=False)
        ActivationCache(..., 2 examples, 2 rows, 4 sites)
    """
    model = Model.wrap(model)
    job = _Job(model, examples, Request(**request), progress=progress)
    job.add(model.adapters.active, Path(out), max_bytes)
    return job.run()[model.adapters.active]


def extract_pair(
    pair: CheckpointPair,
    examples: Sequence[Example],
    *,
    out: str | Path,
    max_bytes: int | str | None = None,
    progress: bool = True,
    load: Mapping[str, Any] | None = None,
    **request: Any,
) -> dict[str, ActivationCache]:
    """Record every member of a pair on the same examples: `out/engaged`, `out/heuristic`, and the bases if named.

    Members of one base are recorded in one pass over the data, on one copy of the weights; members of different bases
    in one pass each, over the same examples in the same order. Join them by `cache.pair(other)`.

    Args:
        load: options of `interp.load` (dtype, device, device_map, ...).
        max_bytes: limit on the size of each member's cache.
    Raises: as `extract`.
    """
    caches: dict[str, ActivationCache] = {}
    for roles, model in load_members(pair, **(load or {})):
        job = _Job(model, examples, Request(**request), progress=progress)
        for role in roles:
            job.add(role, Path(out) / role, max_bytes, checkpoint=pair.members[role])
        caches.update({str(role): cache for role, cache in job.run().items()})
    return caches


def extract_replies(
    model: Model | nn.Module,
    prompts: Sequence[ReplyPrompt],
    examples: Sequence[Example],
    *,
    out: str | Path,
    role: str | None = None,
    replies: Mapping[str, object] | None = None,
    max_bytes: int | str | None = None,
    progress: bool = True,
    **request: Any,
) -> ActivationCache:
    """Record sites at chosen tokens of prompts with replies, as `extract` does of prompts.

    Rows carry the number of their token in the reply, the share of the reply that has been read, and the name of their
    span; a reply in which a rule selects nothing has no row of that rule.

    Args:
        prompts: of `interp.replies.reply_prompt`. examples: what they reply to, in the same order, with the same ids.
        role: member of the model that reads the replies; None: its active adapter.
        replies: who wrote them (JSON values), part of the identity of the cache.
    Raises:
        ValueError: a reply longer than the context, rules that select nothing in any reply; and as `extract`.
    """
    model = Model.wrap(model)
    check_context(prompts, context_length(model.layout.config), model.name)
    job = _Job(model, examples, Request(**request), progress=progress, prompts=prompts, replies=replies or {"by": role})
    role = model.adapters.active if role is None else role
    checkpoint = None if role is None else model.members.get(role)
    job.add(role, Path(out), max_bytes, checkpoint=checkpoint)
    return job.run()[role]


def rank_and_world() -> tuple[int, int]:
    """(rank, world): this process's share of the work; (0, 1) for a single process.

    From DIPTYCH_RANK and DIPTYCH_WORLD if they are set (set DIPTYCH_WORLD=1 in a Slurm array whose tasks are not shares
    of one cache), else from torchrun (RANK, WORLD_SIZE), else from a Slurm array.
    """
    env = os.environ
    for rank, world in (("DIPTYCH_RANK", "DIPTYCH_WORLD"), ("RANK", "WORLD_SIZE")):
        if world in env:
            return int(env.get(rank, 0)), int(env[world])
    if "SLURM_ARRAY_TASK_COUNT" in env:
        first = int(env.get("SLURM_ARRAY_TASK_MIN", 0))
        step = int(env.get("SLURM_ARRAY_TASK_STEP", 1))
        return (int(env["SLURM_ARRAY_TASK_ID"]) - first) // step, int(env["SLURM_ARRAY_TASK_COUNT"])
    return 0, 1


@dataclass(frozen=True)
class _Member:
    role: str | None
    root: Path
    plan: CachePlan


class _Job:
    """One pass over the data: the caches of all members are planned first, then made shard by shard."""

    def __init__(
        self,
        model: Model,
        examples: Sequence[Example],
        request: Request,
        *,
        progress: bool,
        prompts: Sequence[Prompt] | None = None,
        replies: Mapping[str, object] | None = None,
    ) -> None:
        self.model, self.examples, self.request = model, examples, request
        self.progress, self.replies = progress, replies
        if prompts is None:
            prompts = request.prompts(examples, model.tokenizer, context=context_length(model.layout.config))
        self.prompts = prompts
        self.fingerprint = model.fingerprint or fingerprint_module(model.module, tokenizer=model.tokenizer)
        self.tokens = request.tokens_per_batch or min(request.most_tokens, sizes_of(model).pass_tokens)
        self.members: list[_Member] = []

    def add(
        self, role: str | None, root: Path, max_bytes: int | str | None, *, checkpoint: Checkpoint | None = None
    ) -> None:
        chosen = self.fingerprint if self.fingerprint.merged else self.fingerprint.select(role)
        plan = self.request.plan(
            self.examples,
            self.prompts,
            layout=self.model.layout,
            dtype=self.model.dtype,
            fingerprint=chosen,
            checkpoint=checkpoint or self.model.checkpoint,
            template_date=clock_of(self.model.tokenizer),
            replies=self.replies,
        )
        plan.check_disk(root, max_bytes=max_bytes)
        self.members.append(_Member(role, root, plan))

    def run(self) -> dict[str | None, ActivationCache]:
        rank, world = rank_and_world()
        with ExitStack() as stack:
            for member in self.members:
                stack.enter_context(writer_lock(member.root, rank=rank, world=world))
                create_cache(member.root, member.plan)
                drop_damaged(member.root, member.plan, rank=rank, world=world)
            todo = {m: pending(m.root, m.plan, rank=rank, world=world) for m in self.members}
            bar = stack.enter_context(self._bar(todo))
            for shard in sorted({s for shards in todo.values() for s in shards}):
                for member in (m for m in self.members if shard in todo[m]):
                    self._make(member, shard, bar)
            for member in self.members:
                if not pending(member.root, member.plan):
                    seal(member.root, member.plan)
        return {m.role: ActivationCache.open(m.root, allow_partial=world > 1) for m in self.members}

    def _make(self, member: _Member, shard: int, bar: Progress) -> None:
        budget = Budget.of(member.root, self.tokens)
        with ExitStack() as stack:
            if self.model.adapters.active != member.role:
                stack.enter_context(self.model.member(member.role))
            tensors = run_shard(self.model, member.plan, shard, self.prompts, budget=budget, bar=bar)
        commit_shard(member.root, member.plan, shard, tensors, {"device": str(self.model.device)})

    def _bar(self, todo: Mapping[_Member, Sequence[int]]) -> AbstractContextManager[Progress]:
        total = sum(_n_tokens(work) for m, shards in todo.items() for shard in shards for work in m.plan.work(shard))
        return track("cache", total, unit="tokens", shown=self.progress)


class Budget:
    """Tokens of one forward pass; halved when memory does not suffice, and stored with the cache for a restart."""

    def __init__(self, tokens: int, path: Path | None = None) -> None:
        self.tokens, self.path = tokens, path

    @classmethod
    def of(cls, root: Path, tokens: int) -> Budget:
        path = root / ".runs" / "tokens_per_batch"
        stored = path.read_text() if path.exists() else ""
        budget = cls(min(tokens, int(stored)) if stored.isdigit() else tokens, path)
        if stored != str(budget.tokens):
            budget.keep()  # a restart makes the same batches, whatever memory is free then
        return budget

    def keep(self) -> None:
        """Store the budget."""
        if self.path is not None:
            write_file(self.path, str(self.tokens).encode())

    def halve(self, used: int) -> None:
        self.tokens = max(1, min(self.tokens, used) // 2)
        self.keep()


def run_shard(
    model: Model,
    plan: CachePlan,
    shard: int,
    prompts: Sequence[Prompt],
    *,
    budget: Budget | None = None,
    bar: Progress | None = None,
) -> dict[str, Tensor]:
    """All tensors of one shard, on the CPU: a pure function of its arguments, so a restart gives the same bytes.

    Batches never cross shards, a prompt runs only up to its last chosen token (attention is causal), and only the
    chosen rows leave the device, in one copy per batch that overlaps the next batch's computation.

    Returns:
        site -> [rows of the shard, ...] in the plan's dtype.
    Raises:
        ValueError: a single example does not fit in memory.
    """
    budget = budget or Budget(int(plan.identity["sharding"]["batching"]["tokens_per_batch"]))  # type: ignore[index]
    n_rows = plan.shards[shard].n_rows
    tensors = {s.site: torch.empty(n_rows, *s.shape, dtype=s.torch_dtype) for s in plan.sites}
    drain = _Drain(tensors)
    waiting = sorted(plan.work(shard), key=lambda w: (-_n_tokens(w), w.example))
    while waiting:
        batch = _first_batch(waiting, budget.tokens)
        try:
            acts = _run_batch(model, plan, [prompts[w.example] for w in batch], batch)
        except (torch.OutOfMemoryError, MemoryError) as error:
            _shrink(budget, batch, prompts, error)
            acts = None
        if acts is None:  # after the except clause, which keeps the failed pass's tensors alive through the traceback
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            continue
        drain.put(acts, [row for w in batch for row in w.rows])
        waiting = waiting[len(batch) :]
        if bar is not None:
            bar.advance(sum(map(_n_tokens, batch)))
    drain.finish()
    return tensors


def _n_tokens(work: ExampleRows) -> int:
    """Number of tokens of an example that must run: up to its last chosen one."""
    return max(work.positions) + 1


def _first_batch(waiting: Sequence[ExampleRows], tokens: int) -> list[ExampleRows]:
    """The next batch: as many of the longest examples as fit the budget when padded to the first; at least one."""
    return list(waiting[: max(1, tokens // _n_tokens(waiting[0]))])


def _run_batch(model: Model, plan: CachePlan, prompts: Sequence[Prompt], batch: Sequence[ExampleRows]) -> Recording:
    ids = [prompt.ids[: _n_tokens(work)] for prompt, work in zip(prompts, batch, strict=True)]
    with (
        model.layout.rope.of_texts([len(prompt.ids) for prompt in prompts]),
        record(model, [s.site for s in plan.sites], positions=[w.positions for w in batch]) as acts,
    ):
        model(ids)
    return acts


def _shrink(budget: Budget, batch: Sequence[ExampleRows], prompts: Sequence[Prompt], error: BaseException) -> None:
    if len(batch) == 1:
        name = prompts[batch[0].example].example_id
        raise ValueError(
            f"example {name!r} with {_n_tokens(batch[0])} tokens does not fit in memory by itself ({error}). "
            + remedy("Load with {device_map:auto} or a smaller {dtype}, record fewer sites, or leave the example out.")
        ) from error
    budget.halve(len(batch) * _n_tokens(batch[0]))


class _Drain:
    """Copies recorded rows into CPU tensors; on CUDA one batch late, by one pinned copy per batch."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors
        self.in_flight: tuple[Tensor, list[int], torch.cuda.Event] | None = None

    def put(self, acts: Recording, rows: list[int]) -> None:
        batch = {site: acts[site] for site in self.tensors}
        first = next(iter(batch.values()))
        if first.device.type != "cuda":
            at = torch.tensor(rows)
            for site, tensor in self.tensors.items():
                tensor.index_copy_(0, at, batch[site].to("cpu", tensor.dtype))
            return
        self.finish()
        dtype = next(iter(self.tensors.values())).dtype
        flat = torch.cat([t.to(first.device, dtype, non_blocking=True).flatten(1) for t in batch.values()], dim=1)
        host = torch.empty(flat.shape, dtype=dtype, pin_memory=True)
        host.copy_(flat, non_blocking=True)
        event = torch.cuda.Event()
        # the stream of the copy's device: under device_map the current device may be another one
        event.record(torch.cuda.current_stream(flat.device))
        self.in_flight = (host, rows, event)

    def finish(self) -> None:
        """Wait for the copy in flight and put its rows in place."""
        if self.in_flight is None:
            return
        host, rows, event = self.in_flight
        event.synchronize()
        at = torch.tensor(rows)
        widths = [tensor[0].numel() for tensor in self.tensors.values()]
        for tensor, part in zip(self.tensors.values(), host.split(widths, dim=1), strict=True):
            tensor.index_copy_(0, at, part.reshape(-1, *tensor.shape[1:]))
        self.in_flight = None
