"""What the n of a study can show, for every claim that is named before the run; no weights and no answers are read.

The spread of an effect is not known before a run: it is assumed (`Assumed`), and every line says what was. Sizes are
those of the study file: items of a cell, pairs of heads, rows of the cache, held-out items of a direction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from math import inf
from typing import TYPE_CHECKING, Any

from interp.stats.intervals import POWER
from interp.stats.power import (
    AurocClaim,
    DifferenceClaim,
    EquivalenceClaim,
    FamilyClaim,
    MeanClaim,
    RateClaim,
    StudySize,
)
from study.reach import Design
from study.rows import Row
from study.task_options import read_once

if TYPE_CHECKING:
    from interp.family import Layout
    from interp.prompt import Example
    from interp.tasks.protocol import Task
    from study.config import Study
    from study.option_types import Where

N_UNKNOWN = 100
"""Items that a size is made of where the data cannot be read; only the n that is needed is then given."""


@dataclass(frozen=True)
class Assumed:
    """What a plan assumes of data that nobody has seen.

    Attributes:
        discordance: share of items that exactly one of two equal members has right.
        accuracy:    of the better member.
        icc:         intraclass correlation of the items of a group, of what is averaged.
        head_sd:     standard deviation over pairs of the effect of a head, in logits.
        slope_sd:    over items of the slope of a dose curve, per unit of alpha.
        gap_sd:      over readings of an oracle's gap, in nats.
        n_layers, n_heads: of a model whose configuration cannot be read.
    """

    discordance: float = 0.1
    accuracy: float = 0.9
    icc: float = 0.1
    head_sd: float = 1.0
    slope_sd: float = 1.0
    gap_sd: float = 1.0
    n_layers: int = 28
    n_heads: int = 784

    @classmethod
    def of(cls, words: Sequence[str]) -> Assumed:
        """From `key=value` words.

        Example:
            >>> Assumed.of(["icc=0.2", "n_heads=144"]).icc
            0.2

        Raises:
            ValueError: another key, or a value that is no number.
        """
        known = {field.name: type(field.default) for field in fields(cls)}
        values: Row = {}
        for word in words:
            key, _, text = word.partition("=")
            if key not in known:
                raise ValueError(f"--assume {word}: expected one of {', '.join(known)} with a value, e.g. icc=0.2.")
            try:
                values[key] = known[key](text)
            except ValueError:
                raise ValueError(f"--assume {word}: expected a number after {key}=, got {text!r}.") from None
        return cls(**values)


@dataclass(frozen=True)
class PlannedClaim:
    """A claim that is named before the run.

    Attributes:
        design: how it will be tested; None where that cannot be known before.
        why:    of a claim without a design, or whose n is not known.
    """

    key: str
    text: str
    design: Design | None
    why: str = ""


@read_once()
def planned_power(study: Study, assumed: Assumed = Assumed()) -> tuple[PlannedClaim, ...]:
    """Every claim that the study names before it is run, with the design that its n gives it.

    In a notebook: `for one in planned_power(read_study("study.yaml")): print(one.text, one.design.smallest())`.
    """
    from study.analyses.registry import analysis

    texts, members = _texts(study), list(study.members)
    own: dict[str, Design] = {}
    for name in study.added:
        if (designs := analysis(name).designs) is not None:
            own |= designs(study, members)
    out: list[PlannedClaim] = []
    made: Row = {}
    for key, text in texts.items():
        family = key.split("/")[0]
        if key in own or family not in _DESIGNS:
            out.append(PlannedClaim(key, text, own.get(key), "" if key in own else "its analysis gives no design"))
            continue
        try:
            design = _DESIGNS[family](study, assumed, key, made)
            out.append(PlannedClaim(key, text, design))
        except (ValueError, OSError) as error:
            out.append(PlannedClaim(key, text, None, str(error).splitlines()[0]))
    return tuple(out)


def _texts(study: Study) -> dict[str, str]:
    """Key -> text of every planned claim; where no configuration can be read, layers to steer as the file has them."""
    from study.report.registration import planned_claims

    try:
        return planned_claims(study)
    except (ValueError, OSError):
        section = study.steering
        if section is None or section.layers is None:
            raise
    members = section.members if study.pair else tuple(study.members)
    return planned_claims(replace(study, steering=None)) | {
        f"steering/margin/{member}/{word}": f"a direction at layer {word} raises the margin toward {section.toward} in "
        f"the {member} member" for member in members for word in section.layers
    }  # fmt: skip


def _eval(study: Study, assumed: Assumed, key: str, made: Row) -> Design:
    from interp.tasks.protocol import cell_role, load_task
    from study.analyses.eval.claims import ADVERSARIAL, BINDING, EQUIVALENT, TRAINING
    from study.analyses.items import examples_of

    if "cells" not in made:
        cells: dict[str, list[Example]] = {}
        for example in examples_of(study, study.eval):
            cells.setdefault(str(example.metadata.get("cell", "all")), []).append(example)
        made["cells"] = cells
    task = load_task(study.task.path)
    if key == BINDING:
        swapped = [e for name, items in made["cells"].items() if name.startswith("ord_swap") for e in items]
        size, where = _size(swapped[: len(swapped) // 2], task, assumed), "half of the order-swapped twins flip"
        return Design(RateClaim(0.5), size, study.smallest_effects.accuracy, given=where, unit="of a rate")
    role = TRAINING if key == EQUIVALENT else ADVERSARIAL
    own = {name: items for name, items in made["cells"].items() if cell_role(task, name) == role}
    if not own:
        raise ValueError(f"no items of a {role} cell")
    cell = min(own, key=lambda name: len(own[name]))
    size, given = _size(own[cell], task, assumed), f"{cell.replace('_', ' ')}; discordance {assumed.discordance:g}"
    if key == EQUIVALENT:
        equal = EquivalenceClaim(assumed.discordance, accuracy=assumed.accuracy)
        return Design(equal, size, study.claim_margin, given=given, unit="of a rate", is_equivalence=True)
    difference = DifferenceClaim(assumed.discordance, assumed.accuracy)
    return Design(difference, size, study.smallest_effects.accuracy, given=given, unit="of a rate")


def _heads(study: Study, assumed: Assumed, key: str, made: Row) -> Design:
    from interp.heads.ids import expand_heads
    from interp.heads.pairs import group_of
    from interp.tasks.protocol import hook, load_task
    from study.analyses.heads.step import items

    _, kind, *_, member = key.split("/")
    if "pairs" not in made:
        made["pairs"] = items(study)
    pairs: list[Any] = made["pairs"]
    if kind == "carries":  # twins that flip the answer; the others are its control
        pairs = [pair for pair in pairs if pair[0].label != pair[1].label]
    name = hook(load_task(study.task.path), "GROUP")
    changed = [pair[1] if isinstance(pair, tuple) else pair for pair in pairs]
    size = _size_of([group_of(one, name) or one.id for one in changed], assumed)
    layout = _layout(study, member)
    heads = assumed.n_heads if layout is None else len(expand_heads("all", layout))
    given = f"over {heads} heads; sd of {assumed.head_sd:g} logit"
    claim = FamilyClaim(sd=assumed.head_sd, family=heads)
    return Design(claim, size, study.smallest_effects.logits, given=given, unit="logits")


def _probes(study: Study, assumed: Assumed, key: str, made: Row) -> Design:
    from study.analyses.annotated import is_answer
    from study.analyses.items import examples_of

    section = study.probes
    assert section is not None
    _, kind, target, member, *_ = key.split("/")
    if "rows" not in made:
        made["rows"] = examples_of(study, study.cache)
    rows: list[Example] = made["rows"]
    rows = _kept(rows, section.where, "probes.where")
    groups = [one.groups.get(section.groups, one.id) for one in rows] if section.groups else []
    size = _size_of(groups, assumed, len(rows))
    layout = _layout(study, member)
    layers = 1 if kind == "transfer" else assumed.n_layers if layout is None else _n_sites(study, layout)
    given = f"over {layers} sites" if layers > 1 else "at one site"
    given += "; classes of equal size" + ("; all rows are of a class" if is_answer(target) else "")
    return Design(AurocClaim(family=layers), size, study.smallest_effects.auroc, given=given, unit="AUROC above 0.5")


def _kept(rows: list[Example], where: Where, option: str) -> list[Example]:
    """The rows that meet every condition but those on answers, which nobody knows yet."""
    from interp.where import columns_of, examples_where
    from study.analyses.annotated import is_answer

    if isinstance(where, Mapping):
        where = {name: values for name, values in where.items() if not is_answer(name)}
    else:
        where = tuple(word for word in where if not any(map(is_answer, columns_of((word,)))))
    return examples_where(rows, where, option=option) if where else rows


def _n_sites(study: Study, layout: Layout) -> int:
    from interp.site import match_sites
    from study.analyses.named import cached_positions, cached_sites

    assert study.probes is not None
    sites = len(match_sites(study.probes.sites, cached_sites(study, layout)))
    named = len(cached_positions(study)) if study.probes.positions == "*" else len(study.probes.positions.split(","))
    return max(sites * named, 1)


def _steering(study: Study, assumed: Assumed, key: str, made: Row) -> Design:
    from study.analyses.items import examples_of

    section = study.steering
    assert section is not None
    if "steered" not in made:
        made["steered"] = examples_of(study, study.cache)
    rows: list[Example] = made["steered"]
    rows = _kept(rows, section.where, "steering.where")
    groups = [one.groups.get(section.groups, one.id) for one in rows]
    held_out = max(2, round(section.test_share * len(set(groups))))
    n = round(len(groups) * held_out / len(set(groups)))
    n = n if section.limit is None else min(n, section.limit)
    size = StudySize(max(n, held_out), None if held_out >= n else held_out, 0.0 if held_out >= n else assumed.icc)
    is_margin = key.split("/")[1] == "margin"
    effects = study.smallest_effects
    return Design(MeanClaim(sd=assumed.slope_sd), size, effects.margin_slope if is_margin else effects.rate_slope,
                  given=f"held-out items; sd of {assumed.slope_sd:g}; the interval alone",
                  unit="logits per unit of alpha" if is_margin else "rate per unit of alpha")  # fmt: skip


def _oracle(study: Study, assumed: Assumed, key: str, made: Row) -> Design:
    from study.analyses.items import examples_of
    from study.analyses.oracle.step import _targets

    section = study.oracle
    assert section is not None
    question = next(q for q in section.questions if q.name == key.split("/")[2])
    if question.readings is not None:
        size = StudySize(section.limit or N_UNKNOWN)
        given = "" if section.limit else f"n is known when readings are made; {N_UNKNOWN} readings"
    else:
        examples = examples_of(study, chains=True)
        problem = {one.id: one.groups.get(section.groups, one.id) if section.groups else one.id for one in examples}
        size = _size_of([problem[item] for item, _ in _targets(question, examples)][: section.limit], assumed)
        given = ""
    given = "; ".join(filter(None, (given, f"sd of {assumed.gap_sd:g} nat; the interval alone")))
    return Design(MeanClaim(sd=assumed.gap_sd), size, study.smallest_effects.nats, given=given, unit="nats")


_DESIGNS: Mapping[str, Callable[[Study, Assumed, str, Row], Design]] = {
    "eval": _eval, "heads": _heads, "probes": _probes, "steering": _steering, "oracle": _oracle,
}  # fmt: skip
"""First word of the key of a claim -> its design."""


def _layout(study: Study, member: str) -> Layout | None:
    """Of a member; None where its configuration is not on this disk."""
    from study.analyses.shapes import layout_of

    try:
        return layout_of(study, study.members[member])
    except (ValueError, OSError, KeyError):
        return None


def _size(items: Sequence[Example], task: Task, assumed: Assumed) -> StudySize:
    """Items by the task's independent unit."""
    from interp.heads.pairs import group_of
    from interp.tasks.protocol import hook

    return _size_of([group_of(one, hook(task, "GROUP")) or one.id for one in items], assumed)


