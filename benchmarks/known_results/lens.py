"""Logit lens: the rank of the right answer to facts, read from the residual stream after every layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import rankdata

from benchmarks.known_results.rows import Curve, Findings, Row
from interp import Model, record, stats
from interp.bridges import logit_lens

CAPITALS = (
    "France Paris, Italy Rome, Germany Berlin, Spain Madrid, Japan Tokyo, China Beijing, Russia Moscow, Egypt Cairo, "
    "Greece Athens, Austria Vienna, Poland Warsaw, Portugal Lisbon, Sweden Stockholm, Norway Oslo, Finland Helsinki, "
    "Denmark Copenhagen, Hungary Budapest, Ireland Dublin, Belgium Brussels, Cuba Havana, Kenya Nairobi, Peru Lima, "
    "Iran Tehran, Iraq Baghdad, Syria Damascus, Lebanon Beirut, Ukraine Kiev, Canada Ottawa, Thailand Bangkok, "
    "Indonesia Jakarta, Chile Santiago, Romania Bucharest, Bulgaria Sofia, Serbia Belgrade, Croatia Zagreb, "
    "Afghanistan Kabul, Vietnam Hanoi, Ghana Accra, Nigeria Abuja, Algeria Algiers, Libya Tripoli, Turkey Ankara"
)
OPPOSITES = (
    "hot cold, big small, up down, left right, black white, day night, good bad, rich poor, fast slow, old young, "
    "happy sad, open closed, wet dry, hard soft, high low, long short, love hate, war peace, true false, full empty"
)


@dataclass(frozen=True)
class Settings:
    """Attributes:
    n_null: permutations of the answers among the facts of a kind.
    good_rank: rank, counted from 1, at which the answer counts as found.
    """

    n_null: int = 199
    good_rank: int = 10
    seed: int = 0


@dataclass(frozen=True)
class Fact:
    """A prompt, the token of its answer, and its kind: answers are exchanged within a kind."""

    prompt: tuple[int, ...]
    answer: int
    kind: str


def facts_of(model: Model) -> list[Fact]:
    """Capitals and opposites; of answers that begin with the same token only the first is kept."""
    forms = {"capital": "The capital of {} is the city of", "opposite": "The opposite of {} is"}
    out: list[Fact] = []
    for kind, words in (("capital", CAPITALS), ("opposite", OPPOSITES)):
        for pair in words.split(", "):
            subject, answer = pair.split(" ")
            token = int(model.tokenizer(" " + answer, add_special_tokens=False)["input_ids"][0])
            if token not in {fact.answer for fact in out}:
                ids = model.tokenizer(forms[kind].format(subject))["input_ids"]
                out.append(Fact(tuple(ids), token, kind))
    return out


def answer_ranks(
    logits: Float[np.ndarray, "fact vocab"], answers: Int[np.ndarray, "fact"]
) -> Int[np.ndarray, "fact fact"]:
    """Rank of every fact's answer after every prompt, from 1: [prompt, answer]; ties count as above.

    Example:
        >>> answer_ranks(np.array([[3.0, 1.0, 2.0], [0.0, 5.0, 1.0]]), np.array([0, 2])).tolist()
        [[1, 2], [3, 2]]
    """
    at = logits[:, answers]
    return np.stack([(row[None, :] >= one[:, None]).sum(axis=1) for row, one in zip(logits, at, strict=True)])


@torch.no_grad()
def ranks_by_layer(model: Model, facts: Sequence[Fact]) -> Int[np.ndarray, "layer fact fact"]:
    """`answer_ranks` of the lens after every layer."""
    resid: list[torch.Tensor] = []
    for fact in facts:
        with record(model, "resid_post.*", positions=[[len(fact.prompt) - 1]]) as acts:
            model([list(fact.prompt)])
        resid.append(torch.stack([acts[f"resid_post.{layer}"][0] for layer in range(model.n_layers)]))
    answers = np.array([fact.answer for fact in facts])
    layers = torch.stack(resid, dim=1)  # [layer, fact, d_model]
    return np.stack([answer_ranks(logit_lens(model, one).float().cpu().numpy(), answers) for one in layers])


def run(model: Model, settings: Settings) -> Findings:
    facts = facts_of(model)
    ranks = np.log10(ranks_by_layer(model, facts))  # [layer, prompt, answer]
    own = np.diagonal(ranks, axis1=1, axis2=2)  # [layer, fact]
    rng = np.random.default_rng(settings.seed)
    kinds = np.array([fact.kind for fact in facts])
    orders = [_within(kinds, rng) for _ in range(settings.n_null)]
    null = np.stack([ranks[:, np.arange(len(facts)), order] for order in orders])  # [draw, layer, fact]
    return Findings(_rows(own, null, settings), [_curve(own, null)])


def _within(kinds: np.ndarray, rng: np.random.Generator) -> Int[np.ndarray, " fact"]:
    """A permutation of the facts within each kind."""
    order = np.arange(len(kinds))
    for kind in np.unique(kinds):
        order[kinds == kind] = rng.permutation(order[kinds == kind])
    return order


def _rows(own: np.ndarray, null: np.ndarray, settings: Settings) -> list[Row]:
    n_layers = len(own)
    middle, last = n_layers // 2, n_layers - 1
    found = own <= np.log10(settings.good_rank)
    first = np.where(found.any(axis=0), (found.argmax(axis=0) + 0.5) / n_layers, np.nan)
    answered = first[~np.isnan(first)]
    what = "log10 of the answer's rank"
    falls, falls_null = _slopes(own), np.array([_slopes(one).mean() for one in null])
    drop, drop_null = own[middle] - own[last], (null[:, middle] - null[:, last]).mean(axis=1)
    gap = null.mean(axis=0) - own
    shuffled = "answers exchanged among the facts of a kind"
    return [
        _row("lens/last", f"{what} after the last layer", own[last], f"{shuffled}, mean (limit: 2.5 %)",
             null[:, last].mean(axis=1), "below"),
        _row("lens/fall", "rank correlation of layer and rank, per fact", falls,
             f"{shuffled}, mean (limit: 2.5 %)", falls_null, "below"),
        _row("lens/late", f"{what} at half depth minus that after the last layer", drop,
             f"{shuffled}, mean (limit: 97.5 %)", drop_null, "above"),
        _row("lens/gap", f"distance of {what} from that of the other facts' answers: last layer minus half depth",
             gap[last] - gap[middle], "no change", np.zeros(1), "above"),
        _row("lens/depth", f"depth at which the answer first has rank {settings.good_rank} or better, of facts that "
             "reach it", answered, "half depth", np.array([0.5]), "above"),
    ]  # fmt: skip


def _slopes(ranks: Float[np.ndarray, "layer fact"]) -> Float[np.ndarray, "fact"]:
    """Spearman correlation of layer and rank, per fact; 0 where the rank never changes."""
    places = rankdata(ranks, axis=0)
    places = places - places.mean(axis=0)
    layer = np.arange(len(ranks)) - (len(ranks) - 1) / 2
    size = np.sqrt((places**2).sum(axis=0) * (layer**2).sum())
    return np.divide(layer @ places, size, out=np.zeros(ranks.shape[1]), where=size > 0)


def _row(claim: str, what: str, values: np.ndarray, null: str, draws: np.ndarray, expected: str) -> Row:
    one = stats.cluster_t(values, groups=None)
    limit = float(np.quantile(draws, 0.025 if expected == "below" else 0.975))
    return Row(claim=claim, what=what, value=one.value, lo=one.lo, hi=one.hi, n=one.n, n_groups=one.n_groups, unit="",
               null=null, null_value=float(draws.mean()), limit=limit,
               expected="below" if expected == "below" else "above")  # fmt: skip


def _curve(own: np.ndarray, null: np.ndarray) -> Curve:
    medians = np.median(own, axis=1).tolist()
    return Curve("Median log10 rank of the answer", "layer", list(range(len(own))), medians,
                 "answers exchanged", np.median(null, axis=(0, 2)).tolist())  # fmt: skip
