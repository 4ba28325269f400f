"""`diptych data`: generate items of a task, and audit a file of items for shortcuts."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click
from pydantic.dataclasses import dataclass

from study.cli.common import takes
from study.cli.wrapped import WrappedGroup
from study.option_types import Count, InFile, InPath, Names, OutFile, OutFolder
from study.options import STRICT, option


@click.group(cls=WrappedGroup)
def data() -> None:
    """Generate and audit task data."""


@dataclass(frozen=True, config=STRICT, kw_only=True)
class ProceduralOptions:
    """Which items are generated."""

    n: Count = option(help="Number of items.")
    seed: int = option(0, "Seed of the items.")
    rendering: Literal["plain", "log"] = option(
        "plain", "Rendering: plain English for real models, or the low-entropy log of the embedded pair."
    )
    split: Literal["train", "validation", "test"] | None = option(None, "Use only procedures of this split.")
    out: OutFile = option(help="JSONL file to write.")


@data.command()
@takes(ProceduralOptions)
def procedural(options: ProceduralOptions) -> None:
    """Generate procedural-compliance items: labels come from the rule engine, perturbations are equally frequent."""
    from interp.io.files import write_json_lines
    from interp.tasks.procedural import generate_records

    records = generate_records(options.n, options.seed, rendering=options.rendering, split=options.split)
    write_json_lines(options.out, records)
    click.echo(f"{options.out}: {len(records)} items, {len({r['procedure_id'] for r in records})} procedures")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class BBQOptions:
    """Which sides BBQ is split into."""

    data: InPath = option(help="The BBQ folder.")
    split: str = option(
        "train=0.6,select=0.2,test=0.2", "Splits and their shares of the items; no story is in two of them."
    )
    categories: Names | None = option(None, "Use only these categories, separated by commas.")
    templates: Path | None = option(None, "The folder 'templates' of BBQ; default: next to the data.")
    seed: int = option(0, "Seed of the assignment of stories to splits.")
    out: OutFolder = option(help="Output folder; it gets one file per split.")

    def shares(self) -> dict[str, float]:
        """Side -> share of the items."""
        return dict(_share(word) for word in self.split.split(","))


@data.command()
@takes(BBQOptions)
def bbq(options: BBQOptions) -> None:
    """Split BBQ so that no story is in two splits: writes OUT/<split>.jsonl, with the rows as published.

    Fit on one split, test on another: `--task interp.tasks.bbq --data OUT/test.jsonl --task-option templates=FOLDER`.
    """
    from interp.io.files import write_json_lines
    from interp.tasks.bbq.loader import rows_of_sides

    how = {"categories": options.categories, "templates": options.templates, "seed": options.seed}
    for side, (rows, n_stories) in rows_of_sides(options.data, sides=options.shares(), **how).items():
        path = options.out / f"{side}.jsonl"
        write_json_lines(path, rows)
        click.echo(f"{path}: {len(rows)} items, {n_stories} stories")


def _share(word: str) -> tuple[str, float]:
    name, _, share = (part.strip() for part in word.partition("="))
    try:
        if not name.replace("-", "_").isidentifier():
            raise ValueError(name)
        return name, float(share)
    except ValueError:
        raise ValueError(f"--split {word!r}: expected NAME=SHARE, e.g. train=0.6,test=0.4.") from None


@dataclass(frozen=True, config=STRICT, kw_only=True)
class AuditOptions:
    """A file of items, and one that may leak into it."""

    file: InFile = option(is_argument=True)
    against: InFile | None = option(None, "Second file, which is checked for leakage into FILE.")
    seed: int = option(0, "Seed of the split into halves on which shortcuts are fitted and scored.")


@data.command()
@takes(AuditOptions)
def audit(options: AuditOptions) -> None:
    """Score baselines that ignore the procedure on FILE: each shallow feature, and all of them together."""
    from interp import stats
    from interp.tasks.procedural import audit_records, check_leakage
    from interp.tasks.procedural.dataset import dedup, label_balance
    from interp.tasks.procedural.records import accept_notes, to_row
    from interp.tasks.procedural.task import load_records
    from study.text import aligned, interval

    file, against = options.file, options.against
    records = load_records(file)
    rows = [to_row(record) for record in records]
    lines = [["feature", "n", "accuracy [95 %]", "on shuffled labels", "values"]]
    for feature in audit_records(rows, seed=options.seed):
        rate = stats.wilson(feature.n_right, feature.n)
        spread = interval(rate.value, rate.lo, rate.hi)
        lines.append([feature.feature, str(feature.n), spread, f"{feature.shuffled:.2f}", str(feature.n_values)])
    click.echo(aligned(lines))
    balance = label_balance(rows)["all"]
    click.echo("labels: " + ", ".join(f"{label} {count}" for label, count in sorted(balance.items())))
    click.echo(f"texts that occur more than once: {dedup(rows)[1]}")
    for note in accept_notes(records):
        click.echo(f"note: {note}")
    if against is not None:
        leak = check_leakage(rows, [to_row(record) for record in load_records(against)])
        click.echo(f"leakage of {against} into {file}: {leak}")
