"""Claims about heads at each decision site: necessary, carrying the answer under the same-answer control, changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from interp.stats import rejects
from study.config.sections import SmallestEffects
from study.designs import of_mean
from study.ledger import Above, Below, Claim, Control, p_words, short
from study.ledger_rows import Row, Tables, bounds, flag, measured, members_of, number, rows, words
from study.schema import DIFFERENCE

Held = tuple[float, float] | None


def heads(tables: Tables, smallest: SmallestEffects) -> list[Claim]:
    """Per member and decision site: heads that are necessary, and what they carry; between members: what changed.

    Of each: every head that was named in advance, and the largest of the selecting half as it is on the other. A site
    that a member does not reach has its claims too, without an estimate.
    """
    found = rows(tables, "heads")
    places = [
        (member, site) for member in members_of(found) for site in _sites(r for r in found if r["member"] == member)
    ]
    claims = [
        *(claim for member, site in places for claim in _necessary(tables, member, site, smallest.logits)),
        *(claim for member, site in places for claim in _carries(tables, member, site, smallest.logits)),
        *(claim for member, site in places for claim in _together(tables, member, site, smallest.logits)),
        *_unreached(tables),
        *_changed(tables, smallest.logits),
    ]
    if claims:
        return claims
    why = "no head sweep in this study"
    return [
        Claim("A named head is necessary for the answer", "necessary", "heads", why=why),
        Claim("What it carries transfers under the same-answer control", "transfers", "heads", why=why),
    ]


def site_of(row: Row) -> str:
    """The decision site of a row; "" of a task that names none."""
    return str(row.get("decision_site") or "")


def _sites(found: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(site_of(row) for row in found))


def _necessary(tables: Tables, member: str, site: str, smallest: float) -> list[Claim]:
    """The heads of a member at one decision site under its main kind of ablation."""
    every = [r for r in rows(tables, "heads", member=member, metric="abl_logit") if r.get("pairs", "all") == "all"]
    every = [r for r in every if site_of(r) == site]
    kind = min((str(r["kind"]) for r in every), key=lambda k: (k != "mean", k), default="")
    own = [r for r in every if r["kind"] == kind]
    halves = [
        r for r in rows(tables, "heads_selected", member=member, metric="abl_logit", kind=kind) if site_of(r) == site
    ]
    claims = []
    for row, report in _chosen(own, [r for r in halves if r.get("pairs", "all") == "all"]):
        controls = [_over_all_heads(row, len(own)), _matched_head(row), *_held_out(report)]
        other = [r for r in every if r["kind"] != kind and r["head"] == row["head"]]
        controls += [
            Control.at_least(f"another ablation ({r['kind']}) agrees", bounds(r), 0.0, short(float(r["value"])))
            for r in other[:1]
        ]
        claims.append(
            Claim(
                necessary_text(str(row["head"]), site),
                "necessary",
                "heads",
                Above(),
                measured(row, name=f"δ {kind} ablation{_which(row)}"),
                tuple(controls),
                smallest=smallest,
                tests=_tests(row),
                key=key_of("necessary", row, member),
                design=of_mean(row, smallest, family=len(own)),
            ).of(member)
        )
    return claims


def _together(tables: Tables, member: str, site: str, smallest: float) -> list[Claim]:
    """The sets of heads of a member that were named, at one decision site."""
    found = [r for r in rows(tables, "heads_together", member=member) if site_of(r) == site]
    return [
        Claim(
            together_text(str(row["head"]), site),
            "necessary",
            "heads",
            Above(),
            measured(row, name=f"δ {row['kind']} ablation of the set, named in advance"),
            (
                _over_all(row, len(found), "sets"),
                Control.at_least(
                    "random sets of as many heads per layer have less effect", bounds(row, "control_difference"), 0.0,
                    _reach(row, "control_value"),
                ),
                Control.at_least(
                    "beyond the sum of its heads' single effects", bounds(row, "parts_difference"), 0.0,
                    _reach(row, "parts_value"),
                ),
            ),
            smallest=smallest,
            tests=_tests(row),
            key="/".join(filter(None, ("heads", "together", str(row["head"]), site, member))),
            design=of_mean(row, smallest, family=len(found)),
        ).of(member)
        for row in found
    ]  # fmt: skip


def _reach(row: Row, column: str) -> str:
    value = number(row, column)
    return "" if value is None else f"they reach {short(value)}"


def together_text(heads: str, site: str) -> str:
    """The claim that a set of heads is necessary, with `{member}` where the member stands."""
    return (
        f"{heads.replace('+', ' and ')} are necessary together{f' at the {words(site)}' if site else ''} in {{member}}"
    )


def necessary_text(head: str, site: str) -> str:
    """The claim that a head is necessary, with `{member}` where the member stands."""
    return f"{head} is necessary {f'at the {words(site)}' if site else 'for the answer'} of {{member}}"


def carries_text(head: str, site: str) -> str:
    """The claim that what a head carries transfers, with `{member}` where the member stands."""
    return f"What {head} carries{f' at the {words(site)}' if site else ''} transfers to the other answer in {{member}}"


def _unreached(tables: Tables) -> list[Claim]:
    """Claims without an estimate: the member does not reach the decision."""
    table, claims = tables.get("heads"), {}
    if table is None or "n_reached" not in table:
        return []
    named = members_of({"member": name} for name in table["member"])
    for record in table[table["value"].isna() & table["n"].isna() & table["n_reached"].notna()].to_dict("records"):
        row = {str(name): value for name, value in record.items()}
        member, site, head = str(row["member"]), site_of(row), str(row["head"]) or "A head"
        if member not in named:
            continue
        n, of = int(row["n_reached"]), int(row["n_asked"])
        often = f"reaches the {words(site)} in {n} of {of} replies only" if n else f"never reaches the {words(site)}"
        is_patch = row["metric"] == "cma"
        key = key_of("carries" if is_patch else "necessary", row, member)
        text = carries_text(head, site) if is_patch else necessary_text(head, site)
        claim = Claim(
            text, "transfers" if is_patch else "necessary", "heads", why=f"the {member} member {often}", key=key
        )
        claims.setdefault(key, claim.of(member))
    return list(claims.values())


def key_of(kind: str, row: Row, member: str) -> str:
    """Key of the claim about a head that was named in advance, or about whichever is the largest, at the row's site."""
    parts = ("heads", kind, row["head"] if flag(row, "named") else "largest", site_of(row), member)
    return "/".join(filter(None, map(str, parts)))


