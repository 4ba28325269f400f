"""Both members of a pair: the cosine of their directions per layer, and the 2×2 of vectors and checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.checkpoint import CheckpointPair
from interp.prompt import Example
from interp.tasks.protocol import load_task
from steering.arms import Arm
from steering.direction import Directions
from steering.pair import pair_cosines, transfer_table
from study.analyses.steering.run import (
    DoseStudy,
    check_study,
    make_plan,
    of_layers,
    refuse_seen,
    run_member,
    say_controls,
    shuffled,
)
from study.analyses.steering.store import write_table
from study.members import models_of

if TYPE_CHECKING:
    import pandas as pd

    from steering.response import DoseResult

METRICS = ("margin", "amb_commit_bias", "accuracy", "kl")


def run_pair(
    pair: CheckpointPair,
    task_path: str,
    examples: Sequence[Example],
    directions: Mapping[str, Directions],
    *,
    out: Path,
    study: DoseStudy,
    caches: Mapping[str, Path] | None = None,
    loading: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> dict[str, pd.DataFrame]:
    """`out/cosines.csv`, `out/transfer.csv`, and a dose study per member in `out/<member>/`; resumes where it stopped.

    In each member its own vector and the other's are added at the same length, beside the same controls.

    Args:
        directions: engaged and heuristic -> directions fitted on each.
        caches: member -> the cache that its direction was fitted on, for label-shuffled controls.
    Raises:
        ValueError: members of two widths, other classes, a missing layer; and as `run_dose`.
    """
    roles = ("engaged", "heuristic")
    chosen = {role: of_layers(directions[role], study.layers) for role in roles}
    task: Any = load_task(task_path)
    for one in chosen.values():
        check_study(one, task, examples, study)
    refuse_seen(examples, frozenset(), chosen.values())
    cosines = pair_cosines(chosen["engaged"], chosen["heuristic"], names=roles)
    found: dict[str, DoseResult] = {}
    for names, model in models_of(pair, dict(loading or {})):
        for role in (name for name in names if name in roles):
            other = roles[1 - roles.index(role)]
            plan = _plan(chosen, role, other, study, (caches or {}).get(role), examples)
            say_controls(plan, progress)
            with model.member(role):
                found[role] = run_member(model, role, task, task_path, examples, chosen[role], plan, out / role, study,
                                         progress)  # fmt: skip
    transfer = _transfer(found)
    write_table(cosines, out, "cosines")
    write_table(transfer, out, "transfer")
    return {"cosines": cosines, "transfer": transfer}


def _plan(
    chosen: Mapping[str, Directions], role: str, other: str, study: DoseStudy, cache: Path | None,
    examples: Sequence[Example],
) -> Any:  # fmt: skip
    own, nulls = chosen[role], {}
    for site, one in own.items() if cache is not None else ():
        assert cache is not None
        nulls[site], fitted = shuffled(one, cache, study)
        refuse_seen(examples, fitted)
    plan = make_plan(own, study, shuffled=nulls)
    arms = [Arm("transferred", site, chosen[other][site].unit, name=f"vector of {other}") for site in own
            if site in chosen[other]]  # fmt: skip
    return replace(plan, arms=(*plan.arms, *arms))


def _transfer(found: Mapping[str, DoseResult]) -> pd.DataFrame:
    import pandas as pd

    roles = list(found)
    slopes = {role: one.slopes() for role, one in found.items()}
    cells = {(source, target): slopes[target] for target in roles for source in roles}
    scores = [name for name in METRICS if all((table["metric"] == name).any() for table in slopes.values())]
    return pd.concat([transfer_table(cells, metric=name) for name in scores], ignore_index=True)
