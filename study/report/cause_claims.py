"""Claims about what is added and what is read: a direction is sufficient, an oracle reads from activations."""

from __future__ import annotations

from typing import Any

from study.figures.numbers import fixed
from study.report.behaviour_claims import words
from study.report.claims import (
    Above,
    Below,
    Claim,
    Control,
    Measured,
    Tables,
    below,
    measured,
    number,
    p_words,
    rows,
    short,
    size_of,
)

MAIN, APART = "direction", "orthogonalized"
TARGETS = {"margin": "the margin toward {toward}", "amb_commit_bias": "commit bias"}
"""Scores that a direction is meant to move, in words; the other scores must stay where its controls leave them."""
ROUNDING = 1e-9
SIDE = {"coverage": "coverage", "accuracy": "accuracy", "acc_disambig": "disambiguated accuracy"}


def steering(tables: Tables) -> list[Claim]:
    """Each direction by the slope of each target score over all strengths; no strength is chosen."""
    table = rows(tables, "steering_slopes")
    made = [_moves(table, row) for metric in TARGETS for row in table if row["arm"] == MAIN and row["metric"] == metric]
    why = "no steering in this study"
    return made or [Claim("Adding a direction changes the answer", "sufficient", "steering", why=why)]


def _moves(table: list[dict[str, Any]], row: dict[str, Any]) -> Claim:
    """One direction, one score, beside what the same direction does to the scores that it should leave alone."""
    beside = [r for r in table if r["member"] == row["member"] and r["site"] == row["site"]]
    rises = float(row["value"]) >= 0 or row["metric"] == "margin"  # positive strength is toward, by definition
    asserts = Above() if rises else Below()
    controls = [_beyond_controls(row), *_without_others(beside, row, asserts)]
    if row["metric"] != "margin":
        controls += [_left_alone(r) for r in beside if r["arm"] == MAIN and r["metric"] in SIDE]
    what = TARGETS[str(row["metric"])].format(toward=row.get("toward") or "its first class")
    verb = "raises" if rises else "lowers"
    direction = f"“{row['arm_label']}”" if row.get("arm_label") else "the direction"
    text = f"Adding {direction} at {row['site']} {verb} {what} in the {row['member']} member"
    estimate = measured(row, name="slope over all strengths", signed=True)
    return Claim(text, "sufficient", "steering", asserts, estimate, tuple(controls))


def _beyond_controls(row: dict[str, Any]) -> Control:
    """Outside the band of random and shuffled directions, and significant against them where a p was computed."""
    name = "beyond random and shuffled directions of equal norm"
    lo, hi, p = number(row, "null_lo"), number(row, "null_hi"), number(row, "p")
    if lo is None or hi is None:
        return Control(name, "not run")
    outside = not lo <= float(row["value"]) <= hi
    return Control.of(name, outside and below(p) is not False, "" if p is None else p_words(p))


def _without_others(beside: list[dict[str, Any]], row: dict[str, Any], asserts: Above | Below) -> list[Control]:
    """What is left after the other directions are taken out of it, where the study did so."""
    found = [r for r in beside if r["arm"] == APART and r["metric"] == row["metric"]]
    rises = isinstance(asserts, Above)
    return [
        Control.of("still there without the other directions", float(r["lo"]) > 0 if rises else float(r["hi"]) < 0,
                   fixed(float(r["value"]), 2, signed=True))
        for r in found[:1]
    ]  # fmt: skip


def _left_alone(row: dict[str, Any]) -> Control:
    """Whether a score that should stay is inside what directions of equal norm do to it."""
    name = f"leaves {SIDE[str(row['metric'])]} where equal-norm controls leave it"
    lo, hi = number(row, "null_lo"), number(row, "null_hi")
    if lo is None or hi is None:
        return Control(name, "not run")
    value = float(row["value"])
    return Control.of(name, lo - ROUNDING <= value <= hi + ROUNDING, fixed(value, 2, signed=True))


def oracle(tables: Tables) -> list[Claim]:
    """For each question: the reader answers from these activations, not from priors, text or a shuffle."""
    found = [row for row in rows(tables, "oracle") if number(row, "gap") is not None]
    made = [_reads(row) for row in found]
    return made or [Claim("An oracle reads it from activations", "reads", "oracle", why="no oracle in this study")]


def _reads(row: dict[str, Any]) -> Claim:
    gap, gap_lo, gap_hi = (float(row[key]) for key in ("gap", "gap_lo", "gap_hi"))
    floor, text, probe = (number(row, key) for key in ("floor", "text_only", "probe"))
    value, lo = float(row["value"]), float(row["lo"])
    beside_probe = "" if probe is None else f"{short(value)} vs {short(probe)}"
    controls = (
        Control.of("matched shuffle", gap_lo > 0),
        Control.of("above prior-only reader and majority", None if floor is None else lo > floor, short(floor)),
        Control.of("beats the text alone", None if text is None else value > text, short(text)),
        Control.of("beats a linear probe on the same vectors", None if probe is None else value >= probe, beside_probe),
    )
    estimate = Measured(gap, gap_lo, gap_hi, **size_of(row), name="gap", unit="nats", signed=True)
    target = words(row.get("target") or row.get("cell"))
    where = f"activations of {row['member']}" if row.get("member") else "activations"
    return Claim(f"The oracle reads {target} from {where}", "reads", "oracle", Above(), estimate, controls)
