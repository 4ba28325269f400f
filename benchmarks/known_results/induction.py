"""Induction heads on random tokens written twice: prefix matching, and what is lost without the best heads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import rankdata
from torch import Tensor

from benchmarks.known_results.rows import Curve, Findings, Row
from interp import Model, edit, record, stats
from interp.edits import Edit, Replace
from interp.heads import HeadId, LogitDiff, Mean, TokenPair, head_sweep, induction_scores
from interp.site import Site

_BATCH = 5


@dataclass(frozen=True)
class Settings:
    """Sizes and seed.

    Attributes:
        n_texts: sequences; heads are chosen on one half and measured on the other.
        length: random tokens, each written twice.
        n_heads: best heads that are removed together.
        n_sets: random sets of the same layers that are removed instead.
        n_null: permutations of the scores within layers.
    """

    n_texts: int = 40
    length: int = 32
    n_heads: int = 8
    n_sets: int = 20
    n_null: int = 99
    seed: int = 0


@dataclass(frozen=True)
class Texts:
    """Token ids [text, pos]: `first` half twice after what the tokenizer puts in front, and two unequal halves."""

    repeated: Int[Tensor, "text pos"]
    plain: Int[Tensor, "text pos"]
    n_front: int


def random_texts(model: Model, settings: Settings) -> Texts:
    """Tokens drawn from the whole vocabulary without the special ones; no token twice in a half or in `plain`."""
    special = set(model.tokenizer.all_special_ids)
    vocabulary = np.array([i for i in range(len(model.tokenizer)) if i not in special])
    rng = np.random.default_rng(settings.seed)
    # sequences start with the token that the model knows as a beginning: the first token attracts attention
    front = list(model.tokenizer("")["input_ids"]) or [_first_token(model)]
    halves = np.stack([rng.choice(vocabulary, 2 * settings.length, replace=False) for _ in range(settings.n_texts)])
    first, other = halves[:, : settings.length], halves[:, settings.length :]
    start = np.tile(front, (settings.n_texts, 1))
    repeated, plain = (np.concatenate([start, first, second], axis=1) for second in (first, other))
    return Texts(torch.from_numpy(repeated), torch.from_numpy(plain), len(front))


def _first_token(model: Model) -> int:
    tokens = (model.tokenizer.bos_token_id, model.tokenizer.eos_token_id, model.pad_id)
    return next(int(token) for token in tokens if token is not None)


def run(model: Model, settings: Settings) -> Findings:
    texts = random_texts(model, settings)
    is_report = np.arange(settings.n_texts) % 2 == 1
    heads, scores = induction_scores(model, texts.repeated.tolist())
    _, blank = induction_scores(model, texts.plain.tolist(), repeats=texts.repeated.tolist())
    order = np.argsort(-scores[~is_report].mean(axis=0), kind="stable")
    best = [heads[i] for i in order[: settings.n_heads]]
    report = Texts(texts.repeated[is_report], texts.plain[is_report], texts.n_front)
    rows = [
        _score_row(heads[order[0]], scores[is_report, order[0]], blank[is_report]),
        *_loss_rows(model, settings, texts, report, heads, best),
        *_single_rows(model, settings, report, heads, scores, is_report, best[0]),
    ]
    return Findings(rows, [_curve(heads, scores[is_report], blank[is_report])])


def _score_row(head: HeadId, scores: np.ndarray, blank: np.ndarray) -> Row:
    one = stats.cluster_t(scores, groups=None, bounds=(0.0, 1.0))
    highest = blank.mean(axis=0)
    return Row(
        claim="induction/score", what=f"prefix-matching score of the best head, {head} (chosen on the other half)",
        value=one.value, lo=one.lo, hi=one.hi, n=one.n, n_groups=one.n_groups, unit="",
        null="same places of texts that do not repeat, mean of all heads (limit: highest head)",
        null_value=float(highest.mean()), limit=float(highest.max()), expected="above",
    )  # fmt: skip


def _curve(heads: Sequence[HeadId], scores: np.ndarray, blank: np.ndarray) -> Curve:
    layers = sorted({head.layer for head in heads})
    at = np.array([head.layer for head in heads])
    means, nulls = scores.mean(axis=0), blank.mean(axis=0)
    tops = [[float(values[at == layer].max()) for layer in layers] for values in (means, nulls)]
    return Curve("Highest prefix-matching score", "layer", layers, tops[0], "highest without repeats", tops[1])


def losses(model: Model, ids: Int[Tensor, "text pos"]) -> Float[np.ndarray, "text next"]:
    """-log p of every token but the first, nats."""
    parts = []
    for batch in ids.split(_BATCH):
        logp = model(batch, lengths=[batch.shape[1]] * len(batch)).logits[:, :-1].float().log_softmax(dim=-1)
        parts.append(-logp.gather(-1, batch[:, 1:, None].to(logp.device))[..., 0].cpu())
    return torch.cat(parts).double().numpy()


def without(
    model: Model, ids: Int[Tensor, "text pos"], heads: Sequence[HeadId], means: dict[int, Tensor]
) -> Float[np.ndarray, "text next"]:
    """`losses` with the heads' output replaced by its mean at each position."""
    edits: dict[str | Site, Edit] = {head.site: Replace(means[head.layer][:, head.head]) for head in heads}
    with edit(model, edits):
        return losses(model, ids)


