"""Step along: the probes of the study read along the replies that the members wrote."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from study.analyses.base import Context, Step, Work

if TYPE_CHECKING:
    import pandas as pd

    from study.analyses.along.inputs import Probe
    from study.config.sections import Study

FOLDER = "replies"
"""Folder of the step's output in its own folder, as `diptych probes along --out` writes it."""


def run(context: Context) -> list[str]:
    """Scores of every token of the members' replies, and their curves, into `replies/`; a killed run begins again.

    Raises:
        ValueError: a member without a sweep of the target; as `study.analyses.along.run.run_along`.
    """
    from study.analyses.along.run import run_along
    from study.analyses.cache.options import ReplyOptions
    from study.analyses.items import examples_of

    study, section = context.study, context.section
    replies = ReplyOptions(replies=context.of("eval"), mode=section.mode, unfinished=section.unfinished)
    done = run_along(
        study.what,
        examples_of(study, study.cache),
        section,
        replies,
        probes=_probes(context),
        out=context.folder / FOLDER,
        seed=study.seed,
        loading=asdict(study.load),
        say=lambda _: None,
        progress=context.progress,
    )
    return [line.strip() for line in done.lines if "excluded" in line]


def target_of(study: Study) -> str:
    """Entry of `probes.targets` whose sweeps read the replies."""
    assert study.probes is not None
    return study.section("along").target or study.probes.targets[0]


def _probes(context: Context) -> dict[str, Probe]:
    """The probe of every member that wrote."""
    from study.analyses.along.inputs import probe_of
    from study.analyses.probes.step import file_name

    study, target = context.study, target_of(context.study)
    members = ("engaged", "heuristic") if study.pair else (study.single.name,)
    return {
        member: probe_of(
            context.of("probes") / member / file_name(target),
            context.section,
            column=target,
            name=member,
            cache=context.of("cache") / member,
        )
        for member in members
    }


def tables(context: Context) -> dict[str, pd.DataFrame]:
    """`along`: AUROC after each part of the replies, decodable-at, and both members compared."""
    import pandas as pd

    from study.analyses.along.store import read_along
    from study.schema import tidy

    table, _ = read_along(context.folder / FOLDER)
    parts = [rows.assign(**context.made_by(str(member))) for member, rows in table.groupby("member", sort=False)]
    return {"along": tidy(pd.concat(parts, ignore_index=True), data_sha256=context.data_sha256)}


def check(study: Study) -> None:
    """What would only be found once the other steps have run."""
    section = study.section("along")
    assert study.probes is not None and study.eval is not None
    if not study.eval.generate:
        raise ValueError("along: eval.generate is false, so no replies are written. Set it to true.")
    if section.target is not None and section.target not in study.probes.targets:
        raise ValueError(
            f"along.target {section.target}: expected one of probes.targets, {', '.join(study.probes.targets)}."
        )
    if study.probes.test_share == 0:
        raise ValueError("along: probes.test_share is 0, so no item is held out from the probes. Set auto or crossed.")
    modes = study.eval.modes
    if (modes or section.mode) and section.mode not in modes:
        raise ValueError(
            f"along.mode {section.mode}: expected one of eval.modes, {', '.join(modes) or 'which is empty'}."
        )


def plan(study: Study) -> Work:
    """One pass over every prompt with its reply; the longest replies allowed are counted."""
    from interp.tasks.protocol import load_task, max_new_tokens
    from study.analyses.estimate import largest_of, prompt_tokens
    from study.analyses.items import examples_of

    assert study.eval is not None
    items = examples_of(study, study.cache)
    members = [study.pair.engaged, study.pair.heuristic] if study.pair else [study.single]
    longest = study.eval.max_new_tokens or max_new_tokens(load_task(study.task.path))
    asked = len(items) * len(members) * study.eval.samples
    tokens = sum(prompt_tokens(study, member, items) for member in members) * study.eval.samples + asked * longest
    return Work(asked, tokens, 0, 60 * tokens, largest_of(study, members), note="at most, with the longest replies")


def code(study: Study) -> list[str]:
    """Kinds of probes that are functions of the user's own."""
    assert study.probes is not None
    return [kind for kind in study.probes.kinds if ":" in kind]


STEP = Step(
    "along", run, tables, needs=("eval", "cache", "probes"), plan=plan, check=check, uses_models=True, code=code
)
