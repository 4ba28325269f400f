"""Outcomes of every row of a dose sweep: columns that are summed over items, and scores computed from the sums."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from steering.dose import DoseItem, DoseOutcome

_BLOCK = 64
ANY = (-np.inf, np.inf)
SIDE_WORDS = {"stereotype": "stereo", "anti_stereotype": "anti", "anti-stereotype": "anti", "abstain": "unknown"}


class Score(NamedTuple):
    """A number from sums over items.

    Attributes:
        value:  function of the sums.
        n:      columns whose sum is its n.
        bounds: smallest and largest possible value.
        start:  value at strength 0 by definition, without an interval; None if it is measured.
    """

    value: Callable[[Mapping[str, Any]], Any]
    n: Sequence[str]
    bounds: tuple[float, float] = ANY
    start: float | None = None


def bounds_of(score: Any) -> tuple[float, float]:
    """Smallest and largest value of a score; infinite if it declares none."""
    return getattr(score, "bounds", ANY)


def _mean(column: str, of: str, bounds: tuple[float, float] = ANY) -> Score:
    return Score(lambda sums: sums[column] / sums[of], (of,), bounds)


RATE = (0.0, 1.0)
GENERAL = {
    "accuracy": _mean("correct", "has_gold", RATE),
    "p_gold": _mean("p_gold", "has_gold", RATE),
    "coverage": _mean("top", "n", RATE),
    "label_mass": _mean("mass", "n", RATE),
    "margin": _mean("margin", "has_sides"),
    "kl": Score(lambda sums: sums["kl"] / sums["n"], ("n",), start=0.0),
}
"""Of every task. accuracy: the likeliest label is right; p_gold: its probability among the labels; coverage: the
likeliest of all tokens begins a label; label_mass: probability of all labels; margin: log p(toward) - log p(away),
nats; kl: KL(p₀ ‖ p) at the last token, nats."""


@dataclass(frozen=True, eq=False)
class Outcomes:
    """The scores of a task, and how its columns are computed.

    A task's module may define `choice_columns(examples, logp[example, row, label])`, `CHOICE_METRICS` and
    `sides(example)`; the scores of `GENERAL` come for every task, `coverage` under the name `parse_rate` where the task
    has a coverage of its own.

    Attributes:
        toward, away: names of the two sides that the direction was fitted between; several of a side joined by "+".
    """

    scores: Mapping[str, Any]
    columns: Callable[[Sequence[Any], Float[np.ndarray, "example row label"]], dict[str, np.ndarray]] | None
    sides: Callable[[Any], Mapping[str, tuple[int, ...]]] | None
    toward: str = ""
    away: str = ""

    @classmethod
    def of(cls, task: Any, *, toward: str = "", away: str = "") -> Outcomes:
        """The outcomes of a task's module (or of None: `GENERAL` alone)."""
        own = dict(getattr(task, "CHOICE_METRICS", {}))
        general = {
            ("parse_rate" if name == "coverage" and "coverage" in own else name): s for name, s in GENERAL.items()
        }
        if "acc_ambig" in own:
            general["kl_disambig"] = Score(lambda sums: sums["d_kl"] / sums["d_rows"], ("d_rows",), start=0.0)
        columns, sides = getattr(task, "choice_columns", None), getattr(task, "sides", None)
        return cls(general | own, columns, sides, toward, away)

    def sides_of(self, item: DoseItem) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(labels that +alpha should make more likely, labels that it should make less likely); empty if not known.

        Uses the names of sides or labels if the item has them; the gold label against the others only if the task has
        no sides and none was named. An item without the named sides has no margin: with gold in their place it would go
        up in one item and down in the next.
        """
        labels_of = {label: (k,) for k, label in enumerate(item.labels)}
        labels_of |= dict(self.sides(item.example)) if self.sides is not None else {}
        up, down = (
            tuple(k for part in name.split("+") for k in labels_of.get(SIDE_WORDS.get(part, part), ()))
            for name in (self.toward, self.away)
        )
        if self.sides is not None or self.toward or self.away:
            return up, down
        if item.gold is None:
            return (), ()
        return (item.gold,), tuple(k for k in range(len(item.labels)) if k != item.gold)

    def of_block(self, items: Sequence[DoseItem], outcomes: Sequence[DoseOutcome]) -> dict[str, np.ndarray]:
        """Columns [example, row] of a block of items."""
        parts = [self._general(item, outcome) for item, outcome in zip(items, outcomes, strict=True)]
        columns = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
        if self.columns is not None:
            logp = np.stack([outcome.logp for outcome in outcomes])
            columns |= self.columns([item.example for item in items], logp)
        if "kl_disambig" in self.scores:
            columns["d_kl"] = columns["kl"] * columns["d_rows"]
        return columns

    def _general(self, item: DoseItem, outcome: DoseOutcome) -> dict[str, np.ndarray]:
        logp, ones = outcome.logp, np.ones(len(outcome.logp))
        gold, margin = item.gold, self.margin(item, outcome)
        relative = np.exp(logp - np.logaddexp.reduce(logp, axis=1, keepdims=True))
        out = {"n": ones, "top": outcome.top, "mass": np.exp(logp).sum(axis=1), "kl": outcome.kl}
        out |= {"has_gold": ones * (gold is not None), "has_sides": ones * (margin is not None)}
        out["correct"] = (logp.argmax(axis=1) == gold).astype(float) if gold is not None else 0 * ones
        out["p_gold"] = relative[:, gold] if gold is not None else 0 * ones
        out["margin"] = margin if margin is not None else 0 * ones
        return out

    def margin(self, item: DoseItem, outcome: DoseOutcome) -> Float[np.ndarray, "row"] | None:
        """log p(toward) - log p(away) of every row, nats, which + should raise; None without known sides."""
        up, down = self.sides_of(item)
        if not up or not down:
            return None
        first, second = (np.logaddexp.reduce(outcome.logp[:, list(side)], axis=1) for side in (up, down))
        return first - second


@dataclass(frozen=True, eq=False)
class GroupSums:
    """Sums of every column over the items of each group, from which all statistics are computed.

    Attributes:
        sums: column name -> sums [group, row].
        groups: names, in the order of the axis.
    """

    sums: Mapping[str, Float[np.ndarray, "group row"]]
    groups: tuple[str, ...]
    n_items: int

    def stack(self, names: Iterable[str]) -> Float[np.ndarray, "group row column"]:
        return np.stack([self.sums[name] for name in names], axis=-1)


def group_sums(kind: Outcomes, items: Sequence[DoseItem], outcomes: Sequence[DoseOutcome]) -> GroupSums:
    """Sums inside each group, a block of items at a time."""
    names, codes = np.unique([item.group for item in items], return_inverse=True)
    total: dict[str, np.ndarray] = {}
    for start in range(0, len(items), _BLOCK):
        part = slice(start, start + _BLOCK)
        for name, values in kind.of_block(items[part], outcomes[part]).items():
            into = total.setdefault(name, np.zeros((len(names), values.shape[1])))
            np.add.at(into, codes[part], values)
    return GroupSums(total, tuple(names.tolist()), len(items))


def prompted_sums(kind: Outcomes, items: Sequence[DoseItem], outcomes: Sequence[DoseOutcome]) -> GroupSums | None:
    """The same for the prompt baseline, as row 1 next to the unchanged run; None if no item has one."""
    from dataclasses import replace

    if np.isnan([outcome.prompted[0] for outcome in outcomes]).any():
        return None
    both = [
        replace(
            one,
            logp=np.stack([one.logp[0], one.prompted[:-1]]),
            top=np.array([one.top[0], one.prompted[-1]]),
            kl=np.zeros(2),
        )
        for one in outcomes
    ]
    return group_sums(kind, items, both)


def margins(kind: Outcomes, items: Sequence[DoseItem], outcomes: Sequence[DoseOutcome]) -> tuple[np.ndarray, list[str]]:
    """(margin of every item that has sides [example, row], its group)."""
    pairs = [(kind.margin(item, one), item.group) for item, one in zip(items, outcomes, strict=True)]
    kept = [(margin, group) for margin, group in pairs if margin is not None]
    n_rows = len(outcomes[0].kl)
    return np.array([m for m, _ in kept]).reshape(-1, n_rows), [group for _, group in kept]
