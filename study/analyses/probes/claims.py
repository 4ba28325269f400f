"""Claims about what a probe reads: decodable at one site of a member, and by a probe of the other."""

from __future__ import annotations

from dataclasses import replace

from interp.stats import rejects
from probes.kinds import SURFACE, rank
from study.config.sections import SmallestEffects
from study.designs import of_auroc, of_mean
from study.figures.numbers import fixed
from study.ledger import Above, Claim, Control, p_words, short
from study.ledger_rows import Tables, bounds, flag, measured, members_of, number, one_answer, rows, words
from study.rows import Row

SHUFFLED = "aligned-shuffled"


def probes(tables: Tables, smallest: SmallestEffects) -> list[Claim]:
    """For every target and member: decodable at the layer that was selected, on TEST where there is one."""
    chosen = [
        row for row in rows(tables, "probes", role="layer", metric="auroc", cohort="all") if flag(row, "selected")
    ]
    cells = dict.fromkeys((str(row["target"]), str(row["member"])) for row in chosen)
    if not cells:
        text = "The gold label is linearly decodable before the answer"
        return [Claim(text, "decodable", "probes", Above(0.5), why="no probes in this study")]
    members = members_of(chosen)
    own = [cell for cell in cells if cell[1] in members]
    probe_claims = [_decodable(tables, chosen, target, member, smallest.auroc) for target, member in own]
    return [*probe_claims, *_probe_transfers(tables, chosen, smallest)]


def _decodable(tables: Tables, chosen: list[Row], target: str, member: str, smallest: float) -> Claim:
    here = [row for row in chosen if row["target"] == target and row["member"] == member]
    row = min(here, key=lambda r: (r["split"] != "test", number(r, "p") is None, rank(r["kind"])))
    oof = [r for r in here if r["split"] == "oof" and r["kind"] == row["kind"]]
    searched, adjusted = number(oof[0], "p_adjusted") if oof else None, number(row, "p_adjusted")
    p = number(row, "p") if adjusted is None else adjusted  # of a crossed TEST the p over all groups decides
    seen = [
        (where, value)
        for where, value in (("TEST", p if row["split"] == "test" else None), ("layers", searched))
        if value is not None
    ]
    null = Control.of(
        "permutation null that repeats every choice, on TEST and as the maximum over layers",
        all(rejects(value) for _, value in seen) if seen else None,
        "; ".join(f"{where} {p_words(value)}" for where, value in seen),
        sort="null",
    )
    controls = (null, _selective(oof), _beats_text(tables, row), *_without_confounds(tables, row))
    text = f"{quoted(target)} is linearly decodable in {{member}}"
    key = f"probes/decodable/{column_of(target)}/{member}"
    if why := one_answer(row):
        return Claim(text, "decodable", "probes", Above(0.5), why=f"not claimed: {why}", key=key).of(member)
    layers = rows(
        tables,
        "probes",
        role="layer",
        metric="auroc",
        cohort="all",
        split="oof",
        target=target,
        member=member,
        kind=row["kind"],
    )
    where = f"AUROC at {row['site']}, {row['position']}" + (", TEST" if row["split"] == "test" else ", out of fold")
    return Claim(
        text,
        "decodable",
        "probes",
        Above(0.5),
        measured(row, name=where),
        controls,
        smallest=smallest,
        tests=tuple(value for _, value in seen),
        key=key,
        design=of_auroc(row, smallest, family=len(layers)),
    ).of(member)


def column_of(target: object) -> str:
    """The column of a target `label=noncompliant`."""
    return str(target).split("=")[0]


def quoted(target: str) -> str:
    """A target as a name: `“label = noncompliant”`."""
    return f"“{words(target).replace('=', ' = ')}”"


def _selective(oof: list[Row]) -> Control:
    """Real minus control label: its interval above zero, the difference beyond that of two control labels."""
    row = oof[0] if oof else {}
    value, null = number(row, "selectivity"), number(row, "selectivity_null_hi")
    control = Control.at_least(
        "more decodable than a control label",
        bounds(row, "selectivity"),
        0.0,
        "" if value is None else f"by {short(value)}",
    )
    if control.outcome == "passed" and null is not None and (value or 0.0) <= null:
        return replace(control, outcome="undecided")
    return control


def _beats_text(tables: Tables, row: Row) -> Control:
    """AUROC minus that of the words of the prompt on the same rows, paired."""
    same = dict(target=row["target"], member=row["member"], role="control", metric="auroc", cohort="all")
    text_rows = rows(tables, "probes", site=SURFACE, split=row["split"], **same)
    detail = f"{short(float(row['value']))} vs {short(max(float(r['value']) for r in text_rows))}" if text_rows else ""
    return Control.at_least("beats a bag of words", bounds(row, "text_difference"), 0.0, detail)


