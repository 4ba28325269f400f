"""Reading a cache: the right rows by any route, in memory of one's own; every damaged byte is an error."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from interp.cache import reader
from interp.cache.activation_cache import ActivationCache
from interp.cache.errors import (
    CacheError,
    ChecksumError,
    MissingShardError,
    NotACacheError,
    TruncatedShardError,
    UnsealedCacheError,
)
from interp.cache.manifest import create_cache
from interp.cache.plan import make_plan
from interp.cache.store import commit_shard
from interp.prompt import Example, Prompt
from interp.site import Site
from tests.cache_kit import IDENTITY, SITES, activation, activations, build, make_prompts, tiny_plan

NAMES = [site.site for site in SITES]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("cache") / "c", tiny_plan())


@pytest.fixture
def cache(built: Path) -> ActivationCache:
    return ActivationCache.open(built)


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "copy"))


def expected(rows: list[int], site: str) -> torch.Tensor:
    plan, number = tiny_plan(), NAMES.index(site)
    return torch.stack([activation(plan, row, number) for row in rows])


def shard_files(root: Path) -> list[Path]:
    return sorted(root.glob("shards/*/*.safetensors"))


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("site", NAMES)
def test_read_gives_one_row_per_example_in_plan_order_bit_for_bit(cache, site):
    last = [row for row, kind in enumerate(tiny_plan().rows.rule.tolist()) if kind == 0]
    feats = cache.read(site, "last")
    assert cache.examples["id"].tolist() == [f"item-{i:03d}" for i in range(12)]
    assert feats.dtype == SITES[NAMES.index(site)].torch_dtype
    assert torch.equal(feats, expected(last, site))


@pytest.mark.parametrize("site", NAMES)
def test_read_rows_follows_the_table_of_rows(cache, site):
    rows = cache.rows
    assert torch.equal(cache.read_rows(site), expected(list(range(cache.n_rows)), site))
    even = rows[rows["position_name"] == "even"]["row"].tolist()
    assert torch.equal(cache.read_rows(site, "even"), expected(even, site))


def test_safetensors_reads_the_same_tensors_from_the_same_files(cache, built):
    for site in NAMES:
        parts = []
        for path in shard_files(built):
            with safe_open(path, framework="pt") as file:
                parts.append(file.get_tensor(site))
        assert torch.equal(torch.cat(parts), cache.read_rows(site))


def test_random_rows_come_in_the_order_asked_for_with_repeats(cache, rng):
    rows = torch.randint(0, cache.n_rows, (40,), generator=rng)
    assert len(set(rows.tolist())) < 40
    for form in (rows, rows.numpy(), rows.tolist()):
        assert torch.equal(cache.rows_at(form, "z.1"), expected(rows.tolist(), "z.1"))
    assert cache.rows_at([], "z.1").shape == (0, 2, 4)
    with pytest.raises(ValueError, match=f"0..{cache.n_rows - 1}"):
        cache.rows_at([0, cache.n_rows], "z.1")
    with pytest.raises(ValueError, match=r"-1\.\.0"):
        cache.rows_at([0, -1], "z.1")


def test_one_row_at_every_site_is_found_by_id_position_and_ordinal(cache):
    for number, row in enumerate(tiny_plan().rows):
        got = cache.row(row.example_id, row.position_name, ordinal=row.ordinal)
        assert list(got) == NAMES
        assert all(torch.equal(got[site], expected([number], site)[0]) for site in NAMES)


def test_a_row_that_does_not_exist_is_explained(cache):
    with pytest.raises(ValueError, match="'item-999' is not in"):
        cache.row("item-999", "last")
    with pytest.raises(ValueError, match="has 1 rows of 'last'.*got 1"):
        cache.row("item-000", "last", ordinal=1)
    with pytest.raises(ValueError, match="which has: last, even"):
        cache.row("item-000", "first")


@pytest.mark.parametrize("position", ["last", "even", None])
@pytest.mark.parametrize("block_rows", [1, 3, 1000])
def test_blocks_are_bounded_and_together_are_all_rows_in_order(cache, position, block_rows):
    blocks = list(cache.iter_blocks("resid_post.1", position, block_rows=block_rows))
    assert max(len(feats) for _, feats in blocks) <= block_rows
    assert torch.equal(torch.cat([feats for _, feats in blocks]), cache.read_rows("resid_post.1", position))
    for rows, feats in blocks:
        assert torch.equal(feats, cache.rows_at(rows, "resid_post.1"))
    with pytest.raises(ValueError, match="block_rows: expected at least 1, got 0"):
        next(cache.iter_blocks("resid_post.1", position, block_rows=0))


def test_one_head_is_cut_from_the_tensor_of_all_heads(cache):
    for name in ("z.1.1", "L1.H1", Site("z", 1, 1)):
        assert torch.equal(cache.read(name, "last"), cache.read("z.1", "last")[:, 1])
        assert torch.equal(cache.rows_at([3, 0], name), cache.rows_at([3, 0], "z.1")[:, 1])
    blocks = [feats for _, feats in cache.iter_blocks("z.1.0", None, block_rows=4)]
    assert torch.equal(torch.cat(blocks), cache.read_rows("z.1")[:, 0])
    for name in ("z.1.2", "resid_post.1.0", "resid_post.9"):
        with pytest.raises(ValueError, match=r"resid_post\.0, resid_post\.1, z\.1, mlp_out\.1|no heads|head"):
            cache.read(name, "last")


def test_a_rule_with_several_rows_per_example_points_to_read_rows(cache):
    with pytest.raises(ValueError, match=r"read_rows\('z.1', 'even'\)"):
        cache.read("z.1", "even")
    with pytest.raises(ValueError, match="'first' is not in"):
        cache.read("z.1", "first")


def test_writing_to_a_result_changes_neither_the_cache_nor_another_result(cache):
    first, second = cache.read("resid_post.0", "last"), cache.read("resid_post.0", "last")
    kept = second.clone()
    first.zero_()
    assert torch.equal(second, kept)
    assert torch.equal(cache.read("resid_post.0", "last"), kept)


def test_opening_needs_the_seal_and_the_manifest_that_it_seals_alone(copy):
    want = ActivationCache.open(copy).read("z.1", "last")
    for name in ("rows.parquet", "examples.parquet"):
        (copy / name).unlink()
    for record in copy.glob("shards/*/*.json"):
        record.unlink()
    cache = ActivationCache.open(copy)
    assert cache.sealed
    assert (cache.sites, cache.positions, len(cache)) == (tuple(NAMES), ("last", "even"), 12)
    assert torch.equal(cache.read("z.1", "last"), want)
    (copy / "manifest.json").unlink()
    with pytest.raises(ChecksumError, match=r"manifest\.json"):
        ActivationCache.open(copy)


def test_examples_carry_what_the_user_gave_and_what_was_tokenized(cache):
    table, prompts = cache.examples, make_prompts()
    assert table["label"].tolist() == ["no", "yes"] * 6
    assert table["template"].tolist() == [f"t{i % 3}" for i in range(12)]  # the group
    assert set(table["metadata.template"]) == {"taken"}  # a metadata key of the same name
    assert table["score"].tolist() == [i / 2 for i in range(12)]
    assert table["tags"].tolist() == [["x", i] for i in range(12)]
    assert table["prompt_sha256"].tolist() == [p.sha256 for p in prompts]
    assert table["prompt_len"].tolist() == [len(p.ids) for p in prompts]
    assert table["position.last"].tolist() == [len(p.ids) - 1 for p in prompts]
    assert table["token.last"].tolist() == [p.text[-1] for p in prompts]
    assert table["position.even"].tolist() == [list(range(2, len(p.ids), 2)) for p in prompts]
    table["label"] = "spoiled"
    assert set(cache.examples["label"]) == {"no", "yes"}


@pytest.mark.parametrize(
    "values",
    [[1, None, 3], [True, None, False], [1.5, 2, None], ["a", None, ""], ["a", 1, {"b": [None]}], [2**70, 1, None]],
)
def test_metadata_of_any_json_kind_comes_back(tmp_path, values):
    import pandas as pd

    examples = [
        Example(id=f"item-{i:03d}", text="q", metadata={} if v is None else {"v": v}) for i, v in enumerate(values)
    ]
    root = build(tmp_path, tiny_plan(3, examples=examples))
    got = ActivationCache.open(root).examples["v"].tolist()
    assert [None if not isinstance(g, (list, dict)) and pd.isna(g) else g for g in got] == values


def test_metadata_that_cannot_be_kept_is_named(tmp_path):
    examples = [Example(id="item-000", text="q", metadata={"when": object()})]
    with pytest.raises(ValueError, match=r"'metadata.when', example 'item-000': .* got a object"):
        create_cache(tmp_path, tiny_plan(1, examples=examples))


def test_a_flipped_byte_anywhere_in_the_data_is_an_error_on_every_route(copy):
    path = shard_files(copy)[1]
    offset, shape, _ = json.loads(sorted(copy.glob("shards/*/*.json"))[1].read_bytes())["tensors"]["resid_post.1"]
    flip(path, offset + 2 * shape[1] + 5)  # second row of the shard
    row = ActivationCache.open(copy).rows.query("shard == 1")["row"].tolist()[1]
    routes = [
        lambda c: c.read("resid_post.1", "last"),
        lambda c: c.read_rows("resid_post.1"),
        lambda c: c.rows_at([row], "resid_post.1"),
        lambda c: list(c.iter_blocks("resid_post.1", None, block_rows=2)),
        lambda c: c.row(c.rows["example_id"][row], c.rows["position_name"][row]),
    ]
    for route in routes:
        with pytest.raises(ChecksumError, match=f"shard 1, site resid_post.1, row {row}: "):
            route(ActivationCache.open(copy))
    cache = ActivationCache.open(copy)
    cache.verify(level="size")
    with pytest.raises(ChecksumError, match="shard 1: "):
        cache.verify(level="hash")
    assert len(cache.read("resid_post.0", "last")) == 12  # what is not damaged stays readable
    assert len(cache.rows_at([row + 1], "resid_post.1")) == 1


def test_a_flipped_byte_in_the_checksums_is_an_error_too(copy):
    record = json.loads(sorted(copy.glob("shards/*/*.json"))[0].read_bytes())
    flip(shard_files(copy)[0], record["header_bytes"])
    with pytest.raises(ChecksumError, match="shard 0, site resid_post.0, row 0"):
        ActivationCache.open(copy).read("resid_post.0", "last")


@pytest.mark.parametrize("name", ["manifest.json", "rows.parquet", "examples.parquet"])
def test_a_flipped_byte_in_the_small_files_is_found(copy, name):
    text = (copy / name).read_bytes()
    flip(copy / name, text.index(b"engaged") if name == "manifest.json" else 30)
    with pytest.raises(ChecksumError, match=name):
        ActivationCache.open(copy).verify()


@pytest.mark.parametrize("size", [-1, 20, 4])
def test_a_truncated_shard_is_an_error_that_says_what_to_delete(copy, size):
    path = shard_files(copy)[0]
    os.truncate(path, size if size > 0 else path.stat().st_size + size)
    cache = ActivationCache.open(copy)
    for route in (lambda: cache.read("z.1", "last"), lambda: cache.rows_at([0], "z.1"), cache.verify):
        with pytest.raises(TruncatedShardError, match=r"its record.*delete .*000000\.json and .*SEALED\.json"):
            route()


def test_a_shard_cut_while_it_is_open_is_an_error_and_not_a_crash(copy):
    cache = ActivationCache.open(copy)
    cache.read("resid_post.0", "last")
    os.truncate(shard_files(copy)[0], 800)
    with pytest.raises(TruncatedShardError, match="ends at byte"):
        cache.read_rows("mlp_out.1")
        cache.read_rows("z.1")


def test_a_missing_shard_is_named_by_missing_and_by_the_error(copy):
    shard_files(copy)[2].unlink()
    cache = ActivationCache.open(copy)
    assert cache.missing() == (2,)
    with pytest.raises(MissingShardError, match="shard 2: .* was committed but is missing"):
        cache.read("z.1", "last")
    assert [type(problem) for problem in cache.problems()] == [MissingShardError]


def test_verify_counts_every_damaged_shard(copy):
    files = shard_files(copy)
    files[0].unlink()
    os.truncate(files[1], 10)
    flip(files[2], files[2].stat().st_size - 1)
    cache = ActivationCache.open(copy)
    kinds = [type(problem) for problem in cache.problems(level="hash")]
    assert kinds == [MissingShardError, TruncatedShardError, ChecksumError]
    with pytest.raises(MissingShardError) as error:
        cache.verify(level="hash")
    assert error.value.__notes__ == ["2 more: see cache.problems(level='hash')."]
    with pytest.raises(ValueError, match="level 'all'"):
        cache.problems(level="all")


def test_a_header_that_moved_is_found_without_reading_the_data(copy):
    path = shard_files(copy)[0]
    at = path.read_bytes().index(b"mlp_out.1")
    flip(path, at)
    with pytest.raises(ChecksumError, match="shard 0: the header of"):
        ActivationCache.open(copy).verify(level="size")


def test_an_unfinished_cache_opens_only_when_asked_and_reads_what_is_there(tmp_path):
    plan = tiny_plan()
    create_cache(tmp_path, plan)
    commit_shard(tmp_path, plan, 1, activations(plan, 1))
    with pytest.raises(UnsealedCacheError, match="not finished.*allow_partial") as error:
        ActivationCache.open(tmp_path)
    assert 1 not in error.value.missing
    cache = ActivationCache.open(tmp_path, allow_partial=True)
    start, stop = plan.shard_bounds[1]
    assert torch.equal(cache.rows_at(range(start, stop), "z.1"), expected(list(range(start, stop)), "z.1"))
    assert not cache.sealed
    assert cache.missing() == error.value.missing
    with pytest.raises(MissingShardError, match="not extracted yet"):
        cache.read("z.1", "last")
    assert "NOT finished" in cache.inspect()


def test_a_folder_without_a_cache_and_a_newer_format_are_refused(copy, tmp_path):
    with pytest.raises(NotACacheError, match=r"no manifest\.json"):
        ActivationCache.open(tmp_path / "nothing")
    sealed = json.loads((copy / "SEALED.json").read_bytes())
    (copy / "SEALED.json").write_text(json.dumps(sealed | {"version": 3}))
    with pytest.raises(NotACacheError, match="version 3; this release reads"):
        ActivationCache.open(copy)


def test_more_shards_than_open_files_are_read_all_the_same(built, monkeypatch):
    monkeypatch.setattr(reader, "_OPEN_SHARDS", 2)
    monkeypatch.setattr(reader, "_AHEAD_READS", 1)
    before = len(os.listdir("/proc/self/fd"))
    with ActivationCache.open(built) as cache:
        assert torch.equal(cache.read_rows("z.1"), expected(list(range(cache.n_rows)), "z.1"))
        assert len(os.listdir("/proc/self/fd")) <= before + 4
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_cache_pickles_as_its_folder_and_survives_a_fork(cache):
    want = cache.read("z.1", "last")
    assert torch.equal(pickle.loads(pickle.dumps(cache)).read("z.1", "last"), want)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if torch.equal(cache.read("z.1", "last"), want) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_pairing_joins_by_id_and_ordinal_whatever_the_order_and_the_tokens(tmp_path, cache):
    prompts = make_prompts()[::-1][:9]
    shifted = [Prompt(p.example_id, p.text.upper(), (99, *p.ids), ((0, 0), *p.offsets), {}) for p in prompts]
    rules = {"even": [list(range(3, len(p.ids), 2)) for p in shifted], "other": [[0]] * 9}
    other_plan = make_plan(shifted, rules, SITES, IDENTITY, target_bytes=900)
    other = ActivationCache.open(build(tmp_path, other_plan))
    pairs = cache.pair(other)
    left, right = cache.rows.loc[pairs.left.tolist()], other.rows.loc[pairs.right.tolist()]
    for key in ("example_id", "position_name", "ordinal", "token_id"):
        assert (
            left[key].tolist()
            == right[key].tolist()
            == pairs.table[key if key != "token_id" else "token_id_left"].tolist()
        )
    assert (right["position"].to_numpy() - left["position"].to_numpy() == 1).all()
    assert len(pairs) == sum(len(at) for at in rules["even"])
    assert pairs.n_text_differs == len(pairs)
    assert set(pairs.only_right) == {(p.example_id, "other", 0) for p in prompts}
    kept = {p.example_id for p in prompts}
    assert {key for key in pairs.only_left if key[1] == "even"} == {
        (row.example_id, "even", row.ordinal)
        for row in tiny_plan().rows
        if row.position_name == "even" and row.example_id not in kept
    }
    assert cache.pair(cache).n_text_differs == 0


def test_pairing_caches_with_nothing_in_common_is_an_error(tmp_path, cache):
    renamed = [Prompt("other-" + p.example_id, p.text, p.ids, p.offsets, {}) for p in make_prompts(2)]
    other = ActivationCache.open(build(tmp_path, make_plan(renamed, {"last": [[0], [0]]}, SITES, IDENTITY)))
    with pytest.raises(ValueError, match="in common"):
        cache.pair(other)


def test_the_summary_names_model_adapter_rows_and_sites(cache):
    text = cache.inspect()
    for part in ("sealed", "tiny", "engaged", "last: 12", "resid_post.0-1", "mlp_out.1", "shards"):
        assert part in text
        assert part in cache._repr_html_()


def test_every_error_of_a_cache_can_be_caught_as_one():
    assert all(issubclass(kind, CacheError) for kind in (ChecksumError, MissingShardError, TruncatedShardError))


def test_checksums_are_of_the_rows(built, cache):
    import xxhash

    path = shard_files(built)[0]
    with safe_open(path, framework="pt") as file:
        sums = file.get_tensor("xxh3_64").numpy().view(np.uint64)
        rows = file.get_tensor("mlp_out.1").numpy()
    assert [xxhash.xxh3_64_intdigest(row.tobytes()) for row in rows] == sums[NAMES.index("mlp_out.1")].tolist()
