"""What to load (`Checkpoint`, `CheckpointPair`) and what was loaded (`Fingerprint`), as frozen values."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from interp.io.paths import is_local, shown
from interp.io.yaml_text import Lines, read_yaml

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")


MEMBERS = ("engaged", "heuristic")
"""Roles of a pair whose contrast everything is about."""


@dataclass(frozen=True)
class Checkpoint:
    """One set of weights: a base model, and optionally one PEFT adapter on it.

    Args:
        name:             name in tables and figures; letters, digits and `_ . + -`.
        base:             Hugging Face id or local folder of the base model (or of a full fine-tune).
        adapter:          Hugging Face id or local folder of the adapter; None is the base itself.
        revision:         commit, tag or branch of `base`.
        adapter_revision: commit, tag or branch of `adapter`.
        subfolder:        folder of the adapter inside its repository.
        tokenizer:        Hugging Face id or local folder of the tokenizer, if neither the adapter's nor the base's is
                          right.
    Raises:
        ValueError: a field of the wrong type or empty, a name that cannot be a file name, or a field about an adapter
            where there is none.

    Example:
        >>> Checkpoint("engaged", "Qwen/Qwen3-8B", adapter="my-lora").shared["adapter"]
        'my-lora'
    """

    name: str
    base: str
    adapter: str | None = None
    revision: str | None = None
    adapter_revision: str | None = None
    subfolder: str | None = None
    tokenizer: str | None = None

    def __post_init__(self) -> None:
        for key in (f.name for f in fields(self)):
            value = getattr(self, key)
            if value is None and key not in ("name", "base"):
                continue
            if not isinstance(value, str) or not value.strip():
                raise ValueError(f"checkpoint {self.name!r}: {key} must be a non-empty string, got {value!r}.")
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"checkpoint name {self.name!r}: expected letters, digits and '_ . + -' (it names columns and files)."
            )
        for key in ("adapter_revision", "subfolder"):
            if self.adapter is None and getattr(self, key) is not None:
                raise ValueError(f"checkpoint {self.name!r}: {key}={getattr(self, key)!r} but no adapter is given.")

    @property
    def shared(self) -> dict[str, Any]:
        """The fields for files that are shared: hub ids unchanged, local folders by their last name.

        `local` lists the fields that were folders; digests stored next to them identify their content.
        """
        places = {key: getattr(self, key) for key in ("base", "adapter", "tokenizer")}
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        local = [key for key, place in places.items() if place is not None and is_local(place)]
        return values | {key: shown(places[key]) for key in local} | {"local": local}

    @classmethod
    def from_mapping(cls, mapping: object, where: str = "checkpoint", *, lines: Lines | None = None) -> Checkpoint:
        """The checkpoint that a parsed mapping describes. Errors start with `where`.

        Raises:
            ValueError: not a mapping, an unknown key (with the nearest known one), a missing `name` or `base`, or a
                value that is not a string.
        """
        lines = lines or {}
        mapping = _checked(mapping, [f.name for f in fields(cls)], where, lines)
        for key, value in mapping.items():
            if value is not None and not isinstance(value, str):
                raise ValueError(
                    f"{_at(where, lines, key)}: {key} must be a string, got {value!r} ({type(value).__name__}); "
                    f"quote it if it is a name or a revision."
                )
        for key in ("name", "base"):
            if not mapping.get(key):
                raise ValueError(f"{where}: '{key}' is missing. Given keys: {_listed(mapping)}.")
        try:
            return cls(**mapping)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None

    @classmethod
    def from_yaml(cls, path: str | Path) -> Checkpoint:
        """The checkpoint in a YAML file; paths that begin with `./` or `../` are relative to the file.

        Raises:
            ValueError: as `from_mapping`, with the line; also YAML that does not parse or names a key twice.
        """
        content, lines = read_yaml(Path(path))
        return cls.from_mapping(content, str(path), lines=lines)


@dataclass(frozen=True)
class CheckpointPair:
    """The contrast: two checkpoints, which may differ in depth, width and head count.

    Args:
        engaged, heuristic: the two members.
        base:           the bare base model of `engaged`, if it is measured as a member too.
        heuristic_base: the bare base model of `heuristic`, if it is another one.
    Raises:
        ValueError: both members are the same weights.
    """

    engaged: Checkpoint
    heuristic: Checkpoint
    base: str | None = None
    heuristic_base: str | None = None

    def __post_init__(self) -> None:
        if _weights(self.engaged) == _weights(self.heuristic):
            raise ValueError(
                f"engaged ({self.engaged.name}) and heuristic ({self.heuristic.name}) are the same weights: base "
                f"{self.engaged.base!r}, adapter {self.engaged.adapter!r}. A pair needs two different checkpoints."
            )

    @property
    def shares_base(self) -> bool:
        """Whether both members are adapters of one base at one revision (or one of them is that base)."""
        return (self.engaged.base, self.engaged.revision) == (self.heuristic.base, self.heuristic.revision)

    @property
    def members(self) -> dict[str, Checkpoint]:
        """Every checkpoint of the pair by role: `engaged`, `heuristic`, and `base`, `heuristic_base` where given."""
        members = {"engaged": self.engaged, "heuristic": self.heuristic}
        for role, base in (("base", self.base), ("heuristic_base", self.heuristic_base)):
            if base is not None:
                like = self.heuristic if role == "heuristic_base" else self.engaged
                members[role] = Checkpoint(role, base, revision=like.revision if like.base == base else None)
        return members

    @classmethod
    def from_mapping(cls, mapping: object, where: str = "pair", *, lines: Lines | None = None) -> CheckpointPair:
        """The pair that a parsed mapping describes.

        A member without `base` takes `heuristic_base` (heuristic) or `base` of the pair; one without `name` is named
        after its role.

        Raises:
            ValueError: as `Checkpoint.from_mapping`; `where` and the role name the place.
        """
        lines = lines or {}
        mapping = _checked(mapping, [f.name for f in fields(cls)], where, lines)
        bases = {key: mapping.get(key) for key in ("base", "heuristic_base")}
        for key, value in bases.items():
            if value is not None and not isinstance(value, str):
                raise ValueError(f"{_at(where, lines, key)}: {key} must be a model id or folder, got {value!r}.")
        members: dict[str, Checkpoint] = {}
        for role in ("engaged", "heuristic"):
            if mapping.get(role) is None:
                raise ValueError(f"{where}: '{role}' is missing. A pair has 'engaged' and 'heuristic'.")
            inner = {path[1:]: line for path, line in lines.items() if path[0] == role and len(path) > 1}
            default = bases["heuristic_base"] or bases["base"] if role == "heuristic" else bases["base"]
            member = mapping[role]
            if isinstance(member, Mapping):
                member = {"name": role, **({"base": default} if default else {}), **member}
            members[role] = Checkpoint.from_mapping(member, f"{where}: {role}", lines=inner)
        try:
            return cls(members["engaged"], members["heuristic"], **bases)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None

    @classmethod
    def from_yaml(cls, path: str | Path) -> CheckpointPair:
        """The pair in a YAML file; paths that begin with `./` or `../` are relative to the file.

        Raises:
            ValueError: as `from_mapping`, with the line; also YAML that does not parse or names a key twice.
        """
        content, lines = read_yaml(Path(path))
        return cls.from_mapping(content, str(path), lines=lines)


@dataclass(frozen=True)
class Fingerprint:
    """Which weights a loaded model has: two models with equal `.sha256` compute the same function, numerics aside.

        sha256 = SHA-256 of the canonical JSON of all fields, adapters by digest and not by name

    Args:
        config_sha256, weights_sha256, tokenizer_sha256: digests of the base's files (or of its parameters in memory).
        adapters:     role -> digest of that adapter's config and tensors, of every adapter that is loaded.
        quantization: method and digest of its settings, e.g. "bitsandbytes:1f0c…"; None if weights are not quantised.
        merged:       the adapter was merged into the weights: same function, different rounding.
    """

    config_sha256: str
    weights_sha256: str
    tokenizer_sha256: str | None = None
    adapters: Mapping[str, str] = field(default_factory=dict)
    quantization: str | None = None
    merged: bool = False

    def __hash__(self) -> int:
        return hash(self.sha256)

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values; `Fingerprint(**as_dict())` is the same value."""
        return {**{f.name: getattr(self, f.name) for f in fields(self)}, "adapters": dict(self.adapters)}

    def select(self, role: str | None) -> Fingerprint:
        """The identity of the base with `role`'s adapter active; None, or a role without an adapter, is the base.

        An adapter selected from a model with two has the fingerprint of the same checkpoint loaded alone.
        """
        kept = {role: self.adapters[role]} if role is not None and role in self.adapters else {}
        return replace(self, adapters=kept)

    @property
    def sha256(self) -> str:
        content = self.as_dict() | {"adapters": sorted(self.adapters.values())}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _weights(checkpoint: Checkpoint) -> tuple[str | None, ...]:
    return tuple(getattr(checkpoint, f.name) for f in fields(checkpoint) if f.name not in ("name", "tokenizer"))


def _listed(keys: Mapping[str, Any] | Sequence[str]) -> str:
    return ", ".join(map(str, keys)) or "none"


def _at(where: str, lines: Lines, key: str) -> str:
    return f"{where}, line {lines[(key,)]}" if (key,) in lines else where


def _checked(mapping: object, keys: Sequence[str], where: str, lines: Lines) -> Mapping[str, Any]:
    if not isinstance(mapping, Mapping):
        raise ValueError(f"{where}: expected a mapping with the keys {_listed(keys)}, got {mapping!r}.")
    for key in mapping:
        if key not in keys:
            near = difflib.get_close_matches(str(key), keys, n=1, cutoff=0.0)
            raise ValueError(
                f"{_at(where, lines, key)}: unknown key {key!r}; did you mean '{near[0]}'? Known: {_listed(keys)}."
            )
    return mapping
