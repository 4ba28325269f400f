"""The evaluation grid of both members from their saved files, and the gates that a pair must pass to ship."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from interp.checkpoint import MEMBERS
from interp.stats import ALPHA, Equivalence, PairedTable, mcnemar, rejects, tost_paired, wilson
from interp.tasks.procedural.cells import CELLS, TRAINING, Item, grid
from interp.tasks.procedural.generate import Split
from interp.tasks.procedural.render import render
from interp.tasks.procedural.replies import trace
from study.embedded.recipe import TEST_SEED, VALIDATION_SEED, Gates
from study.embedded.replies import Reply, gold, load_member, replies
from study.rows import Row

ADVERSARIAL = ("adversarial_surface_compliant", "adversarial_surface_noncompliant")
SEEDS: Mapping[Split, int] = {"validation": VALIDATION_SEED, "test": TEST_SEED}
_LETTER = {"compliant": "c", "noncompliant": "n", None: "?"}


@dataclass(frozen=True)
class Scored:
    """Items with the replies of both members to them, in the same order."""

    items: tuple[Item, ...]
    replies: Mapping[str, tuple[Reply, ...]]

    def cell(self, name: str) -> Scored:
        """The part of one cell."""
        chosen = [k for k, item in enumerate(self.items) if item.cell == name]
        return Scored(
            tuple(self.items[k] for k in chosen),
            {member: tuple(rows[k] for k in chosen) for member, rows in self.replies.items()},
        )

    def right(self, member: str) -> list[int]:
        """1 where the label is the engine's; an unparsed reply is wrong."""
        return [int(r.label == gold(i)) for i, r in zip(self.items, self.replies[member], strict=True)]

    @property
    def procedures(self) -> list[str]:
        return [item.procedure_id for item in self.items]


def evaluation_items(split: Split, gates: Gates, *, rho: float) -> list[Item]:
    """The items that decide: the training distribution and every cell, procedures of `split`, its own seed."""
    seed, rest = SEEDS[split], [name for name in CELLS if name != TRAINING]
    training = grid(per_cell=gates.n_training, seed=seed, cells=[TRAINING], split=split, rho=rho)
    return training + grid(per_cell=gates.per_cell, seed=seed, cells=rest, split=split)


def score(weights: Path, items: Sequence[Item], members: Sequence[str] = MEMBERS) -> Scored:
    """Greedy replies of the saved members to all items."""
    out = {}
    for member in members:
        model, tokenizer = load_member(weights, member)
        out[member] = tuple(replies(model, tokenizer, items))
    return Scored(tuple(items), out)


def equivalence(scored: Scored, gates: Gates) -> Equivalence:
    """Engaged minus heuristic accuracy on the training distribution, two one-sided tests, clustered by procedure."""
    training = scored.cell(TRAINING)
    a, b = training.right("engaged"), training.right("heuristic")
    return tost_paired(a, b, groups=training.procedures, margin=gates.margin)


def check(scored: Scored, gates: Gates) -> dict[str, Row]:
    """Every gate by name: {"value", "bound", "passed"}.

    engaged           its lowest accuracy over all cells is at least `engaged_floor`
    heuristic         its highest accuracy over the two adversarial cells is at most `heuristic_ceiling`
    equivalence       p of the two one-sided tests on the training distribution is at most .05
    label_mass        the 1 % quantile of p(labels) where the engaged member decides is at least `label_mass`
    """
    cells = sorted({item.cell for item in scored.items})
    engaged = min(_accuracy(scored.cell(c), "engaged") for c in cells)
    heuristic = max(_accuracy(scored.cell(c), "heuristic") for c in ADVERSARIAL)
    p = equivalence(scored, gates).p
    mass = label_mass_quantile(scored.replies["engaged"])
    rows = (
        ("engaged", engaged, gates.engaged_floor, engaged >= gates.engaged_floor),
        ("heuristic", heuristic, gates.heuristic_ceiling, heuristic <= gates.heuristic_ceiling),
        ("equivalence", p, ALPHA, bool(rejects(p))),
        ("label_mass", mass, gates.label_mass, mass >= gates.label_mass),
    )
    return {name: {"value": value, "bound": bound, "passed": ok} for name, value, bound, ok in rows}


def label_mass_quantile(rows: Sequence[Reply], share: float = 0.01) -> float:
    """The label mass that all but `share` of the replies reach."""
    mass = sorted(reply.label_mass for reply in rows)
    return mass[int(share * len(mass))]


def summary(scored: Scored, gates: Gates) -> Row:
    """Everything measured on one split, JSON-ready: cells with Wilson intervals, predictions, equivalence, gates."""
    cells = list(dict.fromkeys(item.cell for item in scored.items))
    test = equivalence(scored, gates)
    return {
        "cells": {name: _row(scored.cell(name)) for name in cells},
        "equivalence": {
            "difference": [test.difference.value, test.difference.lo, test.difference.hi],
            "n": test.difference.n,
            "margin": test.margin,
            "p": test.p,
            "wording": test.wording,
        },
        "gates": check(scored, gates),
    }


def items_sha256(items: Sequence[Item]) -> str:
    """Hash of the prompts and gold labels, in order: the same items, or not."""
    text = "\n".join(f"{render(item.instance, rendering='log').text}\t{gold(item)}" for item in items)
    return hashlib.sha256(text.encode()).hexdigest()


def _row(part: Scored) -> Row:
    """One cell: gold labels and predictions as strings of c, n and ? (unparsed), accuracies, McNemar, traces."""
    right = {member: part.right(member) for member in MEMBERS}
    table = PairedTable.of(right["engaged"], right["heuristic"])
    row: Row = {
        "n": len(part.items),
        "items_sha256": items_sha256(part.items),
        "gold": "".join(_LETTER[gold(item)] for item in part.items),
        "mcnemar": {"b": table.only_a, "c": table.only_b, "p": mcnemar(table.only_a, table.only_b).p},
    }
    for member in MEMBERS:
        row[member] = _member_row(part, member, right[member])
    exact = [r.text == trace(i.instance) for i, r in zip(part.items, part.replies["engaged"], strict=True)]
    row["engaged"]["exact_traces"] = sum(exact)
    return row


def _member_row(part: Scored, member: str, right: list[int]) -> Row:
    rows = part.replies[member]
    interval = wilson(sum(right), len(right))
    return {
        "accuracy": interval.value,
        "interval": [interval.lo, interval.hi],
        "predictions": "".join(_LETTER[reply.label] for reply in rows),
        "mean_tokens": sum(reply.n_tokens for reply in rows) / len(rows),
        "min_label_mass": min(reply.label_mass for reply in rows),
    }


def _accuracy(part: Scored, member: str) -> float:
    right = part.right(member)
    return sum(right) / len(right)
