"""The tour in one command: evaluate the embedded pair on the whole grid, cache both members, draw the dumbbell figure.

    python -m study.demo [--out runs/demo] [--per-cell 30] [--seed 5]

One thread per process, members in parallel; a second run finds everything done.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two threads that contend for two cores are slower than one

import multiprocessing
import time
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

import click

TASK = "interp.tasks.procedural"
TOKENS_PER_BATCH, MAX_NEW_TOKENS = 65_536, 200  # the longest trace has about 120
SITES, POSITIONS = "resid_post.*, z.*", "last, span:scenario:last"


@click.command(context_settings={"show_default": True})
@click.option("--out", type=click.Path(path_type=Path), default=Path("runs/demo"), help="Folder of the run.")
@click.option("--per-cell", type=click.IntRange(min=2), default=30, help="Items per cell.")
@click.option("--seed", default=5, help="Of the items.")
def main(out: Path, per_cell: int, seed: int) -> None:
    """Evaluate, cache, table, figure: the embedded pair from end to end."""
    from study.cli.common import fail_in_users_words

    fail_in_users_words(demo)(out, per_cell=per_cell, seed=seed)


def demo(out: Path, *, per_cell: int, seed: int) -> None:
    """Run the tour and print what was found and where it is."""
    began = time.monotonic()
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        jobs: list[Future[None]] = [
            pool.submit(_answer, name, out, per_cell, seed) for name in ("engaged", "heuristic")
        ]
        jobs.append(pool.submit(_cache, out, per_cell, seed))
        for job in jobs:
            job.result()
    _tables(out, per_cell, seed)
    files = _figure(out)
    from study.evals.show import headline

    click.echo(headline(out / "eval", is_pair=True))
    click.echo(f"\ntables   {out / 'eval' / 'table.csv'}, {out / 'eval' / 'pair.csv'}")
    click.echo(f"caches   {out / 'caches' / 'engaged'}, {out / 'caches' / 'heuristic'}")
    click.echo(f"figure   {files['png']} (and pdf, svg)")
    click.echo(f"{time.monotonic() - began:.0f} s")


def _items(per_cell: int, seed: int) -> list:
    from interp.tasks import procedural

    return procedural.examples(per_cell=per_cell, seed=seed, rendering="log")


def _answer(member: str, out: Path, per_cell: int, seed: int) -> None:
    """Answers of one member, in a process of its own."""
    from interp.evaluate import Decoding
    from study.cli.common import one_thread, plain_warnings
    from study.embedded import embedded_pair
    from study.evals.run import answer_members

    one_thread()
    with plain_warnings():
        pair = embedded_pair()
        decoding = Decoding(tokens_per_batch=TOKENS_PER_BATCH, max_new_tokens=MAX_NEW_TOKENS)
        answer_members(pair.members[member], TASK, _items(per_cell, seed), out=out / "eval", decoding=decoding)


def _cache(out: Path, per_cell: int, seed: int) -> None:
    """Activations of both members at the end of the prompt and of the scenario."""
    from interp.cache import extract_pair
    from study.cli.common import one_thread, plain_warnings
    from study.embedded import embedded_pair

    one_thread()
    with plain_warnings():
        extract_pair(embedded_pair(), _items(per_cell, seed), out=out / "caches", sites=SITES, positions=POSITIONS,
                     progress=False)  # fmt: skip


def _tables(out: Path, per_cell: int, seed: int) -> None:
    """Tables from the answers that are on disk; no model is loaded."""
    from study.cli.common import plain_warnings
    from study.evals.run import tables_of

    with plain_warnings():
        tables_of(out / "eval", ("engaged", "heuristic"), TASK, _items(per_cell, seed))


def _figure(out: Path) -> dict[str, Path]:
    import pandas as pd

    from study.evals.tables import dumbbell_rows
    from study.figures import dumbbell, save

    pairs = pd.read_csv(out / "eval" / "pair.csv", keep_default_na=False)
    drawn = dumbbell(pd.DataFrame(dumbbell_rows([dict(row) for _, row in pairs.iterrows()])))
    (out / "figures").mkdir(parents=True, exist_ok=True)
    return save(drawn, out / "figures" / "dumbbell")


if __name__ == "__main__":
    main()
