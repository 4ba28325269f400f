"""Run what is not there: every step once, in order, independent ones in parallel, the rest kept when one fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from interp.remedy import remedy
from study.analyses.base import Context, Step
from study.analyses.heads.step import with_pairs
from study.config import Study, resolved_yaml
from study.folders import RUN, STEPS, STUDY
from study.run.attempt import WARNINGS, Outcome, Pool, attempt
from study.run.check import check_models
from study.run.clock import with_date
from study.run.digest import Digests, commit, package_version, versions
from study.run.folder import altered, is_whole, prepare, remove_outputs, set_aside, take_over
from study.run.keys import Inputs, Key, inputs_of, key_after, key_of, made_with, table_key_of
from study.run.state import RunState, StepState, read_run, write_run
from study.run.steps import steps_of

Say = Callable[[str], None]


@dataclass(frozen=True)
class Finished:
    """How a run ended.

    Attributes:
        state: what `run.json` says now.
        ran: steps that were run this time, in the order in which they ended.
    """

    state: RunState
    ran: tuple[str, ...]

    @property
    def failed(self) -> dict[str, str]:
        """Step -> cause, of the steps that failed or were skipped."""
        return {name: step.cause for name, step in self.state.steps.items() if step.status != "done"}


def run_study(
    study: Study,
    out: Path,
    *,
    jobs: int = 1,
    only: Sequence[str] = (),
    keep: bool = False,
    say: Say = print,
    progress: bool = False,
) -> Finished:
    """Run every step of a study that is not done into `out`; see `study.run` for what lies there.

    A step is done when its key (configuration, code, checkpoints, data, steps that it reads) is in `run.json` and its
    outputs, and every file that the seal of its folder names, have the bytes that they had. Where only the code of its
    tables changed, these are made again of the work on disk. A step that fails keeps what it made, its cause is said,
    and whatever does not read it runs. Output of another configuration or code is set aside, and taken back when it is
    wanted.

    Args:
        jobs: processes for steps that do not read each other.
        only: run these steps (and none that they need, which must be done).
        keep: take finished work as it is although other code made it; its step's notes say which.
        say: told one line per step.
    Raises:
        ValueError: what can be known to be wrong before anything runs: a missing checkpoint or file, an adapter that
            does not fit, a section that its step refuses, a layer, head, site or position that a member does not have.
        CacheBusyError: another process runs this folder.
    """
    from interp.io.files import tidy
    from interp.io.lock import writer_lock

    steps = steps_of(study)
    unknown = [name for name in only if name not in steps]
    if unknown:
        raise ValueError(
            f"{remedy('{only}')} {', '.join(unknown)}: not a step of this study. Steps: {', '.join(steps)}."
        )
    for step in steps.values():
        if step.check is not None:
            step.check(study)
    out.mkdir(parents=True, exist_ok=True)
    with writer_lock(out):
        dated = with_pairs(with_date(study, out), out)
        try:
            with Pool(jobs) if jobs > 1 and _has_work(out, steps, only) else nullcontext() as pool:
                return _Run(dated, out, steps, keep=keep, say=say, progress=progress).go(pool, jobs=jobs, only=only)
        finally:
            tidy(out)


def _has_work(root: Path, steps: Mapping[str, Step], only: Sequence[str]) -> bool:
    """Whether several wanted steps are surely not done, so that processes can start before any key is known."""
    held = read_run(root).steps if (root / RUN).is_file() else {}
    done = {name for name, state in held.items() if state.status == "done"}
    wanted = [name for name, step in steps.items() if not step.after and (not only or name in only)]
    return sum(name not in done for name in wanted) > 1


class _Run:
    """One go over the steps; owns the run folder while it lasts."""

    def __init__(
        self, study: Study, root: Path, steps: Mapping[str, Step], *, keep: bool, say: Say, progress: bool
    ) -> None:
        self.study, self.root, self.steps, self.say, self.progress = study, root, steps, say, progress
        self.digests = Digests(root)
        self.inputs: Inputs = inputs_of(study, self.digests)
        held = read_run(root).steps if (root / RUN).is_file() else {}
        self.held = dict(held)
        self.keys: dict[str, str] = {}
        self.made: dict[str, Key] = {}
        self.kept: dict[str, str] = {}
        self.table_keys = {name: table_key_of(study, step) for name, step in steps.items()}
        for name, step in steps.items():
            if not step.after:
                self._find_key(name, step, keep=keep)
        self.state = self._fresh_state()
        self.ran: list[str] = []

    def _find_key(self, name: str, step: Step, *, keep: bool) -> None:
        """The step's key; that of finished work which other code made, where such work is to be kept."""
        made, held = key_of(self.study, step, self.inputs, self.keys, self.digests), self.held.get(name)
        is_older = held is not None and held.status == "done" and held.asked == made.asked and held.code != made.code
        if is_older and keep:
            assert held is not None
            self.kept[name] = made_with(held.code, made.code)
            made = replace(made, code=held.code)
        elif is_older:
            assert held is not None
            self.say(f"{name}: its code changed ({made_with(held.code, made.code)}); it runs again")
        self.made[name], self.keys[name] = made, made.key

    def _fresh_state(self) -> RunState:
        return RunState(
            name=self.study.name,
            seed=self.study.seed,
            dtype=self.study.load.dtype,
            diptych=package_version(),
            commit=commit(),
            packages=versions(),
            checkpoints=self.inputs.provenance,
            data_sha256=self.inputs.data,
        )

    def go(self, pool: Pool | None, *, jobs: int, only: Sequence[str]) -> Finished:
        """Every step that is wanted; `pool` has begun to start, None: it is made if several steps have to run."""
        wanted = [name for name in self.steps if not only or name in only]
        first = [name for name in wanted if not self.steps[name].after]
        fresh = [name for name in first if not self._is_done(name, self.keys[name])]
        if any(self.steps[name].uses_models for name in fresh):
            self._preflight()
        if fresh:
            check_models(self.study, [self.steps[name] for name in fresh])
        prepare(self.root, set(self.steps), self.held)  # a study that is refused leaves the folder as it was
        self._put_study()
        for name in self.steps:
            if name not in wanted and name in self.held:
                self._record(name, self.held[name])
        with Pool(jobs) if pool is None and len(fresh) > 1 and jobs > 1 else nullcontext(pool) as running:
            used = running if len(fresh) > 1 else None
            self._walk(first, fresh, used)
            self._walk_after([name for name in wanted if self.steps[name].after], used)
        self.digests.save()
        self._write()
        return Finished(self.state, tuple(self.ran))

    def _put_study(self) -> None:
        from interp.io.files import replace as put

        content, path = resolved_yaml(self.study, self.root).encode(), self.root / STUDY
        if not path.is_file() or path.read_bytes() != content:
            put(self.root, path, content)

    def _is_done(self, name: str, key: str) -> bool:
        held = self.held.get(name)
        if held is None or held.status != "done" or held.key != key or held.table_key != self.table_keys[name]:
            return False
        return is_whole(self.root, held.outputs) and altered(self.root / STEPS / name, self.digests) == []

    def _preflight(self) -> None:
        """Every checkpoint is checked, adapters too, before the first weight is read."""
        from interp.loading import open_skeleton

        for checkpoint in self.study.members.values():
            open_skeleton(checkpoint, **asdict(self.study.load))

    def _walk(self, names: Sequence[str], fresh: Sequence[str], pool: Pool | None) -> None:
        """Run the fresh steps as soon as what they read has ended."""
        waiting = list(names)
        running: set[str] = set()
        while waiting or running:
            for name in list(waiting):
                if name not in fresh:
                    waiting.remove(name)
                    self._take_held(name)
                elif not self._blockers(name, [*waiting, *running]):
                    waiting.remove(name)
                    cause = self._missing(name)
                    if cause:
                        self._drop_outputs(name)
                        self._end(name, Outcome("skipped", cause))
                        continue
                    self._begin(name)
                    if pool is None:
                        self._end(name, attempt(name, self._context(name)))
                    else:
                        pool.submit(name, self._context(name))
                        running.add(name)
            if pool is not None and running:
                name, outcome = pool.next()
                running.remove(name)
                self._end(name, outcome)

    def _take_held(self, name: str) -> None:
        """A finished step as it was; of one that other code made, that is said and noted."""
        held, kept = self.held[name], self.kept.get(name)
        if kept is None:
            self.say(f"{name}: up to date")
        else:
            self.say(f"{name}: kept: {kept}")
            held = replace(held, notes=(*(note for note in held.notes if note != kept), kept))
        self._record(name, held)

    def _blockers(self, name: str, open_steps: Sequence[str]) -> list[str]:
        inputs = self.steps[name].inputs(self.study)
        return [other for other in inputs if other in open_steps and other != name]

    def _missing(self, name: str) -> str:
        """Why a step cannot run: a step that it reads is not done."""
        for other in self.steps[name].inputs(self.study):
            state = self.state.steps.get(other)
            if state is None or state.status != "done":
                return f"it needs {other}, which {'has not run' if state is None else state.status}"
            if state.key != self.keys[other]:
                return f"it needs {other}, which was made from a different configuration; run that first"
        return ""

    def _context(self, name: str) -> Context:
        own = self.inputs
        reads = self.steps[name].inputs(self.study)
        return Context(self.root, name, self.study, own.provenance, own.data, self.progress, reads)

    def _begin(self, name: str) -> None:
        """An earlier output of this key is continued; one of another key is set aside, and its tables are removed.

        Of finished work, files that are not what its seal says are set aside too, so that the step makes them again.
        """
        self._drop_outputs(name)
        held, folder = self.held.get(name), self.root / STEPS / name
        take_over(self.root, name, self.keys[name], held=None if held is None else held.key)
        bad = altered(folder, self.digests) or []
        for file in bad:
            self.say(f"{name}: {STEPS}/{name}/{file} was changed or is missing; it is recomputed")
        set_aside(self.root, folder, bad)
        self.say(f"{name}: running")

    def _drop_outputs(self, name: str) -> None:
        """Tables of an earlier configuration must not be drawn or reported as if they were of this one."""
        if name in self.held:
            remove_outputs(self.root, self.held[name].outputs)

    def _walk_after(self, names: Sequence[str], pool: Pool | None) -> None:
        """The steps after the others: the first of those that read only tables here, the rest of them meanwhile in
        the pool; then those that read how the others ended."""
        of_tables = [name for name in names if not self.steps[name].reads and self._is_due(name)]
        here = of_tables if pool is None else of_tables[:1]
        for name in of_tables:
            self._begin(name)
            if pool is not None and name not in here:
                pool.submit(name, self._context(name))
        for name in here:
            self._end(name, attempt(name, self._context(name)))
        if pool is not None:
            for _ in of_tables[1:]:
                self._end(*pool.next())
        for name in names:
            if self.steps[name].reads and self._is_due(name):
                self._write()  # the report reads how the other steps ended
                self._begin(name)
                self._end(name, attempt(name, self._context(name)))

    def _is_due(self, name: str) -> bool:
        """Whether a step after the others has to run; takes it as it was where it has not."""
        key = key_after(self.study, self.steps[name], self.root, self.digests, self.state.steps)
        self.keys[name] = key
        if not self._is_done(name, key):
            return True
        self._record(name, self.held[name])
        self.say(f"{name}: up to date")
        return False

    def _end(self, name: str, outcome: Outcome) -> None:
        made = self.made.get(name, Key("", ""))
        kept = [self.kept[name]] if name in self.kept else []
        notes = tuple(str(note) for note in outcome.notes if note not in kept) + tuple(kept)
        state = StepState(
            self.keys[name],
            outcome.status,
            outcome.cause,
            outcome.outputs,
            notes,
            self.table_keys[name],
            made.asked,
            made.code,
        )
        self.ran.append(name)
        self._record(name, state)
        self._write()
        for note in outcome.notes:
            self.say(f"{name}: note: {note}")
        known = self.root / STEPS / name / WARNINGS
        count = len(known.read_text().splitlines()) if known.is_file() else 0
        if count:
            self.say(f"{name}: {count} warning{'s' if count > 1 else ''}, in {STEPS}/{name}/{WARNINGS}")
        end = f"done in {outcome.seconds:.0f} s" if outcome.status == "done" else f"{outcome.status}: {outcome.cause}"
        self.say(f"{name}: {end}")

    def _record(self, name: str, state: StepState) -> None:
        steps = {**self.state.steps, name: state}
        ordered = {key: steps[key] for key in self.steps if key in steps}
        self.state = replace(self.state, steps=ordered)

    def _write(self) -> None:
        """`run.json`, with the steps that have not run yet as they were before; left alone where nothing was run.

        Versions and commit are those of the last run that made something.
        """
        later = {name: self.held[name] for name in self.steps if name in self.held}
        steps = {name: s for name in self.steps if (s := self.state.steps.get(name, later.get(name))) is not None}
        if self.ran or steps != self.held:
            write_run(self.root, replace(self.state, steps=steps))