def _size_of(groups: Sequence[str], assumed: Assumed, n: int = 0) -> StudySize:
    """The size of items with these groups."""
    n, units = len(groups) or n, len(Counter(groups))
    if n < 2:
        raise ValueError(f"{n} items")
    return StudySize(n) if units in (0, n) else StudySize(n, max(units, 2), assumed.icc)


def power_lines(study: Study, *, power: float | None = None, assumed: Assumed = Assumed()) -> list[str]:
    """What every planned claim can show, as a text table; with `power` also the n that its effect of interest takes.

    Args:
        power: share of studies that are to show an effect; None is 0.8, without the n that is needed.
    """
    from study.text import aligned

    share = POWER if power is None else power
    head = ["claim", "n", f"shown in {100 * share:.3g} %", "of interest", *(["n needed"] if power else []), "given"]
    lines = [head]
    for one in planned_power(study, assumed):
        if one.design is None:
            lines.append([one.text, "", "", "", *([""] if power else []), f"not known before the run: {one.why}"])
            continue
        lines.append(_line(one, one.design, share, with_n=power is not None))
    if len(lines) == 1:
        return []
    note = (
        "of interest: smallest_effects and claim_margin of the study; a claim whose n shows only larger effects is "
        "reported as “not testable” unless it is shown. The correction over the report asks for somewhat more."
    )
    return ["what this study can show", aligned(lines), note]


def _line(one: PlannedClaim, design: Design, power: float, *, with_n: bool) -> list[str]:
    smallest, size = design.smallest(power), design.size
    n = f"{size.n:,}" + (f" in {size.n_groups:,}" if size.n_groups else "")
    effect = "no effect" if smallest == inf else f"{smallest:.2g} {design.unit}"
    if design.is_equivalence:
        margin = "no margin" if smallest == inf else f"equality within {smallest:.2g}"
        effect = margin + ("" if smallest <= design.interest else ": not at the margin")
    icc = f"; icc {size.icc:g}" if size.icc else ""
    n_needed = design.needed(power) if with_n else None
    needed = [] if not with_n else ["no n suffices" if n_needed is None else f"{n_needed:,}"]
    return [one.text, n, effect, f"{design.interest:g}", *needed, design.given + icc]
