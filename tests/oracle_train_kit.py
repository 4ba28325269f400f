"""A tiny model, a spec that fits its tokenizer, and random items of two tasks for the training tests."""

from __future__ import annotations

from random import Random
from typing import Any

from interp.model import Model
from interp.oracle.items import Mixture, TrainItem, mix
from interp.oracle.recipe import Recipe
from interp.oracle.spec import OracleSpec
from tests.tiny import tiny, tiny_tokenizer

WORDS = ("yes", "no", "one", "two", "three", "fox", "dog", "lazy")
SPEC = OracleSpec(base_model="tiny", layers=(0, 1, 2))


def tiny_model(family: str = "qwen2", **kw: Any) -> Model:
    return Model(tiny(family, vocab_size=512, **kw), tiny_tokenizer())


def random_items(n: int = 48, *, seed: int = 0, n_problems: int = 12) -> list[TrainItem]:
    """Half of the items ask for one of four words, half for several; contexts of a problem share a beginning."""
    rng = Random(seed)
    texts = [tuple(rng.randrange(5, 512) for _ in range(20)) for _ in range(n_problems)]
    out = []
    for k in range(n):
        problem = k % n_problems
        width, start = rng.randint(1, 3), rng.randint(0, 12)
        at = tuple(range(start, start + width))
        task, answer = (
            ("word", rng.choice(WORDS[:4])) if rng.random() < 0.5 else ("words", " ".join(rng.sample(WORDS, 4)))
        )
        cut = texts[problem][: at[-1] + 1]
        question = "which one ?" if task == "word" else "say the words"
        scoring = "exact" if task == "word" else "nll"
        out.append(TrainItem(task, f"p{problem}", cut, at, (rng.randrange(3),), question, answer, scoring))
    return out


def mixture(n: int = 48, *, seed: int = 0) -> Mixture:
    return mix(random_items(n, seed=seed), validation=4, seed=seed)


def recipe(**changes: Any) -> Recipe:
    quick: dict[str, Any] = dict(rank=2, alpha=4, lr=1e-2, batch_size=4, window=2, drop_longest=0.0, save_every=None)
    return Recipe(**{**quick, **changes})
