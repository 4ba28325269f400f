"""Small synthetic tables in the shape that each probe figure reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from study import figures

KIND = "cluster bootstrap by template, B = 2000"


def rise(depth: float, top: float, at: float) -> float:
    return top / (1 + np.exp(-(depth - at) / 0.06))


def layer_table(
    members: Mapping[str, tuple[int, float, int]] = {"engaged": (28, 0.32, 900), "heuristic": (48, 0.16, 900)},
    *,
    test: bool = True,
    null_lo: bool = True,
) -> pd.DataFrame:
    rng, rows = np.random.default_rng(1), []
    for k, (name, (n_layers, top, n)) in enumerate(members.items()):
        values = [
            0.5 + rise((i + 0.5) / n_layers, top, 0.42 + 0.16 * k) + rng.normal(0, 0.006) for i in range(n_layers)
        ]
        best = int(np.argmax(values))
        for i, value in enumerate(values):
            row = dict(
                member=name, layer=i, depth=(i + 0.5) / n_layers, split="oof", metric="auroc", value=value,
                lo=value - 0.035, hi=value + 0.035, null_mean=0.5, null_lo=0.455, null_hi=0.546, null_max95=0.577,
                chance=0.5, selected=i == best, n=n, n_groups=80, interval=KIND, n_perm=999, target="gold label",
            )  # fmt: skip
            rows.append(row)
            if test and i == best:
                rows.append({**row, "split": "test", "value": value - 0.025, "lo": value - 0.07, "hi": value + 0.02,
                             "n": n // 3, "n_groups": 27, "null_hi": 0.56})  # fmt: skip
    table = pd.DataFrame(rows)
    return table if null_lo else table.drop(columns="null_lo")


DRAW: dict[str, Callable[[], figures.Drawn]] = {
    "probe_by_layer": lambda: figures.probe_by_layer(layer_table()),
}


def decodable_table(members: Mapping[str, float] = {"engaged": 0.7, "heuristic": 0.0}) -> pd.DataFrame:
    """AUROC that rises to 0.9 after a share of the reply; the first member's confounds hold some of it."""
    rows = []
    for k, (name, start) in enumerate(members.items()):
        base = dict(member=name, axis="fraction", pooling="selected", target="label=noncompliant", kind="ridge", n=150,
                    n_groups=40, interval=KIND, null_max95=0.61, n_perm=999, chance=0.5)  # fmt: skip
        base |= {"control": "", "note": "", "null_lo": 0.42, "null_hi": 0.58}
        for role in ("probe", "residual"):
            for at in np.linspace(0, 1, 11):
                value = 0.5 + (0.4 if at >= start else 0.0) - (0.04 if role == "residual" else 0.0)
                row = {**base, "role": role, "metric": "auroc", "at": at, "value": value}
                row |= {"lo": value - 0.08, "hi": value + 0.07, "band_lo": value - 0.12, "band_hi": value + 0.1}
                rows.append(row)
        ends = {"lo": max(0.0, start - 0.1), "hi": np.inf if k else start + 0.1}
        rows.append({**base, "role": "probe", "metric": "decodable_at", "value": start, **ends})
    return pd.DataFrame(rows)


DRAW["decodable"] = lambda: figures.decodable(decodable_table())


def selectivity_table(targets=("gold label", "step 2 done", "surface tone"), *, scale: float = 1.0, layers=(28, 48)):
    rng, rows = np.random.default_rng(2), []
    tops = {"engaged": (0.2, 0.17, 0.03), "heuristic": (0.04, 0.02, 0.3)}
    for k, target in enumerate(targets):
        for name, n_layers in zip(("engaged", "heuristic"), layers, strict=False):
            for i in range(n_layers):
                depth = (i + 0.5) / n_layers
                value = scale * rise(depth, tops[name][k % 3], 0.45) + rng.normal(0, 0.008)
                rows.append(
                    dict(target=target, member=name, layer=i, depth=depth, selectivity=value,
                         selectivity_lo=value - 0.03, selectivity_hi=value + 0.03, selectivity_null_hi=0.03, n=900,
                         n_groups=80)
                )  # fmt: skip
    return pd.DataFrame(rows)


