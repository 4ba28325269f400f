"""Rows of files: JSON lines, a JSON array, CSV, Parquet, compressed or not, single or a folder with splits."""

from __future__ import annotations

import gzip
import io
import json
import re
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".parquet")
GZ = ".gz"
SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""Split -> the words of file and folder names that mean it, as the Hugging Face hub reads them."""
MAX_LINE = 64_000_000  # bytes
_DEPTH = 4
_NESTED = ("messages", "conversations", "spans", "groups")  # columns of a CSV file that hold JSON
Row = tuple[str, dict[str, Any]]


def rows_of_path(path: Path, *, split: str = "train", config: str | None = None) -> Iterator[Row]:
    """(where, row) of a file, or of the files of one split in a folder, in the order of their names.

    Raises:
        ValueError: the file is of an unsupported kind or damaged (the message gives the line), or the folder has no
            files of that split.
    """
    for file in data_files(path, split=split, config=config):
        yield from _READERS[_suffix(file)](file)


def data_files(path: Path, *, split: str = "train", config: str | None = None) -> list[Path]:
    """The files of a split: those of `path` whose names or folders mean it; every file where none means a split.

    A folder without data files of its own is searched below (`data/train-00000-of-00001.parquet`).

    Raises:
        ValueError: not a data file; no data files; none of this split; splits of several data sets.
    Warns:
        UserWarning: the folder has files that belong to no split, next to files that do.
    """
    if path.is_file():
        if _suffix(path) not in SUFFIXES:
            raise ValueError(
                f"{path}: expected a file ending in {', '.join(SUFFIXES)} (or those with .gz), got {path.suffix!r}. "
                "Convert it."
            )
        _check_single(path, split)
        return [path]
    files = _below(path)
    if not files:
        raise ValueError(f"{path}: expected a folder with {', '.join(SUFFIXES)} files, got none. Point at the files.")
    files = _of_one_set(path, files, config)
    named = {file: split_named(file.relative_to(path)) for file in files}
    present = sorted({name for name in named.values() if name is not None})
    if not present:
        _check_whole(path, split)
        return files
    split_name = canonical_split(split)
    chosen = [file for file, name in named.items() if name == split_name]
    if not chosen:
        raise ValueError(f"{path}: no files of split {split!r}; it holds {', '.join(present)}. Name one of these.")
    stray = [file.name for file, name in named.items() if name is None]
    if stray:
        warnings.warn(
            f"{path}: split {split!r} is read; {len(stray)} files belong to no split and are left out "
            f"({', '.join(stray[:3])}).",
            stacklevel=2,
        )
    return chosen


def split_named(file: Path) -> str | None:
    """The split that a path means by a word of its name ("train-00000-of-00001", "items_test") or by a folder."""
    stem = file.name.split(".")[0]
    words = [*re.split(r"[-_ \d]+", stem.lower()), *(part.lower() for part in file.parts[:-1])]
    names = [name for name, spellings in SPLITS.items() if set(words) & set(spellings)]
    return names[0] if len(names) == 1 else None


def canonical_split(split: str) -> str:
    """`split` by the hub's own word for it."""
    return next((name for name, spellings in SPLITS.items() if split.lower() in spellings), split)


def _check_single(path: Path, split: str) -> None:
    if canonical_split(split) not in ("train", split_named(Path(path.name))):
        raise ValueError(
            f"{path}: one file, without splits, was asked for split {split!r}. Leave the split out, or name a folder."
        )


def _check_whole(path: Path, split: str) -> None:
    if canonical_split(split) != "train":
        raise ValueError(
            f"{path}: asked for split {split!r}, and none of its files is named after a split. Leave the split out to "
            f"read them all, or name files after splits (train.jsonl, test.jsonl)."
        )


def _suffix(path: Path) -> str:
    """ ".csv" of both items.csv and items.csv.gz."""
    return Path(path.stem).suffix if path.suffix == GZ else path.suffix


def _below(folder: Path) -> list[Path]:
    """Data files of a folder, or of the folders below where it has none; JSON only where there is nothing else."""
    for pattern in ["*", *("/".join(["*"] * n) for n in range(2, _DEPTH + 1))]:
        inner = [f for f in folder.glob(pattern) if f.is_file() and _suffix(f) in SUFFIXES]
        visible = [f for f in inner if not any(part.startswith(".") for part in f.relative_to(folder).parts)]
        files = [f for f in visible if _suffix(f) != ".json"] or [f for f in visible if "info" not in f.stem]
        if files:
            return sorted(files)
    return []


