"""YAML files as plain values, with the line of every key; a damaged or too large file is one error that names it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

Lines = Mapping[tuple[str, ...], int]
"""Path of keys -> 1-based line."""
_MAX_VALUES = 200_000
_MAX_BYTES = 500_000  # PyYAML reads about 100 kB a second
_NUMBER = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)[eE][-+]?[0-9]+")


def read_yaml(path: Path) -> tuple[Any, dict[tuple[str, ...], int]]:
    """The content of a YAML file and the 1-based line of every key, by its path of keys.

    Relative paths of models and tokenizers (`./`, `../`) become relative to the file's folder.

    Raises:
        ValueError: starts with the path: no such file, too large for settings, not UTF-8, or as `parse_yaml`.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file. Check the path.")
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise ValueError(f"{path}: {size:,} bytes, expected at most {_MAX_BYTES:,}; is it the right file?")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not readable as YAML: byte {error.start} is not UTF-8. Save it as UTF-8.") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror or error}). Check the file.") from None
    content, node = _parsed(text, str(path))
    lines: dict[tuple[str, ...], int] = {}
    _collect_lines(node, (), lines, path)
    return _anchor_paths(content, path.parent), lines


def parse_yaml(text: str, where: str) -> Any:
    """A YAML text as plain values.

    Numbers follow YAML 1.2: `1e-5` is a number, although YAML 1.1 (PyYAML's default) reads it as text without a dot.

    Raises:
        ValueError: starts with `where`: not YAML, nested too deeply, or anchors that refer to themselves or expand to
            too many values.
    """
    return _parsed(text, where)[0]


def _parsed(text: str, where: str) -> tuple[Any, Any]:
    """(values, node tree)"""
    import yaml

    loader: Any = None
    try:
        loader = _with_numbers("SafeLoader")(text)
        node = loader.get_single_node()
        content = None if node is None else loader.construct_document(node)
        _count(content, [0], (), where)
    except RecursionError:
        raise ValueError(f"{where}: nested too deeply to be read; is it the right file?") from None
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, OverflowError) as error:
        words = str(error)
        raise ValueError(words if words.startswith(where) else f"{where}: not readable as YAML: {words}") from None
    finally:
        if loader is not None:
            loader.dispose()
    return content, node


def dump_yaml(content: Any, *, width: int = 110) -> str:
    """Plain values as YAML in their own order; `parse_yaml` reads the same values back."""
    import yaml

    return yaml.dump(content, Dumper=_with_numbers("SafeDumper"), sort_keys=False, allow_unicode=True, width=width)


@cache
def _with_numbers(kind: str) -> Any:
    """PyYAML's class of that name with the numbers of YAML 1.2: a text such as "1e5" is quoted, so it stays text."""
    import yaml

    cls = type(kind, (getattr(yaml, kind),), {})
    number = re.compile(f"^(?:{_NUMBER.pattern})$")
    cls.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+.0123456789"))
    return cls


def _count(value: Any, seen: list[int], above: tuple[int, ...], where: str) -> None:
    """Count the values with anchors expanded; too many, or a cycle, is an error."""
    seen[0] += 1
    if id(value) in above:
        raise ValueError(f"{where}: an anchor (&) leads back to itself. Write the value out.")
    if seen[0] > _MAX_VALUES:
        raise ValueError(
            f"{where}: more than {_MAX_VALUES:,} values; do anchors (&) repeat each other? Write them out."
        )
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            _count(inner, seen, (*above, id(value)), where)


def _collect_lines(node: Any, prefix: tuple[str, ...], lines: dict[tuple[str, ...], int], path: Path) -> None:
    if type(node).__name__ != "MappingNode":
        return
    for key, value in node.value:
        place, line = (*prefix, str(key.value)), key.start_mark.line + 1
        if place in lines:
            raise ValueError(f"{path}, line {line}: key {key.value!r} is already given on line {lines[place]}.")
        lines[place] = line
        _collect_lines(value, place, lines, path)


def _anchor_paths(content: Any, folder: Path) -> Any:
    if not isinstance(content, dict):
        return content
    located = {}
    for key, value in content.items():
        is_relative = key in ("base", "heuristic_base", "adapter", "tokenizer") and str(value).startswith(("./", "../"))
        located[key] = str(folder / value) if is_relative else _anchor_paths(value, folder)
    return located
