"""The commit protocol under kills, rivals, full disks, foreign folders and NaN. Children are forked: no imports."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import signal
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from interp.cache.activation_cache import ActivationCache
from interp.cache.errors import (
    CacheFullError,
    IdentityMismatchError,
    MissingShardError,
    NonFiniteActivationError,
    TruncatedShardError,
    UnsealedCacheError,
)
from interp.cache.manifest import create_cache, diff_manifests, read_manifest
from interp.cache.store import commit_shard, pending, seal
from tests.cache_kit import IDENTITY, SITES, activations, build, content, fork, status, tiny_plan

CALLS = ("open", "fsync", "rename", "replace", "link", "unlink", "fchmod")


def die_at_call(number: int) -> None:
    """Make the process exit at the `number`-th call into the file system, before the call is made."""
    count = 0

    def deadly(real):
        def call(*args, **kwargs):
            nonlocal count
            count += 1
            if count == number:
                os._exit(77)
            return real(*args, **kwargs)

        return call

    for name in CALLS:
        setattr(os, name, deadly(getattr(os, name)))


def test_a_kill_before_any_system_call_leaves_nothing_or_whole_shards_and_a_rerun_is_byte_identical(tmp_path):
    plan = tiny_plan(6, target_bytes=1300)
    want, kills = content(build(tmp_path / "undisturbed", plan)), 0
    for number in range(1, 500):
        root = tmp_path / f"kill-{number}"
        code = status(fork(partial(die_at_call, number), partial(build, root, plan)))
        if code == 0:
            break
        assert code == 77
        kills += 1
        assert all(
            (root / "shards" / json.loads(r.read_bytes())["file"]).exists() for r in root.glob("shards/*/*.json")
        )
        assert content(build(root, plan)) == want
        assert not list((root / ".tmp").iterdir())
    assert kills > 30  # every step of manifest, tables, each shard and the seal was hit


def test_sigkill_at_twenty_random_moments_then_restart_is_byte_identical(tmp_path):
    plan, dice = tiny_plan(16, target_bytes=700), random.Random(0)
    root, want, kills = tmp_path / "killed", content(build(tmp_path / "undisturbed", plan)), 0
    while kills < 20:
        started = time.monotonic()
        pid = fork(lambda: build(root, plan))
        time.sleep(dice.uniform(0.001, 0.03))
        os.kill(pid, signal.SIGKILL)
        code = status(pid)
        assert code in (0, -signal.SIGKILL), "the writer itself failed"
        kills += code != 0
        if code == 0 or time.monotonic() - started > 5:  # finished before the kill: begin a new one
            assert content(root) == want
            os.rename(root, tmp_path / f"finished-{kills}-{time.time_ns()}")
    assert content(build(root, plan)) == want


def test_what_was_committed_is_neither_computed_nor_written_again(tmp_path):
    plan, root = tiny_plan(), tmp_path / "c"
    create_cache(root, plan)
    commit_shard(root, plan, 0, activations(plan, 0))
    before = (root / "shards/00/000000.json").stat().st_mtime_ns
    assert pending(root, plan) == list(range(1, len(plan.shards)))
    assert commit_shard(root, plan, 0, {})["shard"] == 0  # returns at step 1: it does not even look at the tensors
    assert (root / "shards/00/000000.json").stat().st_mtime_ns == before


def test_facts_of_a_run_are_logged_outside_the_cache_proper(tmp_path):
    plan, root = tiny_plan(), tmp_path / "c"
    create_cache(root, plan)
    record = commit_shard(root, plan, 0, activations(plan, 0), {"device": "none"})
    line = json.loads(next((root / ".runs").iterdir()).read_text())
    assert (line["shard"], line["device"]) == (0, "none") and line["wall_s"] > 0
    assert not {"device", "wall_s"} & set(record)
    assert not {"pid", "host"} & set(line)  # a cache that is shared names no machine


def test_the_seal_waits_for_every_shard_and_is_written_once(tmp_path):
    plan, root = tiny_plan(), tmp_path / "c"
    create_cache(root, plan)
    for shard in pending(root, plan)[1:]:
        commit_shard(root, plan, shard, activations(plan, shard))
    with pytest.raises(UnsealedCacheError, match="1 of ") as error:
        seal(root, plan)
    assert error.value.missing == (0,)
    commit_shard(root, plan, 0, activations(plan, 0))
    first = seal(root, plan)
    inode = (root / "SEALED.json").stat().st_ino
    assert seal(root, plan) == first
    assert (root / "SEALED.json").stat().st_ino == inode


@pytest.mark.parametrize(("damage", "expected"), [("unlink", MissingShardError), ("truncate", TruncatedShardError)])
def test_a_cache_with_a_lost_or_cut_shard_is_not_sealed(tmp_path, damage, expected):
    root, plan = build(tmp_path / "c", tiny_plan()), tiny_plan()
    (root / "SEALED.json").unlink()
    path = sorted(root.glob("shards/*/*.safetensors"))[1]
    path.unlink() if damage == "unlink" else os.truncate(path, 50)
    with pytest.raises(expected, match=r"shard 1: .*delete .*000001\.json"):
        seal(root, plan)


def test_a_full_disk_raises_with_bytes_loses_nothing_and_the_run_continues(tmp_path):
    plan, root = tiny_plan(24, target_bytes=5000), tmp_path / "c"
    create_cache(root, plan)
    commit_shard(root, plan, 0, activations(plan, 0))
    before = content(root)

    def write() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
        with pytest.raises(CacheFullError, match="Nothing committed is lost") as error:
            commit_shard(root, plan, 1, activations(plan, 1))
        assert error.value.needed == plan.shard_bytes(1)

    assert status(fork(write)) == 0
    assert content(root) == before
    assert not list((root / ".tmp").iterdir())
    assert content(build(root, plan)) == content(build(tmp_path / "undisturbed", plan))


@pytest.mark.parametrize("step", ["fsync", "rename", "link"])
def test_no_space_at_any_step_leaves_no_temp_and_no_record(tmp_path, monkeypatch, step):
    plan, root = tiny_plan(), tmp_path / "c"
    create_cache(root, plan)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(CacheFullError, match="free"):
        patch.setattr(os, step, full)
        commit_shard(root, plan, 0, activations(plan, 0))
    assert not list(root.glob("shards/*/*.json"))
    assert not list((root / ".tmp").iterdir())
    assert content(build(root, plan)) == content(build(tmp_path / "undisturbed", plan))


def test_the_cache_of_another_adapter_is_refused_by_the_fields_that_differ_and_left_alone(tmp_path):
    root = build(tmp_path / "c", tiny_plan())
    before = content(root)
    other = tiny_plan(identity={**IDENTITY, "adapter": {"id": "heuristic", "sha256": "a1"}})
    with pytest.raises(IdentityMismatchError, match=r'adapter\.sha256: "a0" != "a1"') as error:
        create_cache(root, other)
    assert error.value.fields == ("adapter.id", "adapter.sha256")
    assert content(root) == before


def test_manifests_of_one_identity_do_not_differ(tmp_path):
    left = read_manifest(build(tmp_path / "a", tiny_plan(environment={"torch": "1"})))
    right = read_manifest(build(tmp_path / "b", tiny_plan(environment={"torch": "2"})))
    assert diff_manifests(left, right) == ()


def test_corrected_labels_replace_the_examples_and_nothing_else(tmp_path):
    root = build(tmp_path / "c", tiny_plan(examples=None))
    before = content(root)
    create_cache(root, tiny_plan())
    assert "SEALED.json" not in content(root), "the seal is of the old labels"
    seal(root, tiny_plan())
    after = content(root)
    assert [name for name in before if before[name] != after[name]] == ["SEALED.json", "examples.parquet"]
    assert ActivationCache.open(root).examples["label"].tolist() == ["no", "yes"] * 6


def test_a_damaged_table_of_examples_is_written_again(tmp_path):
    root = build(tmp_path / "c", tiny_plan())
    before = content(root)
    (root / "examples.parquet").write_bytes(before["examples.parquet"][:-9])
    create_cache(root, tiny_plan())
    seal(root, tiny_plan())
    assert content(root) == before


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_non_finite_activation_names_example_site_and_position_and_commits_nothing(tmp_path, value):
    plan, root = tiny_plan(), tmp_path / "c"
    create_cache(root, plan)
    tensors = activations(plan, 1)
    tensors["z.1"][2, 1, 3] = value
    row = plan.rows[plan.shards[1].start + 2]
    with pytest.raises(
        NonFiniteActivationError, match=f"'{row.example_id}', site z.1, position {row.position} "
    ) as error:
        commit_shard(root, plan, 1, tensors)
    assert (error.value.example_id, error.value.site, error.value.position) == (row.example_id, "z.1", row.position)
    assert not list(root.glob("shards/*/*"))


def test_finite_extremes_are_not_taken_for_infinities(tmp_path):
    plan = tiny_plan(2)
    create_cache(tmp_path, plan)
    tensors = {
        site: torch.full_like(feats, torch.finfo(feats.dtype).max) for site, feats in activations(plan, 0).items()
    }
    assert commit_shard(tmp_path, plan, 0, tensors)["shard"] == 0


@pytest.mark.parametrize(
    ("text", "change"),
    [
        ("missing .'z.1'", lambda t: t.pop("z.1")),
        ("not in the plan .'q.0'", lambda t: t.update({"q.0": torch.zeros(1)})),
        ("resid_post.0: expected", lambda t: t.update({"resid_post.0": t["resid_post.0"].float()})),
        ("resid_post.0: expected", lambda t: t.update({"resid_post.0": t["resid_post.0"][1:]})),
    ],
)
def test_tensors_that_are_not_the_plans_are_refused(tmp_path, text, change):
    plan = tiny_plan(sites=SITES)
    create_cache(tmp_path, plan)
    tensors = activations(plan, 0)
    change(tensors)
    with pytest.raises(ValueError, match=text):
        commit_shard(tmp_path, plan, 0, tensors)


def test_a_strided_tensor_is_stored_by_value(tmp_path):
    plan, wide = tiny_plan(), {}
    for site, feats in activations(plan, 0).items():
        wide[site] = torch.stack([feats, feats + 1], dim=-1)[..., 0]
        assert not wide[site].is_contiguous()
    create_cache(tmp_path / "a", plan)
    strided = commit_shard(tmp_path / "a", plan, 0, wide)
    create_cache(tmp_path / "b", plan)
    assert strided["xxh3_128"] == commit_shard(tmp_path / "b", plan, 0, activations(plan, 0))["xxh3_128"]


def test_paths_may_be_given_as_text(tmp_path):
    root = str(tmp_path / "c")
    assert Path(root) == build(Path(root), tiny_plan())
    assert pending(root, tiny_plan()) == []
