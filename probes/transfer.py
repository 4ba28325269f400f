"""Does a probe of one checkpoint read another: on the same TEST rows, beside both ceilings, and only where defined."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.stats import Estimate, FewGroupsWarning, compare_paired, wilson_clustered
from probes.area import area, area_difference
from probes.layer import score_labels
from probes.metrics import interval_of
from probes.result import Key, RawDirection, SweepResult
from probes.rows import raw_direction
from probes.solver import ridge
from probes.source import Data, Source, layer_of, open_source

if TYPE_CHECKING:
    import pandas as pd

Labels = Int[np.ndarray, " example"]


def transfer(
    result: SweepResult,
    data: Data,
    *,
    mode: Literal["same-layer", "all-layers"] = "same-layer",
    align: Literal["none", "ridge"] = "none",
    kinds: Sequence[str] = ("logistic", "massmean"),
    ids: Sequence[str] | None = None,
    checkpoint: str = "",
    n_boot: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Probes fitted on A's DEV rows, scored on B's TEST rows: one row per train site x test site x variant x metric.

    "all-layers" crosses the sites of one kind (resid_post with resid_post); ceilings stand where the sites are equal.

    Variants: "raw"; "recenter" (B's scores given the mean and spread that A's DEV scores had, without labels);
    "bias" (the threshold refitted on B's DEV rows). AUROC is the same in the three, accuracy is not. Ceilings:
    "A->A" and, fitted and selected like A's, "B->B", with the paired difference raw - ceiling in `drop`.
    With align="ridge" B's features are first mapped to A's by a ridge map fitted on DEV rows without labels
    ("aligned"), beside the same map fitted on shuffled pairs ("aligned-shuffled"), which must be at chance. A linear
    map carries any label that both sides hold, so alignment shows common information, not a common direction.

    Args:
        result: the sweep of A.  data: B's activations of the same examples, joined by id.
    Raises:
        ValueError: ids of A missing from B; widths that differ without align (what can be done instead is named);
            no TEST rows; no common site or kind.
    Source: protocol in docs; alignment control after Bansal et al., arXiv 2106.07682 (stitching).
    """
    source, order = _joined(result, data, ids, checkpoint)
    if not result.split.is_test.any():
        raise ValueError("transfer: A's sweep has no TEST rows (test_share=0). Sweep A again with a TEST set.")
    rows: list[dict[str, Any]] = []
    names = {"train_checkpoint": _checkpoint(result), "test_checkpoint": source.checkpoint}
    for site, position, pairs in _pairs(result, source, mode, kinds):
        feats, ceilings = source.read(site, position)[order], {}
        for key, direction in pairs:
            y, same = result.labels[key[0]], key[2] == site
            scores = _variants(result, direction, feats, y, align, seed)
            at = (key[0], key[3])
            ceilings[at] = ceilings[at] if at in ceilings else _ceiling(result, key, feats, y)
            ceiling = ceilings[at]
            scores |= {"A->A": result.scores[key], "B->B": ceiling} if same else {}
            base = names | {
                "target": key[0], "position": position, "train_site": key[2], "test_site": site, "kind": key[3],
                "train_layer": layer_of(key[2]), "test_layer": layer_of(site),
                "train_d_feature": len(direction.unit), "test_d_feature": feats.shape[1],
            }  # fmt: skip
            for variant, values in scores.items():
                rows += [base | row for row in _estimates(variant, values, ceiling, result, y, n_boot, seed)]
    if not rows:
        raise ValueError(
            f"transfer: no probe of A (sites {sorted({k[2] for k in result.directions})}, kinds {kinds}) meets a site "
            f"of B: {', '.join(source.sites)}. Use mode='all-layers', or sweep the same sites."
        )
    import pandas as pd

    return pd.DataFrame(rows)


