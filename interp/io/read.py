"""Reading files: errors of the libraries about a damaged file become one ValueError that names the file.

Every function that reads a file uses one of these. The error says what was expected, what was read, and what to do.
"""

from __future__ import annotations

import json
import struct
import sys
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.io.csv_text import with_live_cells

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


_SHOWN = 3


def checked(kind: Any, content: object, where: str, do: str = "Correct the file, or write it again.") -> Any:
    """`content` as `kind` (a dataclass, TypedDict or annotation), with its types checked.

    Raises:
        ValueError: starts with `where`; lists the first faults, each with its path.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        faults = [
            f"{'.'.join(map(str, fault['loc']))[:200] or 'content'}: {fault['msg'].removeprefix('Value error, ')}, "
            f"got {fault['input']!r:.60}"
            for fault in error.errors()
        ]
        more = f" ... and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise ValueError(f"{where}: {'; '.join(faults[:_SHOWN])}{more}. {do}") from None
    except RecursionError:
        raise ValueError(f"{where}: nested too deeply to be read; is it the right file?") from None


COPY = "Copy it again from its source."
_DAMAGE = (KeyError, TypeError, AttributeError, IndexError, ArithmeticError, EOFError, RecursionError,
           NotImplementedError, StopIteration, zipfile.BadZipFile, zlib.error, struct.error)  # fmt: skip
"""Errors besides ValueError that libraries raise for unexpected bytes."""
_LIBRARIES = {"safetensors": "SafetensorError", "pyarrow": "ArrowException", "jinja2": "TemplateError",
              "yaml": "YAMLError"}  # fmt: skip
_MAX_JSON = 1 << 30  # bytes


@contextmanager
def reading(path: str | Path, what: str, do: str = COPY) -> Iterator[None]:
    """Turn whatever reading `path` raises into one ValueError: "PATH: not WHAT (why). DO".

    Put only the reading of that file inside the block: other errors would be blamed on it.

    Args:
        what: what was expected, e.g. "a readable Parquet file".
        do:   what to do about it.
    Raises:
        ValueError: as above. Errors that already name the file, and those of the system (no such file, no permission),
            are not changed.
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None or str(path) in str(error):
            raise
        raise ValueError(_words(path, what, error, do)) from error
    except (ValueError, *_DAMAGE, *_of_libraries()) as error:
        if isinstance(error, ValueError) and str(error).startswith((str(path), Path(path).name)):
            raise
        raise ValueError(_words(path, what, error, do)) from error


def read_text(path: Path, do: str = "Save it as UTF-8.") -> str:
    """A text file, with or without a byte-order mark. Raises ValueError if it is not UTF-8, OSError as `open`."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: byte {error.start} is not UTF-8. {do}") from None


def read_json(path: Path, kind: Any = dict, do: str = "Write or copy it again.") -> Any:
    """The content of a JSON file, checked to be of the expected type.

    Args:
        kind: expected type: a dataclass, TypedDict or annotation.
        do:   what to do if the values are of another type.
    Raises:
        ValueError: starts with the path: missing, not JSON, not UTF-8, nested too deeply, half a surrogate pair, or
            values of another type, each with its path.
    """
    try:
        if path.stat().st_size > _MAX_JSON:
            raise ValueError(f"{path}: more than {_MAX_JSON:,} bytes; is it the right file?")
        text = path.read_text(encoding="utf-8-sig")
        content = json.loads(text)
        if "\\ud" in text.lower():
            json.dumps(content, ensure_ascii=False).encode()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error}). {do}") from None
    except RecursionError:
        raise ValueError(f"{path}: nested too deeply to be read; is it the right file?") from None
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise ValueError(f"{path}: not text ({error.reason}). {do}") from None
    except ValueError as error:
        words = str(error)
        raise ValueError(
            words if words.startswith(str(path)) else f"{path}: not readable as JSON ({words}). {do}"
        ) from None
    if kind is dict:
        if not isinstance(content, dict):
            raise ValueError(f"{path}: expected a JSON object, got {type(content).__name__}. {do}")
        return content
    return checked(kind, content, str(path), do)


def read_frame(
    path: Path, columns: Sequence[str] = (), do: str = "Run the command that wrote it again.", **options: Any
) -> pd.DataFrame:
    """A table, from .parquet, .csv (as `interp.io.csv_text` writes it) or .jsonl by its ending.

    Args:
        columns: required columns.
        options: options of the pandas reader.
    Raises:
        ValueError: starts with the path: another ending, no such table in it, a column that is missing.
    """
    import pandas as pd

    readers: dict[str, Any] = {".csv": pd.read_csv, ".parquet": pd.read_parquet, ".jsonl": _json_lines}
    if path.suffix not in readers:
        raise ValueError(f"{path}: expected a name ending in {', '.join(readers)}. Convert it.")
    if not path.is_file():
        raise ValueError(f"{path}: no such file. Check the path.")
    with reading(path, f"a readable {path.suffix[1:].upper()} table", do):
        table = readers[path.suffix](path, **options)
    if path.suffix == ".csv":
        table = with_live_cells(table)
    if missing := [name for name in columns if name not in table.columns]:
        shown = ", ".join(map(str, list(table.columns)[:12]))
        raise ValueError(f"{path}: expected columns {', '.join(missing)}, which are missing; it has {shown}. {do}")
    return table


def _json_lines(path: Path) -> pd.DataFrame:
    import pandas as pd

    return pd.read_json(path, lines=True)


def read_arrays(
    path: Path, names: Sequence[str] = (), do: str = "Delete it and run the same command again."
) -> dict[str, np.ndarray]:
    """The arrays of an .npz file; pickles, which could run code, are refused.

    Raises:
        ValueError: starts with the path: truncated, damaged, or without the arrays `names`.
    """
    import numpy as np

    with reading(path, "a readable .npz file", do), np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    if missing := [name for name in names if name not in arrays]:
        raise ValueError(f"{path}: expected arrays {', '.join(missing)}, which are missing. {do}")
    return arrays


def _words(path: str | Path, what: str, error: BaseException, do: str) -> str:
    first = next(iter(str(error).strip().splitlines()), "")
    kind = "" if isinstance(error, ValueError | OSError) and first else f"{type(error).__name__}: "
    return f"{path}: not {what} ({kind}{first:.300}). {do}"


def _of_libraries() -> tuple[type[Exception], ...]:
    """Error classes of loaded libraries that derive directly from Exception."""
    errors: list[type[Exception]] = []
    for module, name in _LIBRARIES.items():
        loaded = sys.modules.get(module)
        errors += [getattr(loaded, name)] if loaded is not None and hasattr(loaded, name) else []
    return tuple(errors)
