"""Yang's identity rules: which heads carry the retrieved word and the rule; a plain loop computes the same scores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from benchmarks.kit import HERE
from benchmarks.known_results.rows import Curve, Findings, Row
from interp import Model, stats
from interp.heads import HeadEffects, LogitDiff, Patch, TokenPair, head_sweep, identity_pairs
from interp.heads.order_swaps import Context, Rule

WORDS = (
    "apple bird book box car cat chair city cloud cup dog door dream drum egg eye field fire fish flag floor flower "
    "foot frog fruit game garden gate glass gold grass hand hat heart hill horse house ice iron island king lake lamp "
    "leaf light lion milk moon mouse music nail night nose oil paper park pen pig plant queen rain ring river road "
    "rock roof root rose salt sand sea ship shoe silver sky snow song spring star stone storm street sugar sun table "
    "tail tooth tower train tree wall water wheel wind window wine wing winter wolf wood wool year"
)
REFERENCE = HERE / "results" / "identity_reference.{model}.json"


@dataclass(frozen=True)
class Settings:
    """Attributes:
    k: lines before the query.
    n: pairs of each rule and context; n_reference: the first of them, which the plain loop has computed too.
    """

    k: int = 4
    n: int = 20
    n_reference: int = 1
    seed: int = 0


def pairs_of(model: Model, settings: Settings, context: Context) -> list[TokenPair]:
    """Pairs of both rules, changed at the last token."""
    how: dict[str, Any] = dict(n=settings.n, k=settings.k, context=context, seed=settings.seed)
    return [
        pair for rule in get_args(Rule) for pair in identity_pairs(WORDS.split(), model.tokenizer, rule=rule, **how)
    ]


def run(model: Model, settings: Settings) -> Findings:
    rows, curves = [], []
    for context in get_args(Context):
        pairs = pairs_of(model, settings, context)
        effects = head_sweep(model, pairs, kind=Patch(), metrics=(LogitDiff(),))
        rows += [_accuracy(effects, context), _best(effects, context), *_agreement(model, effects, settings, context)]
        curves.append(_curve(effects, context))
    return Findings(rows, curves)


def _accuracy(effects: HeadEffects, context: str) -> Row:
    right = effects.values["clean_margin"][:, 0] > 0
    rate = stats.wilson_clustered(right, groups=effects.groups)
    return Row(
        claim="identity/accuracy", what=f"{context}: right word of the query's two has the higher logit",
        value=rate.value, lo=rate.lo, hi=rate.hi, n=rate.n, n_groups=rate.n_groups, unit="",
        null="either word at random", null_value=0.5, expected="above",
    )  # fmt: skip


def _best(effects: HeadEffects, context: str) -> Row:
    """The best head of one half of the pairs on the other half, against the null of the largest of all heads."""
    even = np.arange(len(effects.pairs)) % 2 == 0
    at = int(effects.subset(even).per_example().mean(axis=0).argmax())
    report = effects.subset(~even)
    tested = report.tested(alternative="greater", stat="mean")
    one = stats.cluster_t(report.per_example()[:, at], groups=report.groups)
    return Row(
        claim=f"identity/{context}", what=f"{context}: logits moved by patching the best head, {report.names[at]} "
        "(chosen on the other half)", value=one.value, lo=one.lo, hi=one.hi, n=one.n, n_groups=one.n_groups,
        unit="logits", null="all heads, mean (limit: 95 % of the largest of all heads, sign flips as in Yang et al.)",
        null_value=float(report.per_example().mean()), limit=float(tested.null_max95[at]), expected="above",
    )  # fmt: skip


def _agreement(model: Model, effects: HeadEffects, settings: Settings, context: str) -> list[Row]:
    """Largest difference between the sweep and the plain loop, over every head of the pairs that both computed."""
    path = REFERENCE.with_name(REFERENCE.name.format(model=model.name))
    if not path.is_file():
        return []
    stored = json.loads(path.read_text())["scores"][context]
    ours, theirs = compared(effects, stored)
    difference = float(np.abs(ours - theirs).max())
    return [
        Row(claim="identity/reference", what=f"{context}: largest difference from the plain loop, {len(stored)} pairs "
            f"of all {ours.shape[1]} heads", value=difference, lo=difference, hi=difference, n=ours.size,
            n_groups=len(stored), unit="logits", null="1 % of the largest score (largest score: "
            f"{np.abs(theirs).max():.2f})", null_value=0.01 * float(np.abs(theirs).max()), expected="below")
    ]  # fmt: skip


def compared(effects: HeadEffects, stored: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """(ours, theirs) [pair, head] on the pairs whose token ids are those of the stored prompts.

    Raises:
        ValueError: a stored prompt that is not among the pairs.
    """
    place = {(pair.base_ids, pair.exp_ids): i for i, pair in enumerate(effects.pairs)}
    keys = [(tuple(one["base_ids"]), tuple(one["exp_ids"])) for one in stored]
    missing = [key for key in keys if key not in place]
    if missing:
        raise ValueError(f"reference: {len(missing)} of {len(keys)} stored prompts are not among the pairs. Compute it "
                         "again with `python -m benchmarks.known_results.identity_reference`.")  # fmt: skip
    ours = effects.per_example()[[place[key] for key in keys]]
    theirs = np.array([[one["score"][name] for name in effects.names] for one in stored])
    return ours, theirs


def _curve(effects: HeadEffects, context: str) -> Curve:
    layers = sorted({unit[0].layer for unit in effects.units})
    at = np.array([unit[0].layer for unit in effects.units])
    means = effects.per_example().mean(axis=0)
    limit = float(effects.tested(alternative="greater", stat="mean").null_max95[0])
    return Curve(f"Largest score, {context}", "layer", layers, [float(means[at == one].max()) for one in layers],
                 "limit under sign flips", [limit] * len(layers))  # fmt: skip
