"""Every count of every door is bounded, and whatever is left out of a user's data is counted and said."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import click
import pytest
import yaml
from click.testing import CliRunner

from interp.limits import ANY, LARGEST, refusal
from interp.tasks import procedural
from study.cli import main
from study.config import read_study
from study.config.sections import SECTIONS, Study
from study.task_options import ItemOptions, TaskOptions
from tests.faults.doors import procedural_lines


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def counts(kind: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every whole number of the sections."""
    for one in dataclasses.fields(kind):
        hint = get_type_hints(kind)[one.name]
        if int in (hint, *get_args(hint)) or any(int in get_args(part) for part in get_args(hint)):
            yield (*path, one.name)


def test_every_count_of_every_command_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    tried = 0
    for path, command in commands(main):
        for option in [p for p in command.params if isinstance(p, click.Option)]:
            if not isinstance(option.type, click.IntRange | type(click.INT)) or getattr(option.type, "max", None):
                continue
            others = [p for p in command.params if p.required and p is not option]
            words = [w for p in others for w in ([p.opts[0]] if isinstance(p, click.Option) else []) + [_some(p)]]
            done = CliRunner().invoke(main, [*path, *words, option.opts[0], "1000000000000000000000"])
            assert done.exit_code in (1, 2) and option.opts[0] in done.output, (path, option.opts, done.output)
            assert "expected at most" in done.output, (path, option.opts, done.output)
            tried += 1
    assert tried > 60


def _some(parameter: click.Parameter) -> str:
    """A value that the parameter takes."""
    kind = parameter.type
    if isinstance(kind, click.Choice):
        return str(kind.choices[0])
    if isinstance(kind, click.Path):
        return "new" if not kind.exists else "there" if kind.dir_okay else __file__
    return "60" if isinstance(kind, click.IntRange | type(click.INT)) else "interp.tasks.procedural"


def test_every_count_of_a_study_is_bounded(tmp_path: Path) -> None:
    content = {"name": "s", "pair": "embedded", "task": {"path": "interp.tasks.procedural"}}
    hints, tried = get_type_hints(Study), 0
    for name in ("task", *SECTIONS, None):
        kind = Study if name is None else _section(hints[name])
        for (field,) in counts(kind):
            section = {} if name is None else {name: {**content.get(name, {}), field: 10**25}}
            changed = content | (section or {field: 1e25 if name == "eval" else 10**25})
            (tmp_path / "s.yaml").write_text(yaml.safe_dump(changed))
            with pytest.raises(ValueError, match=field) as error:
                read_study(tmp_path / "s.yaml")
            assert "expected at most" in str(error.value), error.value
            tried += 1
    assert tried > 25


def _section(hint: Any) -> Any:
    return next(kind for kind in (hint, *get_args(hint)) if dataclasses.is_dataclass(kind))


def test_a_count_is_refused_beyond_its_largest_and_not_at_it() -> None:
    for name, largest in LARGEST.items():
        assert refusal(name, largest) is None and refusal(name, largest + 1) is not None
    assert refusal("anything", ANY) is None and refusal("anything", ANY + 1) is not None
    assert refusal("seed", -1) and refusal("boot", 1e12)
    assert not refusal("seed", True) and not refusal("boot", 1e3) and not refusal("boot", "x")
    assert not refusal("boot", float("inf"))  # no whole number: its type is refused


def test_rows_of_other_splits_are_counted(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in procedural_lines().splitlines()]
    for i, row in enumerate(rows):
        row |= {"split": ("test", "train", "train")[i], "id": f"r{i}"}
    file = tmp_path / "items.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.warns(UserWarning, match=r"items\.jsonl: 1 of 3 rows .* test; left out: 2 of split train"):
        assert len(procedural.examples(file)) == 1
    with pytest.warns(UserWarning, match="1 of 3 rows"):
        assert len(TaskOptions(path="interp.tasks.procedural", data=str(file)).examples()) == 1
    assert len(procedural.examples(file, split="all")) == 3


def test_items_beyond_the_limit_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"id": str(i), "prompt": "x"}) + "\n" for i in range(9)))
    with pytest.warns(UserWarning, match="4 of 9 items are taken"):
        assert len(ItemOptions(data=str(tmp_path / "a.jsonl"), limit=4).examples(says_rest=True)) == 4