def _which(row: Row) -> str:
    return ", named in advance" if flag(row, "named") else ", the largest"


def _chosen(own: Sequence[Row], halves: Sequence[Row]) -> list[tuple[Row, Held]]:
    """(row, interval on the half that did not choose it): named heads on all pairs, then the selected one."""
    named: list[tuple[Row, Held]] = [(row, None) for row in own if flag(row, "named")]
    row = _selected(halves)
    if row is None or any(row["head"] == other["head"] for other, _ in named):
        return named
    return [*named, (row, bounds(row))]


def _held_out(report: Held) -> list[Control]:
    return (
        []
        if report is None
        else [Control.at_least("chosen on one half of the pairs, reported on the other", report, sort="null")]
    )


def _selected(halves: Sequence[Row]) -> Row | None:
    """The head that is largest on the half `select`, as it is on the half `report`."""
    first = [r for r in halves if r["half"] == "select"]
    best = max(first, key=lambda r: float(r["value"]), default=None)
    there = [r for r in halves if r["half"] == "report" and best and r["head"] == best["head"]]
    return there[0] if there else None


def _tests(row: Row) -> tuple[float, ...]:
    p = number(row, "p_adjusted")
    return () if p is None else (p,)


def _over_all_heads(row: Row, count: int) -> Control:
    return _over_all(row, count, "heads")


