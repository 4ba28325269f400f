"""Side effects of steering on unrelated text: perplexity and KL at every token of neutral sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from interp.model import Model
from interp.progress import parts
from interp.stats import Sampling
from interp.sweep import sweep
from interp.sweep.read import answer_logits
from steering.curves import dose_curves
from steering.outcomes import GroupSums, Outcomes, Score
from steering.response import DoseResult
from steering.strengths import DosePlan

N_CONTROLS = 5
_FLOATS = 2**23
"""Logits that are held at once."""
SCORES = {
    "perplexity": Score(lambda sums: np.exp(sums["nll"] / sums["tokens"]), ("tokens",), (1.0, np.inf)),
    "text_kl": Score(lambda sums: sums["kl"] / sums["tokens"], ("tokens",), start=0.0),
}
TEXTS = (
    "The museum opens at nine and closes at five on every day of the week except Monday.",
    "Water boils at a lower temperature on a mountain because the air pressure is lower there.",
    "She planted tomatoes and beans in the garden and watered them each evening in summer.",
    "The train left the station two minutes late and arrived on time at the next stop.",
    "A triangle has three sides, and the sum of its angles is one hundred and eighty degrees.",
    "He repaired the old clock by cleaning its gears and replacing a broken spring.",
    "The river flows through the valley, past two small villages, and into the lake.",
    "Bread rises because yeast turns sugar into carbon dioxide, which is caught in the dough.",
    "The library lends books for three weeks, and readers may renew them once by telephone.",
    "In autumn the leaves of the maple turn red before they fall to the ground.",
    "The recipe asks for two cups of flour, one egg, and a pinch of salt.",
    "Sound travels faster through steel than through air, and faster through water than through air.",
)  # fmt: skip
"""Plain sentences about nobody, for models that read English."""


def text_response(
    model: Model | nn.Module,
    texts: Sequence[Sequence[int]],
    plan: DosePlan,
    *,
    n_controls: int = N_CONTROLS,
    sampling: Sampling = Sampling(),
) -> DoseResult:
    """Perplexity of texts and mean KL(p₀ ‖ p) over their tokens, with the direction added at every token.

        perplexity = exp( sum of -log p(token | what precedes it) / tokens )

    Every token is steered, since only then does a change at one token affect the next; this is a stronger intervention
    than steering a prompt at its last token. Texts are the unit of the intervals.

    Args:
        texts: token ids of each text, at least two tokens.
        n_controls: random controls that are run with the main arms.
    Raises:
        ValueError: fewer than two texts, or one of a single token.
    """
    sums = text_sums(model, texts, plan, n_controls=n_controls)
    return text_curves(sums, plan, n_controls=n_controls, sampling=sampling)


def text_sums(
    model: Model | nn.Module, texts: Sequence[Sequence[int]], plan: DosePlan, *, n_controls: int = N_CONTROLS
) -> dict[str, np.ndarray]:
    """The part of `text_response` that needs the model: sums [text, row] of -log p, KL and tokens. Same arguments."""
    model = Model.wrap(model)
    if len(texts) < 2 or min(map(len, texts)) < 2:
        raise ValueError(f"neutral texts: expected at least 2 of at least 2 tokens each, got {len(texts)}.")
    part = _text_plan(plan, n_controls)
    rows = [_row_sums(model, list(ids), part) for ids in parts(texts)]
    sums = {"nll": np.stack([one[0] for one in rows]), "kl": np.stack([one[1] for one in rows])}
    sums["tokens"] = np.repeat([[len(ids) - 1.0] for ids in texts], part.n_rows, axis=1)
    return sums


def text_curves(
    sums: Mapping[str, np.ndarray],
    plan: DosePlan,
    *,
    n_controls: int = N_CONTROLS,
    sampling: Sampling = Sampling(),
) -> DoseResult:
    """`text_response` from sums that are already computed; no model is needed."""
    part, n_texts = _text_plan(plan, n_controls), len(sums["nll"])
    by_text = GroupSums(sums, tuple(f"text {k}" for k in range(n_texts)), n_texts)
    curves = dose_curves(by_text, part, SCORES, sampling=sampling)
    return DoseResult(part, Outcomes(SCORES, None, None), by_text, curves)


def _text_plan(plan: DosePlan, n_controls: int) -> DosePlan:
    """The arms that texts are read under, added at every token."""
    arms = tuple(a for a in plan.arms if not a.is_control or (a.role == "random" and a.draw < n_controls))
    return replace(plan, arms=arms, positions="all")


@torch.no_grad()
def _row_sums(model: Model, ids: list[int], plan: DosePlan) -> tuple[np.ndarray, np.ndarray]:
    """(sum of -log p, sum of KL) over the tokens of one text, of every row."""
    nexts = torch.tensor(ids[1:], device=model.device)

    def read(final: Tensor) -> Tensor:
        parts, clean = [], None
        width = model.causal_lm.get_output_embeddings().weight.shape[0]
        for rows in final.split(max(1, _FLOATS // (final.shape[1] * width))):
            logp = answer_logits(model, rows, "all").log_softmax(-1)
            clean = logp[:1] if clean is None else clean
            nll = -logp.gather(-1, nexts[None, :, None].expand(len(rows), -1, 1))[..., 0]
            kl = (clean.exp() * (clean - logp)).sum(-1).clamp_min(0)
            parts.append(torch.stack([nll, kl], dim=-1))
        return torch.cat(parts)

    result = sweep(model, ids, plan.interventions(model.device), read=read, read_at=range(len(ids) - 1))
    values = torch.cat([result.clean[:1], result.rows]).double().sum(dim=1).cpu().numpy()
    return values[:, 0], values[:, 1]
