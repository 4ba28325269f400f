"""A probe read along the members' own replies: `diptych probes along`, from options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.checkpoint import Checkpoint, CheckpointPair
from interp.remedy import remedy
from study.analyses.along.forced import force, labels_to_force
from study.analyses.along.inputs import Labelled, Probe, confound_columns, labelled, probes_of
from study.analyses.along.member import AxisCurves, Read, curves_of, longest_of
from study.analyses.along.read import look_of, read_scores
from study.analyses.along.store import along_store, is_finished, read_along, write_along
from study.analyses.along.tables import along_table
from study.analyses.along.tokens import reply_table, token_table
from study.analyses.cache.readers import models_that_read, readers_of, written_by
from study.analyses.cache.replies import Replies, lines_of

if TYPE_CHECKING:
    import pandas as pd

    from interp.prompt import Example
    from probes.held_out import HeldOutProbe
    from study.analyses.along.options import AlongOptions
    from study.analyses.cache.options import ReplyOptions
    from study.members import Loading
    from study.view.views import View

_SOURCES = ("target", "mode", "unfinished")
"""Options that say which sweeps and replies are read; those are named by their own identities."""


@dataclass(frozen=True, eq=False)
class AlongResult:
    """The table `along`, what was read and left out, in sentences, and the folder that holds every token."""

    table: pd.DataFrame
    lines: list[str]
    folder: Path

    def view(self, *, n: int | None = 40, seed: int = 0) -> View:
        """Tokens coloured by their scores, both members side by side: `study.view.of_replies`."""
        from study.view.scores import of_replies

        return of_replies(self.folder, n=n, seed=seed)


def run_along(
    what: Checkpoint | CheckpointPair,
    examples: Sequence[Example],
    options: AlongOptions,
    replies: ReplyOptions,
    *,
    probes: Mapping[str, Probe] | Path,
    out: Path,
    seed: int = 0,
    loading: Loading | None = None,
    say: Callable[[str], object] = print,
    progress: bool = True,
) -> AlongResult:
    """Score the replies of an evaluation token by token into `out`; what is finished is read, not run again.

    Args:
        examples: the items of the evaluation.
        probes: who reads the replies of each member; or a folder, as `study.analyses.along.inputs.probes_of` reads it.
        say: is told what is read and left out, before a weight is.
    Raises:
        ValueError: before any weight is read: no replies, no sweep, no items that both have, a sweep without a TEST
            set, a column of confounds that does not exist, forced answers of a task without labels, a folder that holds
            other scores. Then: as `study.analyses.cache.readers.models_that_read`.
    """
    if replies.replies is None:
        raise ValueError(remedy("{replies}: name the folder of `diptych eval` whose replies are read."))
    readers = readers_of(what, replies.through)
    if isinstance(probes, Path):
        probes = probes_of(probes, list(readers), options)
    written = written_by(readers, examples, replies)
    labels = {member: labelled(own, probes[member]) for member, own in written.items()}
    for member, own in written.items():
        confound_columns(options, own.examples)
        if options.forced:
            labels_to_force(own, probes[member].cell.target)
    lines = [line for member, own in written.items() for line in _lines(own, labels[member], probes[member])]
    with along_store(out, _identity(options, replies, readers, probes, written) | {"seed": seed}) as store:
        if is_finished(store):
            say(f"{out} is finished; nothing was run again.\n")
        else:
            say("\n".join(lines))
            settings: dict[str, Any] = dict(loading or {})
            how = {"n_controls": options.controls, "seed": seed}
            fitted = {probe.folder: probe.held_out(**how) for probe in probes.values()}
            reads = _reads(what, settings, options, readers, written, labels, probes, fitted, progress)
            same = {"longest": longest_of(reads), "seed": seed}
            made = {read.member: curves_of(read, options, **same) for read in reads}
            write_along(store, *_tables(reads, made, options, seed), lines)
    return AlongResult(*read_along(out), out)


def _tables(
    reads: Sequence[Read], made: Mapping[str, Mapping[str, AxisCurves]], options: AlongOptions, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    import pandas as pd

    tokens, facts = (pd.concat([of(read) for read in reads], ignore_index=True) for of in (token_table, reply_table))
    return along_table(reads, made, options, seed=seed), tokens, facts


def _reads(
    what: Checkpoint | CheckpointPair,
    loading: Mapping[str, object],
    options: AlongOptions,
    readers: Mapping[str, str],
    written: Mapping[str, Replies],
    labels: Mapping[str, Labelled],
    probes: Mapping[str, Probe],
    fitted: Mapping[Path, tuple[HeldOutProbe, ...]],
    progress: bool,
) -> list[Read]:
    """Scores of every member's replies, in the order of the members."""
    out: dict[str, Read] = {}
    for member, role, model in models_that_read(what, loading, readers, written):
        own, chosen, probe = written[member], labels[member], probes[member]
        prompts = own.prompts(model.tokenizer)
        prompts, looks = [prompts[k] for k in chosen.at], look_of(chosen.split)
        scores = read_scores(model, role, prompts, fitted[probe.folder], looks, progress=progress)
        examples, forced = [own.examples[k] for k in chosen.at], None
        if options.forced:
            how = {"labels": labels_to_force(own, probe.cell.target), "fractions": options.fractions}
            forced = force(model, role, own, prompts, examples, forced=options.forced, **how)
        out[member] = Read(member, readers[member], probe, own, chosen, prompts, scores, looks, forced)
    return [out[member] for member in readers]


def _lines(own: Replies, chosen: Labelled, probe: Probe) -> list[str]:
    tested = chosen.split.is_tested
    sides = ", ".join(f"{int((chosen.labels[tested] == side).sum())} {word}" for side, word in _SIDES)
    out = lines_of(own, {})
    out += [f"  excluded: {n} {reason}" for reason, n in chosen.excluded.items()]
    return [*out, f"  scored: {len(chosen.labels)}, of which {int(tested.sum())} are held out ({sides})"]


_SIDES = ((1, "positive"), (0, "negative"))


def _identity(
    options: AlongOptions,
    replies: ReplyOptions,
    readers: Mapping[str, str],
    probes: Mapping[str, Probe],
    written: Mapping[str, Replies],
) -> dict[str, object]:
    """Everything that changes a number, as JSON values."""
    from study.analyses.probes.store import read_settings

    asked = {name: value for name, value in asdict(options).items() if name not in _SOURCES}
    asked |= {name: list(value) for name, value in asked.items() if isinstance(value, tuple)}
    return {
        **asked,
        "readers": dict(readers),
        "mode": replies.mode,
        "unfinished": replies.unfinished,
        "replies": {member: own.identity for member, own in written.items()},
        "items": {member: [example.id for example in own.examples] for member, own in written.items()},
        "sweeps": {member: read_settings(Path(probe.folder))["identity"] for member, probe in probes.items()},
    }
