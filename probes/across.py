"""Probes of one checkpoint applied to another: on the same TEST rows, with both ceilings, where widths allow it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from interp.progress import parts
from interp.remedy import remedy
from interp.site import kind_of_site
from interp.stats import Estimate, wilson_clustered
from probes.kinds import MADE, Kind, KindLike, carried, kinds_of, score_labels
from probes.metrics import area, area_difference, interval_of
from probes.result import Key, Look, SweepResult
from probes.rows import counts, raw_direction
from probes.solver import ridge
from probes.source import Data, Source, layer_number, open_source
from probes.splits import Split

if TYPE_CHECKING:
    import pandas as pd

Labels = Int[np.ndarray, " example"]


def transfer(
    result: SweepResult,
    data: Data,
    *,
    mode: Literal["same-layer", "all-layers"] = "same-layer",
    align: Literal["none", "ridge"] = "none",
    kinds: Sequence[KindLike] | None = None,
    ids: Sequence[str] | None = None,
    checkpoint: str = "",
    seed: int = 0,
) -> pd.DataFrame:
    """Probes fitted on A's DEV rows, scored on B's TEST rows: one row per train site x test site x variant x metric.

    If TEST is crossed, each fold of B is scored by A's probe of the other folds, and AUROC compares rows inside folds.
    "all-layers" crosses the sites of one kind (resid_post with resid_post); ceilings are given if the sites are equal.
    Rows with `selected` are those of the sites that A's sweep selected (each look its own), applied at the same site of
    B; claims are based on these rows.

    Variants: "raw"; "recenter" (B's scores given the mean and spread that A's DEV scores had, without labels);
    "bias" (the threshold refitted on B's DEV rows). AUROC is the same in the three, accuracy is not. Ceilings:
    "A->A" and, fitted and selected like A's, "B->B", with the paired difference raw - ceiling in `drop`.
    With align="ridge" B's features are first mapped to A's by a ridge map fitted on DEV rows without labels
    ("aligned"), with the paired difference to the same map fitted on shuffled pairs ("aligned-shuffled", which must be
    at chance) in `control_difference`. A linear map carries any label that both sides hold, so alignment shows common
    information, not a common direction.

    Args:
        result: the sweep of A.  data: B's activations of the same examples, joined by id.
        kinds: kinds of probes to apply; None: logistic and massmean if they were swept, otherwise all that were.
    Raises:
        ValueError: ids of A missing from B; widths that differ without align (the message names the alternatives);
            no TEST rows; no common site or kind.
    Source: protocol in docs; alignment control after Bansal et al., arXiv 2106.07682 (stitching).

    Example:
        >>> table = transfer(swept, {"resid_post.0": feats + 1.0})
        >>> sorted(table.variant.unique())
        ['A->A', 'B->B', 'bias', 'raw', 'recenter']
    """
    source, order = joined(result, data, ids, checkpoint)
    names = {"train_checkpoint": _checkpoint(result), "test_checkpoint": source.checkpoint}
    rows: list[dict[str, Any]] = []
    same: dict[Key, tuple[dict[str, Any], dict[str, np.ndarray]]] = {}
    table = _table(result, kinds)
    for site, position, keys in parts(_pairs(result, source, mode, table)):
        feats, ceilings = source.read(site, position)[order], {}
        for key in keys:
            y, at = result.labels[key[0]], (key[0], key[3])
            scores = _variants(result, key, feats, y, align, seed)
            if at not in ceilings:
                ceilings[at] = _ceiling(result, table[key[3]], feats, y)
            base = names | _which(key, site, len(result.directions[key].unit), feats.shape[1])
            if key[2] == site:
                scores |= {"A->A": _own(result, key), "B->B": ceilings[at]}
                same[key] = base, scores
            rows += [base | row for row in _estimates(scores, ceilings[at], result, y)]
    import pandas as pd

    return pd.DataFrame(rows + _selected_rows(result, same))


def _which(key: Key, site: str, d_train: int, d_test: int) -> dict[str, Any]:
    """Columns that say which probe is applied where."""
    target, position, train_site, kind = key
    return {
        "target": target,
        "position": position,
        "train_site": train_site,
        "test_site": site,
        "kind": kind,
        "train_layer": layer_number(train_site),
        "test_layer": layer_number(site),
        "train_d_feature": d_train,
        "test_d_feature": d_test,
        "selected": False,
    }


def _selected_rows(
    result: SweepResult, same: Mapping[Key, tuple[dict[str, Any], dict[str, np.ndarray]]]
) -> list[dict[str, Any]]:
    """Rows of the sites that A selected: the TEST rows of each look from the cell that the look chose."""
    rows: list[dict[str, Any]] = []
    for cell in result.selected:
        if cell.key not in same or any(key not in same for key in cell.looks):
            continue
        base, scores = same[cell.key]
        merged = {name: values.copy() for name, values in scores.items()}
        for key, look in zip(cell.looks, result.split.looks(), strict=True):
            for name, values in merged.items():
                values[look.is_test] = same[key][1][name][look.is_test]
        base = base | {"selected": True}
        rows += [base | row for row in _estimates(merged, merged["B->B"], result, result.labels[cell.target])]
    return rows


def refit(
    result: SweepResult,
    data: Data,
    *,
    kinds: Sequence[KindLike] | None = None,
    ids: Sequence[str] | None = None,
    checkpoint: str = "",
) -> SweepResult:
    """The probes of A fitted anew on B: same rows, splits, labels and Cs to choose from; B's directions and scores.

    Its table names B and holds no estimates: it serves as the `result` of `transfer`, which needs B's probes at
    every site for the blocks B -> B and B -> A.

    Raises:
        ValueError: ids of A missing from B.
    """
    import pandas as pd

    source, order = joined(result, data, ids, checkpoint)
    table = _table(result, kinds)
    scores, directions, looks = {}, {}, {}
    for position in dict.fromkeys(key[1] for key in result.directions):
        for site in [site for site in source.sites if any(key[2] == site for key in result.directions)]:
            feats = source.read(site, position)[order]
            for target, kind in dict.fromkeys((k[0], k[3]) for k in result.directions if k[3] in table):
                key = (target, position, site, kind)
                labels, probe = result.labels[target], table[kind]
                on_all = look_of(result, probe, feats, labels, result.split)
                scores[key], directions[key] = on_all.scores, on_all.direction
                looks[key] = tuple(
                    on_all if part is result.split else look_of(result, probe, feats, labels, part)
                    for part in result.split.looks()
                )
    named = pd.DataFrame({"member": [source.checkpoint]})
    return replace(result, table=named, scores=scores, directions=directions, selected=(), looks=looks)


def _table(result: SweepResult, kinds: Sequence[KindLike] | None) -> dict[str, Kind]:
    """The kinds to apply, by name."""
    return kinds_of(carried(key[3] for key in result.directions) if kinds is None else kinds)


def joined(result: SweepResult, data: Data, ids: Sequence[str] | None, checkpoint: str) -> tuple[Source, Tensor]:
    """Rows of another source, and where each row of the sweep is among them.

    Raises:
        ValueError: ids of the sweep that are missing there.
    """
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
    result: SweepResult, source: Source, mode: str, table: Mapping[str, Kind]
) -> list[tuple[str, str, list[Key]]]:
    """(site of B, position, probes of A applied to it), so that each site is read once.

    Raises:
        ValueError: there is none, or A has no TEST rows.
    """
    if not result.split.is_tested.any():
        what = "transfer: A's sweep has no TEST rows. "
        raise ValueError(what + remedy("Sweep A again, with {probes.test_share} above 0."))
    probes = [key for key in result.directions if key[3] in table and key[2] not in MADE]
    pairs = []
    for position in dict.fromkeys(key[1] for key in probes):
        for site in source.sites:
            here = [key for key in probes if key[1] == position and _meets(key[2], site, mode)]
            pairs += [(site, position, here)] if here else []
    if not pairs:
        raise ValueError(
            f"transfer: no probe of A (sites {sorted({k[2] for k in result.directions})}, kinds {list(table)}) "
            f"matches a site of B: {', '.join(source.sites)}. Apply every layer's probe at every layer "
            "(all-layers), or sweep the same sites."
        )
    return pairs


def _meets(train_site: str, test_site: str, mode: str) -> bool:
    if mode == "same-layer":
        return train_site == test_site
    return kind_of_site(train_site) == kind_of_site(test_site)


def _variants(result: SweepResult, key: Key, feats: Tensor, y: Labels, align: str, seed: int) -> dict[str, np.ndarray]:
    """Scores of B's rows by A's probes, each look its TEST rows; 0 for rows that no look tests."""
    d_a, d_b = len(result.directions[key].unit), feats.shape[1]
    if align != "ridge" and d_a != d_b:
        raise ValueError(
            f"transfer: A's probe has {d_a} features and B's activations {d_b}, so its direction does not exist in B. "
            "Use compare_scores(result_a, result_b, kind=...) on the same rows, or align='ridge' with its control."
        )
    out: dict[str, np.ndarray] = {}
    for look, part in zip(result.looks[key], result.split.looks(), strict=True):
        by_variant = _aligned(look, part, feats, seed) if align == "ridge" else _direct(look, part, feats, y)
        for name, values in by_variant.items():
            out.setdefault(name, np.zeros(len(y)))[part.is_test] = values[part.is_test]
    return out


def _direct(look: Look, part: Split, feats: Tensor, y: Labels) -> dict[str, np.ndarray]:
    direction, is_dev = look.direction, part.is_dev
    raw = direction(feats.float()).double().numpy()
    along = raw[is_dev]
    mean = direction.mean * direction.norm + direction.bias
    spread = along.std() or 1.0  # a probe without weights (shrunk to nothing) scores every row alike
    recentred = (raw - along.mean()) / spread * direction.std * direction.norm + mean
    return {"raw": raw, "recenter": recentred, "bias": raw - _threshold(along, y[is_dev])}


def _aligned(look: Look, part: Split, feats: Tensor, seed: int) -> dict[str, np.ndarray]:
    """The map is followed by one direction only, so only that image of it is fitted: A's held-out DEV scores."""
    dev = torch.from_numpy(part.is_dev)
    return {
        "aligned": _mapped(feats, look.scores, dev, None),
        "aligned-shuffled": _mapped(feats, look.scores, dev, seed),
    }


def _own(result: SweepResult, key: Key) -> np.ndarray:
    """A's scores of its own TEST rows at one cell."""
    out = np.zeros(len(result.ids))
    for look, part in zip(result.looks[key], result.split.looks(), strict=True):
        out[part.is_test] = look.scores[part.is_test]
    return out


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


def look_of(result: SweepResult, kind: Kind, feats: Tensor, y: Labels, part: Split) -> Look:
    """A probe of one site as one look at TEST sees it, fitted and its C chosen on DEV as A's were."""
    options: dict[str, Any] = {name: result.settings[name] for name in ("Cs", "balanced", "tol")}
    scored = score_labels(kind, feats, torch.from_numpy(y[None]), part, **options)
    c = float(result.settings["Cs"][int(scored.chosen[0])])
    return Look(scored.scores[0], raw_direction(scored, feats, part.is_dev), c)


def _ceiling(result: SweepResult, kind: Kind, feats: Tensor, y: Labels) -> np.ndarray:
    """Scores of B's TEST rows by B's own probe of one site."""
    out = np.zeros(len(y))
    for part in result.split.looks():
        out[part.is_test] = look_of(result, kind, feats, y, part).scores[part.is_test]
    return out


def _estimates(
    scores: Mapping[str, np.ndarray], ceiling: np.ndarray, result: SweepResult, y: Labels
) -> Iterator[dict[str, Any]]:
    """AUROC and accuracy of every variant on TEST, with the loss of AUROC to the ceiling and its gain over shuffled
    pairs."""
    test, split = result.split.is_tested, result.split
    options: dict[str, Any] = dict(groups=split.group[test], strata=split.fold_of[test])
    for variant, values in scores.items():
        estimate = area(values[test], y[test], **options)
        right = ((values[test] > 0) == (y[test] == 1)).astype(np.float64)
        drop = beyond = Estimate.undefined()
        if variant in ("raw", "aligned", "aligned-shuffled"):
            drop = area_difference(values[test], ceiling[test], y[test], **options)
        if variant == "aligned":
            beyond = area_difference(values[test], scores["aligned-shuffled"][test], y[test], **options)
        for metric, e in (("auroc", estimate), ("accuracy", wilson_clustered(right, groups=options["groups"]))):
            gap, more = (drop, beyond) if metric == "auroc" else (Estimate.undefined(), Estimate.undefined())
            yield {
                "variant": variant,
                "metric": metric,
                "value": e.value,
                "lo": e.lo,
                "hi": e.hi,
                "interval": interval_of(metric),
                "drop": gap.value,
                "drop_lo": gap.lo,
                "drop_hi": gap.hi,
                "control_difference": more.value,
                "control_difference_lo": more.lo,
                "control_difference_hi": more.hi,
                "n": e.n,
                "n_groups": e.n_groups,
            } | counts(y, split, test)


def _checkpoint(result: SweepResult) -> str:
    return str(result.table["member"].iloc[0])
