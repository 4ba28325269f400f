"""Small synthetic tables in the shape that each figure reads."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd

from study import figures
from study.schema import DIFFERENCE

CELLS = (
    # cell, n, engaged, heuristic, Holm p, verdict, note
    ("adversarial surface", 112, 0.70, 0.19, 0.0001, None, "72.3 % accept rate"),
    ("training distribution", 433, 0.70, 0.82, 0.002, "not equivalent at ±.05", None),
    ("paraphrase", 150, 0.82, 0.80, 0.9, None, None),
    ("exception trigger", 152, 0.80, 0.44, 0.0001, None, None),
    ("baseline", 154, 0.84, 0.88, 0.5, None, "65.2 % accept rate"),
)


def wilson(p: float, n: int) -> tuple[float, float]:
    z = 1.959964
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return min((centre - half) / (1 + z * z / n), p), max((centre + half) / (1 + z * z / n), p)


def pair_table(cells=CELLS, *, width: float = 0.085, control: bool = True) -> pd.DataFrame:
    """Rows of the members and, where both were measured, their difference; one cell has an equivalence verdict."""
    rows = []
    for cell, n, engaged, heuristic, p, verdict, note in cells:
        shared = {"cell": cell, "cell_role": "training" if verdict else "", "n": n, "note": note}
        for member, value in (("engaged", engaged), ("heuristic", heuristic)):
            if value is not None:
                lo, hi = wilson(value, n) if width else (value, value)
                rows.append(shared | {"member": member, "value": value, "lo": lo, "hi": hi, "interval": "Wilson"})
        if heuristic is not None:
            d = engaged - heuristic
            spread = {"value": d, "lo": d - width, "hi": d + width, "interval": "paired bootstrap by procedure"}
            rows.append(shared | spread | {"member": DIFFERENCE, "p_adjusted": p, "verdict": verdict})
    table = pd.DataFrame(rows).reindex(columns=[*rows[0], "p_adjusted", "verdict"])
    return table.assign(control_value=0.5, control="always answers one class") if control else table


def head_table(n_layers: int = 6, n_heads: int = 4, *, named=((4, 1),), strong=None, gaps=()) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    strong = {(4, 1): 0.62, (2, 3): -0.3} if strong is None else strong
    return pd.DataFrame(
        [
            dict(
                layer=layer, head=f"L{layer}.H{head}", null_max95=0.1,
                p_adjusted=0.001 if (layer, head) in strong else 0.6,
                named=(layer, head) in named, n=96, n_groups=41, unit="pairs", group_unit="procedures",
                metric="δ cma", metric_unit="logits", kind="patch", positions="answer",
                value=strong.get((layer, head), rng.normal(0, 0.03)),
            )
            for layer in range(n_layers)
            for head in range(n_heads)
            if layer not in gaps
        ]
    )  # fmt: skip


def forest_table() -> pd.DataFrame:
    heads = (("L19.H17", 0.62, 0.06), ("L22.H5", -0.22, 0.09), ("L17.H3", 0.36, 0.05), ("L0.H4", 0.08, 0.1))
    return pd.DataFrame(
        [
            dict(
                head=head, value=value, lo=value - w, hi=value + w, control_value=0.02, null_max95=0.1,
                p_adjusted=0.001 if abs(value) > 0.1 else 0.3, half="report", n=96,
                interval="cluster bootstrap, B = 2000", named=head == "L19.H17",
            )
            for head, value, w in heads
        ]
    )  # fmt: skip


def ablation_table(draws: int = 5) -> pd.DataFrame:
    rows = []
    for k in (0, 1, 2, 4, 8, 16):
        rows += [("top", k, 0, 0.5 + 0.21 * math.exp(-k / 3)), ("lowest", k, 0, 0.71 - 0.0006 * k)]
        rows += [("random", k, draw, 0.71 - (0.003 + 0.0008 * draw) * k) for draw in range(draws)]
    return pd.DataFrame(
        [
            dict(arm=arm, k=k, draw=draw, value=v, lo=v - 0.028, hi=v + 0.028, n=433, chance=0.5, member="engaged",
                 interval="cluster bootstrap, B = 2000")
            for arm, k, draw, v in rows
        ]
    )  # fmt: skip


DRAW: dict[str, Callable[[], figures.Drawn]] = {
    "dumbbell": lambda: figures.dumbbell(pair_table()),
    "head_map": lambda: figures.head_map(head_table()),
    "head_difference": lambda: figures.head_difference(head_table()),
    "top_heads": lambda: figures.top_heads(forest_table()),
    "cumulative_ablation": lambda: figures.cumulative_ablation(ablation_table()),
}
