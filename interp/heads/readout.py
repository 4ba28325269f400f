"""What is read of every run: the margin between the answers, the answer's probability, and which answer wins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.heads.pairs import TokenPair
from interp.model import Model
from interp.sweep.read import answer_logits

_ROWS = 64


@dataclass(frozen=True)
class LogitDiff:
    """m = logit(answer) - logit(foil), the best other option where the pair names no foil."""


@dataclass(frozen=True)
class Prob:
    """p = softmax over the whole vocabulary, of the answer. Costs the unembedding of every row."""


@dataclass(frozen=True)
class LabelAccuracy:
    """1 where the answer has the highest logit of the pair's options; a draw counts as wrong."""


Metric = LogitDiff | Prob | LabelAccuracy
METRICS: tuple[Metric, ...] = (LogitDiff(), Prob(), LabelAccuracy())


def reader(
    model: Model, pair: TokenPair, *, vocabulary: bool
) -> Callable[[Float[Tensor, "row read d_model"]], Float[Tensor, "row read value"]]:
    """A function of the normed residual stream: logits of the pair's options, then log sum exp of all if asked."""

    def read(final: Tensor) -> Tensor:
        logits = answer_logits(model, final, pair.options)
        if not vocabulary:
            return logits
        total = [answer_logits(model, part, "all").logsumexp(dim=-1, keepdim=True) for part in final.split(_ROWS)]
        return torch.cat([logits, torch.cat(total)], dim=-1)

    return read


@dataclass(frozen=True)
class Readout:
    """Runs of one pair.

    Attributes:
        margin: m, nats [run].
        p: probability of the answer [run]; NaN where it was not asked for.
        choice: index of the best option [run]; 0 is the answer.
        right: m over all options is above 0 [run].
        mass: probability of all options together [run]; NaN where p was not asked for.
    """

    margin: Float[Tensor, "run"]
    p: Float[Tensor, "run"]
    choice: Float[Tensor, "run"]
    right: Float[Tensor, "run"]
    mass: Float[Tensor, "run"]


def read_values(pair: TokenPair, values: Float[Tensor, "run value"]) -> Readout:
    """Margin, probability and choice from what `reader` returned."""
    wide = values.double().cpu()
    logits = wide[:, : len(pair.options)]
    others = logits[:, 1:]
    margin = logits[:, 0] - (others.amax(dim=1) if pair.foil is None else others[:, 0])
    has_total = wide.shape[1] > len(pair.options)
    p = (logits[:, 0] - wide[:, -1]).exp() if has_total else torch.full_like(margin, torch.nan)
    mass = (logits.logsumexp(dim=1) - wide[:, -1]).exp() if has_total else torch.full_like(margin, torch.nan)
    right = (logits[:, 0] > others.amax(dim=1)).double()
    return Readout(margin, p, logits.argmax(dim=1).double(), right, mass)
