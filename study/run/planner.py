"""What a run would do: per step, what is up to date, items, tokens, bytes and a rough time. Nothing is started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from interp.remedy import remedy
from study.analyses.base import Step, Work
from study.analyses.heads.step import with_pairs
from study.analyses.shapes import layout_of
from study.folders import REGISTRATION, RUN, STEPS
from study.run.check import check_models
from study.run.clock import with_date
from study.run.digest import Digests
from study.run.folder import altered, is_whole
from study.run.keys import Inputs, inputs_of, key_of, made_with, table_key_of
from study.run.state import StepState, read_run
from study.run.steps import steps_of
from study.task_options import read_once

if TYPE_CHECKING:
    from study.config import Study


@dataclass(frozen=True)
class Planned:
    """One step: its key (blank if it depends on files that are not available yet), what would happen, and what it
    costs."""

    name: str
    key: str
    what: str
    work: Work
    seconds: float


@read_once()
def plan_study(study: Study, out: Path, *, measure: bool = False) -> tuple[list[Planned], list[str]]:
    """(steps in order, notes). No weights are read, and nothing is written or downloaded except small files of models.

    Args:
        measure: load every model and time two items on it; times follow from these and not from the machine's speed.
    Raises:
        ValueError: anything that `run_study` would refuse too: wrong sections, a missing file, a layer, head, site or
            position that a member does not have.
    """
    steps, notes = steps_of(study), []
    for step in steps.values():
        if step.check is not None:
            step.check(study)
    inputs = None
    absent = [c.base for c in study.members.values() if not _is_at_hand(c.base, c.revision)]
    absent += [
        c.adapter for c in study.members.values() if c.adapter and not _is_at_hand(c.adapter, c.adapter_revision)
    ]
    if absent:
        notes.append(
            f"not downloaded yet: {', '.join(dict.fromkeys(absent))}; whether a step is done is known only then"
        )
    else:
        study = with_pairs(with_date(study, out), out)
        inputs = inputs_of(study, Digests())
    is_open = _checked(study, steps, notes, may_be_absent=bool(absent))
    if is_open:
        notes += size_notes(study)
    held = read_run(out).steps if (out / RUN).is_file() else {}
    keys: dict[str, str] = {}
    planned = [_planned(study, step, inputs, keys, held, out, is_open) for step in steps.values()]
    if measure and any(step.work.n_parameters for step in planned):
        planned = _measured(study, planned, notes)
    return planned, notes


def size_notes(study: Study) -> list[str]:
    """What follows from the size of the models and the memory at hand, where the study does not say it."""
    from dataclasses import asdict

    from study.analyses.sizes import size_lines

    given = {name: getattr(study.section(name), "tokens_per_batch", None) for name in ("eval", "cache")}
    notes = size_lines(study.members, asdict(study.load))
    notes += [f"{name}: {tokens:,} tokens per batch, as the study says" for name, tokens in given.items() if tokens]
    return notes + ([f"heads: {study.heads.n} pairs"] if study.heads is not None else [])


def _measured(study: Study, planned: list[Planned], notes: list[str]) -> list[Planned]:
    """The steps with times from two items that were run on every model."""
    from study.analyses.estimate import seconds
    from study.analyses.items import examples_of
    from study.run.measure import measured_rates

    rates, ids = measured_rates(study, examples_of(study))
    notes.append(
        f"measured on items {' and '.join(dict.fromkeys(ids))}: {1 / rates.prompt:,.0f} prompt tokens, "
        f"{1 / rates.row:,.0f} row tokens, {1 / rates.written:,.0f} written tokens per second"
    )
    return [replace(step, seconds=seconds(step.work, rates)) for step in planned]


def _checked(study: Study, steps: Mapping[str, Step], notes: list[str], *, may_be_absent: bool) -> bool:
    """Whether every member's configuration can be read; then whatever the sections name is checked against it.

    Raises:
        ValueError: as `check_models`.
    """
    try:
        for checkpoint in study.members.values():
            layout_of(study, checkpoint)
    except (ValueError, OSError) as error:
        if not may_be_absent:
            raise
        notes.append(f"layers, heads, sites and sizes are not checked: {error}")
        return False
    check_models(study, steps.values())
    return True


def _planned(
    study: Study, step: Step, inputs: Inputs | None, keys: dict[str, str], held: Mapping, out: Path, is_open: bool
) -> Planned:
    from study.analyses.estimate import seconds

    state = held.get(step.name)
    if step.after:
        return Planned(step.name, "", "after the others, where their tables changed", _work(study, step, is_open), 0.0)
    made = key_of(study, step, inputs, keys) if inputs else None
    key = keys[step.name] = made.key if made else ""
    is_same = state is not None and state.key == key and state.table_key == table_key_of(study, step)
    if state is not None and is_same and state.status == "done" and _is_proven(out, step.name, state):
        return Planned(step.name, key, "up to date", Work(), 0.0)
    what = "will run" if state is None else _why(state.key == key, state.status)
    if state is not None and made is not None and state.asked == made.asked and state.code != made.code:
        what = f"will run: {made_with(state.code, made.code)} {remedy('({run.keep:True} takes it as it is)')}"
    work = _work(study, step, is_open)
    return Planned(step.name, key, what, work, seconds(work))


def _is_proven(out: Path, name: str, state: StepState) -> bool:
    return is_whole(out, state.outputs) and altered(out / STEPS / name, Digests(out)) == []


def _why(is_same: bool, status: str) -> str:
    if not is_same:
        return "will run: its input changed; the old output is kept aside"
    return f"will continue: {status} before" if status != "done" else "will rebuild its tables"


def _work(study: Study, step: Step, is_open: bool) -> Work:
    """What a step is going to do; of one that runs models, unknown where a configuration could not be read."""
    return step.plan(study) if step.plan is not None and (is_open or not step.uses_models) else Work()


def _is_at_hand(name: str, revision: str | None) -> bool:
    """Whether a folder, or the hub's cache on this disk, holds it."""
    if Path(name).expanduser().is_dir():
        return True
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        snapshot_download(name, revision=revision, local_files_only=True)
    except (LocalEntryNotFoundError, HFValidationError, OSError, ValueError):
        return False
    return True