def _of_one_set(path: Path, files: Sequence[Path], config: str | None) -> list[Path]:
    """The files of one data set: those below the folder `config`, where several folders hold one each."""
    splits = {word for spellings in SPLITS.values() for word in spellings}

    def home(file: Path) -> str:
        return "/".join(p for p in file.relative_to(path).parts[:-1] if p.lower() not in (*splits, "data"))

    homes = sorted({home(file) for file in files})
    if len(homes) == 1:
        return list(files)
    if config not in homes:
        raise ValueError(
            f"{path}: files of several data sets lie below it ({', '.join(homes[:6])}). Point at one of these folders."
        )
    return [file for file in files if home(file) == config]


# --- faults of rows ---------------------------------------------------------------------------------------------------


def check_limit(limit: int | None) -> None:
    """Raise ValueError for a limit below 1."""
    if limit is not None and limit < 1:
        raise ValueError(f"limit: expected at least 1, got {limit}. Use None for all rows.")


def check_new(seen: dict[Any, str], key: object, where: str, name: str, do: str = "Rename one.") -> None:
    """Remember that a row was at `where`, and refuse a second one of the same key.

    Raises:
        ValueError: names both places.
    """
    if key in seen:
        shown = " ".join(map(str, key)) if isinstance(key, tuple) else repr(key)
        raise ValueError(f"{where}, field '{name}': {shown} was used at {seen[key]}. {do}")
    seen[key] = where


def field_error(where: str, name: str, expected: str, got: object, do: str) -> ValueError:
    """The error of one field of a row: where it is, what was expected, what it got, what to do."""
    shown = repr(got)
    shown = shown if len(shown) <= 80 else shown[:80] + "..."
    return ValueError(f"{where}, field '{name}': expected {expected}, got {shown}. {do}")


# --- readers of one file --------------------------------------------------------------------------------------------


def parse_json(text: str, where: str, *, unique: bool = True) -> Any:
    """A JSON text as plain values.

    Raises:
        ValueError: starts with `where`: not JSON, a key twice in one object, nested too deeply.
    """
    try:
        return json.loads(text, object_pairs_hook=_no_repeats if unique else None)
    except json.JSONDecodeError as error:
        do = "Write one complete JSON object per line."
        raise ValueError(f"{where}, column {error.colno}: not valid JSON ({error.msg}): {text[:80]!r}. {do}") from None
    except RecursionError:
        raise ValueError(f"{where}: nested too deeply for a row. Is it the file that was meant?") from None
    except ValueError as error:
        raise ValueError(f"{where}, {error}") from None


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        times = Counter(key for key, _ in pairs)
        twice = next(key for key in mapping if times[key] > 1)
        raise ValueError(f"field '{twice:.80}': expected once, got {times[twice]} times. Remove the others.")
    return mapping


def _json_lines(path: Path) -> Iterator[Row]:
    with _opened(path) as file:
        for number, raw in _lines(file, path):
            where = f"{path.name}, line {number}"
            line = _decoded(raw, where, first=number == 1).strip()
            if not line:
                continue
            row = parse_json(line, where)
            if not isinstance(row, dict):
                raise ValueError(f"{where}: expected a JSON object, got {line[:80]!r}. Write one object per line.")
            yield where, row


def _json_file(path: Path) -> Iterator[Row]:
    """A file of one JSON array of objects; one whose first value is an object may be JSON lines."""
    with _opened(path) as file:
        start = _lines_guard(lambda: file.read(4096), path).lstrip(b"\xef\xbb\xbf \t\r\n")
    if start[:1] == b"{":
        if not _is_one_object(path):
            yield from _json_lines(path)
            return
        raise ValueError(
            f"{path.name}: expected a JSON array of rows, got one object. Write the rows as an array, or one per line."
        )
    with _opened(path) as file:
        text = _decoded(_lines_guard(file.read, path), path.name, first=True)
    rows = parse_json(text, path.name)
    if not isinstance(rows, list):
        raise ValueError(f"{path.name}: expected a JSON array of rows, got {text[:80]!r}. Write one object per row.")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise ValueError(f"{path.name}, row {number}: expected a JSON object, got {row!r:.80}.")
        yield f"{path.name}, row {number}", row


