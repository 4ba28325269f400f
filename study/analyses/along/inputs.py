"""What is read along replies: the probe of each member, and the label, group and fold of each reply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from interp.remedy import remedy
from interp.where import is_missing
from probes.held_out import HeldOutProbe, held_out_probes, reply_confounds, split_of
from probes.kinds import in_order
from study.analyses.along.options import AUTO, FIRST_TOKEN, LENGTH, NONE, SOURCE, AlongOptions
from study.analyses.probes.store import is_sweep, read_settings, read_sweep

if TYPE_CHECKING:
    from interp.prompt import Example
    from probes.result import Selected, SweepResult
    from probes.splits import Split
    from study.analyses.cache.replies import Replies

_SOURCES = ("source", "dataset")
"""Columns of items that say where an item is from; the first that is there is the confound. Not the cell: many tasks
give each cell one label."""


@dataclass(frozen=True, eq=False)
class Probe:
    """A finished sweep and the cell of it that reads replies.

    Attributes:
        column: column of the items that holds the label.  positive: as the sweep was asked.
        name:   checkpoint that it was fitted on.
        groups: column of the groups.
        cache:  folder of the cache that was swept.  plan: identity of that cache.
    """

    folder: Path
    result: SweepResult
    cell: Selected
    column: str
    positive: str | None
    groups: str
    name: str
    cache: Path
    plan: str

    def held_out(self, *, n_controls: int, seed: int) -> tuple[HeldOutProbe, ...]:
        """The probe of each look, with its controls, which are fitted to the cache that was swept.

        Raises:
            ValueError: the cache is not there any more, or is another; as `probes.held_out.held_out_probes`.
        """
        from interp.cache import ActivationCache

        if not self.cache.exists():
            raise ValueError(
                f"{self.folder}: control probes are fitted to the cache that was swept, and it is not at {self.cache} "
                "any more. Put it back, or sweep again."
            )
        with ActivationCache.open(self.cache) as cache:
            if cache.plan_id != self.plan:
                raise ValueError(f"{self.cache} is not the cache that was swept. Put that one back, or sweep again.")
            return held_out_probes(self.result, self.cell, cache, n_controls=n_controls, seed=seed)


def probes_of(folder: Path, members: Sequence[str], options: AlongOptions) -> dict[str, Probe]:
    """The probe that reads the replies of each member, of one sweep or of a folder with one per member.

    Raises:
        ValueError: no finished sweep for a member; several cells, of which the options name none.
    """
    if is_sweep(folder):
        return dict.fromkeys(members, _probe(folder, options))
    missing = [member for member in members if not is_sweep(folder / member)]
    if missing:
        raise ValueError(
            f"{folder}: expected a finished sweep there, or one per member ({', '.join(members)}) in folders of their "
            f"names; {', '.join(missing)} has none. Run `diptych probes sweep CACHE --out {folder / missing[0]}`."
        )
    return {member: _probe(folder / member, options) for member in members}


def _probe(folder: Path, options: AlongOptions) -> Probe:
    settings = read_settings(folder)
    identity, (column,) = settings["identity"], settings["identity"]["targets"]
    how = {"column": column, "name": str(identity["name"]), "cache": folder / settings["cache"]}
    return probe_of(folder, options, **how)


def probe_of(folder: Path, options: AlongOptions, *, column: str, name: str, cache: Path) -> Probe:
    """The selected cell of a sweep that the options name.

    Args:
        column: column of the items that was swept.  name: checkpoint that it was fitted on.
    Raises:
        ValueError: no finished sweep; several cells, of which the options name none; a sweep without a TEST set.
    """
    result, identity = read_sweep(folder), read_settings(folder)["identity"]
    kind = options.kind or in_order(cell.kind for cell in result.selected)[0]
    cell = result.pick(kind=kind, target=options.positive)
    if not cell.looks:
        raise ValueError(
            f"{folder}: the sweep has no TEST set, so no item is held out from the probe. Sweep again, "
            + remedy("with {probes.test_share} above 0.")
        )
    asked = identity["positive"], identity["groups"]
    return Probe(folder, result, cell, column, *asked, name, cache, identity["cache"])


@dataclass(frozen=True, eq=False)
class Labelled:
    """Which replies of a member are scored, with label and split, and which are not.

    Attributes:
        at:     index of each scored reply among those that are read.
        labels: 0/1 [scored].  split: fold and group of each.
        excluded: reason -> number of replies.
    """

    at: np.ndarray
    labels: np.ndarray
    split: Split
    excluded: Mapping[str, int]


def labelled(replies: Replies, probe: Probe) -> Labelled:
    """The replies to items of the sweep that have a label.

    A label is read off the reply's own row (`label`, `reply.label`, a column of the items). A column that replies do
    not have, such as the answer in a study, is taken from the sweep by the id of the item, if it swept this member.

    Raises:
        ValueError: none is left; a label that only another member's sweep knows.
    """
    place = {name: row for row, name in enumerate(probe.result.ids)}
    rows, labels, at = [], [], []
    excluded = {"not in the sweep": 0, "without a label": 0}
    for k, (example, answer) in enumerate(zip(replies.examples, replies.answers, strict=True)):
        row = place.get(example.id, place.get(str(answer["example_id"])))
        label = None if row is None else _label(example, row, probe, replies.member)
        if row is None or label is None:
            excluded["not in the sweep" if row is None else "without a label"] += 1
            continue
        at.append(k)
        rows.append(row)
        labels.append(label)
    if not rows:
        counts = ", ".join(f"{n} {reason}" for reason, n in excluded.items())
        raise ValueError(
            f"{probe.folder}: none of {len(replies.examples)} replies of {replies.member} can be scored ({counts}). "
            "Name the items that were swept."
        )
    split = split_of(probe.result, np.array(rows))
    return Labelled(np.array(at), np.array(labels), split, {why: n for why, n in excluded.items() if n})


def _label(example: Example, row: int, probe: Probe, member: str) -> int | None:
    from probes.design import positive_of

    value = column_of(example, probe.column, default=_ABSENT)
    if value is _ABSENT:
        if probe.name != member:
            raise ValueError(
                f"target {probe.column!r}: the replies of {member} have no such column, and the sweep is of "
                f"{probe.name}. Name a folder with a sweep per member, or sweep a column of the items."
            )
        return int(probe.result.labels[probe.cell.target][row])
    if is_missing(value):
        return None
    bound = probe.positive if str(probe.positive or "").lstrip()[:1] in ("<", ">") else None
    named, _ = positive_of(np.array([value], dtype=object), bound)
    return int(str(named[0]) == probe.cell.target)


_ABSENT = object()


def column_of(example: Example, name: str, *, default: object = None) -> object:
    """A column of an example, as its cache names it: `label`, `id`, a group or metadata."""
    own = {"label": example.label, "id": example.id, **example.metadata, **example.groups}
    return own.get(name, default)


def confounds_of(
    options: AlongOptions, examples: Sequence[Example], lengths: np.ndarray, first_tokens: Sequence[str]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The confounds that the options name, as columns, and the names of those that vary.

    Raises:
        ValueError: a column that the items do not have.
    """
    names, words = confound_columns(options, examples)
    if FIRST_TOKEN in names:
        words[FIRST_TOKEN] = first_tokens
    return reply_confounds(lengths if LENGTH in names else np.zeros_like(lengths), words)


