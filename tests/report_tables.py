"""Tables of every analysis of a small synthetic study, as its steps write them."""

from __future__ import annotations

from typing import Any

import pandas as pd

from study.schema import tidy
from tests import figure_tables

KIND = "cluster bootstrap by procedure, B = 2000"
HOLM = "Holm over 4 cells"
CELLS = (
    # cell, n, engaged, heuristic, holm p, verdict, note; the role of a cell is that of its first word, in ROLES
    ("training_distribution", 433, 0.70, 0.82, 0.002, "not equivalent at margin 0.05", ""),
    ("adversarial_surface_compliant", 112, 0.70, 0.19, 0.0001, "", "72.3 % accept rate at construction"),
    ("adversarial_surface_noncompliant", 141, 0.75, 0.28, 0.0001, "", ""),
    ("exception_trigger", 152, 0.80, 0.44, 0.0001, "", "few groups"),
    ("baseline_compliant", 154, 0.86, 0.90, 0.44, "", ""),
)
ROLES = {"training": "training", "adversarial": "adversarial", "baseline": "control", "exception": "perturbed"}


def wilson(p: float, n: int) -> tuple[float, float]:
    return figure_tables.wilson(p, n)


def pair_table(cells: Any = CELLS, *, margin: float = 0.05) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for cell, n, engaged, heuristic, p, verdict, note in cells:
        shared = dict(cell=cell, metric="accuracy", n=n, n_groups=n // 3, unit="items", group_unit="procedure")
        shared |= dict(cell_role=ROLES.get(cell.split("_")[0], ""))
        for member, value in (("engaged", engaged), ("heuristic", heuristic)):
            lo, hi = wilson(value, n)
            rows.append(
                shared
                | dict(
                    member=member,
                    value=value,
                    lo=lo,
                    hi=hi,
                    interval="Wilson",
                    control_value=0.52,
                    control="always answers one label",
                    note=note,
                )
            )
        d = engaged - heuristic
        rows.append(
            shared
            | dict(
                member="engaged - heuristic",
                metric="accuracy_difference",
                value=d,
                lo=d - 0.055,
                hi=d + 0.055,
                interval=KIND,
                p=p,
                p_adjusted=p,
                p_items=p / 2,
                correction=HOLM,
                is_difference=True,
                margin=margin if verdict else None,
                only_engaged=59,
                only_heuristic=3,
                verdict=verdict,
                note=note,
            )
        )
    return tidy(rows, analysis="eval", model="tiny", adapter="none", data_sha256="ab" * 6, seed=5)


def eval_table() -> pd.DataFrame:
    rows = [
        dict(
            member=m,
            cell="all",
            metric="accuracy",
            value=v,
            lo=v - 0.03,
            hi=v + 0.03,
            n=992,
            n_groups=188,
            interval="Wilson at the effective n by procedure",
            control_value=0.54,
            control="always answers one label",
            control_difference=v - 0.54,
            control_difference_lo=v - 0.54 - 0.03,
            control_difference_hi=v - 0.54 + 0.03,
        )
        for m, v in (("engaged", 0.76), ("heuristic", 0.58))
    ]
    rows.append(
        dict(
            member="engaged",
            cell="order swap",
            metric="order_swap_flipping",
            value=0.56,
            lo=0.48,
            hi=0.64,
            n=148,
            n_groups=40,
            interval="Wilson",
            control_value=0.5,
        )
    )
    return tidy(rows, analysis="eval", model="tiny", adapter="none", data_sha256="ab" * 6, seed=5)


def probes_table() -> pd.DataFrame:
    rows = []
    for member, top, p in (("engaged", 0.81, 0.001), ("heuristic", 0.55, 0.2)):
        shared = dict(
            member=member,
            target="gold_label",
            position="last",
            metric="auroc",
            cohort="all",
            kind="logistic",
            interval=KIND,
            group_unit="template",
            unit="rows",
            scheme="group permutation",
            n_perm=999,
        )
        for layer in range(4):
            value = 0.5 + (top - 0.5) * (layer + 1) / 4
            rows.append(
                shared
                | dict(
                    site=f"resid_post.{layer}",
                    layer=layer,
                    role="layer",
                    split="oof",
                    value=value,
                    lo=value - 0.04,
                    hi=value + 0.04,
                    n=450,
                    n_groups=60,
                    selected=layer == 3,
                    p=p,
                    p_adjusted=p,
                    selectivity=value - 0.5,
                    selectivity_lo=value - 0.56,
                    selectivity_hi=value - 0.44,
                    selectivity_null_hi=0.03,
                )
            )
        rows.append(
            shared
            | dict(
                site="resid_post.3",
                layer=3,
                role="layer",
                split="test",
                value=top,
                lo=top - 0.06,
                hi=top + 0.06,
                n=162,
                n_groups=20,
                selected=True,
                p=p,
                text_difference=top - 0.78,
                text_difference_lo=top - 0.78 - 0.05,
                text_difference_hi=top - 0.78 + 0.05,
            )
        )
        rows.append(
            shared
            | dict(
                site="surface",
                role="control",
                split="test",
                value=0.78,
                lo=0.7,
                hi=0.86,
                n=162,
                n_groups=20,
                selected=False,
            )
        )
    return tidy(rows, analysis="probes", model="tiny", adapter="none", data_sha256="cd" * 6, seed=5)


def heads_tables() -> dict[str, pd.DataFrame]:
    shared = dict(
        n=96,
        n_groups=41,
        unit="pairs",
        group_unit="procedure",
        interval=KIND,
        metric_unit="logits",
        correction="max-|t| over 8 heads",
        positions="answer",
    )
    every, halves = [], []
    for member, size in (("engaged", 0.62), ("heuristic", 0.05)):
        for kind, metric, pairs in (
            ("mean", "abl_logit", "all"),
            ("zero", "abl_logit", "all"),
            ("patch", "cma", "flip"),
            ("patch", "cma", "keep"),
        ):
            for h in range(8):
                value = (size if h == 5 else 0.01 * h) * (0.02 if pairs == "keep" else 1)
                row = shared | dict(
                    member=member,
                    kind=kind,
                    metric=metric,
                    pairs=pairs,
                    head=f"L{h // 4}.H{h % 4}",
                    layer=h // 4,
                    value=value,
                    lo=value - 0.06,
                    hi=value + 0.06,
                    control_value=0.02,
                    control_difference=value - 0.02,
                    control_difference_lo=value - 0.02 - 0.07,
                    control_difference_hi=value - 0.02 + 0.07,
                    keep_difference=0.98 * value if pairs == "flip" else None,
                    keep_difference_lo=0.98 * value - 0.07 if pairs == "flip" else None,
                    keep_difference_hi=0.98 * value + 0.07 if pairs == "flip" else None,
                    p_adjusted=0.001 if value > 0.3 else 0.6,
                    named=False,
                )
                every.append(row)
                halves += [row | {"half": half, "n": 48} for half in ("select", "report")]
    same = dict(analysis="heads", model="tiny", adapter="none", data_sha256="ef" * 6, seed=5)
    found = {"heads": tidy(every, **same), "heads_selected": tidy(halves, **same)}
    difference = [
        {**row, "member": "engaged - heuristic", "pairs": "all"}
        | {"band_lo": row["lo"] - 0.05, "band_hi": row["hi"] + 0.05}
        for row in every[:8]
        if row["kind"] == "mean"
    ]
    return found | {"heads_difference": tidy(difference, **same)}


def slopes_table() -> pd.DataFrame:
    """A direction that lowers commit bias, and coverage with it: no gain."""
    rows = []
    for arm, metric, value, null in (
        ("direction", "margin", 0.8, 0.1),
        ("direction", "amb_commit_bias", -0.3, 0.05),
        ("direction", "coverage", -0.2, 0.05),
        ("direction", "accuracy", 0.0, 0.05),
        ("orthogonalized", "margin", 0.5, 0.1),
        ("orthogonalized", "amb_commit_bias", -0.02, 0.05),
        ("random", "margin", 0.02, 0.1),
    ):
        size = dict(n=604, n_groups=52, group_unit="story", interval=KIND)
        size |= dict.fromkeys(("p", "p_random", "p_shuffled"), 0.001 if abs(value) > null else 0.7)
        ends = dict(value=value, lo=value - 0.06, hi=value + 0.06, null_lo=-null, null_hi=null)
        rows.append(size | ends | dict(arm=arm, metric=metric, arm_label="v_bias", toward="anti_stereotype"))
    return tidy(rows, analysis="steering", member="engaged", site="resid_post.2", layer=2, model="tiny", adapter="none",
                data_sha256="12" * 6, seed=5)  # fmt: skip


def oracle_table() -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for target, value, half, floor, text, probe, gap in (
        ("step type", 0.94, 0.03, 0.4, 0.5, 0.999, 0.96),
        ("answer correct", 0.55, 0.05, 0.56, 0.6, 0.8, 0.01),
    ):
        beside = dict(floor=floor, text_only=text, probe=probe, gap=gap, gap_lo=gap - 0.04, gap_hi=gap + 0.04)
        accuracy = dict(metric="accuracy", value=value, lo=value - half, hi=value + half, n=512, n_groups=128)
        shuffled = dict(metric="gap_shuffled", value=gap, lo=gap - 0.04, hi=gap + 0.04, n=480, n_groups=120)
        for name, control in (("floor", floor), ("text_only", text), ("probe", probe)):
            ends = dict(zip(("", "_lo", "_hi"), (0.0, -half, half), strict=True))
            accuracy |= {f"{name}_difference{end}": value - control + d for end, d in ends.items()}
        rows += [dict(target=target) | accuracy | beside, dict(target=target) | shuffled]
    same = dict(analysis="oracle", member="engaged", group_unit="problems", interval="exact", model="tiny")
    return tidy(rows, adapter="none", data_sha256="34" * 6, seed=5, **same)


def all_tables() -> dict[str, pd.DataFrame]:
    return {
        "eval": eval_table(),
        "pair": pair_table(),
        **heads_tables(),
        "probes": probes_table(),
        "steering_slopes": slopes_table(),
        "oracle": oracle_table(),
    }