def _over_all(row: Row, count: int, what: str) -> Control:
    p = number(row, "p_adjusted")
    over = f" over {count} {what}" if count else ""
    return Control.of(
        f"family-wise error, max-|t|{over}",
        None if p is None else bool(rejects(p)),
        "" if p is None else p_words(p),
        sort="null",
    )


def _matched_head(row: Row) -> Control:
    """The effect minus that of norm-matched heads of its layer, paired."""
    name, detail = "norm-matched heads of its layer have less effect", _reach(row, "control_value")
    return Control.at_least(name, bounds(row, "control_difference"), 0.0, detail)


def _carries(tables: Tables, member: str, site: str, smallest: float) -> list[Claim]:
    """Patched from a twin with the other answer, compared with twins whose answer is the same."""
    patched = dict(member=member, kind="patch", metric="cma")
    flips = [r for r in rows(tables, "heads", pairs=("flip", "all"), **patched) if site_of(r) == site]
    halves = [r for r in rows(tables, "heads_selected", pairs=("flip", "all"), **patched) if site_of(r) == site]
    claims = []
    for row, report in _chosen(flips, halves):
        placebo = [r for r in rows(tables, "heads", pairs="keep", head=row["head"], **patched) if site_of(r) == site]
        controls = (_over_all_heads(row, len(flips)), _same_answer(row, placebo), *_held_out(report))
        claims.append(
            Claim(
                carries_text(str(row["head"]), site),
                "transfers",
                "heads",
                Above(),
                measured(row, name=f"δ patch{_which(row)}"),
                controls,
                smallest=smallest,
                tests=_tests(row),
                key=key_of("carries", row, member),
                design=of_mean(row, smallest, family=len(flips)),
            ).of(member)
        )
    return claims


def _same_answer(row: Row, placebo: Sequence[Row]) -> Control:
    """The effect minus that of twins that keep the answer, of the same procedures."""
    detail = f"they move it by {short(float(placebo[0]['value']))}" if placebo else ""
    name = "same-answer control: twins that keep the answer move it less"
    return Control.at_least(name, bounds(row, "keep_difference"), 0.0, detail)


def _changed(tables: Tables, smallest: float) -> list[Claim]:
    """Per decision site: the largest difference of the members, head by head, with the interval that holds for
    whichever is largest."""
    found = [r for r in rows(tables, "heads_difference") if r["member"] == DIFFERENCE or "member" not in r]
    return [_largest_change([r for r in found if site_of(r) == site], site, smallest) for site in _sites(found)]


def _largest_change(differences: Sequence[Row], site: str, smallest: float) -> Claim:
    at, key = f" at the {words(site)}" if site else "", "/".join(filter(None, ("heads/changed", site)))
    kind = min((str(r["kind"]) for r in differences), key=lambda k: (k != "mean", k))
    differences = [r for r in differences if r["kind"] == kind]
    bounded = [r for r in differences if number(r, "band_lo") is not None]
    if not bounded:
        why = "no simultaneous interval over the heads that were searched"
        return Claim(f"A head does more{at} in one member", "necessary", "heads", why=why, key=key)
    row = max(bounded, key=lambda r: abs(float(r["value"])))
    higher = float(row["value"]) >= 0
    text = f"{row['head']} does more{at} in the {'engaged' if higher else 'heuristic'} member"
    asserts = Above() if higher else Below()
    name = f"difference, {kind}, the largest of {len(differences)}, simultaneous interval"
    estimate = measured({**row, "lo": row["band_lo"], "hi": row["band_hi"]}, name=name, signed=True)
    return Claim(
        text,
        "necessary",
        "heads",
        asserts,
        estimate,
        (_over_all_heads(row, len(differences)),),
        smallest=smallest,
        tests=_tests(row),
        key=key,
        design=of_mean(row, smallest, family=len(differences)),
    )
