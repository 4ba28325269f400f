"""Order-swap pairs of a task with twins, and how far a model binds order rather than words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool

from interp import stats
from interp.heads.effects import HeadEffects
from interp.heads.pairs import TokenPair
from interp.heads.text_pairs import text_pair
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
) -> list[TokenPair]:
    """Twins as token pairs: exp is the twin, `answer` its label, `foil` the other one.

    A pair of the flip set F is a token context (what base carries is the foil); one of the keep set K is its placebo,
    on which patching is expected to do nothing.

    Args:
        twins: (original, twin) examples, as `interp.tasks.procedural.twin_examples` makes them.
        labels: the two label strings.
        before: what the assistant has written before the label: "" for a label at once, a forced prefix, or the
            model's own reply up to its decision.
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
                      base_answer=str(base.label), kind=kind, thinking=thinking)
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
