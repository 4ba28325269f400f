"""A cache whose files were damaged, cut, exchanged or edited: never believed, and made again where that is asked."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import replace

import pytest
import torch

from interp.cache import ActivationCache, extract
from interp.cache.errors import CacheError, NotACacheError
from interp.cache.manifest import with_digest
from interp.cache.reader import problems_of
from interp.cache.store import drop_damaged
from interp.model import Model
from interp.prompt import Example, Message
from tests.cache_kit import IDENTITY, build, content, make_examples, tiny_plan
from tests.faults.kit import flips, leftovers
from tests.tiny import tiny, tiny_tokenizer


@pytest.fixture(scope="module")
def plan():
    return tiny_plan()


@pytest.fixture(scope="module")
def made(plan, tmp_path_factory):
    return build(tmp_path_factory.mktemp("cache") / "c", plan)


@pytest.fixture
def root(made, tmp_path):
    return shutil.copytree(made, tmp_path / "c")


def use(root):
    """What a user does with a cache; the first thing that is found wrong, or None."""
    try:
        with ActivationCache.open(root) as cache:
            for site in cache.sites:
                cache.read_rows(site)
            _ = cache.examples, cache.rows, cache.inspect()
    except CacheError as error:
        return error
    return next(iter(problems_of(root, "hash")), None)


def again(root, plan):
    """The same extraction once more, as `extract` does it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        drop_damaged(root, plan)
        return build(root, plan)


FILES = ("manifest.json", "SEALED.json", "rows.parquet", "examples.parquet", "shards/00/000001.json", "data")


def path_of(root, name):
    return next(root.glob("shards/00/000001.*.safetensors")) if name == "data" else root / name


@pytest.mark.parametrize("name", FILES)
def test_no_flipped_bit_of_any_file_is_believed_and_verify_never_fails(root, name, kills):
    path = path_of(root, name)
    before = path.read_bytes()
    for at in flips(path, 10 * kills):
        if name.endswith("json") and _same(before, path.read_bytes()):
            continue  # white space
        assert isinstance(use(root), CacheError), at
        assert problems_of(root, "hash"), at


def _same(a, b):
    try:
        return json.loads(a) == json.loads(b)
    except ValueError:
        return False


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_no_file_that_was_cut_is_believed(root, name, share):
    path = path_of(root, name)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert isinstance(use(root), CacheError)
    assert problems_of(root)


def test_another_shard_under_a_shards_name_is_found_by_reading_it_even_with_its_record_and_seal(tmp_path):
    plan = tiny_plan(8, target_bytes=100)  # one example in each shard: some have equal sizes
    root = build(tmp_path / "c", plan)
    size = {i: len(plan.header(i)) + plan.shards[i].n_rows for i in range(len(plan.shards))}
    one, two = next((a, b) for a in size for b in size if a < b and size[a] == size[b])
    names = [next(root.glob(f"shards/00/{i:06d}.*.safetensors")) for i in (one, two)]
    data = names[1].read_bytes()
    names[0].write_bytes(data)
    with pytest.raises(CacheError, match=f"shard {one}: the header"):
        ActivationCache.open(root).read_rows("resid_post.0")
    assert problems_of(root)


def test_another_members_shards_with_their_seal_are_not_believed_under_this_manifest(root, tmp_path):
    other = build(tmp_path / "other", other_plan(), salt=1)
    shutil.rmtree(root / "shards")
    shutil.copytree(other / "shards", root / "shards")
    shutil.copy(other / "SEALED.json", root / "SEALED.json")
    with pytest.raises(CacheError, match="files of two caches were mixed up"):
        ActivationCache.open(root)
    assert problems_of(root)
    (root / "SEALED.json").unlink()
    with pytest.raises(CacheError, match="another cache|two shards or caches"):
        drop_damaged(root, tiny_plan())
    assert problems_of(root)


