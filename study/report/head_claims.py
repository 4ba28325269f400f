"""Claims about heads: necessary, carrying the answer under the same-answer control, changed by training."""

from __future__ import annotations

from typing import Any

from study.report.behaviour_claims import DIFFERENCE
from study.report.claims import (
    MEMBERS,
    Above,
    Below,
    Claim,
    Control,
    Tables,
    below,
    flag,
    measured,
    number,
    p_words,
    rows,
    short,
)


def heads(tables: Tables) -> list[Claim]:
    """Per member: a head is necessary, and what it carries transfers; between members: what training changed."""
    necessary, carries = [_necessary(tables, m) for m in MEMBERS], [_carries(tables, m) for m in MEMBERS]
    made = [claim for claim in (*necessary, *carries, *_changed(tables)) if claim]
    if made:
        return made
    why = "no head sweep in this study"
    return [
        Claim("A named head is necessary for the answer", "necessary", "heads", why=why),
        Claim("What it carries transfers under the same-answer control", "transfers", "heads", why=why),
    ]


def _necessary(tables: Tables, member: str) -> Claim | None:
    """The head named beforehand, else the largest on one half of the pairs, reported on the other."""
    every = [r for r in rows(tables, "heads", member=member, metric="abl_logit") if r.get("pairs", "all") == "all"]
    kind = min((r["kind"] for r in every), key=lambda k: (k != "mean", k), default=None)
    every = [r for r in every if r["kind"] == kind]
    named = [r for r in every if flag(r, "named")]
    halves = [r for r in rows(tables, "heads_selected", member=member, metric="abl_logit", kind=kind) if kind]
    halves = [r for r in halves if r.get("pairs", "all") == "all"]
    row, held = (named[0], None) if named else _selected(halves)
    if row is None:
        return None
    controls = [_over_all_heads(row, len(every)), _matched_head(row)]
    controls += [Control.of("chosen on one half of the pairs, reported on the other", held)] if held is not None else []
    other = [r for r in rows(tables, "heads", member=member, metric="abl_logit", head=row["head"])
             if r["kind"] not in (kind, "patch") and r.get("pairs", "all") == "all"]  # fmt: skip
    controls += [Control.of(f"another ablation ({r['kind']}) agrees", float(r["lo"]) > 0, short(float(r["value"])))
                 for r in other[:1]]  # fmt: skip
    text = f"{row['head']} is necessary for the answer of the {member} member"
    return Claim(text, "necessary", "heads", Above(), measured(row, name=f"δ {kind} ablation"), tuple(controls))


def _selected(halves: list[dict[str, Any]]) -> tuple[dict[str, Any] | None, bool | None]:
    """The head that is largest on the half `select`, as it is on the half `report`, and whether it holds there."""
    first = [r for r in halves if r["half"] == "select"]
    best = max(first, key=lambda r: float(r["value"]), default=None)
    there = [r for r in halves if r["half"] == "report" and best and r["head"] == best["head"]]
    return (there[0], float(there[0]["lo"]) > 0) if there else (None, None)


def _over_all_heads(row: dict[str, Any], count: int) -> Control:
    p = number(row, "p_adjusted")
    over = f" over {count} heads" if count else ""
    return Control.of(f"family-wise error, max-|t|{over}", below(p), "" if p is None else p_words(p))


def _matched_head(row: dict[str, Any]) -> Control:
    control = number(row, "control_value")
    name = "heads of its layer whose write is as long"
    if control is None:
        return Control(name, "not run")
    return Control.of(name, float(row["lo"]) > control, f"they reach {short(control)}")


def _carries(tables: Tables, member: str) -> Claim | None:
    """Patched from a twin with the other answer, against twins whose answer is the same."""
    flips = rows(tables, "heads", member=member, kind="patch", metric="cma", pairs=("flip", "all"))
    named = [r for r in flips if flag(r, "named")]
    chosen, _ = _selected(
        rows(tables, "heads_selected", member=member, kind="patch", metric="cma", pairs=("flip", "all"))
    )
    row = named[0] if named else chosen
    if row is None:
        return None
    placebo = rows(tables, "heads", member=member, kind="patch", metric="cma", pairs="keep", head=row["head"])
    same = placebo[0] if placebo else None
    name = "same-answer control: twins that keep the answer move it less"
    answered = Control(name, "not run")
    if same is not None:
        moved = float(same["value"])
        answered = Control.of(name, abs(moved) < float(row["lo"]), f"they move it by {short(moved)}")
    text = f"What {row['head']} carries transfers to the other answer in the {member} member"
    controls = (_over_all_heads(row, len(flips)), answered)
    return Claim(text, "transfers", "heads", Above(), measured(row, name="δ patch"), controls)


def _changed(tables: Tables) -> list[Claim]:
    """The largest difference of the members, head by head."""
    found = [r for r in rows(tables, "heads_difference") if r["member"] == DIFFERENCE or "member" not in r]
    if not found:
        return []
    kind = min((str(r["kind"]) for r in found), key=lambda k: (k != "mean", k))
    found = [r for r in found if r["kind"] == kind]
    named = [r for r in found if flag(r, "named")]
    row = named[0] if named else max(found, key=lambda r: abs(float(r["value"])))
    higher = float(row["value"]) >= 0
    text = f"{row['head']} does more in the {'engaged' if higher else 'heuristic'} member"
    asserts = Above() if higher else Below()
    estimate = measured(row, name=f"difference, {kind}", signed=True)
    return [Claim(text, "necessary", "heads", asserts, estimate, (_over_all_heads(row, len(found)),))]
