"""Step heads: the exact effect of every attention head of each member."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.io.csv_text import csv_bytes
from interp.io.read import read_frame
from study.analyses.base import Context, Step, Work

if TYPE_CHECKING:
    import pandas as pd

    from interp.checkpoint import Checkpoint
    from study.analyses.shapes import Fault, Layouts
    from study.config import Study

INTERVAL = "paired jackknife t"
SELECTED = "selected.csv"
_CONTROL = "three heads of the layer whose write is as long"
_KEEP = (
    "layer", "metric", "metric_unit", "value", "lo", "hi", "n", "n_groups", "control_value", "control_difference",
    "control_difference_lo", "control_difference_hi", "keep_difference", "keep_difference_lo",
    "keep_difference_hi", "band_lo", "band_hi", "named", "interval",
    "unit", "n_dropped", "positions", "effect", "dtype", "seed", "null_max95", "member", "pairs", "half",
    "label_mass",
)  # fmt: skip


def run(context: Context) -> list[str]:
    """Sweeps in `<member>/<kind>/`; a killed sweep goes on with the next pair."""
    from study.analyses.heads.run import sweep_heads

    study, pairs = context.study, items(context.study)
    wanted = _wanted(study)
    sweep_heads(
        _what(study), study.task.path, pairs, out=context.folder, study=wanted, loading=asdict(study.load),
        progress=context.progress,
    )  # fmt: skip
    if wanted.kinds != context.section.kinds:
        return ["patching was left out: the task makes no twins (or data were given)"]
    return []


def _wanted(study: Study) -> Any:
    """What is swept; without patching where the task makes no twins."""
    from study.analyses.heads.run import HeadStudy
    from study.analyses.items import twins_of

    section = study.heads
    assert section is not None
    kinds = section.kinds
    if twins_of(study, section.n) is None:
        kinds = tuple(kind for kind in kinds if not kind.startswith("patch") and kind != "resample:twin")
    return HeadStudy(
        kinds=kinds, positions=section.positions, slot=section.slot, named=section.named, effect=section.effect,
        verify=section.verify, seed=study.seed,
    )  # fmt: skip


def _what(study: Study) -> Any:
    """The two members of a pair, with their bare bases only where they are asked for."""
    from interp.checkpoint import CheckpointPair

    if study.pair is None:
        return study.single
    assert study.heads is not None
    bases = {key: getattr(study.pair, key) for key in ("base", "heuristic_base") if key in study.heads.members}
    return CheckpointPair(study.pair.engaged, study.pair.heuristic, **bases)


def _selected(found: Any) -> pd.DataFrame:
    """The main effect of every head on both halves of the pairs, of every sweep."""
    import pandas as pd

    from study.analyses.heads.run import keep_of, split_kinds

    out = []
    for member, kinds in found.items():
        for effects in kinds.values():
            parts = split_kinds(effects)
            out += [part.forest(keep=keep_of(which, parts)).assign(member=member, pairs=which) for which, part in parts]
    return pd.concat(out, ignore_index=True)


def tables(context: Context) -> dict[str, pd.DataFrame]:
    """`heads`, `heads_selected`, `heads_cumulative`, and, where they were made, `heads_difference`, `order_swap`."""
    from interp.io.files import write_file
    from study.analyses.heads.run import tables_of_heads
    from study.schema import tidy

    study, what = context.study, _what(context.study)
    members = tuple(what.members) if study.pair else (what.name,)
    chosen = _selected(tables_of_heads(context.folder, members, _wanted(study)))
    write_file(context.folder / SELECTED, csv_bytes(chosen))
    made = {"heads": _effects(context, "table.csv", "name"), "heads_selected": _effects(context, SELECTED, "head")}
    out = {name: tidy(rows, analysis="heads") for name, rows in made.items()}
    data = str(out["heads"]["data_sha256"].iloc[0])
    more = {"heads_cumulative": _cumulative, "heads_difference": _difference, "order_swap": _order_swap}
    for name, read in more.items():
        rows = read(context)
        if rows is not None:
            same = {"analysis": "heads", "data_sha256": data, "seed": context.study.seed}
            out[name] = tidy(rows.drop(columns=[c for c in ("weights", "model", "adapter") if c in rows]).assign(
                **_members(context, rows)), **same)  # fmt: skip
    return out


def _read(path: Path) -> pd.DataFrame:

    return read_frame(path, float_precision="round_trip", keep_default_na=True)


def _effects(context: Context, file: str, head: str) -> pd.DataFrame:
    """Rows of `heads`: p is max-|t| over all heads; the control of a head is its neighbours of equal length."""
    rows = _read(context.folder / file)
    out = rows[[c for c in _KEEP if c in rows]].assign(head=rows[head], kind=rows["ablation"], control=_CONTROL)
    out["layer"] = rows["layer"].where(rows["layer"] >= 0)
    out["p_adjusted"] = rows["p_max_t"]
    out["correction"] = rows["p_max_t"].notna().map({True: "max-|t| over heads, sign flips and bootstrap", False: ""})
    out["n_perm"], out["data_sha256"] = rows["permutations"], rows["pairs_sha256"]
    return _noted(out.assign(**_members(context, rows)))


def _noted(rows: pd.DataFrame) -> pd.DataFrame:
    """No value without an interval: a share whose denominator may be 0, an effect in which no group differs; the row
    says so."""
    from study.schema import with_mass_note

    bad = rows["value"].isna() | rows["lo"].isna() | rows["hi"].isna()
    rows = rows.assign(note="")
    rows.loc[bad, "note"] = "refused: the denominator may be 0"
    rows.loc[bad & rows["value"].notna(), "note"] = "no interval: no group differs from another"
    rows.loc[bad, ["value", "lo", "hi"]] = float("nan")
    return with_mass_note(rows)


def _members(context: Context, rows: pd.DataFrame) -> dict[str, Any]:
    """Columns model, adapter and weights, by the member of each row; of a difference, of both."""
    known = {name: context.made_by(name) for name in context.study.members}
    pair = {
        key: " and ".join(dict.fromkeys(known[m][key] for m in ("engaged", "heuristic") if m in known))
        for key in ("model", "adapter")
    } | {"weights": ""}
    return {
        key: [known.get(str(name), pair)[key] for name in rows["member"]] for key in ("model", "adapter", "weights")
    }


def _cumulative(context: Context) -> pd.DataFrame | None:
    path = context.folder / "cumulative.csv"
    if not path.is_file():
        return None
    rows = _read(path).rename(columns={"ablation": "kind"})
    return rows.assign(
        control="random heads of the same layers (arm random)", note="", heads=rows["heads"].fillna("")
    )  # fmt: skip


def _difference(context: Context) -> pd.DataFrame | None:
    path = context.folder / "difference.csv"
    if not path.is_file():
        return None
    rows = _read(path)
    renamed = {"diff": "value", "diff_lo": "lo", "diff_hi": "hi", "name": "head", "p_max_t": "p_adjusted",
               "permutations": "n_perm"}  # fmt: skip
    out = rows.rename(columns=renamed).drop(columns=["engaged", "heuristic", "head"], errors="ignore")
    out["head"], out["layer"] = rows["name"], rows["layer"].where(rows["layer"] >= 0)
    keep = [c for c in (*_KEEP, "head", "kind", "p_adjusted", "n_perm") if c in out]
    return _noted(out[keep].assign(
        member="engaged - heuristic", is_difference=True, control="no difference", control_value=0.0,
        interval=INTERVAL, effect="total",
        correction="paired max-|t| over heads, sign flips and bootstrap",
    ))  # fmt: skip


def _order_swap(context: Context) -> pd.DataFrame | None:
    path = context.folder / "order_swap.csv"
    if not path.is_file():
        return None
    rows = _read(path)
    constant = rows["constant"].where(rows["constant"].notna(), rows["order_blind"])
    out = rows.drop(columns=["constant", "order_blind"]).assign(
        control="the better of a constant and an order-blind reader",
        control_value=constant.where(constant >= rows["order_blind"], rows["order_blind"]),
        interval="Wilson at the effective n", note="", unit="twins",
    )  # fmt: skip
    bare = out["lo"].isna()
    out.loc[bare, "interval"] = ""
    out.loc[bare, "note"] = "exact McNemar of originals against twins; its p is the result"
    out.loc[bare, "value"] = float("nan")
    return out


def plan(study: Study) -> Work:
    """Per prompt and kind two passes and a row for every head, from its layer on; see `interp.sweep`."""
    from interp.tasks.records import spread
    from study.analyses.estimate import changed_tokens, largest_of, prompts_of
    from study.analyses.items import examples_of, twins_of

    assert study.heads is not None
    twins = twins_of(study, study.heads.n)
    items = [e for pair in twins for e in pair] if twins else spread(examples_of(study), study.heads.n)
    members = list(_what(study).members.values()) if study.pair else [study.single]
    kinds = _wanted(study).kinds
    tokens, rows = 0, 0.0
    for member in members:
        prompts = prompts_of(study, member, items)
        tokens += 2 * len(kinds) * sum(len(prompt.ids) for prompt in prompts)
        rows += _passes(study, member, kinds) / len(prompts) * changed_tokens(prompts, study.heads.positions)
    return Work(
        len(items) * len(members), tokens, 0, 4000 * len(items) * len(members), largest_of(study, members),
        round(rows), note="replies before the label not counted",
    )  # fmt: skip


def _passes(study: Study, member: Checkpoint, kinds: Sequence[str]) -> float:
    """Rows of all prompts, in passes through the whole model: one per head and kind, then the sets removed together.

    The direct effect of a head needs no row; sets are removed on half of the prompts.
    """
    from interp.heads import parse_kind
    from interp.heads.cumulative import cumulative_sets
    from interp.heads.ids import expand_heads
    from study.analyses.estimate import passes_above
    from study.analyses.heads.run import KS
    from study.analyses.shapes import layout_of

    section, layout = study.heads, layout_of(study, member)
    assert section is not None
    heads = [unit[0] for unit in expand_heads("all", layout)]
    sets = cumulative_sets(heads, ks=[k for k in KS if k <= len(heads) // 2], seed=study.seed).values()
    draws = sum(getattr(parse_kind(kind), "n", 1) for kind in kinds) if section.effect == "total" else 0
    single = draws * passes_above([head.layer for head in heads], layout.n_layers)
    together = passes_above([min(head.layer for head in unit) for unit in sets if unit], layout.n_layers)
    return section.n * (single + together / 2)


def items(study: Study) -> Any:
    """Twins or examples whose heads are changed."""
    from interp.tasks.records import spread
    from study.analyses.items import examples_of, twins_of

    assert study.heads is not None
    twins = twins_of(study, study.heads.n)
    return spread(examples_of(study), study.heads.n) if twins is None else twins


def fits(study: Study, layouts: Layouts) -> Iterator[Fault]:
    """Heads that a member does not have, kinds and positions that are none."""
    from interp.heads import parse_kind
    from interp.heads.ids import expand_heads, parse_unit
    from interp.positions import parse_positions
    from study.analyses.shapes import tried

    section = study.heads
    assert section is not None
    members = {role: layouts[role] for role in (_what(study).members if study.pair else study.members)}
    for name in section.named:
        yield from tried("heads.named", members, lambda layout, name=name: expand_heads([parse_unit(name)], layout))
    for kind in section.kinds:
        yield from tried("heads.kinds", {"": kind}, parse_kind)
    yield from tried("heads.positions", {"": section.positions}, parse_positions)


STEP = Step("heads", run, tables, plan=plan, uses_models=True, items=items, fits=fits)