def mean_z(model: Model, ids: Int[Tensor, "text pos"], layers: Sequence[int]) -> dict[int, Float[Tensor, "pos head d"]]:
    """Mean output of every head at each position over the texts."""
    sums: dict[int, Tensor] = {}
    for batch in ids.split(_BATCH):
        with record(model, [f"z.{layer}" for layer in layers]) as acts:
            model(batch, lengths=[batch.shape[1]] * len(batch))
        for layer in layers:
            z = acts[f"z.{layer}"].double().sum(dim=0)
            sums[layer] = sums[layer] + z if layer in sums else z
    return {layer: total / len(ids) for layer, total in sums.items()}


def matched_sets(best: Sequence[HeadId], heads: Sequence[HeadId], *, n: int, seed: int) -> list[list[HeadId]]:
    """Random sets with as many heads of each layer as `best`, none of them in `best`.

    Raises:
        ValueError: a layer has too few other heads.
    """
    rng, wanted = np.random.default_rng(seed), Counter(head.layer for head in best)
    pools = {layer: [head for head in heads if head.layer == layer and head not in best] for layer in wanted}
    short = [layer for layer, count in wanted.items() if len(pools[layer]) < count]
    if short:
        raise ValueError(
            f"layer-matched sets: layers {short} have fewer other heads than best ones. Remove fewer heads."
        )
    return [
        [
            pools[layer][i]
            for layer, count in wanted.items()
            for i in rng.choice(len(pools[layer]), count, replace=False)
        ]
        for _ in range(n)
    ]


def _loss_rows(
    model: Model, settings: Settings, texts: Texts, report: Texts, heads: Sequence[HeadId], best: Sequence[HeadId]
) -> list[Row]:
    layers = sorted({head.layer for head in best})
    means = mean_z(model, texts.repeated, layers)
    start = texts.n_front - 1  # column of the loss of the first random token
    n = settings.length
    # the first token of the second copy cannot be predicted, and the first one of the first half neither
    halves = slice(start + 1, start + n), slice(start + n + 1, start + 2 * n)
    clean = losses(model, report.repeated)
    gain = clean[:, halves[0]].mean(axis=1) - clean[:, halves[1]].mean(axis=1)
    blank = losses(model, report.plain)
    none = float((blank[:, halves[0]] - blank[:, halves[1]]).mean())
    changed = without(model, report.repeated, best, means) - clean
    rise, first = changed[:, halves[1]].mean(axis=1), changed[:, halves[0]].mean(axis=1)
    sets = matched_sets(best, heads, n=settings.n_sets, seed=settings.seed)
    others = np.array([(without(model, report.repeated, one, means) - clean)[:, halves[1]].mean() for one in sets])
    named = ", ".join(map(str, best))
    unit = "nats per token"
    return [
        _mean_row("induction/loss", "loss of the first copy minus that of the second", gain, unit,
                  "texts that do not repeat", none, None),
        _mean_row("induction/ablation", f"loss of the second copy without {named}: rise", rise, unit,
                  f"{settings.n_sets} random sets of the same layers, mean (limit: highest)", float(others.mean()),
                  float(others.max())),
        _mean_row("induction/specific", "the same rise minus that of the first copy", rise - first, unit,
                  "no difference", 0.0, None),
    ]  # fmt: skip


