"""`diptych eval`: answers of one checkpoint, or of both members of a pair on the same items, and their tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from study.cli.common import (
    checkpoint_options,
    fail_in_users_words,
    load_options,
    read_data,
    resolve_checkpoints,
    task_options,
)


@click.command(name="eval")
@checkpoint_options
@load_options
@task_options
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of answers and tables; resumable.")
@click.option("--mode", type=click.Choice(["generate", "labels"]), default="generate", show_default=True,
              help="Let the model write its answer, or only score the task's labels after the prompt.")  # fmt: skip
@click.option("--max-new-tokens", type=click.IntRange(min=1), help="Longest reply; default: the task's own.")
@click.option("--temperature", type=click.FloatRange(min=0), default=0.0, show_default=True, help="0 is greedy.")
@click.option("--samples", type=click.IntRange(min=1), default=1, show_default=True, help="Replies per item.")
@click.option("--thinking/--no-thinking", default=None, help="Passed to the chat template.")
@click.option("--tokens-per-batch", type=click.IntRange(min=1), help="Budget of one batch.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@fail_in_users_words
def evaluate(out: Path, mode: str, samples: int, quiet: bool, **options: Any) -> None:
    """Answers and tables: OUT/<member>/answers.parquet, OUT/table.csv, and OUT/pair.csv for a pair.

    Every number has its interval, n and control; see the columns in the README. --seed draws the items (and the
    samples); interrupt it whenever you like, the same command continues.
    """
    from interp.checkpoint import CheckpointPair
    from interp.evaluate import Decoding
    from study.evals.run import run_eval
    from study.evals.show import headline

    checkpoints, loading = resolve_checkpoints(options)
    examples = read_data(options, shared=("seed",))
    given = {"tokens_per_batch": options["tokens_per_batch"]} if options["tokens_per_batch"] else {}
    decoding = Decoding(
        generate=mode == "generate",
        max_new_tokens=options["max_new_tokens"],
        temperature=options["temperature"],
        n_samples=samples,
        seed=options["seed"] or 0,
        thinking=options["thinking"],
        **given,
    )
    items = {key: options[key] for key in ("data", "seed", "split", "per_cell", "rendering", "limit")}
    run_eval(checkpoints, options["task"], examples, out=out, decoding=decoding, loading=loading, progress=not quiet,
             provenance={"items": items})  # fmt: skip
    click.echo(headline(out, is_pair=isinstance(checkpoints, CheckpointPair)))