def other_plan():
    return tiny_plan(identity={**IDENTITY, "adapter": {"id": "heuristic", "sha256": "a1"}})


def test_an_example_range_moved_by_one_and_edited_tables_are_not_believed(root):
    sealed = json.loads((root / "SEALED.json").read_bytes())
    sealed["shards"][1][2] = [at + 1 for at in sealed["shards"][1][2]]
    (root / "SEALED.json").write_text(json.dumps(sealed))
    assert isinstance(use(root), CacheError)
    del sealed["digest"]
    (root / "SEALED.json").write_text(json.dumps(with_digest(sealed)))  # with a digest of its own that fits
    with pytest.raises(CacheError, match="shard 1: the header"):
        ActivationCache.open(root).read_rows("resid_post.0")


@pytest.mark.parametrize("name", ["examples.parquet", "rows.parquet"])
def test_a_table_whose_rows_were_reversed_is_not_believed(root, name):
    import pyarrow.parquet as pq

    table = pq.read_table(root / name)
    pq.write_table(table.take(list(range(len(table)))[::-1]), root / name)
    with pytest.raises(CacheError, match=name.replace(".", r"\.")):
        _ = ActivationCache.open(root).examples
    assert problems_of(root)


@pytest.mark.parametrize("name", [*FILES, "shards/00"])
@pytest.mark.parametrize("how", ["gone", "cut"])
def test_what_is_gone_or_cut_is_made_again_and_nothing_else(root, made, plan, name, how):
    path = path_of(root, name)
    if path.is_dir():
        shutil.rmtree(path)
    elif how == "gone":
        path.unlink()
    elif name == "manifest.json":
        path.unlink()  # cut, it is named with the file to delete
    else:
        path.write_bytes(path.read_bytes()[:-20])
    kept = {file: file.stat().st_ino for file in root.glob("shards/00/000000.*")}
    again(root, plan)
    assert content(root) == content(made)
    assert all(file.stat().st_ino == inode for file, inode in kept.items() if file.exists() and name != "shards/00")


def test_a_corrected_label_is_sealed_again_without_touching_a_shard(root, plan):
    examples = make_examples()
    examples[3] = replace(examples[3], label="maybe")
    shards = {p: p.stat().st_ino for p in root.glob("shards/*/*")}
    build(root, tiny_plan(examples=examples))
    assert ActivationCache.open(root).examples["label"][3] == "maybe"
    assert problems_of(root, "hash") == ()
    assert {p: p.stat().st_ino for p in root.glob("shards/*/*")} == shards


def test_a_cache_of_an_earlier_version_is_refused_in_words(root):
    sealed = json.loads((root / "SEALED.json").read_bytes())
    (root / "SEALED.json").write_text(json.dumps({**sealed, "version": 1}))
    with pytest.raises(NotACacheError, match="version 1; this release reads and writes .* extract into another folder"):
        ActivationCache.open(root)


def test_a_real_extraction_makes_a_lost_shard_again_and_leaves_no_name_of_a_host_in_its_locks(tmp_path):
    tok = tiny_tokenizer()
    model = Model.wrap(tiny("qwen2", vocab_size=len(tok)), tok)
    items = [Example(f"q{i}", (Message("user", f"the fox {i}"),), label=i % 2) for i in range(6)]
    ask = dict(sites="resid_post.*", out=tmp_path / "c", shard_bytes="2KB", progress=False)
    want = extract(model, items, **ask).read("resid_post.1", "last")  # pyright: ignore[reportArgumentType]
    before = content(tmp_path / "c")
    next((tmp_path / "c").glob("shards/00/000001.*.safetensors")).unlink()
    with pytest.warns(UserWarning, match="shard 1 is remade"):
        got = extract(model, items, **ask)  # pyright: ignore[reportArgumentType]
    assert torch.equal(got.read("resid_post.1", "last"), want)
    assert content(tmp_path / "c") == before
    assert not leftovers(tmp_path)