def _is_one_object(path: Path) -> bool:
    with _opened(path) as file:
        first = next(_lines(file, path), (1, b""))[1]
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return True  # the object goes on over several lines
    with _opened(path) as file:
        return not any(raw.strip() for number, raw in _lines(file, path) if number > 1)


def _csv(path: Path) -> Iterator[Row]:
    import pandas as pd

    label = _label_type(path)
    with _opened(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        try:
            chunks = pd.read_csv(text, dtype=str, keep_default_na=False, chunksize=2_000)
            number = 0
            for chunk in chunks:
                for row in chunk.to_dict("records"):
                    number += 1
                    where = f"{path.name}, row {number}"
                    yield where, _typed(row, where, label)
        except pd.errors.EmptyDataError:
            return
        except UnicodeDecodeError as error:
            raise ValueError(f"{path.name}, byte {error.start}: not UTF-8. Save the file as UTF-8.") from None
        except (pd.errors.ParserError, OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path.name}: not readable as CSV ({str(error).strip()}). Write it again.") from None


def _label_type(path: Path) -> type:
    """int or float where every label of a CSV file is such a number, else str: a cell has no type of its own."""
    import pandas as pd

    kinds = {int: True, float: True}
    try:
        with _opened(path) as file:
            text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
            for chunk in pd.read_csv(text, dtype=str, keep_default_na=False, usecols=["label"], chunksize=20_000):
                labels = chunk["label"][chunk["label"] != ""]
                kinds[int] &= bool(labels.str.fullmatch(r"[+-]?(0|[1-9]\d{0,17})").all())
                kinds[float] &= bool(
                    labels.str.fullmatch(r"[+-]?((0|[1-9]\d{0,17})(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?").all()
                )
    except (ValueError, OSError, EOFError, zlib.error):  # no such column, or a fault that the reader itself will name
        return str
    return next((kind for kind, holds in kinds.items() if holds), str)


def _typed(row: dict[Any, Any], where: str, label: type) -> dict[str, Any]:
    """Cells as the row's fields: an empty one is absent, `groups.x` is a group."""
    out: dict[str, Any] = {}
    for key, text in ((str(key), text) for key, text in row.items()):
        if not isinstance(text, str) or text == "":
            continue
        if key.startswith("groups."):
            out.setdefault("groups", {})[key.removeprefix("groups.")] = text
        elif key in _NESTED:
            out[key] = parse_json(text, f"{where}, field '{key}'")
        else:
            out[key] = label(text) if key == "label" else text
    return out


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix == GZ:
        raise ValueError(f"{path.name}: Parquet is compressed inside; unpack the file (gunzip).")
    try:
        with pq.ParquetFile(path) as file:
            rows = (row for batch in file.iter_batches(batch_size=1_000) for row in batch.to_pylist())
            for number, row in enumerate(rows, 1):
                yield f"{path.name}, row {number}", row
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        text = str(error).splitlines()[0]
        raise ValueError(f"{path.name}: not a readable Parquet file ({text}). Write it again.") from None


_READERS = {".jsonl": _json_lines, ".ndjson": _json_lines, ".json": _json_file, ".csv": _csv, ".parquet": _parquet}


def _opened(path: Path) -> Any:
    return gzip.open(path, "rb") if path.suffix == GZ else path.open("rb")


def _lines(file: Any, path: Path) -> Iterator[tuple[int, bytes]]:
    number = 0
    while raw := _lines_guard(lambda: file.readline(MAX_LINE + 1), path):
        number += 1
        if len(raw) > MAX_LINE:
            raise ValueError(
                f"{path.name}, line {number}: longer than {MAX_LINE:,} bytes. Is it the file that was meant?"
            )
        yield number, raw


def _lines_guard(read: Any, path: Path) -> bytes:
    try:
        raw = read()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path.name}: not readable as gzip ({error}). Compress it again.") from None
    return raw


def _decoded(raw: bytes, where: str, *, first: bool) -> str:
    try:
        return raw.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}, byte {error.start}: not UTF-8. Save the file as UTF-8.") from None
