"""Malformed files of every loader: a value, or an error with advice; no traceback, no hang, little memory."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable, Iterator

import pytest
import torch
import yaml

from interp.checkpoint import Checkpoint, CheckpointPair
from interp.io.yaml_text import read_yaml
from interp.oracle.recipe import Recipe
from interp.oracle.spec import OracleSpec
from interp.site import Site
from interp.tasks import read_examples
from steering import Direction
from study.analyses.oracle.training import TrainingFile
from study.config import read_study
from study.run.process import user_errors
from tests.faults.kit import signed

WRONG = (None, "x", "", -1, 3.5, 10**30, [], ["x"], {}, {"a": 1}, True, [[["deep"]]], "a\x00b")
TEXTS = (
    "",
    "{",
    "[]",
    "null",
    "3",
    '"text"',
    "\x00",
    "[" * 100_000,
    '{"a": ' * 100_000,
    "\ufeff{}",
    "{}" * 9,
    "é" * 10,
)
YAMLS = ("a: &x [*x]", "a: &x {b: *x}", "? [a]\n: b", "a: !!python/object/apply:os.system [true]", "- " * 3000 + "a",
         "\n".join([f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9) if i else 'x'}]" for i in range(12)]))  # fmt: skip


def variants(content: dict, depth: int = 2) -> Iterator[dict]:
    """The content with each field missing, of every wrong type, and with one too many; fields of fields too."""
    yield {**content, "no_such_field": 1}
    for key, value in content.items():
        yield {k: v for k, v in content.items() if k != key}
        for wrong in WRONG:
            yield {**content, key: wrong}
        if isinstance(value, dict) and depth > 1:
            for inner in variants(value, depth - 1):
                yield {**content, key: inner}


def check(load: Callable[[], object], what: object) -> str:
    """ "read" or the error's text; any other exception fails the test."""
    started = time.process_time()
    try:
        load()
        text = "read"
    except user_errors() as error:
        text = str(error)
        assert text.strip(), f"{what!r:.200}: an error without a word"
        assert len(text) < 2000, f"{what!r:.200}: {len(text)} characters"
    except Exception as error:
        raise AssertionError(f"{what!r:.300} ends in {type(error).__name__}: {error!s:.200}") from error
    assert time.process_time() - started < 10, f"{what!r:.200} takes too long"
    return text


@pytest.fixture(scope="module", autouse=True)
def memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000  # kB


@pytest.fixture
def direction(tmp_path):
    one = Direction(torch.arange(1.0, 9.0), Site.parse("resid_post.1"), "a", "b", provenance={"checkpoint": "c"})
    one.save(tmp_path / "d.safetensors")
    return tmp_path / "d.safetensors"


def test_a_direction_file_of_any_content(direction):
    beside = direction.with_suffix(".json")
    content = json.loads(beside.read_text())
    content["directions"]["resid_post.1"]["removed"] = {
        "kept": 0.5, "cosine_before": [0.1], "cosine_after": [0.0], "product_after": [0.0], "rank": 1, "n_dropped": 0,
        "names": ["n"], "metric": "euclidean", "ridge": 0.0,
    }  # fmt: skip
    beside.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="its digest differs"):
        Direction.load(direction)
    beside.write_text(json.dumps(signed(content)))
    assert Direction.load(direction).removed.kept == 0.5
    results = []
    for changed in variants(content, depth=4):
        beside.write_text(json.dumps(signed(changed)))
        results.append(check(lambda: Direction.load(direction), changed))
    for text in TEXTS:
        beside.write_text(text)
        results.append(check(lambda: Direction.load(direction), text))
    assert len(results) > 200
    refused = [text for text in results if text != "read"]
    assert len(refused) > 150
    assert all("d.json" in text or "d.safetensors" in text or "direction" in text for text in refused)


def test_a_direction_file_whose_vectors_are_gone_or_damaged(direction):
    data = direction.read_bytes()
    for damaged in (b"", data[:5], data[:40], data + b"x", b"\xff" * 64, (2**60).to_bytes(8, "little") + data[8:]):
        direction.write_bytes(damaged)
        assert check(lambda: Direction.load(direction), damaged) != "read"


