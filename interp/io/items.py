"""One store for everything that takes long to compute: items on disk, under the identity of the job that made them.

root/plan.json          what was requested: kind, identity, notes; written before the first item, under the writer lock
root/items/<key>.item   one result: a line {"key", "plan", "sha256"}, then its bytes
root/.tmp, .writer      of running writers

An item is used only if its digest, its key and the id of its plan are the expected ones.
"""

from __future__ import annotations

import hashlib
import io
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from interp.io.digest import is_own_digest, safe_name, sha256_of
from interp.io.files import DamagedFileError, replace, sweep_temps
from interp.io.lock import writer_lock
from interp.remedy import remedy

PLAN, ITEMS, SUFFIX = "plan.json", "items", ".item"
FORMAT, VERSION = "diptych-items", 1
_LONGEST_HEADER = 4096


@dataclass(frozen=True, eq=False)
class ItemStore:
    """Results of one job, each kept atomically and once; made by `ItemStore.writing` and `ItemStore.reading`.

    Attributes:
        root: folder of the job.
        kind: what it holds, in the user's words ("evaluation", "dose sweep").
        identity: everything that changes an item; JSON values.
        notes: what else is worth knowing (names, versions, seeds) of the run that began the folder; never compared.
        plan_id: digest of kind and identity, in every item.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with ItemStore.writing(folder, "numbers", {"seed": 0}) as store:
        ...     store.put_json("a", [1, 2])
        >>> ItemStore.reading(folder, "numbers").get_json("a")
        [1, 2]
    """

    root: Path
    kind: str
    identity: Mapping[str, Any]
    notes: Mapping[str, Any]
    _keys: set[str] = field(default_factory=set)

    @property
    def plan_id(self) -> str:
        return sha256_of([FORMAT, VERSION, self.kind, self.identity])[:16]

    @classmethod
    @contextmanager
    def writing(
        cls, root: Path, kind: str, identity: Mapping[str, Any], *, notes: Mapping[str, Any] | None = None
    ) -> Iterator[ItemStore]:
        """Hold a folder for writing: an empty one, or one that the same job began.

        Temporary files of dead writers and damaged items are removed; the items are then made again.

        Raises:
            ValueError: the folder holds another job, naming what differs, or files of something else.
            FolderBusyError: another process writes it.
        Warns: of each damaged file, by its path.
        """
        store = cls(root, kind, _plain(identity), _plain(notes or {}))
        with writer_lock(root):
            sweep_temps(root)
            store._claim()
            yield store

    @classmethod
    def reading(cls, root: Path, kind: str) -> ItemStore:
        """A folder that a job has begun, as it is on disk; nothing is locked.

        Raises:
            ValueError: no such folder, one of another kind of job, or of an earlier version.
            DamagedFileError: its plan is not what was written.
        """
        if not is_store(root):
            raise ValueError(f"{root} holds no {kind} (no {PLAN}). Run the command that makes it first.")
        content = read_plan(root / PLAN)
        if content["kind"] != kind:
            raise ValueError(f"{root} holds another job ({content['kind']}, not {kind}). Choose another folder.")
        store = cls(root, kind, content["identity"], content["notes"])
        store._keys.update(key for path in store._paths() if (key := _header(path).get("key")) is not None)
        return store

    @property
    def keys(self) -> frozenset[str]:
        """Keys of the items that are on disk."""
        return frozenset(self._keys)

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def put(self, key: str, data: bytes) -> None:
        """Keep an item, durably."""
        head = {"key": key, "plan": self.plan_id, "sha256": _digest(key, self.plan_id, data)}
        replace(self.root, self._path(key), json.dumps(head, sort_keys=True).encode() + b"\n" + data)
        self._keys.add(key)

    def get(self, key: str) -> bytes:
        """The bytes of an item.

        Raises:
            DamagedFileError: it is missing, its bytes are not those that were written, or it belongs to another key or
                another job; names the file to delete.
        """
        path = self._path(key)
        try:
            head, data = _split(path.read_bytes())
        except FileNotFoundError:
            raise DamagedFileError(f"{path}: this item of the {self.kind} is missing. {_AGAIN}") from None
        except OSError as error:
            raise DamagedFileError(f"{path}: cannot be read ({error.strerror or error}). {_AGAIN}") from None
        if why := self._fault(head, key, data):
            raise DamagedFileError(f"{path}: {why}. Delete this file. {_AGAIN}")
        return data

    def put_json(self, key: str, value: Any) -> None:
        """Keep a JSON value."""
        self.put(key, (json.dumps(value, sort_keys=True) + "\n").encode())

    def get_json(self, key: str) -> Any:
        """A JSON value; raises as `get`."""
        return json.loads(self.get(key))

    def put_arrays(self, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep named arrays."""
        buffer, plain = io.BytesIO(), dict(arrays)
        np.savez(buffer, **plain)  # pyright: ignore[reportArgumentType]
        self.put(key, buffer.getvalue())

    def get_arrays(self, key: str) -> dict[str, np.ndarray]:
        """Named arrays; raises as `get`."""
        with np.load(io.BytesIO(self.get(key))) as file:
            return {name: file[name] for name in file.files}

    def put_files(self, key: str, names: Sequence[str], **content: Any) -> None:
        """Keep the digests of finished files of the folder, with JSON values of their own: the job's last item."""
        files = {name: _file_digest(self.root / name) for name in names}
        self.put_json(key, {"files": files, **content})

    def altered(self, key: str) -> list[str]:
        """Of the files that `put_files` named: those that are gone or have other bytes."""
        return [
            name for name, digest in self.get_json(key)["files"].items() if _file_digest(self.root / name) != digest
        ]

    def is_finished(self, key: str) -> bool:
        """Whether the job's last item is there and every file that it names, to the last byte.

        Warns: of each file that is not, by its path.
        """
        bad = self.altered(key) if key in self else []
        for name in bad:
            warnings.warn(f"{self.root / name}: changed or missing; it is recomputed.", stacklevel=2)
        return key in self and not bad

    def _path(self, key: str) -> Path:
        return self.root / ITEMS / f"{safe_name(key)}{SUFFIX}"

    def _paths(self) -> list[Path]:
        return sorted((self.root / ITEMS).glob(f"*{SUFFIX}"))

    def _fault(self, head: Mapping[str, Any], key: str, data: bytes) -> str:
        """What is wrong with an item; "" where nothing is."""
        if head.get("sha256") != _digest(str(head.get("key")), str(head.get("plan")), data):
            return "not the bytes that were written"
        if head.get("plan") != self.plan_id:
            return f"an item of another job (plan {head.get('plan')}, this one is {self.plan_id})"
        return "" if head.get("key") == key else f"item {head.get('key')!r} in the place of {key!r}"

    def _claim(self) -> None:
        """Write the plan into a new folder, or compare it with the existing one; then check every item."""
        (self.root / ITEMS).mkdir(parents=True, exist_ok=True)
        path = self.root / PLAN
        items = {item: _read(item) for item in self._paths()}
        is_begun = path.exists() and self._is_same(path, has_items=bool(items))
        if not is_begun:
            self._refuse_others(items)
            replace(self.root, path, _plan_bytes(self.kind, self.identity, self.notes, self.plan_id))
        for item, (head, data) in items.items():
            key = str(head.get("key"))
            why = self._fault(head, key, data) or ("" if item == self._path(key) else f"item {key!r} under this name")
            if not why:
                self._keys.add(key)
            elif self._is_of_another_job(head, data):
                raise DamagedFileError(
                    f"{item}: {why}. It is intact, so it is not deleted automatically: move it, or delete it."
                )
            else:
                warnings.warn(f"{item}: {why}; it was deleted and is recomputed.", stacklevel=5)
                item.unlink()

    def _is_of_another_job(self, head: Mapping[str, Any], data: bytes) -> bool:
        plan = head.get("plan")
        return plan != self.plan_id and head.get("sha256") == _digest(str(head.get("key")), str(plan), data)

    def _is_same(self, path: Path, *, has_items: bool) -> bool:
        """Whether the plan in the folder is this one; False if it cannot be read (with a warning), and where another
        job ended before its first item, so that nothing is lost by beginning anew."""
        try:
            plan = read_plan(path)
        except DamagedFileError as error:
            warnings.warn(f"{error} It is written again if the items belong to this job.", stacklevel=6)
            return False
        if plan["plan_id"] == self.plan_id:
            return True
        if not has_items:
            return False
        old, new = (
            {"kind": kind, **identity}
            for kind, identity in ((plan["kind"], plan["identity"]), (self.kind, self.identity))
        )
        differing = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
        shown = "; ".join(f"{key}: {old.get(key)!r:.60} != {new.get(key)!r:.60}" for key in differing)
        raise ValueError(
            f"{self.root} holds another {self.kind} ({shown}). "
            f"{remedy('Choose another {out}, or delete it.', 'Delete it.')}"
        )

    def _refuse_others(self, items: Mapping[Path, tuple[Mapping[str, Any], bytes]]) -> None:
        """A folder without a (readable) plan is this job's where its items say so; else only an empty one is taken."""
        own = [item for item, (head, data) in items.items() if not self._fault(head, str(head.get("key")), data)]
        strange = [item for item, (head, _) in items.items() if item not in own and head.get("plan") != self.plan_id]
        names = sorted(
            p.name for p in self.root.iterdir() if p.name not in (PLAN, ITEMS) and not p.name.startswith(".")
        )
        names += sorted(p.name for p in (self.root / ITEMS).iterdir() if p.suffix != SUFFIX)
        if not own and (strange or names):
            named = ", ".join([*names, *(item.name for item in strange)][:3])
            raise ValueError(
                f"{self.root} holds {named} and no {PLAN} of this job: files of something else, or of an earlier "
                f"version of Diptych. {remedy('Choose another {out}, or delete it.', 'Delete it.')}"
            )


_AGAIN = "Run the command that made it again: it computes only what is missing."


def is_store(root: Path) -> bool:
    """Whether the folder belongs to a job."""
    return (root / PLAN).is_file()


def read_plan(path: Path) -> dict[str, Any]:
    """The content of a `plan.json`, checked against its own digest.

    Raises:
        ValueError: of an earlier or later version.
        DamagedFileError: not what was written.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise DamagedFileError(f"{path}: cannot be read ({error.strerror or error}).") from None
    except (ValueError, RecursionError):
        raise DamagedFileError(f"{path}: not the JSON that was written. Delete this file.") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT or content.get("version") != VERSION:
        raise ValueError(
            f"{path}: not a plan that this version of Diptych writes (format {FORMAT!r}, version {VERSION}). It "
            "was written by an earlier version or by something else: choose another folder, or delete this one "
            "and run again."
        )
    rest = {key: value for key, value in content.items() if key != "sha256"}
    if not is_own_digest(content.get("sha256"), rest) or not {"kind", "identity", "notes", "plan_id"} <= set(rest):
        raise DamagedFileError(f"{path}: changed after it was written (its digest differs). Delete this file.")
    return content


def _file_digest(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _plan_bytes(kind: str, identity: Mapping[str, Any], notes: Mapping[str, Any], plan_id: str) -> bytes:
    content = {
        "format": FORMAT,
        "version": VERSION,
        "kind": kind,
        "identity": identity,
        "notes": notes,
        "plan_id": plan_id,
    }
    return (json.dumps(content | {"sha256": sha256_of(content)}, indent=1, sort_keys=True) + "\n").encode()


def _plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """The value as JSON holds it: tuples become lists, numbers as keys text, NaN and infinities null."""
    return json.loads(json.dumps(value, sort_keys=True), parse_constant=lambda _: None)


def _digest(key: str, plan_id: str, data: bytes) -> str:
    return hashlib.sha256(json.dumps([key, plan_id]).encode() + data).hexdigest()


def _split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and bytes of an item; an empty header where it cannot be read."""
    line, _, data = content.partition(b"\n")
    try:
        head = json.loads(line) if len(line) <= _LONGEST_HEADER else None
    except (ValueError, RecursionError):
        head = None
    return (head if isinstance(head, dict) else {}), data


def _read(path: Path) -> tuple[dict[str, Any], bytes]:
    try:
        return _split(path.read_bytes())
    except OSError:
        return {}, b""


def _header(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return _split(file.readline(_LONGEST_HEADER + 1))[0]
    except OSError:
        return {}
