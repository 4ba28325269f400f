"""A task's options reach every command, --limit is spread, sides share no story, and sites are written one way."""

from __future__ import annotations

import inspect
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from interp.prompt import Example
from interp.site import expand_sites, match_sites
from interp.tasks import bbq
from interp.tasks.records import spread
from study.cli import main
from study.task_options import TaskOptions, given_to_task
from tests import steer_task
from tests.tiny import save_checkpoint, tiny


def run(*args: object, code: int = 0) -> str:
    done = CliRunner().invoke(main, [str(arg) for arg in args])
    assert done.exit_code == code, done.output
    return done.output


def test_a_limit_is_spread_over_cells_and_groups_and_keeps_the_order() -> None:
    items = [
        Example(f"{cell}{story}{k}", text="x", groups={"category": cell, "story": f"{cell}{story}"},
                metadata={"cell": cell})
        for cell, n_stories in (("a", 9), ("b", 3), ("c", 3)) for story in range(n_stories) for k in range(4)
    ]  # fmt: skip
    kept = spread(items, 12)
    assert Counter(e.groups["category"] for e in kept) == {"a": 4, "b": 4, "c": 4}
    assert Counter(e.groups["story"] for e in kept if e.groups["category"] == "a").most_common(1)[0][1] == 1
    assert sorted(Counter(e.groups["story"] for e in kept if e.groups["category"] == "b").values()) == [1, 1, 2]
    assert [e.id for e in kept] == [e.id for e in items if e in kept], "in the order of the file"
    bare = [Example(f"i{k}", text="x") for k in range(9)]
    assert spread(bare, None) == bare and spread(bare, 99) == bare and len(spread(bare, 4)) == 4
    again = spread(items[::-1], 12)
    assert [e.id for e in again[::-1]] == [e.id for e in kept], "whatever the order of the file"


def test_what_comes_first_in_a_group_is_not_what_a_limit_takes() -> None:
    """Of every story of four rows the first is `neg`: a limit of one row per story would be of one polarity."""
    rows = [(f"story{i}", ("neg", "nonneg", "neg", "nonneg")[k], f"{i}-{k}") for i in range(200) for k in range(4)]
    items = [Example(name, text="x", groups={"story": story}, metadata={"polarity": p}) for story, p, name in rows]
    kept = spread(items, 200)
    assert len({e.groups["story"] for e in kept}) == 200
    assert abs(Counter(e.metadata["polarity"] for e in kept)["neg"] - 100) < 3.3 * 50**0.5  # 200 fair draws
    sorted_file = [Example(f"r{k}", text="x", label="yes" if k < 500 else "no") for k in range(1000)]
    assert abs(Counter(e.label for e in spread(sorted_file, 100))["yes"] - 50) < 3.3 * 5


def test_a_limit_of_real_rows_holds_both_polarities(official_bbq: Path) -> None:
    kept = spread(bbq.examples(official_bbq), 240)
    assert set(Counter(e.metadata["cell"] for e in kept).values()) == {20}  # 6 categories, 2 conditions
    assert abs(Counter(e.metadata["question_polarity"] for e in kept)["neg"] - 120) < 3.3 * 60**0.5


def test_options_of_a_task_are_read_as_the_task_takes_them() -> None:
    words = ["categories=Age, Religion", "condition=ambig", "limit=5", "templates=rows"]
    assert given_to_task(bbq.examples, words) == {
        "categories": ["Age", "Religion"], "condition": "ambig", "limit": 5, "templates": "rows",
    }  # fmt: skip
    assert given_to_task(bbq.examples, ["categories=Age"]) == {"categories": ["Age"]}
    for word in ("categories", "=x"):
        with pytest.raises(ValueError, match="KEY=VALUE"):
            given_to_task(bbq.examples, [word])


