"""What can be wrong with a file, by its kind; each malformed input has a name, so that a failure can be made again."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

WRONG: tuple[Any, ...] = (
    None, "x", "", -1, 0, 3.5, 1e308, 10**30, [], ["x"], {}, {"a": 1}, True, [[["deep"]]], "a\x00b", float("nan"),
    float("inf"), "\ud800", "../../etc/passwd", "(", "[a-z", "1e-5", "%s{0}{{ 7*7 }}",
)  # fmt: skip
TEXTS = (
    b"", b"{", b"[]", b"null", b"3", b'"text"', b"\x00", b"[" * 100_000, b'{"a": ' * 100_000, b"\xef\xbb\xbf{}",
    b"{}" * 9, b"\xff\xfe\x00", b"\xe9" * 10, b'{"a": "\\ud800"}', b'{"a": NaN}', b"{'a': 1}", b'{"a": 1, "a": 2}',
    b'{"a": ' + b"9" * 5000 + b"}", b"- " * 3000 + b"a", b"a: &x [*x]", b"a: !!python/object/apply:os.system [true]",
    b"<html><body>404</body></html>", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
)  # fmt: skip
BINARY = (".safetensors", ".npz", ".parquet", ".gz", ".pt")
STRUCTURED = (".json", ".yaml")


@dataclass(frozen=True)
class Input:
    """One malformed input: a file of a door, and what is done to it."""

    name: str
    file: str
    damage: Callable[[Path], None]


@dataclass(frozen=True)
class Door:
    """One reader of the package: a folder of valid files, and what reads it.

    Attributes:
        name: of the door.
        folder: the valid files; the inputs are made in a copy.
        files: those that are attacked, relative to the folder.
        load: reads the copy.
    """

    name: str
    folder: Path
    files: tuple[str, ...]
    load: Callable[[Path], object]


def inputs_of(door: Door, *, seed: int = 0) -> list[Input]:
    """Every malformed input of a door."""
    out: list[Input] = []
    for file in door.files:
        source = door.folder / file
        out += [Input(f"{door.name}/{file}: {what}", file, damage) for what, damage in _bytes_of(source, seed)]
        if source.suffix in STRUCTURED or source.suffix == ".jsonl":
            out += [Input(f"{door.name}/{file}: {what}", file, damage) for what, damage in _values_of(source)]
    return out


@contextmanager
def damaged(door: Door, one: Input, work: Path) -> Iterator[Path]:
    """A copy of the door's folder with the damage in it; only the damaged file is made again between two inputs."""
    copy = work / door.name
    if not copy.exists():
        shutil.copytree(door.folder, copy, symlinks=True)
    path = copy / one.file
    one.damage(path)
    try:
        yield copy
    finally:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(door.folder / one.file, path)


def _bytes_of(source: Path, seed: int) -> Iterator[tuple[str, Callable[[Path], None]]]:
    data, rng = source.read_bytes(), random.Random(f"{seed}/{source.name}")

    def put(content: bytes) -> Callable[[Path], None]:
        return partial(_replace, content=content)

    yield "missing", Path.unlink
    yield "a folder", _folder
    yield "a link to itself", _loop
    for share in (0.1, 0.5, 0.9):
        yield f"cut at {share:g}", put(data[: int(len(data) * share)])
    yield "one byte short", put(data[:-1])
    yield "one byte more", put(data + b"x")
    yield "zeros", put(bytes(len(data)))
    yield "twice", put(data + data)
    for i in range(8 if source.suffix in BINARY else 4):
        at, bit = rng.randrange(max(len(data), 1)), 1 << rng.randrange(8)
        yield (
            f"bit {bit} of byte {at} flipped",
            put(data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :] if data else b"x"),
        )
        if source.suffix in BINARY and i < 4:
            at = rng.randrange(min(len(data), 200))
            yield f"byte {at} of the header is 255", put(data[:at] + b"\xff" + data[at + 1 :])
    if source.suffix in BINARY:
        yield "a huge header", put((2**60).to_bytes(8, "little") + data[8:])
    for i, text in enumerate(TEXTS):
        yield f"text {i} ({text[:12]!r})", put(text)


def _replace(path: Path, *, content: bytes) -> None:
    path.write_bytes(content)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def _values_of(source: Path) -> Iterator[tuple[str, Callable[[Path], None]]]:
    text = source.read_text(encoding="utf-8")
    if source.suffix == ".yaml":
        content, write = yaml.safe_load(text), _yaml
    elif source.suffix == ".jsonl":
        rows = [json.loads(line) for line in text.splitlines()]
        content, write = rows[0], lambda one: "".join(json.dumps(row) + "\n" for row in (one, *rows[1:]))
    else:
        content, write = json.loads(text), json.dumps
    for what, changed in changes(content):
        try:
            made = write(changed).encode("utf-8", "surrogatepass")
        except (ValueError, yaml.YAMLError):
            continue
        yield what, partial(_replace, content=made)


def _yaml(content: Any) -> str:
    return yaml.safe_dump(content, allow_unicode=True)


def changes(content: Any, where: str = "", depth: int = 4) -> Iterator[tuple[str, Any]]:
    """(what, content) with each field missing, of every wrong type, and with one too many; fields of fields too."""
    if isinstance(content, list) and content and depth:
        yield f"{where} empty", []
        yield f"{where} twice as long", content + content
        yield f"{where} without its last", content[:-1]
        for what, changed in changes(content[0], f"{where}[0]", depth - 1):
            yield what, [changed, *content[1:]]
        for value in WRONG:
            yield f"{where}[0] = {value!r:.20}", [value, *content[1:]]
    if not isinstance(content, dict):
        return
    yield f"{where}.no_such_field", {**content, "no_such_field": 1}
    for key, value in content.items():
        place = f"{where}.{key}"
        yield f"{place} missing", {k: v for k, v in content.items() if k != key}
        for wrong in WRONG:
            yield f"{place} = {wrong!r:.20}", {**content, key: wrong}
        if depth:
            for what, changed in changes(value, place, depth - 1):
                yield what, {**content, key: changed}


def spread(inputs: list[Input], n: int) -> list[Input]:
    """At most n of them, evenly over the list, so over kinds of damage and fields."""
    if len(inputs) <= n:
        return inputs
    step = len(inputs) / n
    return [inputs[int(i * step)] for i in range(n)]
