"""Options of a head sweep: the section `heads` of a study file, `diptych heads`, and what Python takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from study.option_types import Count, Names, Quiet, Verified
from study.options import STRICT, option
from study.task_options import TaskOptions


@dataclass(frozen=True, config=STRICT)
class HeadsOptions:
    """What is swept: the effect of every head of each member; see `diptych heads`.

    Attributes:
        n: procedures of twins where the task makes them, else items; None: `study.analyses.heads.size.n_pairs`.
        kinds: as `interp.heads.parse_kind` reads them.
        positions: as `interp.positions` reads them.
        at: decision sites of the task (`interp.tasks.decision_sites`), where heads are changed and the answer is read.
        slot: "own", the model's own reply up to each decision; "gold", the task's right reply, the same for every
            member; or a text that is forced on every prompt, after which the label stands.
        named: heads of a hypothesis, named before the sweep, e.g. L19.H17; figures box them.
        together: sets of heads that may do the same work, named before the sweep, e.g. L0.H0+L0.H2.
        effect: "total", or "direct": only the head's own path to the logits.
        verify: share of rows recomputed; never less than 1 % for the first pair.
        members: who is swept; the bare bases only where they are named.
    """

    n: Annotated[int, Field(ge=4)] | None = option(
        None,
        "Number of procedures (each with its twins) or of examples; default: 48, or more where a model has more than "
        "about 1,000 heads.",
    )
    kinds: Annotated[Names, Field(min_length=1)] = option(
        ("mean", "zero", "patch"),
        "Kinds of ablation: mean, mean:class, zero, patch, resample:derangement:4, uniform_attention, noise.",
        flag="--kind",
    )
    positions: str = option("answer", "Tokens at which the heads are changed.")
    at: Names = option((), "Decision sites of the task, e.g. step_lookup,label; default: all that it names.")
    slot: str = option(
        "own", "Reply that decides: own (the model's), gold (the task's right one), or a text forced before the label."
    )
    effect: Literal["total", "direct"] = option(
        "total", "Effect to measure: total, or direct (only the head's own path to the logits)."
    )
    named: Names = option((), "Heads named in advance, e.g. L19.H17; figures mark them with a box.", is_repeated=True)
    together: Names = option(
        (), "Heads to change together, e.g. L0.H0+L0.H2, next to random sets of the same layers.", is_repeated=True
    )
    verify: Verified = option(0.0, "Share of rows that are recomputed with ordinary hooked passes.")
    members: Names = option(("engaged", "heuristic"), "Members to sweep.", is_command=False)


@dataclass(frozen=True, config=STRICT, kw_only=True)
class SweptItems(TaskOptions):
    """Twins of a task that makes them, else its examples; `HeadsOptions.n` says how many."""

    path: str = option(
        help="Import path of a task; heads can be patched if the task has twins.", flag="--task", param="task"
    )
    data: str | None = option(None, "Examples in the task's own format; heads are then ablated, not patched.")
    limit: Count | None = option(None, is_command=False)
    per_cell: Count | None = option(None, is_command=False)
    seed: int | None = option(0, "Seed of the items, the halves and the bootstraps.")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class SweepOptions(Quiet):
    """Of the command alone."""

    out: Path = option(help="Folder for the sweep.")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class ShowOptions:
    """What is shown of a sweep."""

    folder: Path = option(is_argument=True)
    head: str | None = option(None, "Head to show, such as L19.H17; default: the heads with the largest effects.")
    base: Annotated[int, Field(ge=0, le=1)] = option(0, "Index from which layers and heads are counted: 0 or 1.")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class MatchOptions:
    """Which sweeps are matched."""

    a: str = option(is_argument=True, metavar="A[:MEMBER]")
    b: str = option(is_argument=True, metavar="B[:MEMBER]")
    control: str = option(help="FOLDER[:MEMBER] of another checkpoint on A's base; matching A with it is the control.")
    at: str | None = option(None, "Decision site of the sweeps; may be left out where there is only one.")
    window: float = option(0.15, "Largest difference in relative depth.")
    n_permutations: Annotated[int, Field(ge=19)] = option(1000, "Number of permutations of B's items.", flag="--perm")
    seed: int = option(0, "Seed of the permutations.")
    out: Path = option(help="Folder for match.csv and its figure.")
