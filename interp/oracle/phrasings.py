"""Wordings of one question and orders of its choices."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from random import Random
from typing import Any

OPTIONS = "{choices}"


def phrasings_of(questions: Sequence[str], choices: Sequence[str], n_orders: int, seed: int) -> list[str]:
    """Every wording with every order of the choices; the first is the question with the choices as given."""
    orders = [list(choices)]
    rng = Random(f"{seed}/orders")
    for _ in range(1000):
        if len(orders) >= n_orders:
            break
        trial = rng.sample(list(choices), len(choices))
        orders += [trial] if trial not in orders else []
    filled = [q.replace(OPTIONS, ", ".join(order)) for q in questions for order in orders]
    return list(dict.fromkeys(filled))


def check_choices(tokenizer: Any, question: str, choices: Sequence[str], n_orders: int, end_of_turn: bool) -> None:
    """At least two different choices, none of which begins another unless the end of the turn is counted.

    Raises:
        ValueError: otherwise, or orders of choices that the question does not list.
    """
    if len(choices) < 2 or len(set(choices)) != len(choices):
        raise ValueError(f"choices: expected at least two different ones, got {list(choices)}.")
    if n_orders > 1 and OPTIONS not in question:
        raise ValueError(f"n_orders={n_orders}: the question does not list the choices; put {OPTIONS} into it.")
    ids = {c: tuple(tokenizer.encode(c, add_special_tokens=False)) for c in choices}
    for short, long in product(choices, choices):
        if short != long and ids[long][: len(ids[short])] == ids[short] and not end_of_turn:
            raise ValueError(
                f"choices: {short!r} begins {long!r}, so it is always the likelier one. Pass end_of_turn=True."
            )
