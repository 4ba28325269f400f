"""The tasks of the chain-of-thought oracles (v2), with the repairs of v3: items from chains and labels of sentences.

A label names the record of a sentence, never a place in a list; a label that could not be built keeps the reason as its
status. Targets say one thing each: a class, a tier, a summary. Tiers are percentiles of each chain, probabilities are
told in words that exact match can reach, summaries come from a callback whose failures are no summaries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from interp.oracle.items import Scoring, TrainItem, balanced
from interp.oracle.spec import OracleSpec
from interp.oracle.taxonomy import QUESTION as TAXONOMY
from interp.oracle.wiring import NEXT, PREVIOUS
from interp.prompt import Example, render
from interp.tasks.cot import TIERS, answer_tier, class_of, percentile_tiers

IMPORTANCE = "Is this sentence an anchor of the reasoning? Answer anchor or other."
ANSWER = f"How likely does the model find the final answer here? Answer with one of: {', '.join(t for t, _ in TIERS)}."
SUMMARY = "Summarise the reasoning so far in one or two sentences."

SentenceId = tuple[str, int]
Layers = Sequence[tuple[int, ...]]


@dataclass(frozen=True)
class Chain:
    """One chain of thought as tokens.

    Attributes:
        id, problem: of the example; the problem is the unit of splits.
        ids: prompt and chain.
        span: [first, end) tokens of the chain.
        ends: per sentence record its last token; `tails` the text before and with it.
    """

    id: str
    problem: str
    ids: tuple[int, ...]
    span: tuple[int, int]
    ends: tuple[int, ...]
    tails: tuple[str, ...]

    @property
    def sentences(self) -> list[SentenceId]:
        """What labels refer to."""
        return [(self.id, index) for index in range(len(self.ends))]


def chains_of(examples: Iterable[Example], tokenizer: Any, *, thinking: bool | None = None) -> list[Chain]:
    """The chains of `interp.tasks.cot.chain_examples`, tokenised with their chat.

    Raises:
        ValueError: an example without a chain (`answer`) or without its sentences in the metadata.
    """
    out = []
    for example in examples:
        ranges: Any = example.metadata.get("sentences")
        if example.answer is None or not ranges:
            raise ValueError(
                f"example {example.id!r}: expected a chain of thought as its answer and the character ranges of its "
                f"sentences in the metadata; read it with interp.tasks.cot.chain_examples."
            )
        prompt = render(example, tokenizer, thinking=thinking)
        start, end = prompt.spans["answer"]
        inside = prompt.tokens_in(start, end)
        ends = tuple(prompt.tokens_in(start + a, start + b)[-1] for a, b in ranges)
        tails = tuple(prompt.text[start + a : start + b][-40:] for a, b in ranges)
        problem = str(example.groups.get("problem", example.id))
        out.append(Chain(example.id, problem, prompt.ids, (inside[0], inside[-1] + 1), ends, tails))
    return out


def layer_choices(spec: OracleSpec, n_layers: int) -> list[tuple[int, ...]]:
    """What an item may read: one of the spec's layers at a time in format A, all of them together in the others."""
    indices = spec.layer_indices(n_layers)
    return [(layer,) for layer in indices] if spec.format == "A" else [indices]


def context_prediction(
    chains: Sequence[Chain],
    tokenizer: Any,
    *,
    n: int,
    layers: Layers,
    seed: int = 0,
    most_tokens: int = 20,
    most_positions: int = 20,
) -> list[TrainItem]:
    """`n` items: the k tokens before, or after, 1-`most_positions` neighbouring tokens of a chain; k = 1-`most_tokens`.

    Scored in nats: exact match of many tokens hardly moves where the likelihood does.

    Raises:
        ValueError: no chain is long enough.
    """
    long = [c for c in chains if c.span[1] - c.span[0] >= 3]
    if not long:
        raise ValueError(f"context prediction: none of {len(chains)} chains has 3 tokens or more.")
    rng, out = Random(f"{seed}/context"), []
    while len(out) < n:
        chain = rng.choice(long)
        length = chain.span[1] - chain.span[0]
        width = rng.randint(1, min(most_positions, length - 1))
        k = rng.randint(1, min(most_tokens, length - width))
        is_next = rng.random() < 0.5
        lowest = chain.span[0] + (0 if is_next else k)
        at = rng.randint(lowest, chain.span[1] - width - (k if is_next else 0))
        told = chain.ids[at + width : at + width + k] if is_next else chain.ids[at - k : at]
        answer = tokenizer.decode(told, skip_special_tokens=True).strip()
        if answer:
            question = (NEXT if is_next else PREVIOUS).format(k)
            task = "next" if is_next else "previous"
            out.append(_item(chain, task, range(at, at + width), rng.choice(layers), question, answer, "nll"))
    return out


