"""Tables of a whole simulated study: every analysis on the same groups, noise in every column that a claim reads.

Each quantity is measured once per group: truth + noise that the analyses share (they read the same items) + its own.
Estimates are means over groups with Student's interval, as those of `interp.stats` are. `size` 0 is the full null:
no difference of members where the surface misleads, a training difference that lies exactly at the margin, labels that
no layer knows, heads that do nothing, a direction that is one more random direction, an oracle that reads nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t

from interp.stats import holm, simultaneous_band
from study.schema import tidy

MARGIN, N_HEADS, N_FLIPS, N_DRAWS, N_PERM = 0.05, 16, 400, 40, 199
MEMBERS = ("engaged", "heuristic")
SHARED = 0.3
"""Share of the variance of a quantity that all analyses of a group have in common."""


@dataclass
class Groups:
    """The independent groups of one study."""

    n: int
    rng: np.random.Generator

    def __post_init__(self) -> None:
        self.common = self.rng.standard_normal((self.n, 1))

    def values(self, truth: float, sd: float, k: int = 1) -> np.ndarray:
        """[group, quantity] of k quantities with one truth."""
        own = self.rng.standard_normal((self.n, k))
        sign = self.rng.choice([-1.0, 1.0], k)  # what is hard for one quantity is easy for another
        return truth + sd * (np.sqrt(SHARED) * self.common * sign + np.sqrt(1 - SHARED) * own)

    def ends(self, truth: float, sd: float, prefix: str = "") -> dict[str, Any]:
        """Value and interval of one quantity, as columns."""
        x = self.values(truth, sd)[:, 0]
        return dict(zip(names(prefix), interval(x), strict=True))


def names(prefix: str) -> tuple[str, str, str]:
    return (prefix, f"{prefix}_lo", f"{prefix}_hi") if prefix else ("value", "lo", "hi")


def interval(x: np.ndarray) -> tuple[float, float, float]:
    mean, half = float(x.mean()), reach(len(x)) * float(x.std(ddof=1)) / len(x) ** 0.5
    return mean, mean - half, mean + half


@cache
def reach(n: int) -> float:
    return float(t.isf(0.025, n - 1))


def two_sided(x: np.ndarray) -> float:
    return float(2 * t.sf(abs(x.mean()) / (x.std(ddof=1) / np.sqrt(len(x))), len(x) - 1))


def max_t(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Family-wise p of the means of [group, head], by signs of whole groups."""

    def statistic(means: np.ndarray, squares: np.ndarray) -> np.ndarray:
        return np.abs(means) / np.sqrt(np.maximum(squares - means**2, 1e-12))

    signs, squares = rng.choice([-1.0, 1.0], (N_FLIPS, len(x))), (x**2).mean(0)
    null = statistic(signs @ x / len(x), squares).max(1)
    return (1 + (null[:, None] >= statistic(x.mean(0), squares)).sum(0)) / (N_FLIPS + 1)


def permutation_p(p: float) -> float:
    """A p as N_PERM permutations give it: no smaller than 1/(N_PERM + 1)."""
    return max(np.ceil(p * (N_PERM + 1)), 1.0) / (N_PERM + 1)


def study_tables(n_groups: int, rng: np.random.Generator, *, size: float = 0.0) -> dict[str, pd.DataFrame]:
    """Tables of one study with effects of `size` (1: large everywhere; 0: none)."""
    g = Groups(n_groups, rng)
    made = {"pair": _pair(g, size), "eval": _eval(g, size), "probes": _probes(g, size), "oracle": _oracle(g, size)}
    made |= {"probes_transfer": _transfer(g, size), "steering_slopes": _slopes(g, size), **_heads(g, size)}
    owner = {"pair": "eval", "probes_transfer": "probes", "steering_slopes": "steering", "heads_selected": "heads"}
    owner["heads_difference"] = "heads"
    same = dict(model="tiny", adapter="none", data_sha256="ab" * 6, seed=0, interval="t", n=6 * n_groups)
    rows = {name: [{"n_groups": n_groups, **row} for row in table] for name, table in made.items()}
    return {name: tidy(table, analysis=owner.get(name, name), **same) for name, table in rows.items()}


