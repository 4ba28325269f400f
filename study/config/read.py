"""Read a study file: errors name the file, the line, the key and what was meant."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

from interp.checkpoint import Checkpoint, CheckpointPair
from interp.io.yaml_text import Lines, parse_yaml, read_yaml
from interp.limits import refusal
from study.analyses import registry
from study.config.sections import SECTIONS, Study
from study.embedded import EMBEDDED, TRUTHS
from study.rows import Row

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

T = TypeVar("T")
_OURS = ("is_embedded", "added")
_FIRST = 5  # errors that are shown at once


def read_study(path: str | Path, *, overrides: Sequence[str] = ()) -> Study:
    """The study in a YAML file, with `section.key=value` overrides; values are read as YAML.

    Relative paths in the file (`task.data`, a pair's file, checkpoints that begin with ./ or ../) are relative to it.

    Raises:
        ValueError: no such file, YAML that does not parse, an unknown key (with the nearest known one and its line),
            a value of the wrong type, a task or pair that is missing, data that are not there.
    """
    path = Path(path)
    content, lines = read_yaml(path)
    return parse_study(content, str(path), lines=lines, overrides=overrides, folder=path.parent)


def parse_study(
    content: object,
    where: str = "study",
    *,
    lines: Lines | None = None,
    overrides: Sequence[str] = (),
    folder: Path | None = None,
) -> Study:
    """The study that a parsed mapping describes; arguments and errors as in `read_study`.

    Args:
        where: named in every error.
        lines: line of every key in the file, by its path of keys.
        folder: what relative paths are relative to; the working folder by default.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"{where}: expected a mapping with name, task and pair, got {type(content).__name__}.")
    place = _Place(where, lines or {}, {})
    merged = _with_overrides(content, overrides, place)
    merged |= {name: {} for name in SECTIONS if name in merged and merged[name] is None}
    merged |= {name: None for name in SECTIONS if merged.get(name) is False}
    added = {name: merged.pop(name) for name in [*merged] if name in registry.added()}
    place.check_keys(merged, Study, (), more=registry.added())
    _check_counts({**merged, **added}, place, ())
    merged = _with_checkpoints(merged, place, folder or Path())
    study = _validated({**merged, "added": _added_sections(added, place)}, place)
    return _with_data(study, place, folder or Path())


class _Place:
    """Where a key was written: a line of the file, or an override."""

    def __init__(self, where: str, lines: Lines, overridden: Mapping[tuple[str, ...], str]) -> None:
        self.where, self.lines, self.overridden = where, lines, dict(overridden)

    def of(self, path: tuple[str, ...]) -> str:
        for end in range(len(path), 0, -1):
            if path[:end] in self.overridden:
                return f"--set {self.overridden[path[:end]]}"
            if path[:end] in self.lines:
                return f"{self.where}, line {self.lines[path[:end]]}"
        inside = [text for given, text in self.overridden.items() if path and given[: len(path)] == path]
        return f"--set {inside[0]}" if inside else self.where

    def check_keys(
        self, mapping: Mapping[str, object], kind: Any, path: tuple[str, ...], more: Iterable[str] = ()
    ) -> None:
        """Unknown keys of a section and of the sections in it; `more` are known besides its own."""
        known = [*(f.name for f in fields(kind) if f.name not in _OURS), *more]
        hints = _hints(kind)
        for key, value in mapping.items():
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)[0]
                section = f"section {'.'.join(path)}: " if path else ""
                raise ValueError(
                    f"{self.of((*path, str(key)))}: {section}unknown key {key!r}; did you mean {near!r}? "
                    f"Known: {', '.join(known)}."
                )
            inner = next((t for t in (hints[key], *get_args(hints[key])) if is_dataclass(t)), None)
            if isinstance(value, Mapping) and inner not in (None, Checkpoint, CheckpointPair):
                self.check_keys(value, inner, (*path, str(key)))
            if isinstance(value, list) and inner is not None:
                for entry in value:
                    if isinstance(entry, Mapping):
                        self.check_keys(entry, inner, (*path, str(key)))


@cache
def _hints(kind: type) -> Row:
    return get_type_hints(kind)


def _with_overrides(content: Mapping[str, object], overrides: Sequence[str], place: _Place) -> Row:
    import copy

    merged: Row = copy.deepcopy(dict(content))
    for text in overrides:
        name, equals, value = text.partition("=")
        path = tuple(name.strip().split("."))
        if not equals or not all(path):
            raise ValueError(f"--set {text}: expected section.key=value, e.g. --set eval.per_cell=50.")
        inside: Row = merged
        for key in path[:-1]:
            if not isinstance(inside.get(key), dict):
                inside[key] = {}
            inside = inside[key]
        inside[path[-1]] = parse_yaml(value, f"--set {text:.80}")
        place.overridden[path] = text
    return merged