COMMANDS = [
    ("eval", "run"), ("cache", "extract"), ("cache", "plan"), ("heads", "sweep"), ("steer", "dose"), ("steer", "pair"),
    ("oracle", "selftest"), ("eval", "score"),
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_that_takes_a_task_takes_its_options(command: tuple[str, str]) -> None:
    assert "--task-option KEY=VALUE" in run(*command, "--help")


@pytest.mark.parametrize("command", ["ask", "selftest", "compare", "train"])
def test_every_oracle_command_says_how_weights_are_held(command: str) -> None:
    shown = run("oracle", command, "--help")
    assert all(word in shown for word in ("--device-map", "--quantization", "--attn-implementation"))


def test_bbq_options_reach_the_items_and_a_strange_one_is_named(bbq_folder: Path) -> None:
    words = ("categories=Age,Religion", "condition=ambig", "permute=cyclic")
    options = TaskOptions(path="interp.tasks.bbq", data=str(bbq_folder), limit=60, options=words)
    items = options.examples()
    named = {"categories": ["Age", "Religion"], "condition": "ambig", "permute": "cyclic"}
    assert replace(options, options=named).examples() == items, "words of a command and a mapping of a study file"
    assert len(items) == 60
    assert {e.groups["category"] for e in items} == {"Age", "Religion"}
    assert {e.metadata["cell"] for e in items} == {"Age/ambig", "Religion/ambig"}
    assert all("~" in e.id for e in items)
    assert Counter(e.groups["category"] for e in items) == {"Age": 30, "Religion": 30}
    assert len({e.groups["story"] for e in items}) > 20, "not five stories of one category"
    with pytest.raises(ValueError, match="does not take colour; it takes data, categories"):
        replace(options, options=("colour=red",)).examples()


def test_sides_of_bbq_share_no_story(bbq_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "sides"
    said = run("data", "bbq", "--data", bbq_folder, "--categories", "Age,Religion", "--out", out)
    templates = next(path for path in bbq_folder.rglob("templates") if path.is_dir())
    parts = {p.stem: bbq.examples(p, templates=templates) for p in sorted(out.glob("*.jsonl"))}
    assert set(parts) == {"train", "select", "test"} and "test.jsonl" in said
    stories = [{e.groups["story"] for e in part} for part in parts.values()]
    assert sum(map(len, stories)) == len(set().union(*stories))
    whole = {e.id for e in bbq.examples(bbq_folder, categories=["Age", "Religion"])}
    assert set().union(*({e.id for e in part} for part in parts.values())) == whole
    chosen = bbq.examples(bbq_folder, categories=["Age", "Religion"], side="test")
    assert {e.id for e in chosen} == {e.id for e in parts["test"]}


def test_a_dose_refuses_items_that_its_direction_was_fitted_on_without_a_cache(tmp_path: Path) -> None:
    base = save_checkpoint(tmp_path / "base")
    task = ("--task", "tests.steer_task")
    run("cache", "--base", base, *task, "--sites", "resid_post.1", "--out", tmp_path / "cache", "--quiet")
    run("steer", "fit", tmp_path / "cache", "--toward", "yes", "--away", "no", "--groups", "story", "--no-sign-check",
        "--out", tmp_path / "d.safetensors")  # fmt: skip
    dose = ("steer", "dose", "--base", base, *task, "--direction", tmp_path / "d.safetensors", "--min-class", 10,
            "--min-groups", 6, "--slot", "", "--out", tmp_path / "dose")  # fmt: skip
    said = run(*dose, code=1)
    assert "60 of 60 items are among the rows that the direction was fitted on (first 's0-0')" in said
    assert {e.id for e in steer_task.examples(seed=1)}.isdisjoint({e.id for e in steer_task.examples()})


def test_a_cache_without_data_or_task_is_told_what_is_missing(tmp_path: Path) -> None:
    base = save_checkpoint(tmp_path / "base")
    assert "--data is missing" in run("cache", "--base", base, "--out", tmp_path / "c", code=1)
    path = tmp_path / "items.jsonl"
    path.write_text(json.dumps({"id": "a", "prompt": "the fox"}) + "\n")
    said = run("cache", "--base", base, "--data", path, "--per-cell", 3, "--out", tmp_path / "c", code=1)
    assert "--per-cell: options of a task" in said


def test_sites_are_written_one_way_for_models_and_for_what_is_held() -> None:
    from interp.family import Layout

    layout = Layout(tiny("qwen2", num_hidden_layers=12).get_decoder())
    held = [f"resid_post.{k}" for k in range(12)] + [f"z.{k}" for k in range(12)]
    for pattern in ("resid_post.*", "resid_post.2:9:3", "resid_post.1?", "z.[35]", "resid_post.:4, z.11", "z.10:"):
        assert list(map(str, expand_sites(pattern, layout))) == match_sites(pattern, held), pattern
    assert match_sites("resid_post.2:9:3", held) == ["resid_post.2", "resid_post.5", "resid_post.8"]
    assert match_sites("*.3", held) == ["resid_post.3", "z.3"]
    assert match_sites("L1.H2", ["z.1.2", "z.1.3"]) == ["z.1.2"]
    with pytest.raises(ValueError, match=r"z\.0"):
        match_sites("resid_post.*", ["z.0"])


def test_the_limit_of_a_task_is_told_in_help() -> None:
    assert "spread over cells and groups" in " ".join(run("eval", "run", "--help").split())
    assert "side" in inspect.signature(bbq.examples).parameters
