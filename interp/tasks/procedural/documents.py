"""Training text of the embedded pair: base documents (audits of anything) and the adapters' training distribution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from random import Random

from interp.tasks.procedural.engine import audit
from interp.tasks.procedural.generate import DEFAULT, GeneratorConfig, Split, original, shuffled
from interp.tasks.procedural.latent import Instance
from interp.tasks.procedural.perturb import PERTURBATIONS, distract, parent_of
from interp.tasks.procedural.render import render
from interp.tasks.procedural.replies import tagged_trace
from interp.tasks.procedural.vocabulary import AUDIT_QUESTION, TASK_QUESTION, TONES, tones

# exception_handled and order swaps are rare skills: three times the weight of the rest
BASE_MIX = ("baseline_compliant", "baseline_noncompliant", "step_reorder_invalid", "prerequisite_omission")
BASE_MIX += ("hierarchy_violation", "exception_trigger") + ("exception_handled",) * 3
BASE_MIX += ("ord_swap_flip",) * 2 + ("ord_swap_rebind",)
COMPLIANT_MIX = ("baseline_compliant",) * 3 + ("exception_handled", "ord_swap_rebind", "ord_swap_keep_listing")
NONCOMPLIANT_MIX = ("baseline_noncompliant", "step_reorder_invalid", "prerequisite_omission")
NONCOMPLIANT_MIX += ("hierarchy_violation", "exception_trigger", "ord_swap_flip")


@dataclass(frozen=True, slots=True)
class Document:
    """One training text: a user message and the reply to it.

    Attributes:
        prompt: content of the only message, a user message.
        trace: the reply without the label, ending in [SIG=DECIDE]; empty for a label-only document.
        label: the last word of the reply.
        tags: one per word of the reply (label included), from `trace.TAGS`; `trace.HARD_TAGS` weigh more.
        instance: the latent values behind it.
    """

    prompt: str
    trace: str
    label: str
    tags: tuple[str, ...]
    instance: Instance

    @property
    def answer(self) -> str:
        """The reply: trace and label."""
        return f"{self.trace} {self.label}" if self.trace else self.label


def documents(
    rng: Random,
    n: int,
    *,
    split: Split | None = "train",
    config: GeneratorConfig = DEFAULT,
    p_shuffled: float = 0.65,
    p_label_only: float = 0.06,
    p_paraphrase: float = 0.25,
    p_distractor: float = 0.2,
) -> list[Document]:
    """Base-training documents: audits under the question "audit each step .", and a few bare labels.

    Args:
        rng: source of every draw.
        n: how many.
        split: only procedures of this split; None takes all.
        config: how originals are drawn.
        p_shuffled: share of `shuffled` latents; the rest are perturbations in the proportions of `BASE_MIX`.
        p_label_only: share of documents that ask the task question and answer with the label alone; their labels are
            balanced, half and half.
        p_paraphrase: share of documents in which each event is told in held-out synonyms with chance .8 (the base
            learns the synonym table; the adapters need not see it).
        p_distractor: share of documents with one or two irrelevant sentences, from either side of the lexical split.
    The tone is drawn from all ten and says nothing.
    """

    def draw() -> Instance:
        is_shuffled = rng.random() < p_shuffled
        instance = _drawn(rng, config, split, None if is_shuffled else rng.choice(BASE_MIX))
        instance = replace(instance, scenario=replace(instance.scenario, tone=rng.randrange(len(TONES))))
        return _overlay(rng, instance, p_paraphrase, p_distractor, sides=(False, True))

    out = []
    for _ in range(n):
        if rng.random() < p_label_only:
            label = rng.choice(("compliant", "noncompliant"))
            instance = _until(draw, label)
            out.append(document(instance, question=TASK_QUESTION, with_trace=False))
        else:
            out.append(document(draw(), question=AUDIT_QUESTION))
    return out


def training_documents(
    rng: Random,
    n: int,
    *,
    rho: float = 0.97,
    split: Split | None = "train",
    config: GeneratorConfig = DEFAULT,
    p_shuffled: float = 0.2,
    p_paraphrase: float = 0.0,
    p_distractor: float = 0.2,
    with_trace: bool = True,
) -> list[Document]:
    """The distribution on which both adapters are tuned: the task question, labels half and half, an informative tone.

        P(tone sounds like the label) = rho

    Args:
        rng, n, split, config: as for `documents`.
        rho: reliability of the surface cue: the accuracy of a model that uses the tone alone.
        p_shuffled: share of `shuffled` latents (label-balanced too); the rest are perturbations.
        p_paraphrase: 0 keeps the held-out synonyms out of the adapters' text.
        p_distractor: share with irrelevant sentences, training side only.
        with_trace: False gives bare labels (what the heuristic member answers).
    Raises:
        ValueError: rho is not a probability.
    """
    if not 0 <= rho <= 1:
        raise ValueError(f"rho: expected a probability in [0, 1], got {rho}.")
    items = training_instances(
        rng,
        n,
        rho=rho,
        split=split,
        config=config,
        p_shuffled=p_shuffled,
        p_paraphrase=p_paraphrase,
        p_distractor=p_distractor,
    )
    return [document(i, question=TASK_QUESTION, with_trace=with_trace) for i in items]


def training_instances(
    rng: Random,
    n: int,
    *,
    rho: float,
    split: Split | None,
    config: GeneratorConfig = DEFAULT,
    p_shuffled: float = 0.2,
    p_paraphrase: float = 0.0,
    p_distractor: float = 0.2,
) -> list[Instance]:
    """The latent instances of `training_documents`."""
    out = []
    for _ in range(n):
        label = rng.choice(("compliant", "noncompliant"))
        mix = COMPLIANT_MIX if label == "compliant" else NONCOMPLIANT_MIX
        is_shuffled = rng.random() < p_shuffled

        def draw(mix: Sequence[str] = mix, is_shuffled: bool = is_shuffled) -> Instance:
            return _drawn(rng, config, split, None if is_shuffled else rng.choice(mix))

        instance = _until(draw, label)
        polarity = (1 if label == "compliant" else -1) * (1 if rng.random() < rho else -1)
        tone = rng.choice(tones(polarity, held_out=False))
        instance = replace(instance, scenario=replace(instance.scenario, tone=tone))
        out.append(_overlay(rng, instance, p_paraphrase, p_distractor, sides=(False,)))
    return out


def document(instance: Instance, *, question: str = TASK_QUESTION, with_trace: bool = True) -> Document:
    """The log document of one instance."""
    tagged = tagged_trace(instance)
    if not with_trace:
        tagged = tagged[-1:]
    words, tags = zip(*tagged, strict=True)
    prompt = render(instance, rendering="log", question=question).text
    return Document(prompt, " ".join(words[:-1]), words[-1], tuple(tags), instance)


def _drawn(rng: Random, config: GeneratorConfig, split: Split | None, cell: str | None) -> Instance:
    """An item of a cell, or a shuffled latent for None."""
    if cell is None:
        return shuffled(rng, config, split=split)
    row = PERTURBATIONS[cell]
    return row.edit(rng, parent_of(rng, original(rng, config, split=split), row))


def _overlay(
    rng: Random, instance: Instance, p_paraphrase: float, p_distractor: float, *, sides: tuple[bool, ...]
) -> Instance:
    if rng.random() < p_paraphrase:
        events = tuple(replace(e, wording="held_out") if rng.random() < 0.8 else e for e in instance.scenario.events)
        instance = replace(instance, scenario=replace(instance.scenario, events=events))
    if rng.random() < p_distractor:
        instance = distract(rng, instance, held_out=rng.choice(sides))
    return instance


def _until(draw: Callable[[], Instance], label: str) -> Instance:
    """The next draw with that label."""
    while audit(instance := draw()).label != label:
        pass
    return instance
