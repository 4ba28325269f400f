"""Tables of a head sweep in the columns of `study.schema`, from the outcomes on disk; no model is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from interp.heads import HeadEffects, contrast, parse_kind
from interp.heads.cumulative import cumulative_table
from interp.heads.estimates import MIN_GROUPS
from interp.heads.metrics import METRICS, main_metric, sort_of
from interp.heads.order_swaps import FLIP, KEEP, swap_metrics
from interp.heads.together import together_table
from interp.io.csv_text import csv_bytes
from interp.io.files import write_file
from interp.remedy import remedy
from study.analyses.heads.options import HeadsOptions
from study.analyses.heads.run import cumulative_arms, has_enough, main_kind, sets_of
from study.analyses.heads.store import CUMULATIVE, TOGETHER, Reached, folder_of, read_effects, read_reached
from study.ledger_rows import words
from study.schema import DIFFERENCE

if TYPE_CHECKING:
    import pandas as pd

CONTROL = "three norm-matched heads of the layer"
FILES = {
    "heads": "table",
    "heads_selected": "selected",
    "heads_cumulative": "cumulative",
    "heads_together": "together",
    "heads_difference": "difference",
    "order_swap": "order_swap",
}
"""Table -> name of its CSV file in the folder of `diptych heads`."""

Sweeps = Mapping[str, HeadEffects]  # by kind
Key = tuple[str, str]  # (member, decision site)
Provenance = Mapping[str, Mapping[str, str]]


def read_sweeps(
    out: Path, members: Sequence[str], options: HeadsOptions, *, seed: int = 0
) -> tuple[dict[Key, Sweeps], dict[Key, Reached]]:
    """(sweeps by member and decision site, how often each is reached), from disk; a site that is reached too seldom has
    no sweep.

    Raises:
        ValueError: as `read_effects`.
    """
    reached = {(member, one.site): one for member in members for one in read_reached(out / member)}
    sweeps: dict[Key, Sweeps] = {
        (member, site): {kind: read_effects(out / member / folder_of(kind, site), seed=seed) for kind in options.kinds}
        for (member, site), one in reached.items()
        if one.n_groups >= MIN_GROUPS
    }
    return sweeps, reached


def write_tables(tables: Mapping[str, pd.DataFrame], out: Path) -> None:
    """Every table as a CSV file of `out`; see `FILES`."""
    for name, rows in tables.items():
        write_file(out / f"{FILES[name]}.csv", csv_bytes(rows))


def tables_of_heads(
    out: Path, members: Sequence[str], options: HeadsOptions, *, seed: int = 0, provenance: Provenance | None = None
) -> dict[str, pd.DataFrame]:
    """`heads`, `heads_selected`, `heads_cumulative`; of sets that were named `heads_together`; of members of one
    architecture `heads_difference`; of twins that flip the answer and twins that keep it `order_swap`.

    Args:
        provenance: member -> its columns model, adapter and weights; by default those of the sweep itself.
    Raises:
        ValueError: as `read_effects`.
    """
    import pandas as pd

    from study.schema import tidy

    sweeps, reached = read_sweeps(out, members, options, seed=seed)
    if not sweeps:
        raise ValueError(f"{out}: no member reaches any decision site. {remedy('Use {slot:gold}, or a forced text.')}")
    origins = provenance or {member: _provenance(next(iter(own.values()))) for (member, _), own in sweeps.items()}
    parts = list(_parts(sweeps))
    rows = {
        "heads": pd.concat(
            [
                _effects(_counted(part.table(keep=keep), key, which, reached) for key, which, part, keep in parts),
                *(_unreached(key, one, options) for key, one in reached.items() if key not in sweeps),
            ],
            ignore_index=True,
        ),
        "heads_selected": _effects(
            _counted(part.forest(keep=keep), key, which, reached) for key, which, part, keep in parts
        ),
        "heads_cumulative": pd.concat(
            _cumulative(own, out / member, options, seed).assign(member=member, decision_site=site)
            for (member, site), own in sweeps.items()
        ),
    }
    if options.together:
        rows["heads_together"] = pd.concat(
            _together(own, out / member, options, seed).assign(member=member, decision_site=site)
            for (member, site), own in sweeps.items()
        )
    if differences := [contrast(*both).assign(decision_site=both[0].decision_site) for both in _aligned(sweeps)]:
        rows["heads_difference"] = _noted(
            pd.concat(differences).assign(
                member=DIFFERENCE,
                is_difference=True,
                control="no difference",
                control_value=0.0,
                interval="paired jackknife t",
                effect="total",
                correction="paired max-|t| over heads, sign flips and bootstrap",
            )
        )
    if swaps := list(_swaps(sweeps, reached)):
        rows["order_swap"] = pd.concat(swaps)
    data, shared = str(rows["heads"]["data_sha256"].iloc[0]), {"analysis": "heads", "seed": seed}
    return {
        name: tidy(_of_members(table, origins), **shared, **({} if "data_sha256" in table else {"data_sha256": data}))
        for name, table in rows.items()
    }


def _counted(table: pd.DataFrame, key: Key, which: str, reached: Mapping[Key, Reached]) -> pd.DataFrame:
    """The rows with their member, their pairs, and how often the member reaches their site."""
    one = reached[key]
    return table.assign(member=key[0], pairs=which, n_reached=one.n_reached, n_asked=one.n_asked)


def _unreached(key: Key, one: Reached, options: HeadsOptions) -> pd.DataFrame:
    """Rows without a value of a site that a member does not reach: one per kind and named head, or per kind."""
    import pandas as pd

    member, site = key
    note = f"not tested: the {member} member reaches the {words(site)} in {one.n_reached} of {one.n_asked} replies"
    rows = []
    for kind in options.kinds:
        main = main_metric(sort_of(parse_kind(kind).name, options.effect))
        same = {"metric": main, "metric_unit": METRICS[main].unit, "kind": kind, "effect": options.effect}
        rows += [
            {**same, "head": head, "named": bool(head), "member": member, "pairs": "all", "decision_site": site,
             "positions": options.positions, "n_reached": one.n_reached, "n_asked": one.n_asked, "note": note}
            for head in options.named or ("",)
        ]  # fmt: skip
    return pd.DataFrame(rows)


def _swaps(sweeps: Mapping[Key, Sweeps], reached: Mapping[Key, Reached]) -> Iterator[pd.DataFrame]:
    """What the members answer to twins, where the label is decided."""
    for (member, site), own in sweeps.items():
        if reached[member, site].is_label and "patch" in own and _has_both(own["patch"]):
            yield _order_swap(own["patch"]).assign(member=member, decision_site=site)


def _provenance(effects: HeadEffects) -> dict[str, str]:
    plan = effects.plan
    return {"model": plan.model, "adapter": plan.adapter or "none", "weights": plan.weights[:12]}


def _of_members(rows: pd.DataFrame, origins: Provenance) -> pd.DataFrame:
    """The rows with model, adapter and weights of their member; of a difference, of both members."""
    both = {
        key: " and ".join(dict.fromkeys(origins[m][key] for m in ("engaged", "heuristic") if m in origins))
        for key in ("model", "adapter")
    } | {"weights": ""}
    known = {DIFFERENCE: both, **origins}
    names = rows["member"].astype(str)
    return rows.assign(
        **{key: [known.get(m, {}).get(key, "") for m in names] for key in ("model", "adapter", "weights")}
    )


def _parts(sweeps: Mapping[Key, Sweeps]) -> Iterator[tuple[Key, str, HeadEffects, HeadEffects | None]]:
    """(member and site, which pairs, effects on them, the pairs of the same-answer control) of every sweep."""
    for key, kinds in sweeps.items():
        for effects in kinds.values():
            parts = split_kinds(effects)
            yield from ((key, which, part, keep_of(which, parts)) for which, part in parts)


def keep_of(which: str, parts: Sequence[tuple[str, HeadEffects]]) -> HeadEffects | None:
    """The same-answer control of one of the `parts`: for `flip` and `flip, solved` the pairs that keep the answer."""
    sort, comma, rest = which.partition(",")
    return dict(parts).get(f"{KEEP}{comma}{rest}") if sort == FLIP else None


def split_kinds(effects: HeadEffects) -> list[tuple[str, HeadEffects]]:
    """(which pairs, effects on them): under patching, pairs that flip the answer apart from those that keep it.

    Each also on the pairs that the model solves alone, where those are at least 8 of at least 4 groups: on a wrong
    answer a head that carries it has the opposite sign.
    """
    kinds = sorted({pair.kind for pair in effects.pairs})
    parts = [("all", effects)]
    if effects.main == "cma" and (len(kinds) > 1 or kinds == [KEEP]):
        split = [(kind, effects.of_kind(kind)) for kind in kinds]
        parts = [(kind, part) for kind, part in split if len(set(part.groups)) >= MIN_GROUPS] or parts
    solved = [(f"{which}, solved", part) for which, part in parts if has_enough(part.is_solved(), part.groups)]
    return [*parts, *((which, part.solved()) for which, part in solved)]


def _effects(tables: Iterator[pd.DataFrame]) -> pd.DataFrame:
    """Rows of single effects: p is max-|t| over all heads, the control of a head its norm-matched neighbours."""
    import pandas as pd

    rows = pd.concat(tables, ignore_index=True)
    words = rows["p_adjusted"].notna().map({True: "max-|t| over heads, sign flips and bootstrap", False: ""})
    return _noted(rows.assign(control=CONTROL, correction=words))


def _noted(rows: pd.DataFrame) -> pd.DataFrame:
    """No value without an interval: a share whose denominator may be 0, an effect in which no group differs; the row
    says so."""
    from study.schema import with_mass_note

    undefined = rows["value"].isna() | rows["lo"].isna() | rows["hi"].isna()
    rows = rows.assign(note="").reset_index(drop=True)
    undefined = undefined.to_numpy()
    rows.loc[undefined, "note"] = "refused: the denominator may be 0"
    rows.loc[undefined & rows["value"].notna(), "note"] = "no interval: all groups have the same value"
    rows.loc[undefined, ["value", "lo", "hi"]] = float("nan")
    return with_mass_note(rows)


def _aligned(sweeps: Mapping[Key, Sweeps]) -> Iterator[tuple[HeadEffects, HeadEffects]]:
    """Sweeps of both members at one site, by kind, where their heads correspond one for one and they share items."""
    for (member, site), kinds in sweeps.items():
        other = sweeps.get(("heuristic", site)) if member == "engaged" else None
        for kind, a in kinds.items() if other else ():
            b = other[kind] if other else a
            shared = {pair.id: pair.unit for pair in a.pairs if pair.id in {one.id for one in b.pairs}}
            if a.plan.units == b.plan.units and len(set(shared.values())) >= MIN_GROUPS:
                yield a, b


def _cumulative(sweeps: Sweeps, folder: Path, options: HeadsOptions, seed: int) -> pd.DataFrame:
    """Heads removed together, on the half of the pairs on which they were not ranked."""
    site = next(iter(sweeps.values())).decision_site
    removed = read_effects(folder / folder_of(CUMULATIVE, site), seed=seed)
    rows = cumulative_table(removed, cumulative_arms(sweeps, options, seed=seed))
    return rows.assign(control="random heads of the same layers (arm random)", note="")


def _together(sweeps: Sweeps, folder: Path, options: HeadsOptions, seed: int) -> pd.DataFrame:
    """The sets that were named, changed together, on the pairs of the single heads."""
    kind = main_kind({name: one.plan for name, one in sweeps.items()}, options)
    single = sweeps[kind]
    joint = read_effects(folder / folder_of(TOGETHER, single.decision_site), seed=seed)
    rows = together_table(joint, single, sets_of(single.plan, options, seed=seed))
    words = "max-|t| over sets, sign flips and bootstrap"
    return rows.assign(control="random sets of as many heads per layer", correction=words, pairs="all", note="")


def _has_both(effects: HeadEffects) -> bool:
    return {pair.flips for pair in effects.pairs} == {True, False}


def _order_swap(effects: HeadEffects) -> pd.DataFrame:
    rows = swap_metrics(effects)
    constant = rows["constant"].where(rows["constant"].notna(), rows["order_blind"])
    out = rows.drop(columns=["constant", "order_blind"]).assign(
        control="the better of a constant answer and an order-blind model",
        control_value=constant.where(constant >= rows["order_blind"], rows["order_blind"]),
        interval="Wilson at the effective n",
        note="",
        unit="twins",
    )
    bare = out["lo"].isna()
    out.loc[bare, "interval"] = ""
    out.loc[bare, "note"] = "exact McNemar of originals against twins; its p is the result"
    out.loc[bare, "value"] = float("nan")
    return out
