"""Step eval: what every member answers, on the same items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from interp.checkpoint import MEMBERS, Checkpoint, CheckpointPair
from study.analyses.base import Context, Step, Work

if TYPE_CHECKING:
    import pandas as pd

    from interp.prompt import Example
    from study.config.sections import Study


def run(context: Context) -> None:
    """Answers of every member into `<member>/`; a killed run continues."""
    from study.analyses.eval.run import answer_members
    from study.analyses.items import examples_of

    study, section = context.study, context.section
    answer_members(
        contrast(study),
        study.task.path,
        examples_of(study, section),
        out=context.folder,
        options=section,
        loading=asdict(study.load),
        progress=context.progress,
        reply_seed=study.seed,
    )


def contrast(study: Study) -> Checkpoint | CheckpointPair:
    """The pair, without the bare bases that are not to be evaluated; or the single checkpoint."""
    assert study.eval is not None
    if study.pair is None:
        return study.single
    named = study.eval.members
    bases = {key: getattr(study.pair, key) for key in ("base", "heuristic_base") if key in named}
    return CheckpointPair(study.pair.engaged, study.pair.heuristic, **bases)


def _members(study: Study) -> Mapping[str, Checkpoint]:
    """Role -> checkpoint of whoever answers."""
    what = contrast(study)
    return {what.name: what} if isinstance(what, Checkpoint) else what.members


def tables(context: Context) -> dict[str, pd.DataFrame]:
    """`eval`: estimates of each member; `pair`: both on the same items and their difference."""
    from study.analyses.eval.run import tables_of
    from study.analyses.items import examples_of

    study, section = context.study, context.section
    members = {role: context.made_by(role) for role in _members(study)}
    evaluation = tables_of(
        context.folder,
        members,
        study.task.path,
        examples_of(study, section),
        seed=study.seed,
        margin=study.claim_margin,
        modes=section.modes,
    )
    return evaluation.tables


def plan(study: Study) -> Work:
    """Tokens of every prompt and, at most, of every reply, over both members."""
    from study.analyses.estimate import largest_of, prompt_tokens
    from study.analyses.items import examples_of

    section = study.eval
    assert section is not None
    items = examples_of(study, section)
    limit = (section.max_new_tokens or _longest(study)) if section.generate else 0
    n_modes = max(1, len(section.modes))
    members = list(_members(study).values())
    tokens = sum(prompt_tokens(study, member, items) for member in members) * n_modes * section.samples
    asked = len(items) * len(members) * n_modes * section.samples
    return Work(asked, tokens, asked * limit, 400 * asked, largest_of(study, members))


def _longest(study: Study) -> int:
    from interp.tasks.protocol import load_task, max_new_tokens

    return max_new_tokens(load_task(study.task.path))


def check(study: Study) -> None:
    """What would only be found once a model is loaded."""
    from interp.tasks.protocol import load_evaluated_task

    load_evaluated_task(study.task.path)
    assert study.eval is not None
    if study.pair:
        members = [*MEMBERS, *(key for key in ("base", "heuristic_base") if getattr(study.pair, key))]
        strange = [name for name in study.eval.members if name not in members] or [
            name for name in MEMBERS if name not in study.eval.members
        ]
        if strange:
            raise ValueError(
                f"eval.members: {', '.join(strange)}: expected both members of the pair, and of {members}."
            )


def items(study: Study) -> list[Example]:
    """What every member is asked."""
    from study.analyses.items import examples_of

    return examples_of(study, study.eval)


STEP = Step(
    "eval", run, tables, plan=plan, check=check, uses_models=True, table_sections=("claim_margin",), items=items
)