def transfer_table(n_layers: int = 28, *, names=("base", "engaged"), top: float = 0.36) -> pd.DataFrame:
    rows = []
    for a in names:
        for b in names:
            height = top if a == b else top - 0.06 if a == "base" else top - 0.18
            for i in range(n_layers):
                for j in range(n_layers):
                    u, v = (i + 0.5) / n_layers, (j + 0.5) / n_layers
                    value = (
                        0.5
                        + rise((u + v) / 2, height, 0.5) * np.exp(-(((u - v) / 0.22) ** 2))
                        + 0.01 * np.sin(9 * i * j)
                    )
                    rows.append(
                        dict(train_checkpoint=a, test_checkpoint=b, train_layer=i, test_layer=j, value=value,
                             lo=value - 0.05, hi=value + 0.05, metric="auroc", chance=0.5, n=300, n_groups=27,
                             train_d_feature=3584, test_d_feature=3584, interval=KIND)
                    )  # fmt: skip
    return pd.DataFrame(rows)


DRAW |= {
    "selectivity": lambda: figures.selectivity(selectivity_table()),
    "transfer": lambda: figures.transfer(transfer_table(10)),
}

ODD: dict[str, Callable[[], figures.Drawn]] = {
    "layers, one layer": lambda: figures.probe_by_layer(layer_table({"engaged": (1, 0.3, 900)})),
    "layers, 48": lambda: figures.probe_by_layer(layer_table({"heuristic": (48, 0.3, 900)}), width="icml"),
    "layers, same depth": lambda: figures.probe_by_layer(
        layer_table({"engaged": (28, 0.3, 900), "base": (28, 0.2, 900)}, null_lo=False)
    ),
    "layers, three": lambda: figures.probe_by_layer(
        layer_table({"engaged": (28, 0.3, 900), "heuristic": (48, 0.2, 700), "base": (28, 0.1, 900)})
    ),
    "layers, column of two": lambda: figures.probe_by_layer(layer_table(), width="icml"),
    "layers, nothing": lambda: figures.probe_by_layer(layer_table({"engaged": (28, 0.0, 900)}, test=False)),
    "layers, nothing on TEST": lambda: figures.probe_by_layer(layer_table({"engaged": (28, 0.02, 900)})),
    "selectivity, nothing": lambda: figures.selectivity(selectivity_table(scale=0)),
    "selectivity, one layer": lambda: figures.selectivity(selectivity_table(("gold label",), layers=(1,))),
    "selectivity, six": lambda: figures.selectivity(
        selectivity_table(
            ("gold label", "step 2 done", "surface tone", "order of steps, as written in the log", "b", "c")
        )
    ),
    "selectivity, column": lambda: figures.selectivity(selectivity_table(), width="icml"),
    "transfer, one": lambda: figures.transfer(transfer_table(6, names=("engaged",))),
    "transfer, three": lambda: figures.transfer(
        transfer_table(8, names=("base", "engaged", "some checkpoint with a long name")), width="neurips"
    ),
    "transfer, nothing": lambda: figures.transfer(transfer_table(12, top=0.0)),
    "transfer, 28": lambda: figures.transfer(transfer_table()),
    "transfer, 48": lambda: figures.transfer(transfer_table(48)),
}


def cosine_table(
    pairs=(("probe", "mass mean"), ("probe", "steering"), ("mass mean", "steering")), *, n_layers: int = 28
):
    rng, rows = np.random.default_rng(3), []
    for k, (a, b) in enumerate(pairs):
        for i in range(n_layers):
            value = (0.7, 0.35, -0.4, 0.0)[k % 4] / (1 + np.exp(-(i - 0.45 * n_layers) / 2)) + rng.normal(0, 0.02)
            rows.append(
                dict(site=f"resid_post.{i}", a=a, b=b, cosine=value, random_mean=0.0133, random_hi=0.0327, d=3584)
            )
    return pd.DataFrame(rows)


