"""Yang's contexts: ABA and ABB lines over a user's words, paired so that one thing differs between base and exp."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

from interp.heads.pairs import TokenPair

Rule = Literal["ABA", "ABB"]
Context = Literal["abstract", "token"]


@dataclass(frozen=True)
class Line:
    """Two words; the rule says which of them comes third."""

    first: str
    second: str

    def swapped(self) -> Line:
        return Line(self.second, self.first)

    def third(self, rule: Rule) -> str:
        return self.first if rule == "ABA" else self.second


def identity_pairs(
    words: Sequence[str],
    tokenizer: Any,
    *,
    n: int,
    context: Context = "token",
    rule: Rule = "ABA",
    k: int = 2,
    at: Literal["third", "last"] = "last",
    seed: int = 0,
    separator: str = "^",
    newline: str = "\n",
) -> list[TokenPair]:
    """`n` pairs of k lines `a^b^c` and a query `x^y^`, the two words of the query exchanged between base and exp.

        token      same rule, same lines. The base answer differs from the exp answer; foil = the base answer.
                   Which heads carry the retrieved word: Yang's stage 3.
        abstract   base follows `rule`, exp the other one: the first two words of each line are exchanged, the third
                   is the same word. foil = the word of exp's query that base's rule selects.
                   Which heads carry the rule: stage 1 (at="third") and stage 2 (at="last").

    Args:
        rule: what base follows; scores are averaged over both.
        at: positions="pairs" means the third word of every line, or the last token.
    Raises:
        ValueError: too few words that are one token each between separators.
    Source: yukang123/LLMSymbMech @ f8e67c9, tasks/identity_rules/cma.py; arXiv 2502.20332.
    """
    dice, pool = Random(seed), sorted(set(words))
    if len(pool) < 2 * k + 2:
        raise ValueError(f"identity rules: {2 * k + 2} different words are needed for k={k}, got {len(pool)}.")
    out: list[TokenPair] = []
    for _ in range(50 * n):
        if len(out) == n:
            break
        drawn = dice.sample(pool, 2 * k + 2)
        lines = [Line(a, b) for a, b in zip(drawn[::2], drawn[1::2], strict=True)]
        pair = _pair(lines, tokenizer, context, rule, at, (separator, newline), index=len(out))
        if pair is not None:
            out.append(pair)
    if len(out) < n:
        raise ValueError(
            f"identity rules: {len(out)} of {n} prompts tokenise to {6 * k + 4} tokens with separators between; give "
            f"words that are one token each after {separator!r} and {newline!r}."
        )
    return out


def _pair(
    lines: list[Line],
    tokenizer: Any,
    context: Context,
    rule: Rule,
    at: Literal["third", "last"],
    marks: tuple[str, str],
    *,
    index: int,
) -> TokenPair | None:
    other: Rule = "ABB" if rule == "ABA" else "ABA"
    examples, query = lines[:-1], lines[-1]
    base = _ids([(line, rule) for line in examples], query, tokenizer, marks)
    if context == "token":
        exp = _ids([(line, rule) for line in examples], query.swapped(), tokenizer, marks)
        answer, foil, own = query.swapped().third(rule), query.third(rule), query.third(rule)
    else:
        exp = _ids([(line.swapped(), other) for line in examples], query.swapped(), tokenizer, marks)
        answer, foil, own = query.swapped().third(other), query.swapped().third(rule), query.third(rule)
    if base is None or exp is None:
        return None
    words, n_front = {query.first: exp[-2], query.second: exp[-4]}, len(exp) - 6 * len(examples) - 4
    thirds = tuple(n_front + 6 * line + 4 for line in range(len(examples)))
    return TokenPair(
        base,
        exp,
        words[answer],
        words[foil],
        thirds if at == "third" else (len(exp) - 1,),
        base_answer=words[own],
        id=f"{rule}-{context}-{index:04d}",
        label=rule if context == "token" else other,
        kind=f"{rule}/{context}",
        roles={"third": thirds, "query": (len(exp) - 4, len(exp) - 2)},
        base_roles={"third": thirds, "query": (len(exp) - 4, len(exp) - 2)},
    )


def _ids(
    examples: list[tuple[Line, Rule]], query: Line, tokenizer: Any, marks: tuple[str, str]
) -> tuple[int, ...] | None:
    """Token ids, or None where a word is not one token or merges with a separator."""
    separator, newline = marks
    text = "".join(f"{x.first}{separator}{x.second}{separator}{x.third(rule)}{newline}" for x, rule in examples)
    text += f"{query.first}{separator}{query.second}{separator}"
    ids = list(tokenizer(text, add_special_tokens=True)["input_ids"])
    n, at = 6 * len(examples) + 4, tokenizer(separator, add_special_tokens=False)["input_ids"]
    tail = ids[-n:]
    ends = [tail[i] for i in range(n) if i % 2 and i % 6 != 5]
    fits = len(ids) - n in (0, 1) and len(at) == 1 and all(token == at[0] for token in ends)
    return tuple(ids) if fits else None
