"""The examples of a cache joined with the member's answers, and a cache whose examples have these columns."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from study.analyses.base import Context
from study.rows import Row

if TYPE_CHECKING:
    import pandas as pd

    from interp.cache import ActivationCache
    from study.analyses.eval.one_answer import OneAnswer

ANSWER, SIDE, FIT = "answer", "answer.side", "fit"
_SIDES = {"stereo": "stereotype", "anti": "anti_stereotype", "unknown": "abstain"}


def annotated(context: Context, cache: ActivationCache, member: str) -> pd.DataFrame:
    """The examples of a cache, one row each, with columns of its answers where the study has evaluated the member.

    answer          the label that the member answered, blank where there was none
    answer.<score>  what it was worth (answer.correct, answer.biased, ...)
    answer.side     which side of the item it names (stereotype, anti_stereotype, abstain), of a task with sides
    """
    import pandas as pd

    from study.analyses.eval.store import ANSWERS

    frame = cache.examples
    path = context.of("eval") / member / ANSWERS
    if "eval" not in context.reads or context.study.eval is None or not path.is_file():
        return frame  # what a step does not read must not be seen by it: its key would not know
    said = pd.read_parquet(path)
    said = said[said["sample"] == 0].set_index("id")
    names = {"label": ANSWER} | {c: f"{ANSWER}.{c[6:]}" for c in said.columns if c.startswith("score.")}
    frame = frame.join(said[list(names)].rename(columns=names), on="id")
    sides = _sides(context, dict(zip(frame["id"], frame[ANSWER], strict=True)))
    return frame if sides is None else frame.assign(**{SIDE: frame["id"].map(sides)})


def commonest_answer(context: Context, member: str, columns: Iterable[str]) -> OneAnswer | None:
    """The member's most common answer where any of the columns is made of what it answered; None of gold labels.

    Of what it was shown: with several orders of the options, each is an answer of its own, as it is a class of its own.
    """
    from interp.io.read import read_frame
    from study.analyses.eval.one_answer import one_answer
    from study.analyses.eval.store import ANSWERS

    path = context.of("eval") / member / ANSWERS
    if not any(is_answer(name) for name in columns) or not path.is_file():
        return None
    given = read_frame(path, ("label", "gold"))
    return one_answer(given["label"], given["gold"])


def is_answer(column: str) -> bool:
    """Whether a column holds what the member answered, or what that was worth."""
    return column.split(".")[0] == ANSWER


def _sides(context: Context, said: Row) -> dict[str, str] | None:
    """Id -> side of the answer; None of a task without sides."""
    from interp.tasks.protocol import hook, labels_of, load_task
    from study.analyses.items import examples_of

    task = load_task(context.study.task.path)
    sides = hook(task, "sides")
    if sides is None:
        return None
    found = {}
    for example in examples_of(context.study, context.study.cache):
        labels = labels_of(task, example)
        if said.get(example.id) in labels:
            index = labels.index(said[example.id])
            named = [name for name, places in sides(example).items() if index in places]
            found[example.id] = _SIDES.get(named[0], named[0]) if named else None
    return found


def held_out(groups: Iterable[object], *, share: float, seed: int) -> list[str]:
    """ "train" or "test" of every row, whole groups to one side by a digest of their name and the seed."""
    names = sorted({str(group) for group in groups})
    ranked = sorted(names, key=lambda name: hashlib.sha256(f"{seed}|{name}".encode()).hexdigest())
    test = set(ranked[: max(1, round(share * len(ranked)))])
    return ["test" if str(group) in test else "train" for group in groups]


def view(cache: Path, folder: Path, examples: pd.DataFrame) -> Path:
    """A cache over the shards of another one, its examples with further columns; it moves with the run folder."""
    import pyarrow as pa

    from interp.cache.manifest import with_examples

    return with_examples(cache, folder, pa.Table.from_pandas(examples, preserve_index=False))
