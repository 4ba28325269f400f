"""Claims about what is added and what is read: a direction is sufficient, an oracle reads from activations."""

from __future__ import annotations

from typing import Any

from study.figures.numbers import MINUS, fixed
from study.report.behaviour_claims import words
from study.report.claims import (
    Above,
    Below,
    Claim,
    Control,
    Measured,
    Tables,
    below,
    number,
    p_words,
    rows,
    short,
    size_of,
)


def steering(tables: Tables) -> list[Claim]:
    """Each direction at its largest strength: every metric without a guard is a target, one with a guard must hold."""
    table = rows(tables, "steering")
    arms = dict.fromkeys((str(r["member"]), str(r["arm"])) for r in table if number(r, "null_lo") is not None)
    made = [c for member, arm in arms for c in _moves(table, member, arm)]
    why = "no steering in this study"
    return made or [Claim("Adding a direction changes the answer", "sufficient", "steering", why=why)]


def _moves(table: list[dict[str, Any]], member: str, arm: str) -> list[Claim]:
    own = [r for r in table if r["member"] == member and r["arm"] == arm]
    strength = "alpha_norm" if any(number(r, "alpha_norm") is not None for r in own) else "alpha"
    top = max((number(r, strength) or 0.0 for r in own), default=0.0)
    claims = []
    for metric in dict.fromkeys(str(r["metric"]) for r in own if number(r, "guard") is None):
        curve = [r for r in own if r["metric"] == metric]
        zero = next((float(r["value"]) for r in curve if number(r, strength) == 0), None)
        at = [r for r in curve if number(r, strength) == top]
        if zero is not None and at and top:
            claims.append(_moved(own, at[0], zero, arm, member, metric, strength, top))
    return claims


def _moved(
    own: list[dict[str, Any]],
    row: dict[str, Any],
    zero: float,
    arm: str,
    member: str,
    metric: str,
    strength: str,
    top: float,
) -> Claim:
    guarded = [r for r in own if number(r, "guard") is not None and number(r, strength) == top]
    rises = float(row["value"]) >= zero
    unit = "residual norms" if strength == "alpha_norm" else "α"
    value, lo, hi = (float(row[key]) - zero for key in ("value", "lo", "hi"))
    name = f"at {fixed(top, 2).replace('-', MINUS)} {unit}"
    text = f"Adding {arm} {'raises' if rises else 'lowers'} {words(metric)} in the {member} member"
    change = Measured(value, lo, hi, **size_of(row), name=name, signed=True)
    controls = (_beyond_controls(row), *map(_guarded, guarded))
    return Claim(text, "sufficient", "steering", Above() if rises else Below(), change, controls)


def _beyond_controls(row: dict[str, Any]) -> Control:
    """Outside the band of random and shuffled directions, and significant against them where a p was computed."""
    name = "beyond random and shuffled directions of equal norm"
    lo, hi = number(row, "null_lo"), number(row, "null_hi")
    if lo is None or hi is None:
        return Control(name, "not run")
    p = number(row, "p_adjusted")
    p = number(row, "p") if p is None else p
    outside = not lo <= float(row["value"]) <= hi
    return Control.of(name, outside and below(p) is not False, "" if p is None else p_words(p))


def _guarded(row: dict[str, Any]) -> Control:
    guard, value = number(row, "guard") or 0.0, float(row["value"])
    name = f"{words(row['metric'])} stays above its guard"
    return Control.of(name, float(row["lo"]) >= guard, f"{short(value)} against {short(guard)}")


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
    return Claim(f"The oracle reads {target} from activations", "reads", "oracle", Above(), estimate, controls)
