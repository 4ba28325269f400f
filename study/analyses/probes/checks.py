"""What a single site's probe is worth beyond its AUROC: `diptych probes mdl`, `erase` and `recall`, from options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from interp.progress import track
from interp.remedy import remedy
from study.analyses.probes.choices import sites_of, unit_of
from study.analyses.probes.options import EraseOptions, MdlOptions, RecallOptions, SiteOptions

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from torch import Tensor

    Check = Callable[[Tensor, np.ndarray, np.ndarray, np.ndarray | None], Mapping[str, object]]


def mdl(sites: SiteOptions, options: MdlOptions) -> pd.DataFrame:
    """Online code length per site, with that of permuted labels; see `probes.mdl`."""
    from probes import mdl as code_length

    def row(feats: Tensor, labels: np.ndarray, groups: np.ndarray, unit: np.ndarray | None) -> Mapping[str, object]:
        found = code_length(
            feats,
            labels,
            groups=groups.tolist(),
            unit=unit,
            Cs=tuple(sorted(options.cs)),
            n_orders=options.orders,
            n_shuffled=options.shuffled,
            seed=sites.seed,
        )
        names = ("bits", "prior", "uniform", "compression", "lo", "hi", "control", "control_hi", "p", "n", "n_groups")
        e = found.compression
        own = {"compression": e.value, "lo": e.lo, "hi": e.hi}
        return {name: own[name] if name in own else getattr(found, name) for name in names}

    return _each_site(sites, row)


def erase(sites: SiteOptions, options: EraseOptions) -> pd.DataFrame:
    """AUROC before and after the label is erased, on held-out groups; see `probes.erase_check`."""
    from probes import erase_check, group_split

    def row(feats: Tensor, labels: np.ndarray, groups: np.ndarray, unit: np.ndarray | None) -> Mapping[str, object]:
        split = group_split(labels, groups=groups, test_share=options.test_share, seed=sites.seed)  # pyright: ignore[reportArgumentType]
        found = erase_check(feats, labels, split, C=options.c)
        before, after = found.held_out_before, found.held_out_after
        return {
            "train_before": found.train_before,
            "train_after": found.train_after,
            "before": before.value,
            "before_lo": before.lo,
            "before_hi": before.hi,
            "after": after.value,
            "after_lo": after.lo,
            "after_hi": after.hi,
            "share_changed": found.share_changed,
            "n": after.n,
            "n_groups": after.n_groups,
        }

    return _each_site(sites, row)


def recall(sites: SiteOptions, options: RecallOptions) -> pd.DataFrame:
    """Share of positives above the threshold that at most `max_fpr` of the negatives pass, out of fold; the control is
    the same probe of permuted labels."""
    import numpy as np
    import torch

    from interp.stats import permutation_p
    from probes import SweepConfig, recall_at_fpr, sweep_design
    from probes.kinds import kind_of, score_labels
    from probes.null import null_labels

    kind, max_fpr = options.kind, options.max_fpr
    n_perm = 19 if kind_of(kind).is_costly else 99
    config = SweepConfig(kinds=(kind,), test_share=0.0, n_perm={kind: n_perm}, seed=sites.seed)

    def row(feats: Tensor, labels: np.ndarray, groups: np.ndarray, unit: np.ndarray | None) -> Mapping[str, object]:
        design = sweep_design(labels, groups=groups, unit=unit, config=config)
        moved = null_labels(labels, design.exchanges["1"], n=n_perm, seed=config.seed + 1)
        every = np.concatenate([labels[None], moved])
        scores = score_labels(kind, feats, torch.from_numpy(every), design.split, Cs=config.Cs).scores
        found = [
            recall_at_fpr(s, y, max_fpr=max_fpr, groups=groups, strata=design.split.fold_of)
            for s, y in zip(scores, every, strict=True)
        ]
        own, null = found[0], np.array([e.value for e in found[1:]])
        counts = ("n_positive", "n_negative", "groups_positive", "groups_negative")
        tested = {"control": float(null.mean()), "p": permutation_p(own.value, null), "max_fpr": max_fpr}
        spread = {"recall": own.value, "lo": own.lo, "hi": own.hi}
        return spread | tested | {name: getattr(own, name) for name in counts}

    return _each_site(sites, row)


def _each_site(options: SiteOptions, row: Check) -> pd.DataFrame:
    """One row per site, written as CSV where `out` is given."""
    import pandas as pd

    from interp.cache import ActivationCache
    from interp.io.csv_text import csv_bytes
    from interp.io.files import write_file
    from interp.where import kept
    from probes.source import open_source

    with ActivationCache.open(options.cache) as cache:
        keep = kept(cache.examples, options.where, n=len(cache), option=remedy("{where}"))
        examples, source = cache.examples[keep], open_source(cache).where(keep)
        labels, units = _columns(examples, options)
        named = unit_of(examples, cache.group_columns, units, options.unit)
        moves = None if named is None else examples[named].to_numpy()
        sites = sites_of(cache, options.sites)
        with track("probes", len(sites), unit="sites") as bar:
            found = bar.over(row(source.read(s, options.position).float(), labels, units, moves) for s in sites)
            rows = [{"site": site, "position": options.position, **one} for site, one in zip(sites, found, strict=True)]
    table = pd.DataFrame(rows)
    if options.out is not None:
        write_file(options.out, csv_bytes(table))
    return table


def _columns(examples: pd.DataFrame, options: SiteOptions) -> tuple[np.ndarray, np.ndarray]:
    """0/1 labels and groups of some examples of a cache."""
    from interp.where import some
    from probes.design import positive_of, targets

    check_named(examples, {"target": options.target, "groups": options.groups})
    labels = examples[options.target].to_numpy()
    labels_by_name = targets(*positive_of(labels, options.positive, option=remedy("{positive}")))
    if len(labels_by_name) != 1:
        have = some(sorted(labels_by_name))
        positive = remedy("{positive}: name the label that counts as 1; labels of")
        raise ValueError(f"{positive} {options.target}: {have}.")
    return next(iter(labels_by_name.values())), examples[options.groups].to_numpy()


def check_named(examples: pd.DataFrame, columns: dict[str, str]) -> None:
    """Every column that an option names exists."""
    for name, column in columns.items():
        if column not in examples.columns:
            have = ", ".join(examples.columns)
            named = remedy(f"{{{name}:{column}}}")
            raise ValueError(f"{named}: no such column of the cache's examples. Columns: {have}.")