def _without_confounds(tables: Tables, row: Row) -> list[Control]:
    residual_rows = rows(
        tables,
        "probes",
        role="residual",
        metric="auroc",
        target=row["target"],
        member=row["member"],
        site=row["site"],
        kind=row["kind"],
    )
    return [
        Control.at_least("still there without the named confounds", bounds(r), 0.5, short(float(r["value"])))
        for r in residual_rows[:1]
    ]


def _probe_transfers(tables: Tables, chosen: list[Row], smallest: SmallestEffects) -> list[Claim]:
    """A probe of one member read on another, at the site that was selected where it was fitted."""
    transfer_rows = rows(tables, "probes_transfer", metric="auroc", variant=("raw", "aligned", SHUFFLED))
    claims = []
    for a, b, target in dict.fromkeys(
        (r["train_checkpoint"], r["test_checkpoint"], r["target"]) for r in transfer_rows
    ):
        if a == b:
            continue
        here = [
            r for r in transfer_rows if (r["train_checkpoint"], r["test_checkpoint"], r["target"]) == (a, b, target)
        ]
        claims.append(
            _carried(tables, here, [r for r in chosen if (r["member"], r["target"]) == (a, target)], smallest)
        )
    return claims


def _carried(tables: Tables, here: list[Row], chosen: list[Row], smallest: SmallestEffects) -> Claim:
    """The claim of one pair of checkpoints and one target."""
    a, b, target = (here[0][key] for key in ("train_checkpoint", "test_checkpoint", "target"))
    text = f"A probe of {quoted(target)} fitted on {a} reads {b}"
    key = f"probes/transfer/{column_of(target)}/{a}/{b}"
    if why := next(filter(None, map(one_answer, here)), ""):
        return Claim(text, "transfers", "probes", Above(0.5), why=f"not claimed: {why}", key=key)
    places = [(r["site"], r["position"]) for r in sorted(chosen, key=lambda r: rank(r["kind"]))]
    here = [r for r in here if flag(r, "selected")] or here  # each look at TEST at the site that it selected
    same = [
        r
        for r in here
        if r["train_site"] == r["test_site"] and r["variant"] != SHUFFLED and (r["train_site"], r["position"]) in places
    ]
    if not same:
        where = ", ".join(f"{site}, {position}" for site, position in dict.fromkeys(places)) or "none"
        return Claim(text, "transfers", "probes", Above(0.5), why=f"not read at the selected site ({where})", key=key)
    row = min(
        same, key=lambda r: (r["variant"] != "raw", places.index((r["train_site"], r["position"])), rank(r["kind"]))
    )
    own = rows(
        tables,
        "probes",
        target=target,
        member=a,
        role="layer",
        metric="auroc",
        cohort="all",
        split="oof",
        kind=row["kind"],
        site=row["train_site"],
        position=row["position"],
    )
    real = replace(_selective(own), name="where it was fitted, more decodable than a control label")
    estimate = measured(row, name=f"AUROC at {row['test_site']}, {row['position']}")
    controls = (_as_good(row, smallest.auroc_loss), real, *_beyond_any_map(here, row))
    return Claim(
        text,
        "transfers",
        "probes",
        Above(0.5),
        estimate,
        controls,
        smallest=smallest.auroc,
        key=key,
        design=of_mean(row, smallest.auroc),
    )


def _as_good(row: Row, margin: float) -> Control:
    """The paired loss to a probe of the other member itself: its whole interval has to be above -margin."""
    drop = number(row, "drop")
    detail = "" if drop is None else f"{fixed(drop, 2, signed=True)} compared with it"
    return Control.at_least(f"within {margin:g} of the probe fitted there", bounds(row, "drop"), -margin, detail)


def _beyond_any_map(here: list[Row], row: Row) -> list[Control]:
    """For a probe that a fitted map carries over: AUROC minus that of the same map fitted on shuffled pairs."""
    if row["variant"] != "aligned":
        return []
    same = ("kind", "train_site", "test_site", "position")
    chance = [r for r in here if r["variant"] == SHUFFLED and all(r[key] == row[key] for key in same)]
    detail = f"AUROC {short(float(chance[0]['value']))}" if chance else ""
    name = "beats the same map on shuffled pairs"
    return [Control.at_least(name, bounds(row, "control_difference"), 0.0, detail)]
