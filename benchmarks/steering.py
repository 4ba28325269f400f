"""Dose curves: our sweep against a loop of hooked forward passes, and against steering-vectors and repeng.

    python -m benchmarks.steering [--json PATH] [--gpu]

Random weights: the price does not depend on them. Every method adds a vector to the last token's residual stream and
reads the next-token distribution; outputs are compared before anything is timed. The loop is one forward pass per
strength, with the logits of the last token only, as a careful user would write it. Process CPU seconds, least of the
rounds, methods in turn.

naive / ours = seconds of the loop over K strengths / seconds of one sweep of K strengths, its clean pass included.
goal 0.9 K at the last position; limit K, since K - 1 strengths and the unchanged run share one pass at no cost.
clean forwards = seconds of the whole protocol (29 arms x 13 strengths, one item) / seconds of one clean forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.heads import REHEARSAL, Shape, best_cpu, build
from benchmarks.kit import Report, Setting, arguments
from interp.edits import Add
from interp.hooks import edit
from interp.model import Model
from interp.prompt import Example
from interp.site import Site
from steering.arms import Arm, complement_arms, random_arms
from steering.dose import DoseItem, DoseSweep, tokens_of
from steering.strengths import DosePlan, parse_alphas

SMALL = Shape("12x12 d768 S512", 12, 12, 768, 4, 3072, 512, 0)
LARGE = Shape("7B 28x28 S512 bf16", 28, 28, 3584, 4, 18944, 512, 0)
LABEL_IDS = ((11,), (12,), (13,))


def item_of(shape: Shape) -> DoseItem:
    ids = torch.randint(20, 1000, (shape.tokens,), generator=torch.Generator().manual_seed(1)).tolist()
    example = Example("item", text="x", label="A")
    return DoseItem(example, tuple(ids), ("A", "B", "C"), LABEL_IDS, "group")


def plan_of(shape: Shape, arms: Sequence[Arm], n_alphas: int, *, positions: str = "last") -> DosePlan:
    scale = {arm.site: 20.0 for arm in arms}
    return DosePlan(tuple(arms), parse_alphas(f"-0.3:0.3:{n_alphas}"), "resid", scale, scale, tokens_of(positions))


def one_arm(shape: Shape, layer: int) -> list[Arm]:
    site = Site("resid_post", layer)
    return [Arm("direction", site, random_arms(site, shape.width, n=1, seed=7)[0].unit)]


def protocol(shape: Shape, layer: int) -> list[Arm]:
    """Four vectors, twenty random directions and five orthogonal to the vectors: 29 arms, none of them free."""
    site = Site("resid_post", layer)
    vectors = random_arms(site, shape.width, n=4, seed=7)
    named = [
        Arm("direction", site, vectors[0].unit),
        *(Arm("nuisance", site, v.unit, k) for k, v in enumerate(vectors[1:])),
    ]
    span = torch.stack([arm.unit for arm in named])
    return [*named, *random_arms(site, shape.width, n=20), *complement_arms(site, span, n=5)]


def hooked(model: Model, item: DoseItem, plan: DosePlan, arm: Arm, alpha: float, *, everywhere: bool = False) -> Tensor:
    """Next-token log-probabilities under one hooked forward pass."""
    ids = torch.tensor([item.ids], device=model.device)
    where = "all" if everywhere else [[len(item.ids) - 1]]
    vector = Add(plan.added(arm, alpha).to(model.device))
    with edit(model, {arm.site: vector}, positions=where):
        return model.module(ids, use_cache=False, logits_to_keep=1).logits[0, -1].float().log_softmax(-1)


def agreement(model: Model, item: DoseItem, plan: DosePlan, *, everywhere: bool = False) -> float:
    """Largest difference of a label's log-probability between our sweep and hooked passes, over a few cells."""
    outcome, worst = DoseSweep(model, [item], plan).outcome(0), 0.0
    for a in {0, len(plan.arms) // 2, len(plan.arms) - 1}:
        for k in (0, len(plan.alphas) - 1):
            logp = hooked(model, item, plan, plan.arms[a], plan.alphas[k], everywhere=everywhere)
            own = outcome.logp[plan.rows[a, k]]
            worst = max(worst, float(np.abs(own - logp[[ids[0] for ids in LABEL_IDS]].cpu().numpy()).max()))
    return worst


def strengths(
    report: Report,
    model: Model,
    shape: Shape,
    n_alphas: int,
    layer: int,
    *,
    rounds: int,
    positions: str = "last",
    goal: str = "",
) -> None:
    """One line: K strengths of one direction, the loop against the sweep."""
    item, plan = item_of(shape), plan_of(shape, one_arm(shape, layer), n_alphas, positions=positions)
    everywhere = positions == "all"
    agree = agreement(model, item, plan, everywhere=everywhere)
    assert agree < 1e-3, f"the sweep differs from hooked passes by {agree}"
    job = DoseSweep(model, [item], plan)
    methods: dict[str, Callable[[], object]] = {
        "ours": lambda: job.outcome(0),
        "naive": lambda: hooked(model, item, plan, plan.arms[0], 0.1, everywhere=everywhere),
    }
    best = best_cpu(methods, rounds=dict.fromkeys(methods, rounds))
    limit = f"{n_alphas}" if not everywhere else f"{_all_limit(shape, n_alphas, layer):.2f}"
    report.add(
        f"{shape.name}, {n_alphas} strengths, layer {layer}, {positions}: naive / ours",
        best["naive"] * n_alphas / best["ours"],
        goal=goal,
        limit=limit,
        agree=agree,
        note=f"({best['ours']:.2f} s; one hooked forward {best['naive']:.3f} s)",
    )


def _all_limit(shape: Shape, n_alphas: int, layer: int) -> float:
    """K L / ((l + 1) + K (L - l - 1)): where every token is steered, all layers above l are computed K times."""
    return n_alphas * shape.layers / ((layer + 1) + n_alphas * (shape.layers - layer - 1))


def whole_protocol(report: Report, model: Model, shape: Shape, *, rounds: int, layer: int) -> None:
    """One line: 29 arms x 13 strengths of one item, in clean forward passes."""
    item, plan = item_of(shape), plan_of(shape, protocol(shape, layer), 13)
    agree = agreement(model, item, plan)
    job, ids = DoseSweep(model, [item], plan), torch.tensor([item.ids], device=model.device)
    methods: dict[str, Callable[[], object]] = {
        "ours": lambda: job.outcome(0),
        "clean": lambda: model.module(ids, use_cache=False, logits_to_keep=1).logits[0, -1].log_softmax(-1),
    }
    best = best_cpu(methods, rounds=dict.fromkeys(methods, rounds))
    limit = 1 + (plan.n_rows - 1) * (shape.layers - layer - 1) / shape.layers / shape.tokens
    report.add(
        f"{shape.name}, 29 arms x 13 strengths, layer {layer}: clean forwards",
        best["ours"] / best["clean"],
        goal="<= 3",
        limit=f"{limit:.2f}",
        agree=agree,
        note=f"({plan.n_rows} rows, {best['ours']:.2f} s; clean {best['clean']:.2f} s)",
    )


def peers(report: Report, model: Model, shape: Shape, *, rounds: int, layer: int) -> None:
    """Every token steered at 9 strengths, as both libraries do it: their loops against our sweep of all tokens."""
    item, plan = item_of(shape), plan_of(shape, one_arm(shape, layer), 9, positions="all")
    job, ids = DoseSweep(model, [item], plan), torch.tensor([item.ids])
    own = job.outcome(0).logp[plan.rows[0, -1]]
    for name, make in (("steering-vectors", steering_vectors), ("repeng", repeng)):
        try:
            run = make(model, plan, ids)
        except ImportError as error:
            print(f"{name} is left out: {error}.")
            continue
        theirs = run(plan.alphas[-1])
        agree = float(np.abs(theirs[[x[0] for x in LABEL_IDS]].numpy() - own).max())
        assert agree < 1e-3, f"{name} differs by {agree}"
        methods: dict[str, Callable[[], object]] = {"ours": lambda: job.outcome(0), name: lambda run=run: run(0.1)}
        best = best_cpu(methods, rounds=dict.fromkeys(methods, rounds))
        what = f"{shape.name}, 9 strengths, all tokens, layer {layer}: {name} / ours"
        note = f"({name} {best[name]:.2f} s per strength)"
        report.add(what, best[name] * 9 / best["ours"], agree=agree, note=note)


def steering_vectors(model: Model, plan: DosePlan, ids: Tensor) -> Callable[[float], Tensor]:
    """`SteeringVector.apply` with a multiplier, every token."""
    from steering_vectors import SteeringVector  # pyright: ignore[reportMissingImports]

    arm = plan.arms[0]
    vector = SteeringVector({arm.site.layer: plan.added(arm, 1.0)}, "decoder_block")

    def run(alpha: float) -> Tensor:
        with vector.apply(model.module, multiplier=alpha):
            return model.module(ids, use_cache=False, logits_to_keep=1).logits[0, -1].log_softmax(-1)

    return run


def repeng(model: Model, plan: DosePlan, ids: Tensor) -> Callable[[float], Tensor]:
    """`ControlModel.set_control` with a coefficient, every token; the model is wrapped for the length of a call."""
    if not hasattr(np, "float_"):  # repeng 0.4 names it, numpy 2 has dropped it
        setattr(np, "float_", np.float64)  # noqa: B010  (the name is unknown to type checkers)
    from repeng import ControlModel, ControlVector  # pyright: ignore[reportMissingImports]

    arm = plan.arms[0]
    layer = int(arm.site.layer or 0)
    held: Any = ControlVector(model.layout.config.model_type, {layer: plan.added(arm, 1.0).numpy()})

    def run(alpha: float) -> Tensor:
        wrapped = ControlModel(model.module, [layer])
        try:
            wrapped.set_control(held, coeff=alpha)
            return wrapped(ids, use_cache=False, logits_to_keep=1).logits[0, -1].log_softmax(-1)
        finally:
            wrapped.unwrap()

    return run


def main() -> None:
    options = arguments(__doc__ or "")
    report = Report("steering")
    rounds = min(options.rounds, 5)
    if options.gpu:
        on_gpu(report, options)
    else:
        model = build(SMALL)
        for n_alphas in (9, 13):
            for layer in (2, 6, 10):
                strengths(report, model, SMALL, n_alphas, layer, rounds=rounds, goal=f">= {0.9 * n_alphas:.2f}")
        strengths(report, model, SMALL, 9, 6, rounds=2, positions="all")
        whole_protocol(report, model, SMALL, rounds=rounds, layer=6)
        whole_protocol(report, model, SMALL, rounds=rounds, layer=0)
        peers(report, model, SMALL, rounds=2, layer=6)
    report.finish(options.json)


def on_gpu(report: Report, setting: Setting) -> None:
    """The whole protocol on a 7B shape, in clean forward passes of wall time."""
    from benchmarks.kit import interleave

    shape = LARGE if setting.kind == "gpu" else REHEARSAL
    layer = 5 * shape.layers // 7
    model = build(shape, dtype=torch.bfloat16, device=setting.device)
    item, plan = item_of(shape), plan_of(shape, protocol(shape, layer), 13)
    job, ids = DoseSweep(model, [item], plan), torch.tensor([item.ids], device=setting.device)
    clean = lambda: model.module(ids, use_cache=False, logits_to_keep=1)  # noqa: E731
    best = interleave({"ours": lambda: job.outcome(0), "clean": clean}, rounds=setting.rounds)
    what = f"{shape.name}, 29 arms x 13 strengths, layer {layer}: clean forwards"
    note = f"({best['ours']:.3f} s; clean {best['clean']:.3f} s)"
    report.add(what, best["ours"] / best["clean"], goal="<= 3", note=note)


if __name__ == "__main__":
    main()