def test_an_oracle_declaration_of_any_content(tmp_path):
    file, results = tmp_path / "ao_config.json", []
    content = OracleSpec(layers=("25%", "50%"), format="A'").to_json() | {"prefix_template": None}
    for changed in variants(content):
        file.write_text(json.dumps(changed))
        results.append(check(lambda: OracleSpec.from_ao_config(tmp_path), changed))
    for text in TEXTS:
        file.write_text(text)
        results.append(check(lambda: OracleSpec.from_ao_config(file), text))
    assert len(results) > 150
    assert sum(text == "read" for text in results) < 80
    assert OracleSpec.from_ao_config(content).layers == ("25%", "50%")


@pytest.mark.parametrize("kind", ["checkpoint", "pair", "training", "study"])
def test_a_yaml_file_of_any_content(tmp_path, kind):
    file, results = tmp_path / "file.yaml", []
    member = {"name": "a", "base": "org/a", "adapter": "org/b", "tokenizer": "org/c"}
    read, content = {
        "checkpoint": (lambda: Checkpoint.from_yaml(file), member),
        "pair": (lambda: CheckpointPair.from_yaml(file), {"engaged": member, "heuristic": member | {"base": "org/d"}}),
        "training": (lambda: TrainingFile.read(file),
                     {"base": "org/a", "corpus": "c.jsonl", "tasks": {"context": 5}, "recipe": {"rank": 4},
                      "spec": {"hook_layer": 1, "layers": ["50%"]}, "validation": 0.1, "accept": {}, "load": {}}),
        "study": (lambda: read_study(file),
                  {"name": "s", "task": {"path": "interp.tasks.procedural"}, "pair": "embedded", "seed": 1,
                   "eval": {"per_cell": 4}, "load": {"dtype": "auto"}}),
    }[kind]  # fmt: skip
    for changed in variants(content):
        file.write_text(yaml.safe_dump(changed, allow_unicode=True))
        results.append(check(read, changed))
    for text in (*TEXTS, *YAMLS):
        file.write_text(text)
        results.append(check(read, text))
    file.write_bytes(b"\xff\xfe\x00")
    assert check(read, "bytes") != "read"
    assert len(results) > 60


def test_anchors_that_lead_back_or_multiply_and_depth_are_one_line(tmp_path):
    file = tmp_path / "a.yaml"
    for text in (*YAMLS[:2], YAMLS[-1], "[" * 5_000, "a: " + "{b: " * 5_000):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"a\.yaml") as error:
            read_yaml(file)
        assert len(str(error.value).splitlines()) <= 12


def test_a_recipe_of_any_content():
    for changed in variants(Recipe().to_dict()):
        check(lambda changed=changed: Recipe.of(changed), changed)


def test_rows_of_any_content(tmp_path):
    rows = [
        {"id": "a", "prompt": "x", "label": 1, "spans": {"s": [0, 1]}, "groups": {"g": 1}},
        {"id": "a", "messages": [{"role": "user", "content": "x"}]},
        {"id": "a", "conversations": [{"from": "human", "value": "x"}]},
        {"id": "a", "prompt": "x", "completion": "y"},
    ]  # fmt: skip
    file, n = tmp_path / "a.jsonl", 0
    for row in rows:
        for changed in variants(row):
            file.write_text(json.dumps(changed))
            check(lambda: read_examples(file), changed)
            n += 1
    for suffix in ("jsonl", "json", "csv", "parquet", "jsonl.gz", "csv.gz"):
        for text in TEXTS:
            (tmp_path / f"b.{suffix}").write_text(text)
            check(lambda suffix=suffix: read_examples(tmp_path / f"b.{suffix}"), (suffix, text))
            n += 1
    assert n > 200


def test_a_callable_named_in_a_file_is_checked_before_it_is_called(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr("os.system", lambda command: called.append(command))
    from interp.import_path import function_for
    from study.analyses.oracle.training import _imported

    for path in ("os:system", "builtins:exec", "builtins:print", "subprocess:Popen", "json:loads"):
        with pytest.raises(ValueError, match="was not called"):
            function_for(_imported(path), path, "tokenizer", "spec", "n_layers")
    for path in ("os.system", "os:", ":x", "", "nowhere:x"):
        with pytest.raises(ValueError, match="module:function"):
            _imported(path)
    assert called == []
    assert function_for(check, "tests:check", "load", "what") is check