def taxonomy(
    chains: Sequence[Chain], labels: Mapping[SentenceId, str], *, layers: Layers, n: int | None = None, seed: int = 0
) -> list[TrainItem]:
    """Which of the eight classes a sentence is, read at its last token; classes equally often.

    A label that names no class (an error text, `unknown`) is an item without an answer, which the audit counts.
    """
    return _classes(chains, "taxonomy", TAXONOMY, {k: class_of(v) for k, v in labels.items()}, layers, n, seed)


def importance(
    chains: Sequence[Chain],
    values: Mapping[SentenceId, float],
    *,
    layers: Layers,
    top: float = 0.3,
    n: int | None = None,
    seed: int = 0,
) -> list[TrainItem]:
    """Whether a sentence is among the `top` share of its chain by importance; both answers equally often.

    A threshold on the value would make whole problems one class; a share of every chain cannot.
    """
    tiers: dict[SentenceId, str | None] = {}
    for chain in chains:
        known = [s for s in chain.sentences if s in values]
        if len(known) >= 2:
            tiers |= zip(known, percentile_tiers([values[s] for s in known], top=top), strict=True)
    return _classes(chains, "importance", IMPORTANCE, tiers, layers, n, seed)


def answer_tracking(
    chains: Sequence[Chain],
    p_answer: Mapping[SentenceId, float],
    *,
    layers: Layers,
    n: int | None = None,
    seed: int = 0,
) -> list[TrainItem]:
    """How probable a logit lens finds the answer at a sentence's end, as a tier: what exact match can reach."""
    tiers: dict[SentenceId, str | None] = {key: answer_tier(p) for key, p in p_answer.items()}
    return _classes(chains, "answer", ANSWER, tiers, layers, n, seed)


def summary(
    chains: Sequence[Chain],
    summarise: Callable[[Chain], str | None],
    *,
    layers: Layers,
    most_positions: int = 15,
    seed: int = 0,
) -> list[TrainItem]:
    """The user's summary of each chain, read at the ends of its first sentences.

    A callback that raises or returns nothing makes an item without an answer. No sentence stands in for it: one fixed
    sentence in place of failures is what made the summaries of v2 constant.
    """
    rng, out = Random(f"{seed}/summary"), []
    for chain in chains:
        text, status = _called(summarise, chain)
        at = sorted(set(chain.ends[:most_positions]))
        out.append(_item(chain, "summary", at, rng.choice(layers), SUMMARY, text, "f1", status=status))
    return out


def _called(summarise: Callable[[Chain], str | None], chain: Chain) -> tuple[str, str]:
    try:
        text = (summarise(chain) or "").strip()
    except Exception as error:  # whatever a user's callback raises is the reason that is audited
        return "", f"{type(error).__name__}: {error}"
    return (text, "ok") if text else ("", "no summary")


def _classes(
    chains: Sequence[Chain],
    task: str,
    question: str,
    labels: Mapping[SentenceId, str | None],
    layers: Layers,
    n: int | None,
    seed: int,
) -> list[TrainItem]:
    """One item per labelled sentence, balanced by answer; all items without an answer stay in for the audit."""
    strange = sorted(set(labels) - {s for chain in chains for s in chain.sentences})
    if strange:
        raise ValueError(
            f"{task}: {len(strange)} labels are of no sentence of these chains, e.g. {strange[0]}. Label the sentence "
            f"records of the same corpus (example id, index of the sentence)."
        )
    rng, out, failed = Random(f"{seed}/{task}"), [], []
    for chain in chains:
        for (_, index), label in ((s, labels[s]) for s in chain.sentences if s in labels):
            status = "ok" if label else "no label"
            end, tail = [chain.ends[index]], chain.tails[index]
            made = _item(chain, task, end, rng.choice(layers), question, label or "", "exact", status, tail)
            (out if label else failed).append(made)
    return [*balanced(out, n=n, seed=seed), *failed]


def _item(
    chain: Chain,
    task: str,
    at: Sequence[int],
    layers: tuple[int, ...],
    question: str,
    answer: str,
    scoring: Scoring,
    status: str = "ok",
    boundary: str | None = None,
) -> TrainItem:
    cut = chain.ids[: at[-1] + 1]
    return TrainItem(task, chain.problem, cut, tuple(at), layers, question, answer, scoring, status, boundary)
