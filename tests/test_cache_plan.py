"""The plan of a cache: its rows, its shards, its identity and what it refuses."""

from __future__ import annotations

import shutil

import pytest

from interp.cache.errors import CacheFullError
from interp.cache.layout import SiteSpec
from interp.cache.plan import make_plan, parse_bytes
from tests.cache_kit import IDENTITY, SITES, build, make_prompts, tiny_plan


def test_every_chosen_position_is_one_row_and_no_row_is_invented():
    plan, prompts = tiny_plan(), make_prompts()
    got = sorted((r.example_id, r.position_name, r.ordinal, r.position, r.token_id) for r in plan.rows)
    want = [(p.example_id, "last", 0, len(p.ids) - 1, p.ids[-1]) for p in prompts]
    want += [(p.example_id, "even", k, at, p.ids[at]) for p in prompts for k, at in enumerate(range(2, len(p.ids), 2))]
    assert got == sorted(want)


def test_token_text_comes_from_the_offsets_or_from_the_decoder():
    row = tiny_plan().rows[0]
    assert row.token_text == "abcdefgh"[row.position]
    assert tiny_plan(decode=lambda token: f"<{token}>").rows[0].token_text == f"<{row.token_id}>"


def test_shards_tile_the_rows_and_no_example_straddles_two():
    plan = tiny_plan()
    assert len(plan.shards) > 2
    assert [start for start, _ in plan.shard_bounds] == [0, *(stop for _, stop in plan.shard_bounds[:-1])]
    assert plan.shard_bounds[-1][1] == len(plan.rows)
    for shard in plan.shards:
        inside = set(plan.rows.example[shard.start : shard.stop].tolist())
        assert inside == set(range(shard.example_start, shard.example_stop))
        assert sum(shard.runs) == shard.n_rows


def test_inside_a_shard_the_rows_of_one_rule_are_contiguous_and_in_example_order():
    plan = tiny_plan()
    for shard in plan.shards:
        rules = plan.rows.rule[shard.start : shard.stop].tolist()
        assert rules == sorted(rules)
        for rule in (0, 1):
            part = [(r, e) for r, e in zip(rules, plan.rows.example[shard.start : shard.stop].tolist(), strict=True)]
            examples = [e for r, e in part if r == rule]
            assert examples == sorted(examples)


@pytest.mark.parametrize("target", [1, 700, "1500B", "2kB", 10**9])
def test_a_shard_stays_under_the_target_unless_one_example_alone_is_larger(target):
    plan = tiny_plan(target_bytes=target)
    per_row = sum(site.row_bytes + 8 for site in plan.sites)
    for shard in plan.shards:
        alone = shard.example_stop - shard.example_start == 1
        assert alone or shard.n_rows * per_row <= parse_bytes(target)


def test_examples_without_any_position_take_no_row_and_break_nothing():
    prompts = make_prompts(5)
    plan = make_plan(prompts, {"some": [[], [1], [], [2], []]}, SITES, IDENTITY, target_bytes=1)
    assert [row.example_id for row in plan.rows] == ["item-001", "item-003"]
    assert plan.shard_bounds == ((0, 1), (1, 2))


def test_the_work_of_a_shard_covers_each_of_its_rows_once():
    plan = tiny_plan()
    for shard in plan.shards:
        seen = {}
        for item in plan.work(shard.index):
            for row, position in zip(item.rows, item.positions, strict=True):
                seen[row] = (item.example, position)
        rows = range(shard.start, shard.stop)
        assert seen == {r - shard.start: (int(plan.rows.example[r]), int(plan.rows.position[r])) for r in rows}


def test_the_estimate_is_the_size_of_the_finished_cache(tmp_path):
    plan = tiny_plan()
    root, estimate = build(tmp_path / "c", plan), plan.estimate()
    data = list(root.glob("shards/*/*.safetensors"))
    assert estimate.bytes == sum(path.stat().st_size for path in data)
    assert estimate.files == len(
        [p for p in root.rglob("*") if p.is_file() and not p.relative_to(root).parts[0].startswith(".")]
    )
    assert (estimate.shards, estimate.rows) == (len(data), len(plan.rows))


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("adapter", {"identity": {**IDENTITY, "adapter": None}}),
        ("batching", {"identity": {**IDENTITY, "batching": "other"}}),
        ("sharding", {"target_bytes": 3000}),
        ("sites", {"sites": SITES[:3]}),
        ("dtype", {"sites": (*SITES[:3], SiteSpec("mlp_out.1", (8,), "float16"))}),
        ("examples", {"n_examples": 11}),
    ],
)
def test_the_plan_id_changes_with_whatever_changes_numbers(what, change):
    assert tiny_plan(**change).plan_id != tiny_plan().plan_id, what