def refit(
    result: SweepResult,
    data: Data,
    *,
    kinds: Sequence[str] = ("logistic", "massmean"),
    ids: Sequence[str] | None = None,
    checkpoint: str = "",
) -> SweepResult:
    """The probes of A fitted anew on B: same rows, splits, labels and Cs to choose from; B's directions and scores.

    Its table names B and holds no estimates: it is there to be the `result` of `transfer`, which needs B's probes at
    every site for the blocks B -> B and B -> A.

    Raises:
        ValueError: ids of A missing from B.
    """
    import pandas as pd

    source, order = _joined(result, data, ids, checkpoint)
    options: dict[str, Any] = {name: result.settings[name] for name in ("Cs", "balanced", "tol")}
    scores, directions = {}, {}
    for position in dict.fromkeys(key[1] for key in result.directions):
        for site in [site for site in source.sites if any(key[2] == site for key in result.directions)]:
            feats = source.read(site, position)[order]
            for target, kind in dict.fromkeys((k[0], k[3]) for k in result.directions if k[3] in kinds):
                y = torch.from_numpy(result.labels[target][None])
                found, key = score_labels(kind, feats, y, result.split, **options), (target, position, site, kind)
                scores[key], directions[key] = found.scores[0], raw_direction(found, feats, result.split.is_dev)
    table = pd.DataFrame({"checkpoint": [source.checkpoint]})
    return replace(result, table=table, scores=scores, directions=directions, selected=())


