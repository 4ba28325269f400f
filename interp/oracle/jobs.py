"""The jobs of an oracle (prompts with the vectors of their slots), and a store of their outcomes, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from interp.io.digest import sha256_of
from interp.io.items import ItemStore
from interp.loading.fingerprint import tensors_sha256
from interp.oracle.features import Features
from interp.oracle.prompt import OraclePrompt, render_question, thinking_switch, turn_end, with_answer
from interp.oracle.spec import OracleSpec
from interp.prompt import Example, Message, render


@dataclass(frozen=True, eq=False)
class Job:
    """One prompt with the vectors of its slots, in slot order.

    Attributes:
        source: jobs with the same source share vectors and prompt up to the last slot; that part is run once.
        names: descriptions of the slots, for error messages.
    """

    prompt: OraclePrompt
    vectors: Float[Tensor, "slots d_model"]
    source: Hashable
    names: tuple[str, ...] = ()

    @property
    def ids(self) -> tuple[int, ...]:
        """Token ids before the answer."""
        return self.prompt.ids[: self.prompt.answer_start]


@dataclass(frozen=True)
class Case:
    """One answer about one reading, to be scored: as text, or as the token ids that were generated."""

    item: str
    question: str
    answer: str | tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Prompts:
    """Renders an oracle's prompts; readings with equal layers and slot counts share one rendered prompt."""

    spec: OracleSpec
    tokenizer: Any
    _rendered: dict[Hashable, OraclePrompt] = field(default_factory=dict)

    def forget(self) -> None:
        """Drop the rendered prompts of earlier questions."""
        self._rendered.clear()

    def of(
        self,
        feats: Features,
        item: str,
        question: str,
        answer: str | tuple[int, ...] | None = None,
        end_of_turn: bool = False,
    ) -> Job:
        """A question about a reading, followed by the answer to be scored, if any."""
        is_empty = answer is not None and not answer  # an empty answer is scored as the end of the turn
        text = answer if isinstance(answer, str) else "" if is_empty else None
        key = (feats.layers(item), feats.counts(item), question, text, end_of_turn or is_empty)
        if key not in self._rendered:
            self._rendered[key] = render_question(
                self.spec,
                self.tokenizer,
                layers=key[0],
                counts=key[1],
                question=question,
                answer=text,
                end_of_turn=key[-1],
            )
        rows = feats.rows(item, self.spec.layer_order)
        prompt = with_answer(self._rendered[key], answer)
        return Job(prompt, feats.vectors[list(rows)], item, tuple(str(feats.slots[r]) for r in rows))

    def of_case(self, feats: Features, case: Case, end_of_turn: bool) -> Job:
        """As `of`, for a case."""
        return self.of(feats, case.item, case.question, case.answer, end_of_turn)

    def of_text(self, feats: Features, case: Case, end_of_turn: bool) -> Job:
        """A prompt without slots: the text itself, then the question."""
        closing = turn_end(self.tokenizer) if end_of_turn or not case.answer else ""
        answer = case.answer + closing if isinstance(case.answer, str) else (closing or None)
        message = Message("user", f"{feats.texts[case.item]}\n\n{case.question}")
        example = Example(id=case.item, messages=(message,), answer=answer)
        done = render(example, self.tokenizer, thinking=thinking_switch(self.tokenizer, self.spec.enable_thinking))
        prompt = with_answer(OraclePrompt(done.text, done.ids, (), (), done.n_prompt), case.answer)
        return Job(prompt, feats.vectors.new_empty(0, feats.d_model), (case.item, case.question))


Ids = list[list[tuple[int, ...]]]
"""Generated token ids [job][answer]."""


@dataclass(frozen=True)
class Kept:
    """Stored outcomes of batches, keyed by their prompts and vectors: an interrupted reading resumes batch by batch.

    Attributes:
        store: one reading; its identity holds the oracle, the activations and the questions.
        role: the adapter; None for the bare base.
    """

    store: ItemStore
    role: str | None

    def logp(self, jobs: Sequence[Job], compute: Callable[[], list[Tensor]]) -> list[Tensor]:
        """Log-probabilities of a batch: the stored ones, or computed and stored now."""
        key = f"logp-{self._digest(jobs)}"
        if key in self.store:
            arrays = self.store.get_arrays(key)
            return list(torch.from_numpy(arrays["logp"]).split(arrays["lengths"].tolist()))
        logp = compute()
        lengths = np.array([len(one) for one in logp])
        self.store.put_arrays(key, {"logp": torch.cat(logp).numpy(), "lengths": lengths})
        return logp

    def ids(self, jobs: Sequence[Job], seed: int, compute: Callable[[], Ids]) -> Ids:
        """Generated token ids of a batch; the key includes its seed."""
        key = f"text-{self._digest(jobs, seed)}"
        if key in self.store:
            return [[tuple(answer) for answer in of] for of in self.store.get_json(key)]
        ids = compute()
        self.store.put_json(key, ids)
        return ids

    def _digest(self, jobs: Sequence[Job], *more: int) -> str:
        prompts = [[list(job.prompt.ids), list(job.prompt.slots), job.prompt.answer_start] for job in jobs]
        vectors = tensors_sha256({str(i): job.vectors for i, job in enumerate(jobs)})
        return sha256_of([self.role, prompts, vectors, *more])[:32]
