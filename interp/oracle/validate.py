"""Validation of an oracle in training: the control gap of every task on held-out problems, by matched shuffle."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.model import Model
from interp.oracle.answers import mean_over_problems
from interp.oracle.encode import Encoded, Encoder, base_vectors, score_answers
from interp.oracle.evidence import NO_GAP, NOT_READ, READ, verdict
from interp.oracle.items import TrainItem
from interp.oracle.spec import OracleSpec
from interp.stats import Estimate, wilson_clustered
from interp.tasks.cot.audits import Finding


@dataclass(frozen=True)
class TaskScore:
    """One task at one checkpoint.

    Attributes:
        gap: mean of NLL(shuffled) - NLL(real) in nats per answer token, interval by problem.
        nll, accuracy: with the real activations; accuracy is greedy and exact.
        accuracy_shuffled: the same answers asked of another item's activations.
    """

    gap: Estimate
    nll: Estimate
    accuracy: Estimate
    accuracy_shuffled: Estimate


@dataclass(frozen=True)
class Validation:
    """All tasks at one step; `gap` is over all items together and decides which checkpoint is the best."""

    step: int
    gap: Estimate
    tasks: Mapping[str, TaskScore]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for run.json."""
        return asdict(self)

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Validation:
        """What `to_dict` wrote."""
        tasks = {
            name: TaskScore(**{key: Estimate(**value) for key, value in row.items()})
            for name, row in fields["tasks"].items()
        }
        return cls(fields["step"], Estimate(**fields["gap"]), tasks)

    def findings(self) -> list[Finding]:
        """One finding per task: whether its answers come from the activations at all."""
        return [_reads(task, score.gap) for task, score in self.tasks.items()]


def _reads(task: str, gap: Estimate) -> Finding:
    if verdict(gap) == READ:
        return Finding(f"{task}/ignores activations", "ok", gap.value, NO_GAP, f"control gap {gap} nats per token.")
    why = "another item's activations work as well, so answers come from the prompt and the prior alone"
    if verdict(gap) != NOT_READ:
        why = f"the interval reaches down to {NO_GAP:g}: not shown that answers come from the activations"
    return Finding(
        f"{task}/ignores activations", "fail", gap.value, NO_GAP, f"control gap {gap} nats per token: {why}."
    )


class Validator:
    """Scores the active adapter on fixed items; their activations and their shuffle are computed once.

    Raises:
        ValueError: no item has a partner to be shuffled with.
    """

    def __init__(
        self, model: Model, spec: OracleSpec, items: Sequence[TrainItem], encoder: Encoder, *, seed: int = 0
    ) -> None:
        partners = matched_partners(items, seed=seed)
        kept = [i for i, partner in enumerate(partners) if partner is not None]
        if not kept:
            raise ValueError(
                f"validation: none of {len(items)} items has a partner of another problem with the same task, layers "
                f"and number of positions, so no control can be computed. Hold more problems out."
            )
        self.model, self.spec, self.seed = model, spec, seed
        encoded = encoder(items)
        vectors = base_vectors(model, items, encoded)
        self.items: list[TrainItem] = [items[i] for i in kept]
        self.encoded: list[Encoded] = [encoded[i] for i in kept]
        self.real: list[Tensor] = [vectors[i] for i in kept]
        self.shuffled: list[Tensor] = [vectors[j] for i in kept if (j := partners[i]) is not None]

    def __call__(self, step: int) -> Validation:
        """The validation of the adapter as it is now."""
        was_training = self.model.module.training
        self.model.module.eval()
        real, shuffled = (
            score_answers(self.model, self.spec, self.encoded, vectors) for vectors in (self.real, self.shuffled)
        )
        self.model.module.train(was_training)
        columns = {
            "gap": shuffled.nll - real.nll,
            "nll": real.nll,
            "accuracy": torch.tensor(real.is_right).float(),
            "accuracy_shuffled": torch.tensor(shuffled.is_right).float(),
        }
        by_task: dict[str, list[int]] = defaultdict(list)
        for i, item in enumerate(self.items):
            by_task[item.task].append(i)
        tasks = {
            task: TaskScore(**{name: self._estimate(name, values, chosen) for name, values in columns.items()})
            for task, chosen in sorted(by_task.items())
        }
        return Validation(step, self._estimate("gap", columns["gap"], range(len(self.items))), tasks)

    def _estimate(self, name: str, values: Tensor, chosen: Sequence[int]) -> Estimate:
        groups = [self.items[i].problem for i in chosen]
        if len(set(groups)) < 2:  # no interval can be given
            return Estimate.undefined(len(groups), len(set(groups)))
        picked = [float(values[i]) for i in chosen]
        if name.startswith("accuracy"):
            return wilson_clustered(picked, groups=groups)
        return mean_over_problems(np.array(picked), groups)


def matched_partners(items: Sequence[TrainItem], *, seed: int = 0) -> list[int | None]:
    """For each item another one whose activations replace its own: same task, layers and count, another problem.

    Within a group of matching items sorted by problem, everyone takes the item `m` places further, m being the largest
    number of items of one problem: a derangement in which no item gets its own problem if m <= half of the group.
    None for items that meet it all the same.
    """
    groups: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for i, item in enumerate(items):
        groups[item.matching].append(i)
    out: list[int | None] = [None] * len(items)
    rng = Random(f"{seed}/partners")
    for members in groups.values():
        by_problem: dict[str, list[int]] = defaultdict(list)
        for i in members:
            by_problem[items[i].problem].append(i)
        problems = sorted(by_problem)
        rng.shuffle(problems)
        line = [i for problem in problems for i in by_problem[problem]]
        shift = max(map(len, by_problem.values()))
        for place, i in enumerate(line):
            j = line[(place + shift) % len(line)]
            out[i] = j if items[j].problem != items[i].problem else None
    return out