def confound_columns(
    options: AlongOptions, examples: Sequence[Example]
) -> tuple[tuple[str, ...], dict[str, Sequence[object]]]:
    """Names of the confounds, and the values of those that are columns of the items.

    Raises:
        ValueError: a column that the items do not have.
    """
    names = [name for name in options.confounds if name != NONE]
    if AUTO in names:
        names = [name for name in names if name != AUTO] + [LENGTH, SOURCE, FIRST_TOKEN]
    words: dict[str, Sequence[object]] = {}
    for name in dict.fromkeys(names):
        if name == SOURCE:
            words |= _source(examples)
        elif name not in (LENGTH, FIRST_TOKEN):
            words[name] = _column(examples, name)
    return tuple(dict.fromkeys(names)), words


def _source(examples: Sequence[Example]) -> dict[str, Sequence[object]]:
    for name in _SOURCES:
        if all(column_of(example, name) is not None for example in examples):
            return {SOURCE: _column(examples, name)}
    return {}


def _column(examples: Sequence[Example], name: str) -> list[Any]:
    values = [column_of(example, name, default=_ABSENT) for example in examples]
    if any(value is _ABSENT for value in values):
        have = sorted({*examples[0].metadata, *examples[0].groups})
        raise ValueError(f"{remedy('{confounds}')} {name}: no such column of the items. Columns: {', '.join(have)}.")
    return values
