"""Training items of the chain-of-thought oracles (tasks of v2, fixes of v3), made from chains and sentence labels.

A label refers to a sentence record, never to an index in a list; a label that could not be built keeps the reason as
its status. Each target is one thing: a class, a tier, a summary. Tiers are percentiles within a chain, probabilities
are put in words that exact match can score, and a failed summary callback gives no summary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from interp.oracle.items import Scoring, TrainItem, balanced
from interp.oracle.spec import OracleSpec
from interp.oracle.wiring import NEXT, PREVIOUS
from interp.prompt import Example, render
from interp.tasks.cot import CLASSES, TIERS, answer_tier, class_of, percentile_tiers

TAXONOMY8 = CLASSES
"""The eight classes of a reasoning sentence, as choices for a question."""
TAXONOMY = "Which kind of reasoning step is this?"
IMPORTANCE = "Is this sentence an anchor of the reasoning? Answer anchor or other."
ANSWER = f"How likely does the model find the final answer here? Answer with one of: {', '.join(t for t, _ in TIERS)}."
SUMMARY = "Summarise the reasoning so far in one or two sentences."

SentenceId = tuple[str, int]
Layers = Sequence[tuple[int, ...]]


@dataclass(frozen=True)
class Chain:
    """One chain of thought as tokens.

    Attributes:
        id, problem: id and problem of the example; splits are by problem.
        ids: token ids of prompt and chain.
        span: [first, end) tokens of the chain.
        ends: last token of each sentence record.
        tails: text of each sentence record, its last 40 characters.
    """

    id: str
    problem: str
    ids: tuple[int, ...]
    span: tuple[int, int]
    ends: tuple[int, ...]
    tails: tuple[str, ...]

    @property
    def sentences(self) -> list[SentenceId]:
        """Keys that labels refer to."""
        return [(self.id, index) for index in range(len(self.ends))]


def chains_of(examples: Iterable[Example], tokenizer: Any, *, thinking: bool | None = None) -> list[Chain]:
    """The chains of `interp.tasks.cot.chain_examples`, tokenised with their chat.

    Raises:
        ValueError: an example has no chain (`answer`) or no sentences in its metadata.
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
    """Layer combinations for items: each of the spec's layers by itself in format A, all of them together otherwise."""
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

    Scored in nats, since exact match of many tokens hardly changes when the likelihood does.

    Raises:
        ValueError: no chain has 3 tokens or more.
    """
    long = [c for c in chains if c.span[1] - c.span[0] >= 3]
    if not long:
        raise ValueError(f"context prediction: expected a chain of 3 tokens or more, got {len(chains)} shorter ones.")
    rng, out = Random(f"{seed}/context"), []
    while len(out) < n:
        chain = rng.choice(long)
        length = chain.span[1] - chain.span[0]
        width = rng.randint(1, min(most_positions, length - 1))
        k = rng.randint(1, min(most_tokens, length - width))
        is_next = rng.random() < 0.5
        lowest = chain.span[0] + (0 if is_next else k)
        at = rng.randint(lowest, chain.span[1] - width - (k if is_next else 0))
        target_ids = chain.ids[at + width : at + width + k] if is_next else chain.ids[at - k : at]
        answer = tokenizer.decode(target_ids, skip_special_tokens=True).strip()
        if answer:
            question = (NEXT if is_next else PREVIOUS).format(k)
            task = "next" if is_next else "previous"
            out.append(_item(chain, task, range(at, at + width), rng.choice(layers), question, answer, "nll"))
    return out


def taxonomy(
    chains: Sequence[Chain], labels: Mapping[SentenceId, str], *, layers: Layers, n: int | None = None, seed: int = 0
) -> list[TrainItem]:
    """Items that ask for a sentence's class, one of eight, at its last token; all classes equally often.

    A label that is no class (an error text, `unknown`) gives an item without an answer, which the audit counts.
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
    """Items that ask whether a sentence is in the `top` share of its chain by importance; both answers equally often.

    A threshold on the value would put whole problems into one class; a share of every chain cannot.
    """
    tiers: dict[SentenceId, str | None] = {}
    for chain in chains:
        labelled = [s for s in chain.sentences if s in values]
        if len(labelled) >= 2:
            tiers |= zip(labelled, percentile_tiers([values[s] for s in labelled], top=top), strict=True)
    return _classes(chains, "importance", IMPORTANCE, tiers, layers, n, seed)


def answer_tracking(
    chains: Sequence[Chain],
    p_answer: Mapping[SentenceId, float],
    *,
    layers: Layers,
    n: int | None = None,
    seed: int = 0,
) -> list[TrainItem]:
    """Items that ask for the logit lens's probability of the answer at a sentence's end, as a tier in words."""
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
    """Items that ask for a summary of each chain, read at the ends of its first sentences.

    A callback that raises or returns nothing gives an item without an answer. There is no fallback sentence: it is what
    made the summaries of v2 constant.
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
    except Exception as error:  # any error of a user's callback becomes the item's status, which the audit counts
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
    unmatched = sorted(set(labels) - {s for chain in chains for s in chain.sentences})
    if unmatched:
        raise ValueError(
            f"{task}: {len(unmatched)} labels match no sentence of these chains, e.g. {unmatched[0]}. Label the "
            f"sentence records of the same corpus (example id, index of the sentence)."
        )
    rng, out, failed = Random(f"{seed}/{task}"), [], []
    for chain in chains:
        for (_, index), label in ((s, labels[s]) for s in chain.sentences if s in labels):
            status = "ok" if label else "no label"
            end, tail = [chain.ends[index]], chain.tails[index]
            item = _item(chain, task, end, rng.choice(layers), question, label or "", "exact", status, tail)
            (out if label else failed).append(item)
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
