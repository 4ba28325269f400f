"""Views and tables of scores along replies that are made up, with text that attacks a page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from study.tokens import FACTS, TOKEN, write_tokens
from study.view import Item, Strip, Track, View
from study.view.data import Values

HOSTILE = '</script><img src=x onerror="window.hit=1">'
HIDDEN = "a\u202eb\u200b\u2028"
SCORE = Track("verdict = yes at resid_post.2", "score of the probe", 0.0, 2.0, "yes", "no")
LOOKS = Track("attention of L1.H0", "share", 0.0, 1.0, "attended to", reference="without preference", is_pattern=True)


def made_up(n_items: int = 3, n_tokens: int = 12) -> View:
    """Two members, a track of scores with its null and a pattern."""
    return View(f"Scores {HOSTILE}", [SCORE, LOOKS], [_item(k, n_tokens) for k in range(n_items)], "What is shown.", 2)


def _item(k: int, n: int) -> Item:
    return Item(f"item-{k}", [_strip(k, "engaged", n, True), _strip(k, "heuristic", n, k % 2 == 0)], f"cell {k % 2}")


def _strip(k: int, member: str, n: int, is_right: bool) -> Strip:
    rng = np.random.default_rng([k, len(member)])
    words = [HOSTILE, HIDDEN, " line\n", *(f" word{i}" for i in range(3, n))]
    score, null = rng.normal(size=n) * 2, rng.normal(size=n) * 0.1
    of_null = Values(score.tolist(), null.tolist(), (null - 1).tolist(), (null + 1).tolist(), [1] * n, 19)
    pattern = np.tril(np.ones((n, n))) / np.arange(1, n + 1)[:, None]
    rows = [pattern[q, : q + 1].tolist() for q in range(n)]
    looks = Values(rows, (1 / np.arange(1, n + 1)).tolist())
    return Strip(
        member, words, [of_null, looks], -1, {3: "step_lookup"}, {"gold": "yes"}, is_right, f"Prompt {HOSTILE}"
    )


def write_along(folder: Path, n_items: int = 6) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A folder as `diptych probes along` leaves it: two members, two cells, one with twice as many items."""
    rng = np.random.default_rng(0)
    tokens, replies = [], []
    for k in range(n_items):
        for member in ("engaged", "heuristic"):
            n = int(rng.integers(3, 6))
            fact = dict.fromkeys(FACTS, "") | {"member": member, "item": f"i{k}", "sample": 0, "read_by": member}
            fact |= {"cell": "rare" if k % 3 == 0 else "often", "target": "yes", "is_positive": True, "gold": "yes"}
            fact |= {"pred": "no", "is_correct": False if k else None, "split": "test", "site": "resid_post.2"}
            replies.append(fact | {"n_controls": 19, "prompt": "Ask", "reply": " a" * n, "train_checkpoint": member})
            for token in range(-1, n):
                row = dict.fromkeys(TOKEN, 0.0) | {"member": member, "item": f"i{k}", "sample": 0, "token": token}
                row |= {"token_id": 5, "token_text": " a", "span": "label" if token == n - 1 else "", "rank": 1.0}
                tokens.append(
                    row | {"score": float(rng.normal()), "null_median": 0.25, "null_lo": -1.0, "null_hi": 1.0}
                )
    found = pd.DataFrame(tokens), pd.DataFrame(replies)
    write_tokens(folder, *found)
    return found
