"""`diptych probes mdl`, `erase` and `recall`: what a single site's probe is worth beyond its AUROC."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from interp.io.csv_text import csv_bytes
from probes.kinds import kinds_help
from study.analyses.probes.choices import sites_of, unit_of
from study.analyses.probes.options import ProbesOptions
from study.cli.common import listed, one_thread, user_errors_as_messages, where_option
from study.options import command_options

if TYPE_CHECKING:
    import numpy as np


def _site_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """CACHE, --sites, --position, --target, --groups, --unit, --seed, --out: what one site's check needs."""
    for add in (
        click.option("--out", type=click.Path(path_type=Path), help="CSV to write; default: the screen alone."),
        click.option("--seed", default=0, show_default=True, help="Of the order of groups, splits and resamples."),
        where_option,
        click.option("--unit", default="auto", show_default=True, help="Column of what moves together in a group."),
        click.option("--groups", required=True, help="Column of the independent unit."),
        click.option("--positive", help="Which label counts as 1; default: the larger of two."),
        click.option("--target", required=True, help="Column of the cache's examples: the label."),
        click.option("--position", default="last", show_default=True, help="Position of the cache."),
        click.option("--sites", default="resid_post.*", show_default=True, help="Patterns, separated by commas."),
        click.argument("cache", type=click.Path(path_type=Path)),
    ):
        command = add(command)
    return user_errors_as_messages(command)


@click.command()
@click.option("--cs", default="0.0001,0.001,0.01,0.1,1", show_default=True, help="Inverse penalties of the mixture.")
@click.option("--orders", type=click.IntRange(min=1), default=3, show_default=True, help="Random orders of the groups.")
@click.option("--shuffled", type=click.IntRange(min=19), default=19, show_default=True, help="Permuted labels.")
@_site_options
def mdl(cache: Path, cs: str, orders: int, shuffled: int, **options: Any) -> None:
    """Online code length per site: bits to send the labels to someone who has the activations.

    Compression compares it with a code that knows the label frequencies alone: 1.00 says that nothing was gained. The
    control is the same on permuted labels.
    """
    from probes import mdl as code_length

    values = tuple(sorted(float(c) for c in listed(cs)))

    def row(feats: Any, labels: np.ndarray, groups: np.ndarray, unit: np.ndarray | None) -> dict[str, Any]:
        found = code_length(
            feats, labels, groups=groups.tolist(), unit=unit, Cs=values, n_orders=orders, n_shuffled=shuffled,
            seed=options["seed"],
        )  # fmt: skip
        e = found.compression
        return dict(bits=found.bits, prior=found.prior, uniform=found.uniform, compression=e.value, lo=e.lo, hi=e.hi,
                    control=found.control, control_hi=found.control_hi, p=found.p, n=found.n,
                    n_groups=found.n_groups)  # fmt: skip

    _each_site(cache, row, **options)


@click.command()
@click.option("--c", "c", default=1.0, show_default=True, help="Inverse penalty.")
@command_options(ProbesOptions, only=["test_share"])
@_site_options
def erase(cache: Path, c: float, test_share: float | str, **options: Any) -> None:
    """Erase the label from a site (LEACE), refit: AUROC before and after, on held-out groups."""
    from probes import erase_check, group_split

    def row(feats: Any, labels: np.ndarray, groups: np.ndarray, unit: np.ndarray | None) -> dict[str, Any]:
        split = group_split(labels, groups=groups, test_share=test_share, seed=options["seed"])  # type: ignore[arg-type]
        found = erase_check(feats, labels, split, C=c)
        before, after = found.held_out_before, found.held_out_after
        return dict(train_before=found.train_before, train_after=found.train_after, before=before.value,
                    before_lo=before.lo, before_hi=before.hi, after=after.value, after_lo=after.lo, after_hi=after.hi,
                    share_changed=found.share_changed, n=after.n, n_groups=after.n_groups)  # fmt: skip

    _each_site(cache, row, **options)