def _pair(g: Groups, size: float) -> list[dict[str, Any]]:
    cells = [("training", MARGIN if size == 0 else 0.0, "training", MARGIN)]
    cells += [(f"misleading {i}", 0.5 * size, "adversarial", None) for i in range(2)]
    cells += [(f"reworded {i}", 0.3 * size, "perturbed", None) for i in range(6)]
    drawn = [g.values(truth, 0.05 if size and role == "training" else 0.2)[:, 0] for _, truth, role, _ in cells]
    p = np.array([two_sided(x) for x in drawn])
    return [
        dict(zip(("value", "lo", "hi"), interval(x), strict=True)) | dict(
            member="engaged - heuristic", metric="accuracy_difference", cell=cell, cell_role=role, margin=margin,
            is_difference=True, p=raw, p_adjusted=adjusted, correction="Holm over cells",
        )
        for (cell, _, role, margin), x, raw, adjusted in zip(cells, drawn, p, holm(p), strict=True)
    ]  # fmt: skip


def _eval(g: Groups, size: float) -> list[dict[str, Any]]:
    rows = []
    for member in MEMBERS:
        accuracy = g.ends(0.5 + 0.3 * size, 0.15) | g.ends(0.3 * size, 0.15, "control_difference")
        rows.append(accuracy | dict(member=member, metric="accuracy", cell="all", control_value=0.5))
    for metric in ("order_swap_flipping", "order_swap_keeping"):
        swapped = dict(member="engaged", metric=metric, cell="order swap", control_value=0.5)
        rows.append(g.ends(0.5 + 0.4 * size, 0.2) | swapped)
    return rows


def _probes(g: Groups, size: float) -> list[dict[str, Any]]:
    rows = []
    for member in MEMBERS:
        for target in ("gold", "surface"):
            layers = g.values(0.5 + 0.3 * size, 0.12, 8)
            best, p_max = int(layers.mean(0).argmax()), max_t(layers - 0.5, g.rng)
            shared = dict(member=member, target=target, metric="auroc", cohort="all", kind="ridge", position="last")
            shared |= g.ends(0.25 * size, 0.12, "selectivity") | dict(selectivity_null_hi=0.03)
            shared |= g.ends(0.2 * size, 0.12, "text_difference") | dict(role="layer", selected=True)
            oof = dict(zip(("value", "lo", "hi"), interval(layers[:, best]), strict=True))
            p_layers = permutation_p(float(p_max[best]))
            rows.append(oof | shared | dict(split="oof", site=f"resid_post.{best}", p_adjusted=p_layers, p=p_layers))
            test = g.values(0.5 + 0.3 * size, 0.12)[:, 0]
            ends = dict(zip(("value", "lo", "hi"), interval(test), strict=True))
            p = permutation_p(two_sided(test - 0.5) / 2 if test.mean() > 0.5 else 1.0)
            rows.append(ends | shared | dict(split="test", site=f"resid_post.{best}", p=p))
    return rows


def _transfer(g: Groups, size: float) -> Iterator[dict[str, Any]]:
    for target in ("gold", "surface"):
        for a, b in (MEMBERS, MEMBERS[::-1]):
            for layer in range(8):
                site = dict.fromkeys(("train_site", "test_site"), f"resid_post.{layer}")
                row = g.ends(0.5 + 0.3 * size, 0.12) | g.ends(0.0 if size else -0.05, 0.02, "drop")
                yield row | site | dict(train_checkpoint=a, test_checkpoint=b, member=b, target=target, metric="auroc",
                                        variant="raw", kind="ridge", position="last")  # fmt: skip


