"""What an oracle runs: prompts with the vectors of their slots, made of readings, questions and answers."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor

from interp.oracle.features import Features
from interp.oracle.prompt import OraclePrompt, render_question, thinking_switch, turn_end, with_answer
from interp.oracle.spec import OracleSpec
from interp.prompt import Example, Message, render


@dataclass(frozen=True, eq=False)
class Job:
    """One prompt with the vectors of its slots, in slot order.

    Attributes:
        source: jobs of one source have the same vectors and the same prompt up to the last slot, which is run once.
        names: who the slots are, for error messages.
    """

    prompt: OraclePrompt
    vectors: Float[Tensor, "slots d_model"]
    source: Hashable
    names: tuple[str, ...] = ()

    @property
    def ids(self) -> tuple[int, ...]:
        """Token ids up to the answer."""
        return self.prompt.ids[: self.prompt.answer_start]


@dataclass(frozen=True)
class Case:
    """One answer to be scored about one reading: its text, or the very tokens that were generated."""

    item: str
    question: str
    answer: str | tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Prompts:
    """Prompts of an oracle; readings with as many slots of the same layers share a rendered one."""

    spec: OracleSpec
    tokenizer: Any
    _rendered: dict[Hashable, OraclePrompt] = field(default_factory=dict)

    def forget(self) -> None:
        """Start anew: questions of an earlier call are not asked again."""
        self._rendered.clear()

    def of(
        self,
        feats: Features,
        item: str,
        question: str,
        answer: str | tuple[int, ...] | None = None,
        end_of_turn: bool = False,
    ) -> Job:
        """A question about a reading, with the answer that is scored where there is one."""
        is_empty = answer is not None and not answer  # saying nothing is ending the turn
        text = answer if isinstance(answer, str) else "" if is_empty else None
        key = (feats.layers(item), feats.counts(item), question, text, end_of_turn or is_empty)
        if key not in self._rendered:
            self._rendered[key] = render_question(
                self.spec, self.tokenizer, layers=key[0], counts=key[1], question=question, answer=text,
                end_of_turn=key[-1],
            )  # fmt: skip
        rows = feats.rows(item, self.spec.layer_order)
        prompt = with_answer(self._rendered[key], answer)
        return Job(prompt, feats.vectors[list(rows)], item, tuple(str(feats.slots[r]) for r in rows))

    def of_case(self, feats: Features, case: Case, end_of_turn: bool) -> Job:
        """As `of`, of an answer that is scored."""
        return self.of(feats, case.item, case.question, case.answer, end_of_turn)

    def of_text(self, feats: Features, case: Case, end_of_turn: bool) -> Job:
        """A prompt without slots: the text that was read, then the question."""
        closing = turn_end(self.tokenizer) if end_of_turn or not case.answer else ""
        answer = case.answer + closing if isinstance(case.answer, str) else (closing or None)
        message = Message("user", f"{feats.texts[case.item]}\n\n{case.question}")
        example = Example(id=case.item, messages=(message,), answer=answer)
        done = render(example, self.tokenizer, thinking=thinking_switch(self.tokenizer, self.spec.enable_thinking))
        prompt = with_answer(OraclePrompt(done.text, done.ids, (), (), done.n_prompt), case.answer)
        return Job(prompt, feats.vectors.new_empty(0, feats.d_model), (case.item, case.question))