def reliability_table(names=("engaged", "heuristic"), *, bins: int = 10, null: bool = True) -> pd.DataFrame:
    rows = []
    for k, name in enumerate(names):
        for i in range(bins):
            p = (i + 0.5) / bins
            rate = 0.5 + (p - 0.5) * (0.95, 0.5, 0.8)[k]
            rows.append(
                dict(member=name, metric="reliability", p_lo=i / bins, p_hi=(i + 1) / bins,
                     p_mean=p, value=rate, lo=max(rate - 0.09, 0),
                     hi=min(rate + 0.09, 1), n=90, n_groups=40, interval=KIND, split="TEST",
                     null_lo=max(p - 0.08, 0), null_hi=min(p + 0.08, 1))
            )  # fmt: skip
        rows.append(
            dict(member=name, metric="ece", value=(0.02, 0.12, 0.05)[k], lo=(0.008, 0.09, 0.03)[k],
                 hi=(0.041, 0.15, 0.08)[k], null_hi=0.038, n=900, n_groups=40, interval="resampled", split="TEST")
        )  # fmt: skip
    table = pd.DataFrame(rows)
    return table if null else table.drop(columns="null_lo")


COHORTS = ("all", "paraphrase", "adversarial surface", "exception trigger", "step deletion", "reordered steps")


def cohort_table(names=("engaged", "heuristic"), cohorts=COHORTS, *, scale: float = 1.0) -> pd.DataFrame:
    rows = []
    for k, name in enumerate(names):
        for i, cohort in enumerate(cohorts):
            value = 0.5 + scale * ((0.31, 0.33, 0.26, 0.2, 0.12, 0.05), (0.14, 0.2, -0.12, 0.02, 0.04, 0.01),
                                   (0.02,) * 6)[k][i % 6]  # fmt: skip
            w = 0.03 if cohort == "all" else 0.07
            rows.append(
                dict(cohort=cohort, member=name, layer=(22, 41, 22)[k], metric="auroc", value=value, lo=value - w,
                     hi=value + w, null_lo=0.5 - 0.9 * w, null_hi=0.5 + 0.9 * w, chance=0.5,
                     n=300 if w < 0.05 else 55 + i, n_groups=27, interval=KIND, split="TEST")
            )  # fmt: skip
    return pd.DataFrame(rows)


DRAW |= {
    "cosines": lambda: figures.cosines(cosine_table()),
    "reliability": lambda: figures.reliability(reliability_table()),
    "probe_cohorts": lambda: figures.probe_cohorts(cohort_table()),
}

ODD |= {
    "cosines, one": lambda: figures.cosines(cosine_table((("v", "w"),), n_layers=1), width="icml"),
    "cosines, six": lambda: figures.cosines(
        cosine_table([(f"direction {i}", "a long name of a direction") for i in range(6)], n_layers=48), width="full"
    ),
    "cosines, refitted": lambda: figures.cosines(
        cosine_table(n_layers=12).assign(
            lo=lambda t: t.cosine - 0.1, hi=lambda t: t.cosine + 0.1, n=50, interval="refit"
        )
    ),
    "reliability, one": lambda: figures.reliability(reliability_table(("heuristic",)), width="icml"),
    "reliability, column": lambda: figures.reliability(reliability_table(null=False), width="icml"),
    "reliability, three": lambda: figures.reliability(reliability_table(("engaged", "heuristic", "base"), bins=15)),
    "cohorts, one": lambda: figures.probe_cohorts(cohort_table(("heuristic",), scale=0.1), width="icml"),
    "cohorts, three": lambda: figures.probe_cohorts(cohort_table(("engaged", "heuristic", "base")), width="full"),
    "cohorts, one cohort": lambda: figures.probe_cohorts(cohort_table(cohorts=("all",))),
    "cohorts, many": lambda: figures.probe_cohorts(
        cohort_table(cohorts=tuple(f"cohort {i} with_a_very_long/name of many words" for i in range(14))), width="icml"
    ),
}
