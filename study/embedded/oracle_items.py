"""What the embedded oracle is asked: kinds of trace steps and of prompt sentences, tokens before and after.

    task      position                              answer
    taxonomy  the verdict that ends a trace step    fit instead none skipped late short
    sentence  the "." that ends a prompt sentence   step needs if present absent by stayed mood
    previous  1-3 neighbouring tokens               the k tokens before them
    next      1-3 neighbouring tokens               the k tokens after them

At the positions of the first two tasks the token itself says little (one of two verdicts) or nothing (always "."), so
what is answered must have been carried there by attention.

Questions are the English ones of any other oracle. The embedded tokenizer has few of their words and reads the others
as <|unk|>; what is left ("step is", "is", a number, "after") still tells the four apart. Answers are all vocabulary.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import cycle, islice
from random import Random

from interp.oracle.cot_items import TAXONOMY
from interp.oracle.items import TrainItem, balanced
from interp.oracle.spec import OracleSpec
from interp.oracle.wiring import NEXT, PREVIOUS
from interp.tasks.procedural.documents import Document, documents, training_documents
from interp.tasks.procedural.generate import Split
from study.embedded.adapters import BASE_NAME
from study.embedded.batches import prompt_words
from study.embedded.tokenizer import STOP, vocabulary

ORACLE, PRIOR = "oracle", "oracle_prior"
SPEC = OracleSpec(base_model=BASE_NAME, layers=("50%",), enable_thinking=None, max_new_tokens=8)
LAYER = 2  # half of the depth
STEP_KINDS = ("fit", "instead", "none", "skipped", "late", "short")
SENTENCE_KINDS = ("step", "needs", "if", "present", "absent", "by", "stayed", "mood")
SENTENCE = "Which kind of sentence is this?"
MAX_TOKENS, MAX_POSITIONS = 5, 3


def oracle_items(n: int, *, seed: str, split: Split = "train", repeat: bool = False) -> list[TrainItem]:
    """The items of `n` documents: half of them audits of anything, half the adapters' training distribution.

    Answers of the two class tasks are balanced over the whole set, at most 2.5 and 1.5 items per document; each
    document adds three items of the token tasks.

    Args:
        repeat: for training, fill up rare answers by repeating their items rather than leave out the others'.
    """
    rng = Random(seed)
    drawn = [*documents(rng, n // 2, split=split), *training_documents(rng, n - n // 2, split=split)]
    texts = [_Text(f"{seed}/{split}/{k}", d) for k, d in enumerate(drawn)]
    steps = [item for text in texts for item in text.step_items()]
    sentences = [item for text in texts for item in text.sentence_items()]
    tokens = [item for text in texts for item in text.token_items(rng)]
    classes = _evenly if repeat else balanced
    return [*classes(steps, n=5 * n // 2), *classes(sentences, n=3 * n // 2), *tokens]


def _evenly(items: Sequence[TrainItem], *, n: int) -> list[TrainItem]:
    """`n` items with every answer equally often; those of an answer in a random order, round and round."""
    by_answer: dict[str, list[TrainItem]] = defaultdict(list)
    for item in items:
        by_answer[item.answer].append(item)
    rng = Random("evenly")
    for same in by_answer.values():
        rng.shuffle(same)  # in order, a frequent answer would come from the first documents alone
    each = n // max(1, len(by_answer))
    return [item for answer in sorted(by_answer) for item in islice(cycle(by_answer[answer]), each)]


class _Text:
    """One document as words: the prompt, its trace, and where steps and sentences end."""

    def __init__(self, problem: str, document: Document) -> None:
        prompt = prompt_words(document.prompt)
        self.problem, self.words = problem, [*prompt, *document.answer.split(), STOP]
        self.ids = tuple(map(vocabulary().__getitem__, self.words))
        self.message = (2, len(prompt) - 3)  # the user's words, without the marks of the chat around them
        self.reply = (len(prompt), len(self.words) - 1)

    def item(self, task: str, at: Sequence[int], question: str, answer: str, **more: str) -> TrainItem:
        cut = self.ids[: at[-1] + 1]
        return TrainItem(task, self.problem, cut, tuple(at), (LAYER,), question, answer, **more)  # pyright: ignore

    def step_items(self) -> list[TrainItem]:
        return [
            self.item("taxonomy", [at], TAXONOMY, kind)
            for at, kind in step_ends(self.words[slice(*self.reply)], offset=self.reply[0])
        ]

    def sentence_items(self) -> list[TrainItem]:
        return [
            self.item("sentence", [at], SENTENCE, kind, boundary=" ".join(self.words[: at + 1][-8:]))
            for at, kind in sentence_ends(self.words[slice(*self.message)], offset=self.message[0])
        ]

    def token_items(self, rng: Random, n: int = 3) -> list[TrainItem]:
        out = []
        for task in rng.choices(("previous", "next"), k=n):
            region = self.reply if rng.random() < 0.5 else self.message
            k, width = rng.randint(1, MAX_TOKENS), rng.randint(1, MAX_POSITIONS)
            first, last = region[0] + k, region[1] - width - k
            if first > last:  # a reply of one word
                continue
            at = rng.randint(first, last)
            chosen = list(range(at, at + width))
            told = self.words[at - k : at] if task == "previous" else self.words[at + width : at + width + k]
            question = (PREVIOUS if task == "previous" else NEXT).format(k)
            out.append(self.item(task, chosen, question, " ".join(told), scoring="nll"))
        return out


def step_ends(reply: Sequence[str], *, offset: int = 0) -> list[tuple[int, str]]:
    """(token, kind) of the verdict that ends every step of a trace, kinds as in `STEP_KINDS`.

    A step that holds is `fit`, or `instead` where an exception replaced it; one that does not is `none` (no event),
    `skipped`, `late` (out of order, whatever the rank) or `short` (rank too low). Other kinds are left out.
    """
    out, since = [], 0
    for at, word in enumerate(reply):
        if word == "[SIG=STEP]":
            since = at
        if word not in ("[SIG=OK]", "[SIG=VIOLATION]"):
            continue
        words = set(reply[since:at])
        order = ("waived", "also", "instead", "fit") if word == "[SIG=OK]" else ("none", "skipped", "late", "short")
        kind = next((kind for kind in order if kind in words), None)
        if kind in STEP_KINDS:
            out.append((offset + at, kind))
    return out


def sentence_ends(message: Sequence[str], *, offset: int = 0) -> list[tuple[int, str]]:
    """(token, kind) of the "." that ends every sentence of a log prompt, kinds as in `SENTENCE_KINDS`.

    Rules: `step`, `needs`, `if`. Scenario: a condition `present` or `absent`, an event `by` someone, something
    irrelevant that `stayed` so, the `mood`.
    """
    out, since, is_rule = [], 0, True
    for at, word in enumerate(message):
        if word in ("Procedure:", "Scenario:"):
            since, is_rule = at + 1, word == "Procedure:"
        if word == "Question:":
            break
        if word == ".":
            kind = _sentence_kind(message[since:at], is_rule=is_rule)
            since = at + 1
            if kind in SENTENCE_KINDS:
                out.append((offset + at, kind))
    return out


def _sentence_kind(words: Sequence[str], *, is_rule: bool) -> str | None:
    if is_rule:
        if words[0] in ("if", "in"):
            return {"if": "if"}.get(words[0])
        return "needs" if words[0] == "step" else "step"
    return (
        "mood" if words[0] == "mood" else next((w for w in ("stayed", "present", "absent", "by") if w in words), None)
    )
