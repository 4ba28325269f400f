"""Items, plans and simulated outcomes for the tests of dose curves."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
import torch
from torch import Tensor

from interp.edits import Add
from interp.hooks import edit
from interp.model import Model
from interp.positions import Last, Positions
from interp.prompt import Example
from interp.site import Site
from steering.arms import Arm, complement_arms, random_arms
from steering.dose import DoseItem, DoseOutcome, tokens_of
from steering.strengths import DosePlan, parse_alphas

LABELS, LABEL_IDS = ("yes", "no"), ((5, 6), (9,))


def items(n: int = 60, *, n_groups: int = 12, vocab: int = 128, seed: int = 0) -> list[DoseItem]:
    rng = np.random.default_rng(seed)
    return [
        DoseItem(
            Example(f"i{k}", text="x", label=LABELS[k % 2], groups={"story": f"g{k % n_groups}"}),
            tuple(rng.integers(10, vocab, int(rng.integers(5, 14))).tolist()), LABELS, LABEL_IDS, f"g{k % n_groups}",
        )
        for k in range(n)
    ]  # fmt: skip


def plan(
    d: int, *, sites: Sequence[str] = ("resid_post.1",), alphas: str = "-0.4:0.4:5", positions: str = "last", n: int = 3
) -> DosePlan:
    """A direction, its opposite and a few controls at every site."""
    arms: list[Arm] = []
    for word in sites:
        site = Site.parse(word)
        main = random_arms(site, d, n=1, seed=99)[0].unit
        arms += [Arm("direction", site, main), Arm("opposite", site, -main)]
        arms += [*random_arms(site, d, n=n), *complement_arms(site, main[None], n=2)]
    scale = {Site.parse(word): 3.0 + k for k, word in enumerate(sites)}
    return DosePlan(tuple(arms), parse_alphas(alphas), "resid", scale, scale, tokens_of(positions))


def hooked_logp(model: Model, item: DoseItem, plan: DosePlan, arm: Arm, alpha: float) -> Tensor:
    """Log-probabilities of the whole vocabulary by one hooked forward pass of a loop that anybody would write."""
    where = plan.positions
    positions = where if isinstance(where, str | Positions | Last) else [list(where)]
    with ExitStack() as stack:
        if alpha:
            vector = Add(alpha * plan.scale[arm.site] * arm.unit)
            stack.enter_context(edit(model, {arm.site: vector}, positions=positions))
        return model([list(item.ids)]).logits[0, -1].log_softmax(-1)


def simulated(plan: DosePlan, effects: np.ndarray, *, items: Sequence[DoseItem], seed: int) -> list[DoseOutcome]:
    """Outcomes of items whose margin is linear in alpha: base + group noise + alpha · (arm's slope + the item's own).

    effects: [arm] slope of the margin, nats per unit of alpha.
    """
    rng = np.random.default_rng(seed)
    shift = {group: rng.normal(0, 1) for group in sorted({item.group for item in items})}
    alphas, out = np.array(plan.alphas), []
    for item in items:
        own = rng.normal(0, 0.5, len(plan.arms))
        margin = np.full(plan.n_rows, shift[item.group] + rng.normal(0, 1))
        margin[plan.rows] = margin[0] + alphas * (effects + own)[:, None]
        logp = np.stack([-np.logaddexp(0, -margin), -np.logaddexp(0, margin)], axis=1)
        out.append(DoseOutcome("", logp, np.ones(plan.n_rows), np.zeros(plan.n_rows), np.full(3, np.nan)))
    return out


def unit(*values: float) -> Tensor:
    vector = torch.tensor(values)
    return vector / vector.norm()
