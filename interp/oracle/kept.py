"""Outcomes of single batches, kept in a store: a reading that is stopped goes on where it was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from interp.io.digest import sha256_of
from interp.io.items import ItemStore
from interp.loading.fingerprint import tensors_sha256
from interp.oracle.jobs import Job

Ids = list[list[tuple[int, ...]]]
"""Generated token ids: of every job, its answers."""


@dataclass(frozen=True)
class Kept:
    """What batches gave, by the prompts and vectors in them.

    Attributes:
        store: of one reading; its identity holds the oracle, the activations and what is asked.
        role: adapter that reads; None for the bare base.
    """

    store: ItemStore
    role: str | None

    def logp(self, jobs: Sequence[Job], compute: Callable[[], list[Tensor]]) -> list[Tensor]:
        """Log-probabilities of a batch: those that are kept, or computed and kept now."""
        key = f"logp-{self._digest(jobs)}"
        if key in self.store:
            held = self.store.get_arrays(key)
            return list(torch.from_numpy(held["logp"]).split(held["lengths"].tolist()))
        found = compute()
        lengths = np.array([len(one) for one in found])
        self.store.put_arrays(key, {"logp": torch.cat(found).numpy(), "lengths": lengths})
        return found

    def ids(self, jobs: Sequence[Job], seed: int, compute: Callable[[], Ids]) -> Ids:
        """Generated tokens of a batch, which depend on its seed too."""
        key = f"text-{self._digest(jobs, seed)}"
        if key in self.store:
            return [[tuple(answer) for answer in of] for of in self.store.get_json(key)]
        found = compute()
        self.store.put_json(key, found)
        return found

    def _digest(self, jobs: Sequence[Job], *more: int) -> str:
        prompts = [[list(job.prompt.ids), list(job.prompt.slots), job.prompt.answer_start] for job in jobs]
        vectors = tensors_sha256({str(i): job.vectors for i, job in enumerate(jobs)})
        return sha256_of([self.role, prompts, vectors, *more])[:32]
