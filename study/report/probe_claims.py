"""Claims about what a probe reads: decodable at one site of a member, and by a probe of the other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from study.figures.numbers import fixed
from study.report.behaviour_claims import words
from study.report.claims import (
    ALPHA,
    MEMBERS,
    Above,
    Claim,
    Control,
    Tables,
    flag,
    measured,
    number,
    p_words,
    rows,
    short,
)

KINDS = ("logistic", "ridge", "massmean", "massmean-iid", "lda")
MARGIN = 0.05
"""Largest loss of AUROC at which a probe that was carried over is as good as one fitted there."""
SHUFFLED = "aligned-shuffled"


def probes(tables: Tables) -> list[Claim]:
    """For every target and member: decodable at the layer that was selected, on TEST where there is one."""
    chosen = [
        row for row in rows(tables, "probes", role="layer", metric="auroc", cohort="all") if flag(row, "selected")
    ]
    cells = dict.fromkeys((str(row["target"]), str(row["member"])) for row in chosen)
    if not cells:
        text = "The gold label is linearly decodable before the answer"
        return [Claim(text, "decodable", "probes", Above(0.5), why="no probes in this study")]
    own = [cell for cell in cells if cell[1] in MEMBERS] or list(cells)
    made = [_decodable(tables, chosen, target, member) for target, member in own]
    return [*made, *_probe_transfers(tables)]


def _decodable(tables: Tables, chosen: list[dict[str, Any]], target: str, member: str) -> Claim:
    here = [row for row in chosen if row["target"] == target and row["member"] == member]
    row = min(here, key=lambda r: (r["split"] != "test", number(r, "p") is None, _rank(r)))
    oof = [r for r in here if r["split"] == "oof" and r["kind"] == row["kind"]]
    p, searched = number(row, "p"), number(oof[0], "p_adjusted") if oof else None
    seen = [(where, value) for where, value in (("TEST", p if row["split"] == "test" else None), ("layers", searched))
            if value is not None]  # fmt: skip
    null = Control.of("permutation null that repeats every choice, on TEST and as the maximum over layers",
                      all(value < ALPHA for _, value in seen) if seen else None,
                      "; ".join(f"{where} {p_words(value)}" for where, value in seen))  # fmt: skip
    controls = (null, _selective(oof), _beats_text(tables, row), *_without_confounds(tables, row))
    where = f"AUROC at {row['site']}, {row['position']}" + (", TEST" if row["split"] == "test" else ", out of fold")
    return Claim(f"{quoted(target)} is linearly decodable in the {member} member", "decodable", "probes",
                 Above(0.5), measured(row, name=where), controls)  # fmt: skip


def quoted(target: str) -> str:
    """A target as a name: `“label = noncompliant”`."""
    return f"“{words(target).replace('=', ' = ')}”"


def _rank(row: dict[str, Any]) -> int:
    return KINDS.index(row["kind"]) if row["kind"] in KINDS else len(KINDS)


def _selective(oof: list[dict[str, Any]]) -> Control:
    """Real minus control label, beyond what two control labels differ by."""
    row = oof[0] if oof else {}
    value, lo, null = (number(row, f"selectivity{end}") for end in ("", "_lo", "_null_hi"))
    passed = None if lo is None else lo > 0 and (null is None or (value or 0.0) > null)
    return Control.of("more decodable than a control label", passed, "" if value is None else f"by {short(value)}")


def _beats_text(tables: Tables, row: dict[str, Any]) -> Control:
    """The same rows read from the words of the prompt, without a model."""
    same = dict(target=row["target"], member=row["member"], role="control", metric="auroc", cohort="all")
    found = rows(tables, "probes", site="surface", split=row["split"], **same) or rows(
        tables, "probes", site="surface", **same
    )
    if not found:
        return Control("beats a bag of words", "not run")
    text = max(float(r["value"]) for r in found)
    return Control.of("beats a bag of words", float(row["lo"]) > text, f"{short(float(row['value']))} vs {short(text)}")


def _without_confounds(tables: Tables, row: dict[str, Any]) -> list[Control]:
    found = rows(tables, "probes", role="residual", metric="auroc", target=row["target"], member=row["member"],
                 site=row["site"], kind=row["kind"])  # fmt: skip
    return [Control.of("still there without the named confounds", float(r["lo"]) > 0.5, short(float(r["value"])))
            for r in found[:1]]  # fmt: skip


def _probe_transfers(tables: Tables) -> list[Claim]:
    """A probe of one member read on another at the same site, beside the same map on shuffled pairs."""
    found = rows(tables, "probes_transfer", metric="auroc", variant=("raw", "aligned", SHUFFLED))
    claims = []
    for a, b, target in dict.fromkeys((r["train_checkpoint"], r["test_checkpoint"], r["target"]) for r in found):
        here = [r for r in found if (r["train_checkpoint"], r["test_checkpoint"], r["target"]) == (a, b, target)]
        same = [r for r in here if r["train_site"] == r["test_site"] and r["variant"] != SHUFFLED]
        if a == b or not same:
            continue
        row = min(same, key=lambda r: (r["variant"] != "raw", _rank(r), -(number(r, "train_layer") or 0.0)))
        own = rows(tables, "probes", target=target, member=a, role="layer", metric="auroc", cohort="all", split="oof",
                   kind=row["kind"], site=row["train_site"], position=row["position"])  # fmt: skip
        real = replace(_selective(own), name="where it was fitted, more decodable than a control label")
        text = f"A probe of {quoted(target)} fitted on {a} reads {b}"
        estimate = measured(row, name=f"AUROC at {row['test_site']}, {row['position']}")
        controls = (_as_good(row), real, *_beyond_any_map(here, row))
        claims.append(Claim(text, "transfers", "probes", Above(0.5), estimate, controls))
    return claims


def _as_good(row: dict[str, Any]) -> Control:
    """The paired loss to a probe of the other member itself: its whole interval has to be above -MARGIN."""
    name, drop, lo = f"within {MARGIN:g} of the probe fitted there", number(row, "drop"), number(row, "drop_lo")
    if drop is None or lo is None:
        return Control(name, "not run")
    return Control.of(name, lo > -MARGIN, f"{fixed(drop, 2, signed=True)} beside it")


def _beyond_any_map(here: list[dict[str, Any]], row: dict[str, Any]) -> list[Control]:
    """For a probe that a fitted map carries over: the same map fitted on shuffled pairs, which must be at chance."""
    if row["variant"] != "aligned":
        return []
    same = ("kind", "train_site", "test_site", "position")
    chance = [r for r in here if r["variant"] == SHUFFLED and all(r[key] == row[key] for key in same)]
    name = "the same map on shuffled pairs does not read it"
    if not chance:
        return [Control(name, "not run")]
    return [Control.of(name, float(chance[0]["lo"]) <= 0.5 and float(row["lo"]) > float(chance[0]["value"]),
                       f"AUROC {short(float(chance[0]['value']))}")]  # fmt: skip
