"""Probes along replies on disk.

plan.json                  options, replies, probes; written before a weight is read
along.parquet, along.csv   one row per estimate
tokens.parquet             one row per token; see `study.tokens`
replies.parquet            one row per reply
items/along.item           sentences, and the digest of each of these files; written last
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from interp.io.files import DamagedFileError
from interp.io.items import ItemStore, is_store, read_plan
from study.schema import check_table, write_table
from study.tokens import REPLIES_FILE, TOKENS_FILE, write_tokens

if TYPE_CHECKING:
    import pandas as pd

KIND, ALONG = "probes along replies", "along"
_FILES = ("along.parquet", "along.csv", TOKENS_FILE, REPLIES_FILE)


def along_store(folder: Path, identity: Mapping[str, object]) -> AbstractContextManager[ItemStore]:
    """The folder, held for writing; a folder is never filled by two.

    Raises: as `ItemStore.writing`.
    """
    return ItemStore.writing(folder, KIND, identity)


def is_finished(store: ItemStore) -> bool:
    """Whether these very tables are there, to the last byte."""
    return store.is_finished(ALONG)


def write_along(
    store: ItemStore, table: pd.DataFrame, tokens: pd.DataFrame, replies: pd.DataFrame, lines: Sequence[str]
) -> None:
    """Every file atomically, the item with their digests last."""
    write_table(table, store.root, ALONG)
    write_tokens(store.root, tokens, replies)
    store.put_files(ALONG, _FILES, settings={"lines": list(lines)})


def is_along(folder: Path) -> bool:
    """Whether the folder holds finished scores along replies."""
    return is_store(folder) and read_plan(folder / "plan.json")["kind"] == KIND and ALONG in _store(folder)


def read_along(folder: Path) -> tuple[pd.DataFrame, list[str]]:
    """(the table `along`, what was read and left out in sentences).

    Raises:
        ValueError: nothing finished in the folder. DamagedFileError: a file that is not what was written.
    """
    import pandas as pd

    if not is_along(folder):
        raise ValueError(
            f"{folder}: no finished scores of replies; expected a folder that `diptych probes along ... --out` wrote."
        )
    store = _store(folder)
    for name in store.altered(ALONG):
        raise DamagedFileError(f"{folder / name}: not what was written, or gone. Run the same command again.")
    table = check_table(pd.read_parquet(folder / "along.parquet"), ALONG)
    return table, list(store.get_json(ALONG)["settings"]["lines"])


def _store(folder: Path) -> ItemStore:
    return ItemStore.reading(folder, KIND)
