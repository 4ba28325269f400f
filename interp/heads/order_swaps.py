"""Order-swap pairs of a task with twins, and how far a model binds order rather than words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Bool

from interp import stats
from interp.heads.effects import HeadEffects
from interp.heads.pairs import TokenPair, text_pair
from interp.prompt import Example

if TYPE_CHECKING:
    import pandas as pd

ExamplePairs = Sequence[tuple[Example, Example]]
FLIP, KEEP = "flip", "keep"


def swap_pairs(
    twins: ExamplePairs,
    labels: Sequence[str],
    tokenizer: Any,
    *,
    before: Callable[[Example], str] = lambda example: "",
    thinking: bool | None = None,
    group: str | None = None,
) -> list[TokenPair]:
    """Twins as token pairs: exp is the twin, `answer` its label, `foil` the other one.

    A pair of the flip set F is a token context (what base carries is the foil); one of the keep set K is its placebo,
    on which patching is expected to do nothing.

    Args:
        twins: (original, twin) examples, as `interp.tasks.procedural.twin_examples` makes them.
        labels: the two label strings.
        before: what the assistant has written before the label: "" for a label at once, a forced prefix, or the
            model's own reply up to its decision.
        group: as in `text_pair`.
    Raises:
        ValueError: a label that is not one of two, and as `text_pair`.
    """
    out = []
    for base, exp in twins:
        said, other = str(exp.label), [label for label in labels if label != exp.label]
        if len(labels) != 2 or len(other) != 1:
            raise ValueError(f"twin {exp.id!r}: label {exp.label!r}; expected one of two, {', '.join(labels)}.")
        kind = FLIP if base.label != exp.label else KEEP
        out.append(
            text_pair(base, exp, tokenizer, answer=said, foil=other[0], before=before(exp), base_before=before(base),
                      base_answer=str(base.label), kind=kind, thinking=thinking, group=group)
        )  # fmt: skip
    return out


def swap_metrics(effects: HeadEffects) -> pd.DataFrame:
    """`order_swap_table` of the unchanged runs of a patching sweep over order-swap pairs."""
    right = effects.values["clean_right"][:, 0] > 0
    return order_swap_table(effects.pairs, effects.base_right > 0, right)


def order_swap_table(
    pairs: Sequence[TokenPair], base_right: Bool[np.ndarray, "pair"], exp_right: Bool[np.ndarray, "pair"]
) -> pd.DataFrame:
    """What the answers to twins say about binding, each with its interval, n, and what order-blind readers score.

        acc_swapped_F      accuracy on the twins of F                                       0.5 for a constant answer
        pair_acc_F         both twins of F right                                            0 for any order-blind reader
        flip_rate_F, _K    share of pairs on which the answer changes                       0, 0
        order_sensitivity  flip_rate_F - flip_rate_K, in [-1, 1]                            0
        mcnemar_F          original right against twin right; `p` is exact

    `constant` is the better of the two constant answers on these very twins; `order_blind` is a reader of the bag of
    words, who answers both twins alike.

    Raises:
        ValueError: no pair of F or none of K.
    """
    import pandas as pd

    flips = np.array([pair.flips for pair in pairs])
    if not flips.any() or flips.all():
        raise ValueError("order swap: expected pairs that flip the answer and pairs that keep it.")
    changed = np.where(flips, base_right == exp_right, base_right != exp_right)
    groups = [pair.unit for pair in pairs]
    labels = [pair.label for pair, flip in zip(pairs, flips, strict=True) if flip]
    constant = max(labels.count(label) for label in set(labels)) / len(labels)

    def rate(event: np.ndarray, subset: np.ndarray) -> stats.Estimate:
        chosen = [group for group, kept in zip(groups, subset, strict=True) if kept]
        return stats.wilson_clustered(event[subset], groups=chosen)

    rate_f, rate_k = rate(changed, flips), rate(changed, ~flips)
    found = [
        ("acc_swapped_F", rate(exp_right, flips), constant, 0.5),
        ("pair_acc_F", rate(exp_right & base_right, flips), 0.0, 0.0),
        ("flip_rate_F", rate_f, 0.0, 0.0),
        ("flip_rate_K", rate_k, 0.0, 0.0),
        ("order_sensitivity", stats.square_and_add(rate_f, rate_k), 0.0, 0.0),
    ]
    only = (int((base_right & ~exp_right & flips).sum()), int((~base_right & exp_right & flips).sum()))
    rows = [
        {"metric": name, "value": e.value, "lo": e.lo, "hi": e.hi, "n": e.n, "n_groups": e.n_groups,
         "constant": flat, "order_blind": blind, "p": np.nan}
        for name, e, flat, blind in found
    ]  # fmt: skip
    n = int(flips.sum())
    rows.append({"metric": "mcnemar_F", "value": (only[1] - only[0]) / n, "lo": np.nan, "hi": np.nan, "n": n,
                 "n_groups": n, "constant": np.nan, "order_blind": 0.0, "p": stats.mcnemar(*only).p})  # fmt: skip
    return pd.DataFrame(rows)


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
