"""The task that the evaluator runs: examples, generated or the user's, and what a reply to one of them is worth."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Literal, cast

from interp.prompt import Example, Message
from interp.remedy import did_you_mean, remedy
from interp.tasks.procedural.cells import CELLS, MAX_PER_CELL, TRAINING, check_sizes, grid
from interp.tasks.procedural.generate import Split
from interp.tasks.procedural.perturb import PERTURBATIONS, Perturbation, cell_name
from interp.tasks.procedural.records import Record, from_row, perturbation_names, record_of
from interp.tasks.procedural.render import (
    LOG_TEMPLATE,
    PLAIN_TEMPLATE,
    RENDERINGS,
    Rendered,
    Rendering,
    compose,
    event_spans,
    step_spans,
)
from interp.tasks.procedural.render import render as render_text
from interp.tasks.procedural.replies import check_signals
from interp.tasks.records import read_rows
from interp.tasks.row_files import check_new

DEFAULT_PER_CELL = 100
_METADATA = ("perturbation", "variant", "split", "surface_label", "flips_label", "flipping", "parent_id", "accept")
_METADATA += ("rendering", "trace", "verdicts")


def examples(
    data: str | Path | None = None,
    *,
    per_cell: int | None = None,
    sizes: Mapping[str, int] | None = None,
    seed: int = 0,
    rendering: Rendering = "plain",
    cells: Sequence[str] | None = None,
    split: Split | Literal["all"] = "test",
    question: str | None = None,
    template: str | None = None,
    table: Mapping[str, Perturbation] = PERTURBATIONS,
    signals: Mapping[str, str] | None = None,
) -> list[Example]:
    """The examples of the grid, or those of a file of records.

    Every example is one user message: procedure, scenario, question, in that order, and no system message.

    Args:
        data: a file or folder of records (`records.Record`); None generates.
        per_cell: items per cell; None generates 100, or takes every row of the file. Of a file, a seeded choice in
            file order.
        sizes: cell -> items of it instead of `per_cell`, such as {"training_distribution": 480}.
        seed: seed of the generated items, or of the choice among items of a file.
        rendering: rendering of generated items.
        cells: names out of `cells.CELLS`, or, for a file, of cells or perturbations; None takes all.
        split: whose procedures; of a file, rows that name another split are left out, rows that name none are kept.
            "all" takes every row.
        question: asked instead of that of the rendering or of the file.
        template: text with the fields {procedure}, {scenario} and {question}; None takes that of the rendering.
        table: perturbations to use instead of `PERTURBATIONS`.
        signals: what the `[SIG=...]` signals of your own traces mean: name -> one of `replies.SIGNALS`, such as
            {"VERIFY STEP": "CHECK"}. Replies are read with it; prompts are the same.
    Raises:
        ValueError: a bad row (file, line, field), a name that is no cell, a count below 1, a template without its
            fields, nothing left.

    Example:
        >>> (example,) = examples(per_cell=1, seed=0, cells=["step_reorder_invalid"])
        >>> example.label, sorted(example.spans)[:3]
        ('noncompliant', ['event_1', 'event_2', 'event_3'])
    """
    if template is not None:
        _check_template(template)
    check_signals(signals or {})
    worded = {"template": template, "signals": signals}
    if data is not None:
        records = load_records(data, table=table)
        chosen = _choose(
            records, data, per_cell=per_cell, sizes=sizes or {}, seed=seed, cells=cells, split=split, table=table
        )
        return [example_of(r, cell=_cell(r, table), question=question, **worded) for r in chosen]
    if split == "all":
        raise ValueError("split 'all': expected train, validation or test for generated items; 'all' is for a file.")
    n = DEFAULT_PER_CELL if per_cell is None else per_cell
    if n > MAX_PER_CELL:
        raise ValueError(f"per_cell {n:,}: expected at most {MAX_PER_CELL:,} items of each cell. Ask for fewer.")
    items = grid(per_cell=n, sizes=sizes, seed=seed, cells=cells, split=split, table=table)
    rows = [(i, record_of(i, rendering=rendering, question=question)) for i in items]
    return [example_of(r, id=f"{i.cell}-{i.index:05d}-{r.id[:8]}", cell=i.cell, **worded) for i, r in rows]


def load_records(data: str | Path, *, table: Mapping[str, Perturbation] = PERTURBATIONS) -> list[Record]:
    """The records of a file, a folder or a dataset id, in order.

    Raises:
        ValueError: a bad row or a repeated id, with file, line, field, what it got and what to do.
    """
    names = (*perturbation_names(), *(row.name for row in table.values()))
    seen: dict[str, str] = {}
    out = []
    for where, row in read_rows(data):
        record = from_row(row, where, known=tuple(dict.fromkeys(names)))
        check_new(seen, record.id, where, "id", "Drop one of the equal texts, or give both an 'id'.")
        out.append(record)
    return out


def example_of(
    record: Record,
    *,
    id: str | None = None,
    cell: str | None = None,
    question: str | None = None,
    template: str | None = None,
    signals: Mapping[str, str] | None = None,
) -> Example:
    """A record as an example, with the spans procedure, step_1.., scenario, event_1.., question (and tone if known).

    Spans are exact for generated items; of other texts, steps are numbered lines and events are sentences.
    """
    text = _worded(record, question or record.question, template)
    groups = {"procedure": record.procedure_id, "pair": record.pair_id, "domain": record.domain}
    groups |= {"institution": record.institution, "cohort": record.cohort}
    metadata: dict[str, object] = {name: getattr(record, name) for name in _METADATA}
    metadata |= {"signals": json.dumps(signals, ensure_ascii=False)} if signals else {}
    return Example(
        id=id or record.id,
        messages=(Message("user", text.text),),
        label=record.label,
        groups={name: value for name, value in groups.items() if value},
        spans=dict(text.spans),
        metadata={"cell": cell or record.perturbation, **metadata, **record.extra},
    )


def _worded(record: Record, question: str, template: str | None) -> Rendered:
    template = template or (LOG_TEMPLATE if record.rendering == "log" else PLAIN_TEMPLATE)
    if record.latent and record.rendering in RENDERINGS:
        text = render_text(record.latent, rendering=cast(Rendering, record.rendering))
        if (text.procedure, text.scenario) == (record.procedure, record.scenario):
            return compose(
                (text.procedure, _within(text, "procedure")),
                (text.scenario, _within(text, "scenario")),
                question,
                template=template,
            )
    return compose(
        (record.procedure, step_spans(record.procedure)),
        (record.scenario, event_spans(record.scenario)),
        question,
        template=template,
    )


def _within(text: Rendered, section: str) -> dict[str, tuple[int, int]]:
    """Spans inside a section, counted from its start."""
    start, end = text.spans[section]
    inside = {n: s for n, s in text.spans.items() if n not in ("procedure", "scenario", "question")}
    return {n: (a - start, b - start) for n, (a, b) in inside.items() if start <= a and b <= end}


def _cell(record: Record, table: Mapping[str, Perturbation]) -> str:
    name = cell_name(record.perturbation, record.variant)
    return name if name in table or record.perturbation == TRAINING else record.perturbation


def _choose(
    records: Sequence[Record],
    data: str | Path,
    *,
    per_cell: int | None,
    sizes: Mapping[str, int],
    seed: int,
    cells: Sequence[str] | None,
    split: str,
    table: Mapping[str, Perturbation],
) -> list[Record]:
    """The rows of a file that are asked for, in file order."""
    if per_cell is not None and per_cell < 1:
        raise ValueError(f"per_cell: expected at least 1, got {per_cell}.")
    kept = [r for r in records if split == "all" or r.split in (None, split)]
    if kept and len(kept) < len(records):
        others = Counter(str(r.split) for r in records if r.split not in (None, split))
        told = ", ".join(f"{n} of split {name}" for name, n in sorted(others.items()))
        warnings.warn(
            f"{Path(data).name}: {len(kept)} of {len(records)} rows are used, those of split {split}; left out: "
            f"{told}. Split 'all' takes every row.",
            stacklevel=3,
        )
    if not kept:
        raise ValueError(
            f"{data}: no row of split '{split}' among {len(records)}. {remedy('Use {task.split:all} for every row.')}"
        )
    by_cell: dict[str, list[int]] = {}
    for k, record in enumerate(kept):
        by_cell.setdefault(_cell(record, table), []).append(k)
    cell_names = {*by_cell, *(r.perturbation for r in kept)}
    for name in cells or ():
        if name not in cell_names:
            hint = did_you_mean(name, sorted(cell_names | set(CELLS)))
            raise ValueError(f"cell '{name}': {data} has {', '.join(sorted(cell_names))}.{hint}")
    if cells is not None:
        by_cell = {n: rows for n, rows in by_cell.items() if n in cells or kept[rows[0]].perturbation in cells}
    n_of = check_sizes(sizes, by_cell)
    rng, chosen = Random(seed), []
    for name, rows in by_cell.items():
        n = n_of.get(name, per_cell)
        chosen += rows if n is None or n >= len(rows) else rng.sample(rows, n)
    return [kept[k] for k in sorted(chosen)]


def _check_template(template: str) -> None:
    fields = ("{procedure}", "{scenario}", "{question}")
    at = [template.find(f) for f in fields]
    if sorted(at) != at or -1 in at or any(template.count(f) != 1 for f in fields):
        raise ValueError(f"template: expected {', '.join(fields)} once each, in that order, got {template!r}.")
