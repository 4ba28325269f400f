"""A cache with a missing, replaced or damaged file: CacheError everywhere, and `problems` says so and never fails."""

from __future__ import annotations

import json
import random
import shutil

import pytest

from interp.cache import ActivationCache, extract
from interp.cache.errors import CacheError
from interp.model import Model
from interp.prompt import Example, Message
from tests.tiny import tiny, tiny_tokenizer

FILES = ("rows.parquet", "examples.parquet", "manifest.json", "SEALED.json", "shards/00/000000.json", "data")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    tok = tiny_tokenizer()
    model = Model.wrap(tiny("qwen2", vocab_size=len(tok)), tok)
    items = [Example(f"q{i}", (Message("user", f"the fox {i}"),), label=i % 2) for i in range(6)]
    root = tmp_path_factory.mktemp("cache") / "c"
    extract(model, items, sites="resid_post.*", out=root, shard_bytes="2KB")
    return root


def use(root, *, stop_at_problems=False):
    """What a user does with a cache; None, or the CacheError that it ended in."""
    try:
        with ActivationCache.open(root) as cache:
            problems = cache.problems()
            if problems and stop_at_problems:
                return problems[0]
            for site in cache.sites:
                cache.read(site, "last")
            _ = cache.examples, cache.rows, cache.inspect(), cache.missing()
    except CacheError as error:
        return error
    return problems[0] if problems else None


def copy(made, tmp_path, name):
    root = shutil.copytree(made, tmp_path / "c")
    return root, next((root / "shards" / "00").glob("000000.*.safetensors")) if name == "data" else root / name


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["gone", "folder", "empty", "text", "deep", "list"])
def test_a_file_that_is_gone_or_another_is_a_cache_error(made, tmp_path, name, how):
    root, path = copy(made, tmp_path, name)
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how != "gone":
        path.write_text({"empty": "", "text": "hello", "deep": "[" * 100_000, "list": "[1, 2]"}[how])
    assert isinstance(use(root), CacheError)


def test_an_undamaged_cache_has_no_problems(made):
    assert use(made) is None
    assert ActivationCache.open(made).problems(level="hash") == ()


@pytest.mark.parametrize("name", ["SEALED.json", "data"])
def test_every_flipped_byte_of_the_seal_and_of_a_header_is_found_by_size_alone(made, tmp_path, name):
    root, path = copy(made, tmp_path, name)
    data, rng = path.read_bytes(), random.Random(0)
    end = len(data) if name == "SEALED.json" else 8 + int.from_bytes(data[:8], "little")
    for at in rng.sample(range(end), min(150, end)):
        bit = 1 << rng.randrange(8)
        path.write_bytes(data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :])
        if name == "SEALED.json" and _same_json(path, data):
            continue
        assert isinstance(use(root, stop_at_problems=True), CacheError), (name, at, bit)


def _same_json(path, data):
    try:
        return json.loads(path.read_bytes()) == json.loads(data)
    except ValueError:
        return False


@pytest.mark.parametrize("task", ["interp.tasks.procedural", "interp.tasks.esi"])
def test_an_absurd_number_of_items_is_refused_at_once(task):
    from interp.tasks import load_task

    with pytest.raises(ValueError, match=r"per_cell 1,000,000,000,000: expected at most 100,000"):
        load_task(task).examples(None, per_cell=10**12)