def compare_scores(
    a: SweepResult, b: SweepResult, *, kind: str, target: str | None = None, seed: int = 0
) -> pd.DataFrame:
    """Two sweeps of the same rows compared by their scores alone: the widths may differ.

    One row per split: correlation of scores (Spearman), both AUROCs, their paired difference, exact McNemar and
    group p of decisions, and the relative depth of both selected layers.

    Raises:
        ValueError: the ids, labels or splits differ.
    Source: `interp.stats.compare_paired`, `auroc_difference`.
    """
    import pandas as pd
    from scipy.stats import rankdata

    first, second = a.pick(kind=kind, target=target), b.pick(kind=kind, target=target)
    if a.ids != b.ids or not np.array_equal(a.split.fold_of, b.split.fold_of):
        raise ValueError("compare_scores: expected the same rows and splits; sweep both with the same rows and seed.")
    y, group, rows = a.labels[first.target], a.split.group, []
    for name, where in (("oof", a.split.is_dev), ("test", a.split.is_test)):
        if not where.any():
            continue
        s, t = a.scores[first.key][where], b.scores[second.key][where]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FewGroupsWarning)
            gap = area_difference(s, t, y[where], groups=group[where], seed=seed)
            decisions = compare_paired((s > 0) == y[where], (t > 0) == y[where], groups=group[where], seed=seed)
        rows.append(
            {
                "split": name, "kind": kind, "site_a": first.site, "site_b": second.site,
                "depth_a": _depth(a, first.key), "depth_b": _depth(b, second.key),
                "spearman": float(np.corrcoef(rankdata(s), rankdata(t))[0, 1]),
                "auroc_difference": gap.value, "lo": gap.lo, "hi": gap.hi,
                "accuracy_a": decisions.a.value, "accuracy_b": decisions.b.value, "mcnemar_p": decisions.test.p,
                "group_p": decisions.p_groups, "n": gap.n, "n_groups": gap.n_groups,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _joined(result: SweepResult, data: Data, ids: Sequence[str] | None, checkpoint: str) -> tuple[Source, Tensor]:
    source = open_source(data, ids=ids, checkpoint=checkpoint)
    place = {name: i for i, name in enumerate(source.ids)}
    missing = [name for name in result.ids if name not in place]
    if missing:
        raise ValueError(
            f"transfer: {len(missing)} of {len(result.ids)} rows of A are not in B, first {missing[0]!r}. Extract B on "
            "the same examples."
        )
    return source, torch.tensor([place[name] for name in result.ids])


def _pairs(
    result: SweepResult, source: Source, mode: str, kinds: Sequence[str]
) -> Iterator[tuple[str, str, list[tuple[Key, RawDirection]]]]:
    """(site of B, position, probes of A that read it), so that each site is read once."""
    probes = {k: d for k, d in result.directions.items() if k[3] in kinds and k[2] not in ("shuffled", "surface")}
    for position in dict.fromkeys(key[1] for key in probes):
        for site in source.sites:
            here = [(k, d) for k, d in probes.items() if k[1] == position and _meets(k[2], site, mode)]
            if here:
                yield site, position, here


def _meets(train_site: str, test_site: str, mode: str) -> bool:
    if mode == "same-layer":
        return train_site == test_site
    return train_site.split(".")[0] == test_site.split(".")[0]


def _variants(
    result: SweepResult, direction: RawDirection, feats: Tensor, y: Labels, align: str, seed: int
) -> dict[str, np.ndarray]:
    dev = torch.from_numpy(result.split.is_dev)
    d_a, d_b = len(direction.unit), feats.shape[1]
    if align == "ridge":
        # the map is followed by one direction only, so only that image of it is fitted
        along = _along_a(result, direction)
        return {
            "aligned": _mapped(feats, along, dev, None),
            "aligned-shuffled": _mapped(feats, along, dev, seed),
        }
    if d_a != d_b:
        raise ValueError(
            f"transfer: A's probe has {d_a} features and B's activations {d_b}, so its direction does not exist in B. "
            "Use compare_scores(result_a, result_b, kind=...) on the same rows, or align='ridge' with its control."
        )
    raw = direction(feats.float()).double().numpy()
    is_dev = result.split.is_dev
    along = raw[is_dev]
    mean = direction.mean * direction.norm + direction.bias
    recentred = (raw - along.mean()) / along.std() * direction.std * direction.norm + mean
    return {"raw": raw, "recenter": recentred, "bias": raw - _threshold(along, y[is_dev])}


def _along_a(result: SweepResult, direction: RawDirection) -> np.ndarray:
    key = next(key for key, d in result.directions.items() if d is direction)
    return result.scores[key]


def _mapped(feats: Tensor, along: np.ndarray, dev: Tensor, seed: int | None) -> np.ndarray:
    """A's score predicted from B's features by a ridge map (alpha = features) fitted on DEV rows."""
    goal = torch.from_numpy(along).float()[dev]
    if seed is not None:
        goal = goal[torch.from_numpy(np.random.default_rng(seed).permutation(len(goal)))]
    x = feats.float()
    centre, scale = x[dev].mean(dim=0), x[dev].std(dim=0).clamp_min(1e-6)
    rows = (x - centre) / scale
    return ridge(rows[dev], goal[None], alpha=float(feats.shape[1]))(rows)[0].double().numpy()


def _threshold(scores: np.ndarray, y: np.ndarray) -> float:
    """Cut with the best balanced accuracy on these rows."""
    order = np.argsort(scores)
    s, positive = scores[order], y[order] == 1
    below_pos, below_neg = np.cumsum(positive) / positive.sum(), np.cumsum(~positive) / (~positive).sum()
    at = int((below_neg - below_pos)[:-1].argmax())
    return float((s[at] + s[at + 1]) / 2)


def _ceiling(result: SweepResult, key: Key, feats: Tensor, y: Labels) -> np.ndarray:
    """Scores of B's own probe at one site, fitted and its C chosen on DEV as A's were."""
    options: dict[str, Any] = {name: result.settings[name] for name in ("Cs", "balanced", "tol")}
    return score_labels(key[3], feats, torch.from_numpy(y[None]), result.split, **options).scores[0]


def _estimates(
    variant: str,
    values: Float[np.ndarray, " example"],
    ceiling: np.ndarray,
    result: SweepResult,
    y: Labels,
    n_boot: int,
    seed: int,
) -> Iterator[dict[str, Any]]:
    test, group = result.split.is_test, result.split.group
    options: dict[str, Any] = dict(groups=group[test], seed=seed, n_resamples=n_boot)
    found = area(values[test], y[test], **options)
    hits = rate(((values[test] > 0) == (y[test] == 1)).astype(np.float64), **options)
    drop = Estimate.undefined()
    if variant in ("raw", "aligned", "aligned-shuffled"):
        drop = area_difference(values[test], ceiling[test], y[test], **options)
    for metric, e in (("auroc", found), ("accuracy", hits)):
        gap = drop if metric == "auroc" else Estimate.undefined()
        yield {
            "variant": variant, "metric": metric, "value": e.value, "lo": e.lo, "hi": e.hi,
            "interval": interval_of(metric, group[test]), "drop": gap.value, "drop_lo": gap.lo, "drop_hi": gap.hi,
            "n": e.n, "n_groups": e.n_groups,
        }  # fmt: skip


def _checkpoint(result: SweepResult) -> str:
    return str(result.table["checkpoint"].iloc[0])


def _depth(result: SweepResult, key: Key) -> float:
    t = result.table
    return float(t[(t.site == key[2]) & (t.kind == key[3])]["depth"].iloc[0])