def plan_lines(study: Study, out: Path, *, measure: bool = False) -> list[str]:
    """The plan as a text table; `measure` as in `plan_study`."""
    from interp.cache.plan import format_bytes
    from study.text import aligned

    planned, notes = plan_study(study, out, measure=measure)
    time = "time, measured" if measure else "time, roughly"
    lines = [["step", "state", "items", "tokens in", "row tokens", "tokens out, at most", "bytes", time, "note"]]
    for step in planned:
        work = step.work
        counts = [f"{n:,}" if n else "" for n in (work.items, work.tokens, work.row_tokens, work.tokens_written)]
        size = format_bytes(work.bytes) if work.bytes else ""
        lines.append([step.name, step.what, *counts, size, _duration(step.seconds), work.note])
    total = sum(step.seconds for step in planned)
    tail = [f"in all about {_duration(total)} on this machine, with weights already downloaded"] if total else []
    return [f"{out}", aligned(lines), *tail, *(f"note: {note}" for note in notes)]


def registration_lines(study: Study, out: Path) -> list[str]:
    """Register a study, and what was written."""
    from study.report.registration import register

    made = register(study, out)
    effects = ", ".join(f"{kind} {size:g}" for kind, size in made.smallest_effects.items())
    late = [f"written after results of {', '.join(made.ended)} existed"] if made.ended else []
    return [
        f"registered in {out / REGISTRATION}: sha256 {made.sha256}", *late,
        f"seed {made.seed}, margin {made.claim_margin:g}; smallest effects: {effects}",
        *(f"  {text}" for text in made.claims.values()),
    ]  # fmt: skip


def _duration(seconds: float) -> str:
    if not seconds:
        return ""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