def _check_counts(value: object, place: _Place, path: tuple[str, ...]) -> None:
    """No count of the file is beyond what any study asks for."""
    for key, inner in value.items() if isinstance(value, Mapping) else ():
        at = (*path, str(key))
        if why := refusal(str(key), inner):
            raise ValueError(f"{place.of(at)}: {'.'.join(at)}: {why}.")
        _check_counts(inner, place, at)


def _with_checkpoints(merged: Row, place: _Place, folder: Path) -> Row:
    """`pair` or `checkpoint` as objects of their own."""
    given = [key for key in ("pair", "checkpoint") if merged.get(key) is not None]
    if len(given) != 1:
        raise ValueError(f"{place.where}: give exactly one of pair and checkpoint, e.g. `pair: embedded`.")
    key, value = given[0], merged[given[0]]
    inner = {path[1:]: line for path, line in place.lines.items() if path[0] == key and len(path) > 1}
    kind = CheckpointPair if key == "pair" else Checkpoint
    if value == EMBEDDED and key == "pair":
        from study.embedded import embedded_pair

        known = {"known_truth": {"path": TRUTHS}} | merged
        return known | {"pair": embedded_pair(), "is_embedded": True}
    if isinstance(value, str):
        return merged | {key: kind.from_yaml(folder / value)}
    if key == "checkpoint" and isinstance(value, Mapping) and "name" not in value and value.get("base"):
        value = {"name": Path(str(value.get("adapter") or value["base"])).name, **value}
    return merged | {key: kind.from_mapping(value, f"{place.of((key,))}: {key}", lines=inner)}


def _added_sections(added: Mapping[str, object], place: _Place) -> Row:
    """Sections of analyses of other packages, as their own options; one that is false is left out."""
    sections = {}
    for name, content in added.items():
        if content is False:
            continue
        options = registry.analysis(name).options
        if not isinstance(content, Mapping | None):
            raise ValueError(f"{place.of((name,))}: section {name}: expected a mapping, got {content!r:.80}.")
        place.check_keys(content or {}, options, (name,))
        sections[name] = _valid(options, content or {}, place, (name,))
    return sections


def _validated(merged: Mapping[str, object], place: _Place) -> Study:
    return _valid(Study, merged, place)


def _valid(kind: type[T], content: object, place: _Place, path: tuple[str, ...] = ()) -> T:
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_python(content)
    except ValidationError as error:
        found = [_words(fault, place, path) for fault in error.errors()]
        more = f"\n... and {len(found) - _FIRST} more." if len(found) > _FIRST else ""
        raise ValueError("\n".join(found[:_FIRST]) + more) from None


def _words(fault: ErrorDetails, place: _Place, above: tuple[str, ...]) -> str:
    path = (*above, *(str(part) for part in fault["loc"]))
    named = tuple(part for part in path if not part.isdigit())
    name = ".".join(path)
    if fault["type"] == "missing":
        return f"{place.of(named[:-1])}: {name} is missing."
    return f"{place.of(named)}: {name}: {_lowered(fault['msg'])}, got {fault['input']!r:.80}."


def _lowered(text: str) -> str:
    text = text.removeprefix("Value error, ")
    return text[:1].lower() + text[1:]


def _with_data(study: Study, place: _Place, folder: Path) -> Study:
    """The study with the paths of its data and labels made good, and checked."""
    from dataclasses import replace

    if study.task.data is not None:
        study = replace(study, task=replace(study.task, data=_found(study.task.data, ("task", "data"), place, folder)))
    if study.oracle is not None:
        at = ("oracle", "questions")
        asked = tuple(
            q if q.labels is None else replace(q, labels=_found(q.labels, at, place, folder))
            for q in study.oracle.questions
        )
        prior = study.oracle.prior
        if prior is not None and prior.startswith(("./", "../")):
            prior = str(folder / prior)
        study = replace(study, oracle=replace(study.oracle, questions=asked, prior=prior))
    return study


def _found(name: str, key: tuple[str, ...], place: _Place, folder: Path) -> str:
    path = Path(name).expanduser()
    path = path if path.is_absolute() else Path(os.path.normpath(folder / path))
    if not path.exists():
        raise ValueError(
            f"{place.of(key)}: {'.'.join(key)}: no file or folder {name!r} (looked at {path}). "
            "A relative path is relative to the study file."
        )
    return str(path)