def test_the_plan_id_does_not_depend_on_labels_or_environment():
    assert tiny_plan(examples=None, environment={"torch": "x"}).plan_id == tiny_plan().plan_id


def test_the_plan_id_changes_with_one_token_and_with_one_position():
    prompts, at = make_prompts(3), [[0], [0], [0]]
    ids = {make_plan(prompts, {"first": at}, SITES, IDENTITY).plan_id}
    ids.add(make_plan(prompts, {"first": [[0], [1], [0]]}, SITES, IDENTITY).plan_id)
    other = [
        *prompts[:2],
        type(prompts[2])("item-002", prompts[2].text, (9, *prompts[2].ids[1:]), prompts[2].offsets, {}),
    ]
    ids.add(make_plan(other, {"first": at}, SITES, IDENTITY).plan_id)
    assert len(ids) == 3


@pytest.mark.parametrize(
    ("text", "size"),
    [("40GB", 40 * 10**9), ("1.5 mb", 1_500_000), ("16GiB", 16 * 2**30), (7, 7), ("12", 12), ("3B", 3)],
)
def test_sizes_are_read_as_people_write_them(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GB", "4 XB", "-3GB"])
def test_a_size_that_is_none_says_what_one_looks_like(text):
    with pytest.raises(ValueError, match="40GB"):
        parse_bytes(text)


def test_all_positions_need_an_explicit_budget(tmp_path):
    prompts = make_prompts(3)
    plan = make_plan(prompts, {"all": [list(range(len(p.ids))) for p in prompts]}, SITES, IDENTITY)
    with pytest.raises(ValueError, match="max_bytes= of at least"):
        plan.check_disk(tmp_path)
    assert plan.check_disk(tmp_path, max_bytes="1MB").rows == sum(len(p.ids) for p in prompts)


def test_a_budget_too_small_and_a_disk_too_small_are_refused_before_anything_is_written(tmp_path, monkeypatch):
    plan, folder = tiny_plan(), tmp_path / "not" / "there"
    with pytest.raises(CacheFullError, match="max_bytes is 100 B") as error:
        plan.check_disk(folder, max_bytes=100)
    assert (error.value.needed, error.value.free) == (plan.estimate().bytes, 100)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(CacheFullError, match="1.00 kB free"):
        plan.check_disk(folder)
    assert not folder.exists()


def test_bytes_already_committed_are_not_needed_again(tmp_path, monkeypatch):
    plan = tiny_plan()
    root, usage = build(tmp_path / "c", plan), shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1))
    assert plan.check_disk(root) == plan.estimate()


@pytest.mark.parametrize(
    ("text", "change"),
    [
        ("'item-001'.*ascending token indices in 0..3", {"rules": {"last": [[2], [9], [4]]}}),
        ("ascending", {"rules": {"last": [[2], [3, 1], [4]]}}),
        ("expected a list per prompt \\(3\\), got 2", {"rules": {"last": [[2], [3]]}}),
        ("nothing to store", {"rules": {"last": [[], [], []]}}),
        ("nothing to store", {"sites": []}),
        ("site 'z.1' occurs more than once", {"sites": [SITES[2], SITES[2]]}),
        (
            "missing .*'adapter'.*unknown .*'adaptor'",
            {"identity": {"model": 1, "adaptor": 2, "tokenizer": 3, "numerics": 4}},
        ),
    ],
)
def test_a_wrong_input_is_named(text, change):
    inputs = {"rules": {"last": [[2], [3], [4]]}, "sites": SITES, "identity": IDENTITY} | change
    with pytest.raises(ValueError, match=text):
        make_plan(make_prompts(3), inputs["rules"], inputs["sites"], inputs["identity"])


def test_duplicate_example_ids_are_refused():
    prompts = make_prompts(2)
    with pytest.raises(ValueError, match="'item-000' occurs more than once"):
        make_plan([prompts[0], prompts[0]], {"last": [[0], [0]]}, SITES, IDENTITY)


def test_an_unknown_dtype_is_refused():
    with pytest.raises(ValueError, match="float8"):
        SiteSpec("resid_post.0", (8,), "float8")