def _mean_row(
    claim: str, what: str, values: np.ndarray, unit: str, null: str, null_value: float, limit: float | None
) -> Row:
    one = stats.cluster_t(values, groups=None)
    return Row(claim=claim, what=what, value=one.value, lo=one.lo, hi=one.hi, n=one.n, n_groups=one.n_groups, unit=unit,
               null=null, null_value=null_value, limit=limit, expected="above")  # fmt: skip


def _single_rows(
    model: Model, settings: Settings, report: Texts, heads: Sequence[HeadId], scores: np.ndarray,
    is_report: np.ndarray, best: HeadId,
) -> list[Row]:  # fmt: skip
    """The best head removed alone at the last token, and how score and effect of all heads go together."""
    pairs = [_pair(ids, report.n_front, settings.length, i) for i, ids in enumerate(report.repeated.tolist())]
    effects = head_sweep(model, pairs, kind=Mean(), metrics=(LogitDiff(),))
    score = scores[~is_report].mean(axis=0)
    per_text = effects.per_example("abl_logit")[:, [effects.index(head) for head in heads]]
    layer = np.array([head.layer for head in heads])
    rng = np.random.default_rng(settings.seed)
    shuffled = [score[_within(layer, rng)] for _ in range(settings.n_null)]
    value = stats.cluster_t(_correlations(score, per_text), groups=None, bounds=(-1.0, 1.0))
    null = np.array([_correlations(one, per_text).mean() for one in shuffled])
    difference = effects.control_difference("abl_logit")
    at = effects.index(best)
    controls = [effects.names[i] for i in effects.controls[at]]
    return [
        Row(claim="induction/head", what=f"margin of the repeated token without {best} alone, minus its control heads",
            value=float(difference.value[at]), lo=float(difference.lo[at]), hi=float(difference.hi[at]),
            n=len(pairs), n_groups=len(pairs), unit="logits",
            null=f"norm-matched heads of the layer ({', '.join(controls)})",
            null_value=0.0, expected="above"),
        Row(claim="induction/agree", what="rank correlation of score (other half) and single-head effect, over heads",
            value=value.value, lo=value.lo, hi=value.hi, n=value.n, n_groups=value.n_groups, unit="",
            null="scores permuted within layers, mean (limit: 97.5 %)", null_value=float(null.mean()),
            limit=float(np.quantile(null, 0.975)), expected="above"),
    ]  # fmt: skip


def _within(layer: Int[np.ndarray, " head"], rng: np.random.Generator) -> Int[np.ndarray, " head"]:
    """A permutation of the heads that keeps each in its layer."""
    order = np.arange(len(layer))
    for one in np.unique(layer):
        order[layer == one] = rng.permutation(order[layer == one])
    return order


def _pair(ids: Sequence[int], n_front: int, length: int, index: int) -> TokenPair:
    """The text before its last token, which is the answer; the foil is the best of the other tokens."""
    others = ids[n_front : n_front + length - 1]
    return TokenPair(None, tuple(ids[:-1]), ids[-1], None, options=tuple(others), id=f"text-{index}")


def _correlations(
    score: Float[np.ndarray, " head"], effects: Float[np.ndarray, "text head"]
) -> Float[np.ndarray, " text"]:
    """Spearman correlation over heads of the score and the effects on each text."""
    return np.array([np.corrcoef(rankdata(score), rankdata(row))[0, 1] for row in effects])
