"""Small synthetic tables in the shape that the figures of matching, steering and triage read."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from study import figures

KIND = "cluster bootstrap by story, B = 4000"


def match_table(layers=(28, 48), *, draws: int = 200, good: float = 0.7, named=True) -> pd.DataFrame:
    rng, rows = np.random.default_rng(4), []
    for i in range(70):
        a = int(rng.integers(layers[0]))
        found = rng.random() < good
        near = int(np.clip((a + 0.5) / layers[0] * layers[1] + rng.normal(0, 2), 0, layers[1] - 1))
        b = near if found else int(rng.integers(layers[1]))
        r = rng.uniform(0.46, 0.8) if found else rng.uniform(0.2, 0.42)
        rows.append(
            dict(arm="match", layer_a=a, head_a=i + 20, layer_b=b, head_b=int(rng.integers(40)), r=r,
                 margin=0.1, mutual=i % 9 != 0, named=False)
        )  # fmt: skip
    rows[3] |= dict(layer_a=min(19, layers[0] - 1), head_a=17, layer_b=min(32, layers[1] - 1), head_b=26, r=0.71,
                    margin=0.24, mutual=True, named=named)  # fmt: skip
    table = pd.DataFrame(rows).assign(null_max95=0.44, self_match_r=0.97, n=433, n_groups=60, checkpoint_a="7B",
                                      checkpoint_b="14B", self_label="self-match, base vs tuned 7B")  # fmt: skip
    table = table.assign(depth_a=(table.layer_a + 0.5) / layers[0], depth_b=(table.layer_b + 0.5) / layers[1])
    null = pd.DataFrame(dict(arm="permuted", r=rng.normal(0.36, 0.045, draws)))
    return pd.concat([table, null], ignore_index=True) if draws else table


METRICS = (
    ("commit bias", "2 P(stereo | commit) − 1", 0.31, -0.1, None),
    ("coverage", "P(commit | ambig)", 0.36, 0.13, None),
    ("s_AMB", "coverage × bias", 0.105, 0.004, None),
    ("acc. disambig", "accuracy", 0.86, -0.02, 0.77),
)


def dose_table(metrics=METRICS, *, draws: int = 25, scale: float = 1.0, steps: int = 13) -> pd.DataFrame:
    rng, rows = np.random.default_rng(5), []
    strengths = np.linspace(-0.3, 0.3, steps) if steps > 1 else np.array([0.0])
    for name, unit, start, size, guard in metrics:
        slopes = rng.normal(0, 0.11, draws) * 0.5
        for a in strengths:
            a = round(float(a), 6)
            common = dict(alpha=20 * a, alpha_norm=a, metric=name, metric_unit=unit, n=1200, n_groups=150, guard=guard,
                          toward="anti-stereotype", interval=KIND, correction="Holm over 12 strengths")  # fmt: skip
            move = scale * size * np.tanh(a / 0.15)
            half = 0.03 if a == 0 else 0.14 * abs(a)
            inside = abs(move) < 0.11 * abs(a) or a == 0
            rows.append(
                dict(arm="direction", draw=0, arm_label="v_bias", value=start + move, lo=start + move - half,
                     hi=start + move + half, null_lo=start - 0.2 * abs(a), null_hi=start + 0.2 * abs(a),
                     p=np.nan if a == 0 else 0.5 if inside else 0.004, **common)
            )  # fmt: skip
            rows.append(dict(arm="orthogonalized", draw=0, arm_label="v_bias ⊥ v_abst, equal norm", 
                             value=start + 0.75 * move, **common))  # fmt: skip
            rows += [dict(arm="control", draw=k, arm_label="random + shuffled controls", value=start + s * a, **common)
                     for k, s in enumerate(slopes)]  # fmt: skip
    return pd.DataFrame(rows)


def plane_table(*, controls: int = 20, models=("heuristic", "base"), path: int = 6) -> pd.DataFrame:
    rng = np.random.default_rng(6)
    where = {
        "heuristic": ("GRPO λ = 0", 0.218, 0.333),
        "base": ("base", 0.36, 0.279),
        "engaged": ("engaged", 0.45, 0.19),
    }
    rows = [
        dict(system=where[m][0], member=m, alpha=0.0, coverage=where[m][1], commit_bias=where[m][2]) for m in models
    ]
    for a in np.linspace(0, 0.3, path) if path else ():
        rows.append(dict(system="steer", member="direction", alpha=round(float(a), 3), coverage=0.36 + 0.4 * a,
                         commit_bias=0.311 - 0.27 * a))  # fmt: skip
    table = pd.DataFrame(rows).assign(cov_xx=0.00025, cov_xy=0.00012, cov_yy=0.0006, effective_groups=1e6)
    noise = pd.DataFrame(
        dict(system="random", member="control", alpha=0.3, coverage=0.36 + rng.normal(0, 0.015, controls),
             commit_bias=0.311 + rng.normal(0, 0.012, controls))
    )  # fmt: skip
    table = pd.concat([table, noise], ignore_index=True) if controls else table
    return table.assign(n=1200, n_groups=150, interval=KIND)


def esi_tables(*, unread: bool = False, perfect: bool = False) -> tuple[pd.DataFrame, pd.DataFrame]:
    cells = {
        (1, 1): 11,
        (1, 2): 3,
        (2, 1): 2,
        (2, 2): 8,
        (2, 3): 1,
        (3, 2): 1,
        (3, 3): 4,
        (4, 3): 1,
        (4, 4): 3,
        (5, 5): 2,
    }
    if perfect:
        cells = {(1, 1): 14, (2, 2): 11, (3, 3): 5, (4, 4): 4, (5, 5): 2}
    counts = [dict(gold=g, pred=p, count=c) for (g, p), c in cells.items()]
    if unread:
        counts += [dict(gold=1, pred=None, count=2), dict(gold=4, pred=None, count=1)]
    metrics = [
        ("exact", 0.78, 0.62, 0.88, 0.31), ("adjacent ±1", 1.0, 1.0, 1.0, 0.83), ("QWK", 0.92, 0.83, 0.97, 0.0),
        ("critical under-triage (D1)", 0.16, 0.06, 0.35, None), ("no parse", 0.0, 0.0, 0.0, None),
    ]  # fmt: skip
    names = ("metric", "value", "lo", "hi", "control_value")
    table = pd.DataFrame([dict(zip(names, row, strict=True)) for row in metrics])
    table = table.assign(n=36, interval="Wilson; QWK: bootstrap", control='always says "ESI 2"', unit="cases")
    return pd.DataFrame(counts).assign(checkpoint="v46"), table


DRAW: dict[str, Callable[[], figures.Drawn]] = {
    "match_heads": lambda: figures.match_heads(match_table()),
    "dose_response": lambda: figures.dose_response(dose_table()),
    "bias_plane": lambda: figures.bias_plane(plane_table()),
    "esi": lambda: figures.esi(*esi_tables()),
}

ODD: dict[str, Callable[[], figures.Drawn]] = {
    "match, no draws": lambda: figures.match_heads(match_table(draws=0, named=False)),
    "match, nothing": lambda: figures.match_heads(match_table(good=0.0)),
    "match, column": lambda: figures.match_heads(match_table((4, 2)), width="icml"),
    "dose, one metric": lambda: figures.dose_response(dose_table(METRICS[:1], draws=40), width="icml"),
    "dose, column": lambda: figures.dose_response(dose_table(scale=0.0), width="icml"),
    "dose, unsteered": lambda: figures.dose_response(dose_table(METRICS[3:], steps=1), width="neurips"),
    "dose, five": lambda: figures.dose_response(
        dose_table((*METRICS, ("perplexity of neutral text", "nats per token, mean over texts", 12.4, 0.9, 14.0)))
    ),
    "plane, all": lambda: figures.bias_plane(plane_table(models=("engaged", "heuristic", "base")), width="neurips"),
    "plane, one": lambda: figures.bias_plane(plane_table(models=("base",), path=0, controls=0)),
    "plane, negative": lambda: figures.bias_plane(plane_table().assign(commit_bias=lambda t: t.commit_bias - 0.3)),
    "esi, unread": lambda: figures.esi(*esi_tables(unread=True), width="full"),
    "esi, perfect": lambda: figures.esi(*esi_tables(perfect=True)),
}
