"""Claims about what is added: a direction is sufficient to move the answer, beyond its controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from interp.stats import rejects
from steering.curves import p_against
from study.config.sections import SmallestEffects
from study.designs import of_mean
from study.figures.numbers import fixed
from study.ledger import Above, Below, Claim, Control, p_words
from study.ledger_rows import Row, Tables, bounds, measured, number, one_answer, rows, words

MAIN, APART = "direction", "orthogonalized"
TARGETS = {"margin": "the margin toward {toward}", "amb_commit_bias": "commit bias"}
"""Scores that a direction is meant to move, in words; the other scores must stay where its controls leave them."""
SIDE = {"coverage": "coverage", "accuracy": "accuracy", "acc_disambig": "disambiguated accuracy"}


def steering(tables: Tables, smallest: SmallestEffects) -> list[Claim]:
    """Each direction by the slope of each target score over all strengths; no strength is chosen."""
    table, apart = rows(tables, "steering_slopes"), _sites_apart(tables)
    claims = [
        _moves(table, row, _place(row) in apart, smallest)
        for metric in TARGETS
        for row in table
        if row["arm"] == MAIN and row["metric"] == metric
    ]
    why = "no steering in this study"
    return claims or [Claim("Adding a direction changes the answer", "sufficient", "steering", why=why)]


def placebos(tables: Tables, smallest: SmallestEffects) -> list[Claim]:
    """The first random direction of each member and site as if it were the direction, against the other controls; its
    key is that of the direction's claim with `/random`."""
    table = rows(tables, "steering_slopes", metric="margin")
    claims = []
    for row in (row for row in table if row["arm"] == MAIN):
        here = [r for r in table if _place(r) == _place(row)]
        first, *others = sorted((r for r in here if r["arm"] == "random"), key=lambda r: float(r["draw"]))
        shuffled = [float(r["value"]) for r in here if r["arm"] == "shuffled"]
        placebo = {**first, **_tested(float(first["value"]), [float(r["value"]) for r in others], shuffled)}
        placebo |= {"arm_label": "a random direction", "toward": row.get("toward")}
        claim = _moves(table, placebo, False, smallest)
        claims.append(replace(claim, key=f"{claim.key}/random"))
    return claims


def _tested(value: float, random: Sequence[float], shuffled: Sequence[float]) -> dict[str, float]:
    """The columns of a slope that depend on its controls: p against each sort, and the middle 95 % of all of them."""
    import numpy as np

    p = {f"p_{name}": p_against(value, null) for name, null in (("random", random), ("shuffled", shuffled))}
    lo, hi = np.quantile([*random, *shuffled], (0.025, 0.975)).tolist()
    return {**p, "p": float(np.max(list(p.values()))), "null_lo": lo, "null_hi": hi}


def _place(row: Mapping[Any, object]) -> tuple[object, ...]:
    """Where a direction was added and its effect read."""
    return row["member"], row["site"], row.get("decision_site", "")


def _sites_apart(tables: Tables) -> set[tuple[object, ...]]:
    """Places where the direction without the others was added, whether its slopes are defined or not."""
    table = tables.get("steering_slopes")
    if table is None or not {"arm", "member", "site"} <= set(table.columns):
        return set()
    kept = table[(table["arm"] == APART).fillna(False).astype(bool)]
    return {_place(row) for row in kept.to_dict("records")}


def _moves(table: Sequence[Row], row: Row, apart: bool, smallest: SmallestEffects) -> Claim:
    """One direction, one score, next to what the same direction does to the scores that it should leave alone."""
    same_place = [r for r in table if _place(r) == _place(row)]
    rises = float(row["value"]) >= 0 or row["metric"] == "margin"  # positive strength is toward, by definition
    asserts = Above() if rises else Below()
    controls = [_beyond_controls(row, rises)]
    if apart:
        without = [r for r in same_place if r["arm"] == APART and r["metric"] == row["metric"]]
        controls.append(_without_others(without[0] if without else {}, rises))
    if row["metric"] != "margin":
        side = [r for r in same_place if r["arm"] == MAIN and r["metric"] in SIDE]
        controls += [_left_alone(r, smallest.rate_slope) for r in side]
    what = TARGETS[str(row["metric"])].format(toward=row.get("toward") or "its first class")
    verb = "raises" if rises else "lowers"
    direction = f"“{row['arm_label']}”" if row.get("arm_label") else "the direction"
    text = f"Adding {direction} at {row['site']} {verb} {what} in {{member}}"
    key = f"steering/{row['metric']}/{row['member']}/{row['site']}"
    if len({r["decision_site"] for r in table if r["metric"] == row["metric"] and r.get("decision_site")}) > 1:
        key, text = f"{key}/{row['decision_site']}", f"{text} at the {words(row['decision_site'])}"
    if why := one_answer(row):
        return Claim(text, "sufficient", "steering", why=f"not claimed: {why}", key=key).of(str(row["member"]))
    estimate = measured(row, name="slope over all strengths", signed=True)
    p = number(row, "p")
    of_interest = smallest.margin_slope if row["metric"] == "margin" else smallest.rate_slope
    return Claim(
        text,
        "sufficient",
        "steering",
        asserts,
        estimate,
        tuple(controls),
        tests=() if p is None else (p,),
        smallest=of_interest,
        key=key,
        design=of_mean(row, of_interest),
    ).of(str(row["member"]))


def _outside(row: Row, rises: bool) -> bool | None:
    """Whether a slope is beyond the middle 95 % of its controls on the side of the claim; None without controls."""
    value, lo, hi = (number(row, key) for key in ("value", "null_lo", "null_hi"))
    if value is None or lo is None or hi is None:
        return None
    return value > hi if rises else value < lo


def _beyond_controls(row: Row, rises: bool) -> Control:
    """Outside the band of the controls, and significant against each kind of them; without a p there is no test."""
    name = "beyond random and shuffled directions of equal norm"
    outside, p = _outside(row, rises), number(row, "p")
    few = [sort for sort in ("random", "shuffled") if f"p_{sort}" in row and number(row, f"p_{sort}") is None]
    if p is None or few:
        detail = f"too few {' and '.join(few)} directions for a p" if few else "no p"
        return Control(name, "failed" if outside is False else "not run", detail, "null")
    return Control.of(name, None if outside is None else outside and bool(rejects(p)), p_words(p), sort="null")


def _without_others(row: Row, rises: bool) -> Control:
    """What is left after the other directions are taken out: its interval excludes zero, its slope is beyond its null.

    Undecided where the interval includes zero; failed where its slope is one that its controls reach too.
    """
    name, outside = "still there without the other directions", _outside(row, rises)
    ends = bounds(row)
    if ends is None:
        return Control(name, "not run", "slope undefined")
    lo, hi = ends if rises else (-ends[1], -ends[0])
    control = Control.at_least(name, (lo, hi), 0.0, fixed(float(row["value"]), 2, signed=True))
    if control.outcome != "passed":
        return control
    return replace(control, outcome="not run" if outside is None else "passed" if outside else "failed")


def _left_alone(row: Row, smallest: float) -> Control:
    """Whether the interval of a score that should stay is inside what directions of equal norm do to it, give or take
    the smallest effect of interest."""
    name = f"leaves {SIDE[str(row['metric'])]} where equal-norm controls leave it, within {smallest:g}"
    lo, hi = number(row, "null_lo"), number(row, "null_hi")
    if lo is None or hi is None:
        return Control(name, "not run")
    detail = fixed(float(row["value"]), 2, signed=True)
    return Control.within(name, bounds(row), (lo - smallest, hi + smallest), detail)