@click.command()
@click.option("--max-fpr", type=click.FloatRange(0, 1, max_open=True), default=0.01, show_default=True, help="Bound.")
@click.option("--kind", default="ridge", show_default=True, help=f"Of probe: {kinds_help()}.")
@_site_options
def recall(cache: Path, max_fpr: float, kind: str, **options: Any) -> None:
    """Share of positives above the threshold that at most --max-fpr of the negatives pass, out of fold.

    Each fold has its own threshold. The control is the same probe of permuted labels, 99 times (logistic 19).
    """
    import numpy as np
    import torch

    from interp.stats import permutation_p
    from probes import SweepConfig, recall_at_fpr, sweep_design
    from probes.kinds import kind_of, score_labels
    from probes.null import null_labels

    n_perm = 19 if kind_of(kind).is_costly else 99
    config = SweepConfig(kinds=(kind,), test_share=0.0, n_perm={kind: n_perm}, seed=options["seed"])

    def row(feats: Any, labels: np.ndarray, groups: np.ndarray, unit: np.ndarray | None) -> dict[str, Any]:
        design = sweep_design(labels, groups=groups, unit=unit, config=config)
        moved = null_labels(labels, design.exchanges["1"], n=n_perm, seed=config.seed + 1)
        every = np.concatenate([labels[None], moved])
        scores = score_labels(kind, feats, torch.from_numpy(every), design.split, Cs=config.Cs).scores
        found = [
            recall_at_fpr(s, y, max_fpr=max_fpr, groups=groups, strata=design.split.fold_of)
            for s, y in zip(scores, every, strict=True)
        ]
        own, null = found[0], np.array([e.value for e in found[1:]])
        counts = {name: getattr(own, name) for name in
                  ("n_positive", "n_negative", "groups_positive", "groups_negative")}  # fmt: skip
        return dict(recall=own.value, lo=own.lo, hi=own.hi, control=float(null.mean()),
                    p=permutation_p(own.value, null), max_fpr=max_fpr) | counts  # fmt: skip

    _each_site(cache, row, **options)


def _each_site(
    path: Path,
    row: Callable[[Any, np.ndarray, np.ndarray, np.ndarray | None], dict[str, Any]],
    *,
    sites: str,
    position: str,
    target: str,
    positive: str | None,
    groups: str,
    unit: str,
    where: Sequence[str],
    seed: int,
    out: Path | None,
) -> None:
    """One row per site, on the screen and as CSV."""
    import pandas as pd

    from interp.cache import ActivationCache
    from interp.io.files import write_file
    from interp.where import kept
    from probes.source import open_source

    one_thread()
    with ActivationCache.open(path) as cache:
        keep = kept(cache.examples, where, n=len(cache), option="--where")
        examples, source = cache.examples[keep], open_source(cache).where(keep)
        labels, units = _columns(examples, target, positive, groups)
        named = unit_of(examples, cache.group_columns, units, unit)
        moves = None if named is None else examples[named].to_numpy()
        chosen = sites_of(cache, sites)
        rows = [
            {"site": site, "position": position} | row(source.read(site, position).float(), labels, units, moves)
            for site in chosen
        ]
    table = pd.DataFrame(rows)
    click.echo(table.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    if out is not None:
        write_file(out, csv_bytes(table))


def _columns(examples: Any, target: str, positive: str | None, groups: str) -> tuple[np.ndarray, np.ndarray]:
    """0/1 labels and groups of some examples of a cache."""
    from interp.where import some
    from probes.design import positive_of, targets

    for option, name in (("target", target), ("groups", groups)):
        if name not in examples.columns:
            raise ValueError(
                f"--{option} {name}: no such column of the cache's examples. Columns: {', '.join(examples.columns)}."
            )
    found = targets(*positive_of(examples[target].to_numpy(), positive, option="--positive"))
    if len(found) != 1:
        raise ValueError(f"--positive: name the label that counts as 1; labels of {target}: {some(sorted(found))}.")
    return next(iter(found.values())), examples[groups].to_numpy()
