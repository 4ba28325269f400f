"""The evaluation grid: every original once in each cell, so that the cells form minimal pairs.

Item k of every cell but one comes from original k of the seed. Edits draw from a generator seeded by (seed, split,
cell, k), so the items of a cell depend neither on which other cells are asked for nor on how many items are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from random import Random

from interp.remedy import did_you_mean
from interp.tasks.procedural.documents import training_instances
from interp.tasks.procedural.engine import audit
from interp.tasks.procedural.generate import DEFAULT, GeneratorConfig, Split, originals, split_of
from interp.tasks.procedural.latent import Instance, procedure_id
from interp.tasks.procedural.perturb import PERTURBATIONS, Perturbation, parent_of
from interp.tasks.procedural.vocabulary import DISTRACTORS, TONES, tones

MAX_PER_CELL = 100_000
TRAINING = "training_distribution"
CELLS: tuple[str, ...] = (TRAINING, *PERTURBATIONS)
_ROLE_OF = {"baseline": "control", "adversarial": "adversarial"}
CELL_ROLES: dict[str, str] = {TRAINING: "training"} | {
    cell: _ROLE_OF.get(cell.split("_")[0], "perturbed")
    for cell in (*PERTURBATIONS, *(p.name for p in PERTURBATIONS.values()))
}
"""What every cell of the grid, and every published perturbation, is for: the column `cell_role` of tables."""


@dataclass(frozen=True, slots=True)
class Item:
    """An instance of a cell, with what it was made from.

    Attributes:
        cell: key of the row in the table, or "training_distribution".
        name, variant: name and variant of the row.
        index: which original of the stream.
        instance, parent: the item and what its edit was applied to; None for an original and in the training
            distribution.
        pair_id: shared by an original and everything made from it.
        procedure_id: procedure of the original.
    """

    cell: str
    name: str
    variant: str
    index: int
    instance: Instance
    parent: Instance | None
    pair_id: str
    procedure_id: str


def grid(
    *,
    per_cell: int,
    seed: int,
    sizes: Mapping[str, int] | None = None,
    cells: Sequence[str] | None = None,
    split: Split = "test",
    config: GeneratorConfig = DEFAULT,
    rho: float = 0.97,
    table: Mapping[str, Perturbation] = PERTURBATIONS,
) -> list[Item]:
    """`per_cell` items of each cell, cell after cell; a longer run of a cell begins with the shorter one.

    Args:
        per_cell: items per cell.
        seed: seed of all random choices.
        sizes: cell -> items of it instead of `per_cell`.
        cells: names out of `CELLS`; None takes all.
        split: whose procedures.
        config: how originals are drawn.
        rho: reliability of the tone in the training distribution.
        table: rows to use instead of `PERTURBATIONS`.
    Raises:
        ValueError: an unknown cell; fewer than 1 item; a row whose edit contradicts its declared flip.
    """
    names = (TRAINING, *table) if cells is None else tuple(cells)
    check_cells(names, table)
    n_of = dict.fromkeys(names, per_cell) | check_sizes(sizes or {}, names)
    if per_cell < 1:
        raise ValueError(f"per_cell: expected at least 1, got {per_cell}.")
    stream = originals(Random(f"{seed}/{split}/originals"), split=split, config=config)
    bases = list(islice(stream, max((n_of[name] for name in names if name != TRAINING), default=0)))
    out: list[Item] = []
    for name in names:
        if name == TRAINING:
            out += training_items(n_of[name], seed=seed, split=split, config=config, rho=rho)
        else:
            key, some = f"{seed}/{split}", bases[: n_of[name]]
            out += [item(base, name, k, key=key, split=split, table=table) for k, base in enumerate(some)]
    return out


def item(
    base: Instance,
    cell: str,
    index: int,
    *,
    key: str,
    split: Split | None = None,
    table: Mapping[str, Perturbation] = PERTURBATIONS,
    attempt: int = 0,
) -> Item:
    """Original `base` in one cell.

    Rows with the same kind of parent get the same parent. In the train split, paraphrases, tones and distractors are
    taken from the training side of the lexical split. Another `attempt` draws another edit of the same parent.
    """
    row = table[cell]
    parent = parent_of(Random(f"{key}/{row.parent}/{index}"), base, row)
    again = f"/{attempt}" if attempt else ""
    instance = row.edit(Random(f"{key}/{cell}/{index}{again}"), parent)
    before, after = audit(parent).label, audit(instance).label
    if (before != after) != row.flips:
        declared = "flips the label" if row.flips else "keeps the label"
        raise ValueError(f"perturbation '{cell}': declared that it {declared}; the engine says {before} -> {after}.")
    procedure = procedure_id(base.procedure)
    if (split or split_of(procedure)) == "train":
        instance = training_words(instance)
    return Item(
        cell,
        row.name,
        row.variant,
        index,
        instance,
        _source(instance, parent, base),
        f"{procedure}-{key.replace('/', '-')}-{index}",
        procedure,
    )


def _source(instance: Instance, parent: Instance, base: Instance) -> Instance | None:
    """What an item differs from: its parent, the original where the edit is empty, None for the original itself."""
    if instance != parent:
        return parent
    return base if parent != base else None


def training_items(
    n: int, *, seed: int, split: Split, config: GeneratorConfig = DEFAULT, rho: float = 0.97
) -> Iterator[Item]:
    """Items of the training distribution: unpaired, half of each label, tone right with probability rho."""
    drawn = training_instances(Random(f"{seed}/{split}/{TRAINING}"), n, rho=rho, split=split, config=config)
    for k, instance in enumerate(drawn):
        key = procedure_id(instance.procedure)
        yield Item(TRAINING, TRAINING, "", k, instance, None, f"{key}-{seed}-{split}-t{k}", key)


def training_words(instance: Instance) -> Instance:
    """The instance with held-out wordings, tones and distractors replaced by those that training text may use.

    The log rendering knows one synonym per action, so there both sides read alike.
    """
    scenario = instance.scenario
    events = tuple(replace(e, wording="alt") if e.wording == "held_out" else e for e in scenario.events)
    tone = scenario.tone
    if TONES[tone].held_out:
        choices = tones(TONES[tone].polarity, held_out=False)
        tone = choices[len(events) % len(choices)]
    free = [i for i, d in enumerate(DISTRACTORS) if not d.held_out]
    moved = tuple(
        (at, free[(i + k) % len(free)] if DISTRACTORS[i].held_out else i)
        for k, (at, i) in enumerate(scenario.distractors)
    )
    return replace(instance, scenario=replace(scenario, events=events, tone=tone, distractors=moved))


def check_cells(names: Sequence[str], table: Mapping[str, Perturbation] = PERTURBATIONS) -> None:
    """Raise ValueError for a name that is no cell, with the nearest one."""
    cells = (TRAINING, *table)
    for name in names:
        if name not in cells:
            raise ValueError(f"cell '{name}': expected one of {', '.join(cells)}.{did_you_mean(name, cells)}")


def check_sizes(sizes: Mapping[str, int], cells: Collection[str]) -> dict[str, int]:
    """The sizes of single cells, if each is one of `cells` and has at least 1 item and at most `MAX_PER_CELL`.

    Raises:
        ValueError: anything else, with the nearest cell.
    """
    if not isinstance(sizes, Mapping):
        raise ValueError(f"sizes {sizes!r}: expected a number of items for some cells, e.g. {{{TRAINING}: 480}}.")
    for name, n in sizes.items():
        if name not in cells:
            raise ValueError(f"sizes: '{name}': expected one of {', '.join(cells)}.{did_you_mean(str(name), cells)}")
        if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= MAX_PER_CELL:
            raise ValueError(f"sizes: {name}: expected a whole number from 1 to {MAX_PER_CELL:,}, got {n!r}.")
    return dict(sizes)
