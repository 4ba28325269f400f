"""The largest effects of a head sweep, and every definition of one head's effect, as text; read from the folder."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

from interp.heads import HeadEffects, HeadId
from interp.io.items import PLAN, read_plan
from interp.label_mass import mass_note
from study.analyses.heads.store import CUMULATIVE, KIND, TOGETHER, read_effects
from study.analyses.heads.tables import split_kinds
from study.text import aligned, interval

READING = (
    "Positive: the head helps the answer, or carries what was patched. control: mean of 3 norm-matched heads of its "
    "layer. p: max-|t| over all heads. A small effect of one head does not make it unnecessary: another may do the "
    "same work (ablate them together)."
)


def sweeps(out: Path) -> Iterator[tuple[str, str, HeadEffects]]:
    """(member, kind, effects) of every sweep under a folder.

    Raises:
        ValueError: there is none.
    """
    plans = sorted(path for path in out.rglob(PLAN) if path.parent.name.partition("-")[0] not in (CUMULATIVE, TOGETHER))
    folders = [path.parent for path in plans if read_plan(path)["kind"] == KIND]
    if not folders:
        raise ValueError(f"{out} holds no head sweep; expected a folder that `diptych heads ... --out` wrote.")
    for folder in folders:
        yield folder.parent.name, folder.name, read_effects(folder)


def show_head(out: Path, head: str, *, base: int = 0) -> str:
    """Every definition of one head's effect, under every kind of every member, with interval, n, p and control."""
    named = HeadId.parse(head, base=1 if base == 1 else 0)
    lines = [["member", "at", "kind", "pairs", "definition", "value [95 %]", "n", "p", "control"]]
    models = {}
    for member, _, effects in sweeps(out):
        models[member] = f"{effects.plan.model}, adapter {effects.plan.adapter or 'none'}, {effects.plan.dtype}"
        for which, part in split_kinds(effects):
            for row in part.at(named).to_dict("records"):
                lines.append([member, part.decision_site, part.plan.kind, which, *_cells(row)])
    where = f"{named} (layers and heads count from 0; its block's output is hidden_states[{named.layer + 1}])"
    head_lines = [where, *(f"{member}: {text}" for member, text in models.items())]
    return "\n".join([*head_lines, aligned(lines), READING])


def _cells(row: Mapping[Hashable, Any]) -> list[str]:
    value = "refused: the denominator may be 0"
    if row["value"] == row["value"]:
        has_interval = row["lo"] == row["lo"]
        value = (
            interval(row["value"], row["lo"], row["hi"])
            if has_interval
            else "no interval: all groups have the same value"
        )
    p = row.get("p_adjusted")
    control = row["control_value"]
    return [
        row["metric"],
        value,
        f"{row['n']} ({row['n_groups']})",
        "" if p is None or p != p else f"{p:.4f}",
        f"{control:.3f}" if control == control else "–",
    ]


def headline(out: Path, *, k: int = 5) -> str:
    """The largest effects of each sweep: chosen on one half of the pairs, given on the other."""
    lines, notes = [["member", "at", "kind", "pairs", "head", "effect [95 %]", "n", "p", "control"]], {}
    for member, _, effects in sweeps(out):
        if text := mass_note(effects.label_mass):
            notes[f"note: {member}: {text}"] = None
        for which, part in split_kinds(effects):
            for row in part.top(k).to_dict("records"):
                value = interval(row["value"], row["lo"], row["hi"])
                lines.append(
                    [
                        member,
                        part.decision_site,
                        f"{part.plan.kind} {row['metric']}",
                        which,
                        row["head"],
                        value,
                        str(row["n"]),
                        f"{row['p_adjusted']:.4f}",
                        f"{row['control_value']:.3f}",
                    ]
                )
    return "\n".join([aligned(lines), READING, *notes])
