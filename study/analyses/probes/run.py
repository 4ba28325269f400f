"""A sweep of probes over the rows of a cache, from its options: `diptych probes sweep` and a study call the same."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from interp.remedy import remedy
from study.analyses.probes.choices import NONE, sites_of, unit_of
from study.analyses.probes.options import ProbesOptions, SweepOptions
from study.rows import Row

if TYPE_CHECKING:
    import pandas as pd

    from interp.cache import ActivationCache
    from probes.result import SweepResult


def run_sweep(options: ProbesOptions, command: SweepOptions, *, say: Callable[[str], object] = print) -> SweepResult:
    """A sweep of one cache into `command.out`; one that is finished is read, not run again.

    Args:
        say: is told how the rows are split, before anything is fitted, or that nothing was run.
    Raises:
        ValueError: a folder that holds another sweep; a column that does not exist; `groups: none` without a reason;
            as `probes.sweep`.
    """
    from interp.cache import ActivationCache
    from interp.io.paths import portable
    from study.analyses.probes.store import is_finished, read_sweep, sweep_store, write_sweep

    out, options = command.out, replace(options, targets=(command.target,))
    more = {
        "seed": command.seed,
        "name": command.name or command.cache.resolve().name,
        "independent_because": command.independent_because,
    }
    with ExitStack() as stack:
        opened = stack.enter_context(ActivationCache.open(command.cache))
        below = None if command.base is None else stack.enter_context(ActivationCache.open(command.base))
        identity = {"cache": opened.plan_id, "examples": opened.examples_digest, **asdict(options), **more}
        identity |= {} if below is None else {"base": below.plan_id}
        packages = {name: version(name) for name in ("numpy", "scipy", "torch", "diptych")}
        notes = {"cache": portable(command.cache, out), "packages": packages}
        store = stack.enter_context(sweep_store(out, identity, **notes))
        if is_finished(store):
            say(f"{out} is finished; nothing was run again.\n")
        else:
            how = {"base": below, "jobs": command.jobs, "device": command.device}
            write_sweep(store, sweep_cache(opened, options, say=say, **more, **how))
    return read_sweep(out)


def sweep_cache(
    cache: ActivationCache,
    options: ProbesOptions,
    *,
    seed: int,
    name: str,
    independent_because: str,
    say: Callable[[str], object],
    **how: Any,
) -> SweepResult:
    """The sweep of one cache that the options name; `how`: as of `probes.sweep`."""
    from interp.where import kept
    from probes import sweep, sweep_design

    if options.groups == NONE and not independent_because.strip():
        raise ValueError(
            remedy("{groups:none} says that rows are independent: say why with {independent_because}")
            + ", e.g. 'each row is another patient'. Rows of one template in train and test give accuracy without "
            "signal."
        )
    (target,) = options.targets
    keep = kept(cache.examples, options.where, n=len(cache.examples), option=remedy("{where}"))
    rows = cache.examples[keep]
    check_columns(rows, {"target": [target]}, options)
    arguments = sweep_arguments(cache, rows, target, options, seed=seed)
    same: Row = {key: arguments[key] for key in ("groups", "unit", "positive", "config")}
    same["i_know"] = independent_because
    say("\n".join((*sweep_design(arguments["target"], **same).sentences, "")))
    return sweep(cache, keep=keep, checkpoint=name, **(arguments | same), **how)


def sweep_arguments(
    cache: ActivationCache, rows: pd.DataFrame, target: str, options: ProbesOptions, *, seed: int
) -> Row:
    """Keyword arguments of `probes.sweep`, columns of the rows as values.

    Args:
        rows: the examples that are kept.
    Raises:
        ValueError: `positive` is no label of the target.
    """
    from probes import surface_features, unite_groups
    from probes.design import positive_of

    groups = None if options.groups == NONE else rows[options.groups].to_numpy()
    if groups is not None and options.unite:
        groups = unite_groups(groups.tolist(), rows[options.unite].tolist())
    name = _named("positive")
    labels, positive = positive_of(rows[target].to_numpy(), options.positive, option=name)
    unit = unit_of(rows, cache.group_columns, groups, options.unit)
    surface = {key: rows[key].to_numpy() for key in options.surface}
    return {
        "target": labels,
        "positive": positive,
        "groups": groups,
        "unit": None if unit is None else rows[unit].to_numpy(),
        "positions": options.positions,
        "sites": sites_of(cache, options.sites),
        "control": rows[options.control].to_numpy() if options.control else None,
        "confounds": {key: rows[key].to_numpy() for key in options.confounds},
        "cohort": rows[options.cohort].to_numpy() if options.cohort else None,
        "surface": surface_features(columns=surface) if surface else None,
        "config": options.config(seed=seed),
    }


def sweep_member(
    cache: ActivationCache, frame: pd.DataFrame, target: str, options: ProbesOptions, *, seed: int, name: str
) -> SweepResult | str:
    """One sweep of a study, over the rows that have the target, or why there is none.

    Args:
        frame: the examples of the cache, with what the member answered.
    Raises:
        ValueError: a column that does not exist; as `probes.sweep` where it is the study that is wrong.
    """
    from interp.stats import FewGroupsWarning
    from interp.where import columns_of, kept
    from probes import sweep

    check_columns(frame, {"targets": [target], "where": columns_of(options.where)}, options)
    try:
        keep = kept(frame, options.where, n=len(frame), option="probes.where")
    except ValueError as error:  # of this member's answers no row may be left; the other members' may
        return str(error)
    keep &= frame[target].notna().to_numpy()
    rows = frame[keep]
    if rows[target].nunique() < 2:
        return f"{len(rows)} rows with one value of {target!r}: no two classes to separate"
    arguments = sweep_arguments(cache, rows, target, options, seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewGroupsWarning)  # the counts of groups say it
        try:
            return sweep(cache, keep=keep, checkpoint=name, **arguments)
        except ValueError as error:  # too few groups or rows of a class: the other targets may do
            return str(error)


def check_columns(frame: pd.DataFrame, more: Mapping[str, Sequence[str]], options: ProbesOptions) -> None:
    """Every column that the options name exists, before anything is read.

    Args:
        more: further option -> its columns.
    Raises:
        ValueError: a column that does not exist; control labels that are drawn for the groups.
    """
    single = {key: getattr(options, key) for key in ("control", "cohort", "unite") if getattr(options, key)}
    named = {**more, **({} if options.groups == NONE else {"groups": [options.groups]})}
    named |= {key: [column] for key, column in single.items()}
    named |= {"confounds": options.confounds, "surface": options.surface}
    for key, columns in named.items():
        for column in columns:
            if column not in frame.columns:
                have = ", ".join(map(str, frame.columns))
                raise ValueError(f"{_named(key)} {column}: no such column of the cache's examples. Columns: {have}.")
    if options.control and options.control == options.groups:
        raise ValueError(
            f"{_named('control')} {options.control} is the split group: control labels of groups that are never in "
            "training cannot be learnt, so selectivity would always look good. Name a finer or crossing column."
        )


def _named(key: str) -> str:
    """An option as the user wrote it: `--control`, `probes.control`."""
    return remedy(f"{{probes.{key}}}")