def _heads(g: Groups, size: float) -> dict[str, list[dict[str, Any]]]:
    every: list[dict[str, Any]] = []
    halves: list[dict[str, Any]] = []
    half = np.arange(g.n) % 2 == 0
    for member in MEMBERS:
        for kind, metric, pairs in (
            ("mean", "abl_logit", "all"),
            ("zero", "abl_logit", "all"),
            ("patch", "cma", "flip"),
        ):
            x = g.values(0.0, 0.4, N_HEADS)
            x[:, 0] += 0.8 * size
            shared = dict(member=member, kind=kind, metric=metric, pairs=pairs)
            every += _head_rows(g, x, shared, size)
            for name, part in (("select", half), ("report", ~half)):
                few = dict(half=name, n_groups=int(part.sum()))
                halves += [row | few for row in _head_rows(g, x[part], shared, size)]
    change = g.values(0.0, 0.4, N_HEADS)
    change[:, 0] += 0.8 * size
    shared = dict(member="engaged - heuristic", kind="mean", metric="abl_logit", is_difference=True)
    band = simultaneous_band(change, groups=None)
    ends = [dict(band_lo=lo, band_hi=hi) for lo, hi in zip(band.lo, band.hi, strict=True)]
    changed = [row | end for row, end in zip(_head_rows(g, change, shared, size), ends, strict=True)]
    return {"heads": every, "heads_selected": halves, "heads_difference": changed}


def _head_rows(g: Groups, x: np.ndarray, shared: dict[str, Any], size: float) -> list[dict[str, Any]]:
    p, same = max_t(x, g.rng), x.shape[0]
    beyond = {name: g.values(0.0, 0.4, N_HEADS)[:same] for name in ("control", "keep")}
    for drawn in beyond.values():
        drawn[:, 0] += 0.6 * size
    rows = []
    for h in range(N_HEADS):
        row: dict[str, Any] = dict(zip(names(""), interval(x[:, h]), strict=True))
        for name, drawn in beyond.items():
            row |= zip(names(f"{name}_difference"), interval(drawn[:, h]), strict=True)
        row |= dict(head=f"L{h // 8}.H{h % 8}", layer=h // 8, named=h == 0, control_value=0.0, p_adjusted=float(p[h]))
        rows.append(row | shared)
    return rows


def _slopes(g: Groups, size: float) -> Iterator[dict[str, Any]]:
    """Every direction has a true slope of its own, far from 0 for its items; only against others is it nothing."""
    for member in MEMBERS:
        for metric, sd in (("margin", 0.5), ("amb_commit_bias", 0.2), ("coverage", 0.2)):
            arms = g.rng.normal(0.0, sd, 2 * N_DRAWS)
            is_target = metric != "coverage"
            own = g.rng.normal(0.0, 0.01 if size and not is_target else sd) + (5 * sd * size if is_target else 0.0)
            lo, hi = np.quantile(arms, [0.025, 0.975])
            ranks = [(1 + (np.abs(part) >= abs(own)).sum()) / (N_DRAWS + 1) for part in np.split(arms, 2)]
            yield g.ends(own, 0.05) | dict(
                member=member, site="resid_post.2", arm="direction", arm_label="v", metric=metric, null_lo=lo,
                null_hi=hi, p_random=ranks[0], p_shuffled=ranks[1], p=max(ranks), toward="a",
            )  # fmt: skip


def _oracle(g: Groups, size: float) -> Iterator[dict[str, Any]]:
    for source in ("base", *MEMBERS):
        for target in ("kind", "answer"):
            asked = dict(member=source, target=target)
            accuracy = g.ends(0.4 + 0.4 * size, 0.2) | dict(floor=0.4, text_only=0.4, probe=0.4, gap=0.0)
            for control, truth in (("floor", 0.4), ("text_only", 0.4), ("probe", 0.2)):
                accuracy |= g.ends(truth * size, 0.2, f"{control}_difference")
            yield accuracy | asked | dict(metric="accuracy")
            yield g.ends(size, 0.4) | asked | dict(metric="gap_shuffled")
