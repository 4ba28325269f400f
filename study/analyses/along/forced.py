"""Forced answers: the probability of each label if a reply were cut at a place and the label asked there.

A reply that has already reached its label, by the task's decision sites, is cut in front of it. What is cut is read as
text with the forced words, unlike the scores of tokens, which use the ids that were generated.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from interp.evaluate.labels import label_log_probabilities
from interp.progress import parts
from interp.tasks.protocol import labels_of

if TYPE_CHECKING:
    from interp.model import Model
    from interp.prompt import Example
    from interp.replies import ReplyPrompt
    from study.analyses.cache.replies import Replies


@dataclass(frozen=True, eq=False)
class Forced:
    """Log-probabilities of the labels at each place of each reply [reply, place, label], nats.

    Attributes:
        labels: of the task.
    """

    logp: np.ndarray
    labels: tuple[str, ...]

    def scores(self, positive: str) -> np.ndarray:
        """log p(positive) - log p(any other label) [reply, place].

        Raises:
            ValueError: `positive` is no label of the task.
        """
        at = self.labels.index(positive)
        return self.logp[:, :, at] - _total(np.delete(self.logp, at, axis=2))

    def share_of(self, answers: Sequence[object]) -> np.ndarray:
        """Probability of each reply's own label among the labels [reply, place]; NaN where it has none."""
        share = np.exp(self.logp - _total(self.logp)[:, :, None])
        out = np.full(share.shape[:2], np.nan)
        for k, answer in enumerate(answers):
            if answer in self.labels:
                out[k] = share[k, :, self.labels.index(str(answer))]
        return out

    @property
    def mass(self) -> np.ndarray:
        """Total probability of the labels [reply, place]."""
        return np.exp(_total(self.logp))


def _total(logp: np.ndarray) -> np.ndarray:
    """log of the summed probabilities of the labels [reply, place]."""
    return np.logaddexp.reduce(logp, axis=2)


def labels_to_force(replies: Replies, positive: str) -> tuple[str, ...]:
    """The labels of the task, of which the target is one.

    Raises:
        ValueError: the task names no labels, they differ between items, or the target is none of them.
    """
    named = {labels_of(replies.task, example) for example in replies.examples}
    labels = named.pop() if len(named) == 1 else ()
    if len(labels) < 2 or positive not in labels:
        raise ValueError(
            f"forced answers: the target {positive!r} has to be one of the labels that the task names, the same for "
            f"all items; it names {', '.join(labels) or 'none, or different ones'}. Leave the forced text out."
        )
    return labels


def cut_text(prompt: ReplyPrompt, n_tokens: int, forced: str) -> str:
    """The first tokens of a reply and the forced words; a reply that has reached its label, up to that.

    Example: 3 tokens of "step 1 clerk OK" and "[SIG=DECIDE]" give "step 1 clerk [SIG=DECIDE]".
    """
    start = prompt.spans["answer"][0]
    end = prompt.offsets[prompt.n_prompt + n_tokens - 1][1] if n_tokens else start
    label_at = prompt.decisions[-1][1] if prompt.decisions else None
    if label_at is not None and label_at <= end:
        return prompt.text[start:label_at].rstrip()
    text = prompt.text[start:end].rstrip()
    return f"{text} {forced}" if text else forced


def force(
    model: Model,
    role: str | None,
    replies: Replies,
    prompts: Sequence[ReplyPrompt],
    examples: Sequence[Example],
    *,
    labels: tuple[str, ...],
    fractions: Sequence[float],
    forced: str,
) -> Forced:
    """Log-probability of every label at every place of every reply.

    Raises:
        ValueError: as `label_log_probabilities`.
    """
    from probes.along import Axis

    axis, decoding = Axis("fraction", tuple(fractions)), replies.identity["decoding"]
    how = {"thinking": decoding.get("thinking"), "delimiter": decoding.get("target_delimiter", " ")}
    out = np.empty((len(prompts), len(fractions), len(labels)))
    with nullcontext() if role is None or model.adapters.active == role else model.member(role):
        for k, (prompt, example) in parts(list(enumerate(zip(prompts, examples, strict=True)))):
            places = [cut_text(prompt, n, forced) for n in axis.counts(k, prompt.n_reply)]
            cases = [(example, before, label) for before in places for label in labels]
            found = label_log_probabilities(model, cases, **how)
            out[k] = np.array([value for value, _ in found]).reshape(len(places), len(labels))
    return Forced(out, labels)
