"""The store of items: killed, fought over, damaged, exchanged, renamed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from interp.io import DamagedFileError, FolderBusyError, ItemStore, write_file
from interp.io.digest import safe_name, sha256_of
from tests.faults.kit import check_kills, flips, fork, leftovers, tree

KIND, WHO = "sweep", {"weights": "w", "seeds": (0, 1)}


def made(root: Path, identity=WHO, n: int = 3) -> Path:
    with ItemStore.writing(root, KIND, identity, notes={"versions": {"torch": "2"}}) as store:
        for i in range(n):
            if f"item {i}" not in store:
                store.put_arrays(f"item {i}", {"x": np.arange(4) + i})
        write_file(root / "table.csv", b"a,b\n")
    return root


def value(root: Path, key: str = "item 1"):
    return ItemStore.reading(root, KIND).get_arrays(key)["x"].tolist()


def test_killed_before_any_change_of_a_file_and_run_again_it_is_byte_identical(tmp_path, kills):
    check_kills(made, tmp_path, kills=4 * kills)


def test_what_is_there_is_not_made_again(tmp_path):
    root = made(tmp_path / "a")
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*.item")}
    made(root)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.item")} == before
    assert value(root) == [1, 2, 3, 4]


def test_every_flipped_byte_of_an_item_is_found_named_and_made_again(tmp_path):
    root = made(tmp_path / "a")
    want, path = tree(root), root / "items" / f"{safe_name('item 1')}.item"
    for at in flips(path, 40):
        with pytest.raises(DamagedFileError, match=path.name):
            value(root)
        with pytest.warns(UserWarning, match=path.name):
            made(root)
        assert tree(root) == want, at


@pytest.mark.parametrize("size", [0, 1, 0.5, -1])
def test_an_item_that_was_cut_is_found_and_made_again(tmp_path, size):
    root = made(tmp_path / "a")
    want, path = tree(root), root / "items" / f"{safe_name('item 1')}.item"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * size) if size == 0.5 else size])
    with pytest.raises(DamagedFileError, match="not the bytes that were written"):
        value(root)
    with pytest.warns(UserWarning, match="recomputed"):
        made(root)
    assert tree(root) == want


def test_an_item_in_the_place_of_another_is_found_and_made_again(tmp_path):
    root = made(tmp_path / "a")
    want, items = tree(root), root / "items"
    shutil.copy(items / f"{safe_name('item 0')}.item", items / f"{safe_name('item 1')}.item")
    with pytest.raises(DamagedFileError, match=r"item 'item 0' in the place of 'item 1'"):
        value(root)
    with pytest.warns(UserWarning, match="under this name"):
        made(root)
    assert tree(root) == want


def test_an_item_of_another_job_is_neither_believed_nor_deleted(tmp_path):
    root, other = made(tmp_path / "a"), made(tmp_path / "b", {"weights": "v"})
    name = f"{safe_name('item 1')}.item"
    shutil.copy(other / "items" / name, root / "items" / name)
    with pytest.raises(DamagedFileError, match="an item of another job"):
        value(root)
    with pytest.raises(DamagedFileError, match=name):
        made(root)
    assert (root / "items" / name).read_bytes() == (other / "items" / name).read_bytes()


def test_every_flipped_byte_of_the_plan_is_found(tmp_path):
    root = made(tmp_path / "a")
    want, plan = tree(root), json.loads((root / "plan.json").read_bytes())
    for at in flips(root / "plan.json", 60):
        try:
            if json.loads((root / "plan.json").read_bytes()) == plan:
                continue  # white space
        except ValueError:
            pass
        with pytest.raises((DamagedFileError, ValueError), match=r"plan\.json"):
            value(root)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                made(root)
            except ValueError as error:  # a flip in its format or version: of something else, it says
                if "plan.json" not in str(error):
                    raise
                continue
        assert tree(root) == want, at


def test_another_job_is_refused_by_what_differs_and_nothing_is_touched(tmp_path):
    root = made(tmp_path / "a")
    before = tree(root)
    with pytest.raises(ValueError, match=r"another sweep \(weights: 'w' != 'v'\)"):
        made(root, {**WHO, "weights": "v"})
    assert tree(root) == before


def test_a_job_that_ended_before_its_first_item_does_not_keep_its_folder(tmp_path):
    with ItemStore.writing(tmp_path / "a", KIND, {"option": "wrong"}):
        pass
    assert tree(made(tmp_path / "a")) == tree(made(tmp_path / "b"))


@pytest.mark.parametrize("name", ["manifest.json", "batches/000000.json", "items/000.npz"])
def test_a_folder_of_an_earlier_version_is_refused_in_words(tmp_path, name):
    path = tmp_path / "a" / name
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    with pytest.raises(ValueError, match="an earlier version of Diptych. Choose another out=, or delete it"):
        made(tmp_path / "a")
    assert path.read_text() == "{}"


def test_a_lost_plan_is_written_again_where_the_items_say_that_they_are_of_this_job(tmp_path):
    root = made(tmp_path / "a")
    want = tree(root)
    (root / "plan.json").unlink()
    with pytest.raises(ValueError, match="an earlier version"):
        made(root, {"weights": "v"})
    assert tree(made(root)) == want


def test_of_two_writers_one_is_refused_before_it_writes_anything(tmp_path):
    root = made(tmp_path / "a")
    before = tree(root)
    with ItemStore.writing(root, KIND, WHO):
        for identity in (WHO, {"weights": "v"}):
            with pytest.raises(FolderBusyError, match=f"process {os.getpid()}"):
                made(root, identity)
    assert tree(root) == before
    assert not leftovers(root)


def test_two_jobs_that_begin_one_folder_at_once_leave_one_of_them_whole(tmp_path):
    root, go = tmp_path / "a", time.time() + 0.3

    def begin(seed: int) -> None:
        while time.time() < go:
            pass
        made(root, {"seed": seed})

    pids = []
    for seed in (1, 2):
        pid = os.fork()
        if pid == 0:
            os._exit(fork(lambda seed=seed: begin(seed)))
        pids.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    assert sorted(codes)[0] == 0
    store = ItemStore.reading(root, KIND)
    assert codes[store.identity["seed"] - 1] == 0
    assert sorted(codes) != [0, 0]
    assert [value(root, f"item {i}") for i in range(3)] == [list(range(i, i + 4)) for i in range(3)]


@pytest.mark.parametrize("key", ["a/b", "../a", "..", "con", "A", "a", "Ä\ud800", "x" * 300, "a.", "", "nul.txt", ".a"])
def test_any_key_has_a_name_inside_the_folder_that_no_other_key_has(tmp_path, key):
    with ItemStore.writing(tmp_path / "a", KIND, {}) as store:
        store.put(key, b"mine")
        store.put("a0", b"other")
        store.put(key + " ", b"other")
    store = ItemStore.reading(tmp_path / "a", KIND)
    assert store.get(key) == b"mine"
    assert store.keys == {key, "a0", key + " "}
    names = [path.name.lower() for path in (tmp_path / "a" / "items").iterdir()]
    assert len(set(names)) == 3
    assert all(len(name) < 120 and not name.startswith(".") for name in names)


def test_the_digest_of_json_does_not_depend_on_the_order_of_keys():
    assert sha256_of({"a": [1, {"b": 2, "c": 3}]}) == sha256_of({"a": [1, {"c": 3, "b": 2}]})
    assert sha256_of({"a": 1}) != sha256_of({"a": "1"})


def test_the_same_job_in_a_folder_of_another_name_and_locale_has_the_same_bytes(tmp_path):
    code = "from pathlib import Path; from tests.faults.test_items import made; import sys; made(Path(sys.argv[1]))"
    root = tmp_path / "Ünïcode folder" / "b"
    env = {**os.environ, "LC_ALL": "tr_TR.UTF-8", "PYTHONHASHSEED": "7", "OMP_NUM_THREADS": "2", "TZ": "Asia/Tokyo"}
    subprocess.run([sys.executable, "-c", code, str(root)], env=env, check=True, timeout=100)
    assert tree(root) == tree(made(tmp_path / "a"))


def test_without_fcntl_as_on_windows_one_writer_is_let_in_and_a_second_refused(tmp_path):
    code = """
import sys, torch, types
sys.modules["fcntl"] = None
held = set()
def locking(descriptor, mode, n):
    import os
    inode = os.fstat(descriptor).st_ino
    if mode == 0:
        if inode not in held: raise OSError("not held")
        held.remove(inode)
    elif inode in held: raise OSError("held")
    else: held.add(inode)
sys.modules["msvcrt"] = types.SimpleNamespace(locking=locking, LK_NBLCK=2, LK_UNLCK=0)
import interp.cache
from interp.io import FolderBusyError, writer_lock
root = sys.argv[1]
with writer_lock(root):
    try:
        with writer_lock(root): raise SystemExit("two writers")
    except FolderBusyError as error: assert "being written" in str(error)
with writer_lock(root): pass
try:
    with writer_lock(root, rank=0, world=2): raise SystemExit("ranks")
except ValueError as error: assert "Windows" in str(error)
assert not open(f"{root}/.writer/job").read()
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=100)
