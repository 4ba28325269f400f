"""`diptych probes mdl`, `erase` and `recall`: what a single site's probe is worth beyond its AUROC."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from study.cli.common import fail_in_users_words, one_thread
from study.cli.probes import sites_of

if TYPE_CHECKING:
    import numpy as np

    from interp.cache import ActivationCache
    from probes.splits import Split


def _site_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """CACHE, --sites, --position, --target, --groups, --seed, --out: what one site's check needs."""
    for add in (
        click.option("--out", type=click.Path(path_type=Path), help="CSV to write; default: the screen alone."),
        click.option("--seed", default=0, show_default=True, help="Of the order of groups, splits and resamples."),
        click.option("--groups", required=True, help="Column of the independent unit."),
        click.option("--positive", help="Which label counts as 1; default: the larger of two."),
        click.option("--target", required=True, help="Column of the cache's examples: the label."),
        click.option("--position", default="last", show_default=True, help="Position of the cache."),
        click.option("--sites", default="resid_post.*", show_default=True, help="Patterns, separated by commas."),
        click.argument("cache", type=click.Path(path_type=Path)),
    ):
        command = add(command)
    return fail_in_users_words(command)


@click.command()
@click.option("--c", "c", default=1.0, show_default=True, help="Inverse penalty.")
@_site_options
def mdl(cache: Path, c: float, **options: Any) -> None:
    """Online code length per site: bits to send the labels to someone who has the activations.

    The control is the same code with the label permuted between groups; 1.00 says that nothing was gained.
    """
    from probes import mdl as code_length

    def row(feats: Any, labels: np.ndarray, groups: np.ndarray) -> dict[str, Any]:
        found = code_length(feats, labels, groups=groups.tolist(), C=c, seed=options["seed"])
        moved = _permuted(labels, groups, options["seed"])
        control = code_length(feats, moved, groups=groups.tolist(), C=c, seed=options["seed"])
        return dict(bits=found.bits, uniform=found.uniform, compression=found.compression,
                    control_compression=control.compression, n=found.n, n_groups=found.n_groups)  # fmt: skip

    _each_site(cache, row, **options)


@click.command()
@click.option("--c", "c", default=1.0, show_default=True, help="Inverse penalty.")
@click.option("--test-share", type=click.FloatRange(0.05, 0.9), default=0.25, show_default=True, help="Rows for TEST.")
@_site_options
def erase(cache: Path, c: float, test_share: float, **options: Any) -> None:
    """Erase the label from a site (LEACE), refit: AUROC before and after, on held-out groups."""
    from probes import erase_check

    def row(feats: Any, labels: np.ndarray, groups: np.ndarray) -> dict[str, Any]:
        split = _split(labels, groups, test_share, options["seed"])
        found = erase_check(feats, labels, split, C=c, seed=options["seed"])
        before, after = found.held_out_before, found.held_out_after
        return dict(train_before=found.train_before, train_after=found.train_after, before=before.value,
                    before_lo=before.lo, before_hi=before.hi, after=after.value, after_lo=after.lo, after_hi=after.hi,
                    share_changed=found.share_changed, n=after.n, n_groups=after.n_groups)  # fmt: skip

    _each_site(cache, row, **options)


@click.command()
@click.option("--max-fpr", type=click.FloatRange(0, 1, max_open=True), default=0.01, show_default=True, help="Bound.")
@click.option("--kind", default="ridge", show_default=True, help="Of probe: logistic, ridge, massmean, massmean-iid.")
@_site_options
def recall(cache: Path, max_fpr: float, kind: str, **options: Any) -> None:
    """Share of positives above the threshold that at most --max-fpr of the negatives pass, out of fold.

    The control is the same probe of labels permuted between groups.
    """
    import torch

    from probes import SweepConfig
    from probes.layer import score_labels
    from probes.metrics import recall_at_fpr

    def row(feats: Any, labels: np.ndarray, groups: np.ndarray) -> dict[str, Any]:
        import numpy as np

        split = _split(labels, groups, 0.0, options["seed"])
        both = np.stack([labels, _permuted(labels, groups, options["seed"])])
        scores = score_labels(kind, feats, torch.from_numpy(both), split, Cs=SweepConfig().Cs).scores
        found, control = (
            recall_at_fpr(s, y, max_fpr=max_fpr, groups=groups, seed=options["seed"])
            for s, y in zip(scores, both, strict=True)
        )
        return dict(recall=found.value, lo=found.lo, hi=found.hi, control=control.value, control_lo=control.lo,
                    control_hi=control.hi, max_fpr=max_fpr, n=found.n, n_groups=found.n_groups)  # fmt: skip

    _each_site(cache, row, **options)


def _each_site(
    path: Path,
    row: Callable[[Any, np.ndarray, np.ndarray], dict[str, Any]],
    *,
    sites: str,
    position: str,
    target: str,
    positive: str | None,
    groups: str,
    seed: int,
    out: Path | None,
) -> None:
    """One row per site, on the screen and as CSV."""
    import pandas as pd

    from interp.cache import ActivationCache
    from probes.source import open_source

    one_thread()
    with ActivationCache.open(path) as cache:
        labels, units = _columns(cache, target, positive, groups)
        source = open_source(cache)
        chosen = sites_of(cache, sites)
        rows = [
            {"site": site, "position": position} | row(source.read(site, position).float(), labels, units)
            for site in chosen
        ]
    table = pd.DataFrame(rows)
    click.echo(table.to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(out, index=False, lineterminator="\n")


def _columns(cache: ActivationCache, target: str, positive: str | None, groups: str) -> tuple[np.ndarray, np.ndarray]:
    """0/1 labels and groups of the cache's rows."""
    import numpy as np

    examples = cache.examples
    for option, name in (("target", target), ("groups", groups)):
        if name not in examples.columns:
            raise ValueError(
                f"--{option} {name}: no such column of the cache's examples. Columns: {', '.join(examples.columns)}."
            )
    values = examples[target].astype(str)
    names = sorted(values.unique())
    one = names[-1] if positive is None else positive
    if one not in names or (positive is None and len(names) != 2):
        raise ValueError(f"--positive: name the label that counts as 1; labels of {target}: {', '.join(names)}.")
    return (values == one).to_numpy().astype(np.int64), examples[groups].to_numpy()


def _split(labels: np.ndarray, groups: np.ndarray, test_share: float, seed: int) -> Split:
    from probes import group_split

    return group_split(labels, groups=groups, test_share=test_share, seed=seed)


def _permuted(labels: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """One draw of the sweep's own null: labels moved between groups where groups have one label, else inside them."""
    from probes.null import null_labels

    return null_labels(labels, _split(labels, groups, 0.0, seed), n=1, scheme="auto", seed=seed + 1)[0]
