"""Several writers of one cache: rivals, the dead, ranks, locks. Children are forked: no imports."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import time
import warnings
from itertools import chain

import pytest

from interp.cache import store
from interp.cache.activation_cache import ActivationCache
from interp.cache.errors import (
    CacheBusyError,
    NonDeterministicShard,
)
from interp.cache.manifest import create_cache, read_json
from interp.cache.store import commit_shard, pending, seal
from interp.io import files
from interp.io.lock import writer_lock
from tests.cache_kit import activations, build, content, fork, status, tiny_plan


@pytest.mark.parametrize("trial", range(4))
def test_of_three_writers_with_different_bytes_exactly_one_wins_each_shard(tmp_path, trial):
    plan, root = tiny_plan(6, target_bytes=2500), tmp_path / "c"
    create_cache(root, plan)

    def write(salt: int) -> None:
        warnings.simplefilter("ignore")
        for shard in range(len(plan.shards)):
            commit_shard(root, plan, shard, activations(plan, shard, salt=salt))

    assert [status(pid) for pid in [fork(lambda salt=salt: write(salt)) for salt in (1, 2, 3)]] == [0, 0, 0]
    seal(root, plan)
    assert len(list(root.glob("shards/*/*.safetensors"))) == len(plan.shards)
    ActivationCache.open(root).verify(level="hash")


def test_the_loser_of_a_race_returns_the_winners_record_removes_its_file_and_warns(tmp_path, monkeypatch):
    plan, root, real = tiny_plan(), tmp_path / "c", store.publish
    create_cache(root, plan)

    def overtaken(temp, final):
        monkeypatch.setattr(store, "publish", real)
        commit_shard(root, plan, 0, activations(plan, 0, salt=1))
        return real(temp, final)

    monkeypatch.setattr(store, "publish", overtaken)
    with pytest.warns(NonDeterministicShard, match="shard 0: another writer"):
        record = commit_shard(root, plan, 0, activations(plan, 0, salt=2))
    assert record == read_json(root / "shards/00/000000.json")
    assert [p.name for p in root.glob("shards/*/*.safetensors")] == [record["file"].split("/")[1]]


def test_a_data_file_whose_writer_died_before_the_record_is_removed_by_the_seal(tmp_path):
    plan, root = tiny_plan(), tmp_path / "c"
    create_cache(root, plan)
    orphan = root / "shards/00/000000.0123456789abcdef.safetensors"
    orphan.parent.mkdir()
    orphan.write_bytes(b"other bits")
    build(root, plan)
    assert not orphan.exists()
    assert content(root) == content(build(tmp_path / "undisturbed", plan))


def test_temps_of_the_dead_are_swept_and_those_of_the_living_and_of_other_hosts_stay(tmp_path):
    plan, root, now = tiny_plan(), tmp_path / "c", time.time_ns()
    dead = fork(lambda: None)
    status(dead)
    (root / ".tmp").mkdir(parents=True)
    kept = {f"000001.{files.host()}.{os.getpid()}.{now}", f"000002.elsewhere.{dead}.{now}", "notes.txt"}
    gone = {f"000003.{files.host()}.{dead}.{now}", f"000004.elsewhere.1.{now - 25 * 3600 * 10**9}"}
    for name in kept | gone:
        (root / ".tmp" / name).touch()
    create_cache(root, plan)
    assert {p.name for p in (root / ".tmp").iterdir()} == kept


def test_without_hard_links_the_first_writer_still_wins(tmp_path, monkeypatch):
    def no_links(*_):
        raise OSError(errno.EPERM, "no hard links here")

    want, plan = content(build(tmp_path / "linked", tiny_plan())), tiny_plan()
    monkeypatch.setattr(os, "link", no_links)
    root = build(tmp_path / "c", plan)
    assert content(root) == want
    assert not files.publish(root / "manifest.json", root / "SEALED.json")
    (root / "new.lock").touch()
    with pytest.raises(CacheBusyError, match=r"new\.lock"):
        files.publish(root / "manifest.json", root / "new")


def test_files_get_the_mode_of_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        root = build(tmp_path / "c", tiny_plan())
    finally:
        os.umask(old)
    assert {stat.S_IMODE(path.stat().st_mode) for path in root.glob("shards/*/*")} == {0o640}


def test_a_second_writer_is_refused_and_told_who_holds_the_cache(tmp_path):
    with (
        writer_lock(tmp_path),
        pytest.raises(CacheBusyError, match=f"process {os.getpid()} on host {files.host()} .rank 0 of 1"),
        writer_lock(tmp_path),
    ):
        pytest.fail("two writers at once")
    with writer_lock(tmp_path):
        pass  # released


def test_the_lock_of_a_killed_writer_is_free(tmp_path):
    def hold() -> None:
        with writer_lock(tmp_path):
            (tmp_path / "held").touch()
            time.sleep(60)

    pid = fork(hold)
    while not (tmp_path / "held").exists():
        time.sleep(0.005)
    with pytest.raises(CacheBusyError, match=f"process {pid}"), writer_lock(tmp_path):
        pass
    os.kill(pid, signal.SIGKILL)
    status(pid)
    with writer_lock(tmp_path):
        pass


def test_ranks_of_one_job_share_a_cache_and_everyone_else_is_refused(tmp_path):
    with writer_lock(tmp_path, rank=0, world=2), writer_lock(tmp_path, rank=1, world=2):
        for rank, world in ((1, 2), (0, 1), (2, 3)):
            with pytest.raises(CacheBusyError), writer_lock(tmp_path, rank=rank, world=world):
                pass
    with writer_lock(tmp_path, rank=2, world=3):
        pass
    with pytest.raises(ValueError, match="rank 2 of 2"), writer_lock(tmp_path, rank=2, world=2):
        pass


def test_a_file_system_without_locks_warns_and_goes_on(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.warns(UserWarning, match="no flock"), writer_lock(tmp_path):
        pass


def test_ranks_that_split_the_shards_make_the_cache_of_one_process(tmp_path):
    plan, root = tiny_plan(), tmp_path / "ranks"
    create_cache(root, plan)
    shares = [pending(root, plan, rank=rank, world=3) for rank in range(3)]
    assert sorted(chain.from_iterable(shares)) == list(range(len(plan.shards)))
    for rank in (2, 0, 1):
        create_cache(root, plan)
        for shard in shares[rank]:
            commit_shard(root, plan, shard, activations(plan, shard), {"rank": rank})
    seal(root, plan)
    assert content(root) == content(build(tmp_path / "one", plan))
