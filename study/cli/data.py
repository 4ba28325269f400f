"""`diptych data`: generate items of a task, and audit a file of items for shortcuts."""

from __future__ import annotations

from pathlib import Path

import click

from study.cli.common import user_errors_as_messages


@click.group()
def data() -> None:
    """Generate and audit task data."""


@data.command()
@click.option("--n", required=True, type=click.IntRange(min=1), help="How many items.")
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--rendering",
    type=click.Choice(["plain", "log"]),
    default="plain",
    show_default=True,
    help="Plain English for real models, or the low-entropy log of the embedded pair.",
)
@click.option("--split", type=click.Choice(["train", "validation", "test"]), help="Only procedures of this split.")
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="JSONL file to write.")
@user_errors_as_messages
def procedural(n: int, seed: int, rendering: str, split: str | None, out: Path) -> None:
    """Procedural-compliance items: labels computed by the rule engine, every perturbation in equal parts."""
    from interp.io.files import write_json_lines
    from interp.tasks.procedural import generate_records

    records = generate_records(n, seed, rendering=rendering, split=split)  # type: ignore[arg-type]
    write_json_lines(out, records)
    click.echo(f"{out}: {len(records)} items, {len({r['procedure_id'] for r in records})} procedures")


@data.command()
@click.option("--data", "source", required=True, type=click.Path(path_type=Path, exists=True), help="The BBQ folder.")
@click.option(
    "--split",
    "sides",
    default="train=0.6,select=0.2,test=0.2",
    show_default=True,
    help="Sides and their shares of the items; no story is on two of them.",
)
@click.option("--categories", help="Only these, separated by commas.")
@click.option("--templates", type=click.Path(path_type=Path), help="The folder 'templates'; default: beside the data.")
@click.option("--seed", default=0, show_default=True, help="Of the stories of each side.")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder: a file per side.")
@user_errors_as_messages
def bbq(source: Path, sides: str, categories: str | None, templates: Path | None, seed: int, out: Path) -> None:
    """Split BBQ so that no story is on two sides: OUT/<side>.jsonl, rows as they are published.

    Fit on one side, test on another: `--task interp.tasks.bbq --data OUT/test.jsonl --task-option templates=FOLDER`.
    """
    from interp.io.files import write_json_lines
    from interp.tasks.bbq.loader import rows_of_sides

    shares = dict(_share(word) for word in sides.split(","))
    names = None if categories is None else [word.strip() for word in categories.split(",")]
    split = rows_of_sides(source, sides=shares, categories=names, templates=templates, seed=seed)
    for side, (rows, n_stories) in split.items():
        path = out / f"{side}.jsonl"
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


@data.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--against",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A second file: how much of it leaks into the first.",
)
@click.option("--seed", default=0, show_default=True, help="Of the half split that scores a shortcut.")
@user_errors_as_messages
def audit(file: Path, against: Path | None, seed: int) -> None:
    """What a baseline that ignores the procedure scores on FILE: each shallow feature, and all of them together."""
    from interp import stats
    from interp.tasks.procedural import audit_records, check_leakage
    from interp.tasks.procedural.dataset import dedup, label_balance
    from interp.tasks.procedural.records import accept_notes, to_row
    from interp.tasks.procedural.task import load_records
    from study.text import aligned, interval

    records = load_records(file)
    rows = [to_row(record) for record in records]
    lines = [["feature", "n", "accuracy [95 %]", "on shuffled labels", "values"]]
    for feature in audit_records(rows, seed=seed):
        rate = stats.wilson(feature.n_right, feature.n)
        spread = interval(rate.value, rate.lo, rate.hi)
        lines.append([feature.feature, str(feature.n), spread, f"{feature.shuffled:.2f}", str(feature.n_values)])
    click.echo(aligned(lines))
    balance = label_balance(rows)["all"]
    click.echo("labels: " + ", ".join(f"{label} {count}" for label, count in sorted(balance.items())))
    n_twice = dedup(rows)[1]
    click.echo(f"texts that occur more than once: {n_twice}")
    for note in accept_notes(records):
        click.echo(f"note: {note}")
    if against is not None:
        leak = check_leakage(rows, [to_row(record) for record in load_records(against)])
        click.echo(f"leakage of {against} into {file}: {leak}")
