"""Scores along replies on disk: `tokens.parquet`, one row per token, and `replies.parquet`, one row per reply.

`diptych probes along` writes them and `diptych view` reads them. Their columns are those of `study.schema.COLUMNS`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from interp.io.files import write_file
from interp.io.read import read_frame
from study.schema import COLUMNS, typed

if TYPE_CHECKING:
    import pandas as pd

REPLY = ("member", "item", "sample")
"""Columns that name a reply, in both tables."""
FACTS = (
    *REPLY, "read_by", "group", "cell", "target", "is_positive", "gold", "pred", "is_correct", "split", "site", "kind",
    "train_checkpoint", "n_controls", "prompt", "reply",
)  # fmt: skip
"""Columns of `replies.parquet`. `split` is test where the probe was fitted without the item's group, else dev."""
TOKEN = (*REPLY, "token", "token_id", "token_text", "fraction", "span", "score", "null_lo", "null_median", "null_hi",
         "rank")  # fmt: skip
"""Columns of `tokens.parquet`, in the order of the replies and then of the tokens, token -1 first. The null is the
2.5 % point, median and 97.5 % point of the control directions."""
TOKENS_FILE, REPLIES_FILE = "tokens.parquet", "replies.parquet"


def write_tokens(folder: Path, tokens: pd.DataFrame, replies: pd.DataFrame) -> tuple[Path, Path]:
    """Both tables into a folder, each atomically and with the types of the schema.

    Raises:
        ValueError: other columns, or a token of a reply that `replies` does not have.
    """
    return (
        _write(folder / TOKENS_FILE, _checked(tokens, TOKEN, TOKENS_FILE)),
        _write(folder / REPLIES_FILE, _checked(replies, FACTS, REPLIES_FILE, tokens)),
    )


def read_tokens(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(one row per token, one row per reply) of a folder of `diptych probes along`.

    Raises:
        ValueError: no such tables there, or damaged ones.
    """
    paths = folder / TOKENS_FILE, folder / REPLIES_FILE
    if missing := [path.name for path in paths if not path.is_file()]:
        raise ValueError(
            f"{folder}: no {' and '.join(missing)}; expected a folder that `diptych probes along ... --out` wrote."
        )
    do = "Delete the folder and run `diptych probes along` again."
    tokens, replies = (read_frame(path, do=do) for path in paths)
    return _checked(tokens, TOKEN, str(paths[0])), _checked(replies, FACTS, str(paths[1]), tokens)


def _write(path: Path, table: pd.DataFrame) -> Path:
    write_file(path, typed(table).to_parquet(index=False))
    return path


def _checked(
    table: pd.DataFrame, columns: tuple[str, ...], name: str, tokens: pd.DataFrame | None = None
) -> pd.DataFrame:
    """The table with its columns in order.

    Args:
        tokens: of a table of replies, their tokens.
    """
    missing = [column for column in columns if column not in table.columns]
    more = [column for column in table.columns if column not in columns]
    if missing or more:
        raise ValueError(
            f"{name}: columns missing: {', '.join(missing) or 'none'}; unknown: {', '.join(more) or 'none'}."
        )
    assert set(columns) <= set(COLUMNS), "a column that study.schema does not declare"
    if tokens is not None:
        keys, of = (set(one[list(REPLY)].itertuples(index=False, name=None)) for one in (table, tokens))
        if of - keys or len(keys) != len(table):
            raise ValueError(
                f"{name}: {len(of - keys)} replies with tokens and no row, {len(table) - len(keys)} twice."
            )
    return table[list(columns)]
