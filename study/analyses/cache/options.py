"""Options of a cache: the section `cache` of a study file, and `diptych cache`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic.dataclasses import dataclass

from study.option_types import Count
from study.options import STRICT, option
from study.task_options import ItemOptions

_REQUEST = ("sites", "positions", "dtype", "thinking", "max_length", "tokens_per_batch", "shard_bytes")


@dataclass(frozen=True, config=STRICT)
class CacheOptions:
    """Activations of every member on disk; see `diptych cache`.

    Attributes:
        sites: as `interp.parse_sites` reads them.
        positions: as `interp.positions` reads them.
        dtype: stored; none: what the model computes in.
        max_bytes: refuse a larger cache; must be given for all positions.
    """

    per_cell: Count | None = option(None, "Number of items per cell of a generated grid.", is_command=False)
    limit: Count | None = option(None, "Use at most N items, spread over cells and groups.", is_command=False)
    sites: str = option("resid_post.*", "Sites to record: 'resid_post.*, z.19.17', ...")
    positions: str = option("last", "Position rules: 'last, span:scenario, stride:8', ...")
    dtype: str | None = option(
        None, "Dtype in which activations are stored (bfloat16, float16, float32); default: the model's own."
    )
    thinking: bool | None = option(None, "Value of enable_thinking in the chat template.")
    max_length: Count | None = option(None, "Longest prompt allowed, in tokens; a longer one is an error.")
    tokens_per_batch: Count | None = option(
        None, "Token budget of one forward pass; default: by the model's size and free memory, see `study plan`."
    )
    shard_bytes: str | None = option(None, "Size of one shard (file) of the cache, e.g. 256MB.")
    max_bytes: str | None = option(
        None, "Refuse to write a cache larger than this, e.g. 40GB; required for --positions all and all:answer."
    )

    def request(self) -> dict[str, Any]:
        """What is recorded, as arguments of `interp.cache.extract`; what is not given is left to its defaults."""
        return {name: getattr(self, name) for name in _REQUEST if getattr(self, name) is not None}


@dataclass(frozen=True, config=STRICT, kw_only=True)
class CachedItems(ItemOptions):
    """Items of a task, or of a file without one."""

    path: str | None = option(
        None,
        "Import path of a task, e.g. interp.tasks.bbq, which reads --data in its own format.",
        flag="--task",
        param="task",
    )
    data: str | None = option(None, "JSON lines, JSON, CSV or Parquet file, a folder of them, or a dataset id.")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class ExtractOptions:
    """Of the command alone."""

    out: Path = option(help="Folder for the cache, or for both caches of a pair.")
    quiet: bool = option(False, "Show no progress bar.")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class ReplyOptions:
    """Replies of an evaluation, which are read again with their prompts; nothing is tokenized again."""

    replies: Path | None = option(
        None, "Folder of `diptych eval`: record the members' own replies, token by token as they were written."
    )
    through: str | None = option(
        None, "Member that reads all replies, e.g. heuristic; default: each member reads those that it wrote."
    )
    mode: str | None = option(
        None, "Prompt mode whose replies are read, if the evaluation used several: thinking or direct."
    )
    unfinished: Literal["exclude", "keep"] = option(
        "exclude", "Exclude or keep replies that were cut off at the maximum length."
    )


@dataclass(frozen=True, config=STRICT, kw_only=True)
class PlanOptions:
    """Of the command alone."""

    out: Path = option(Path(), "Output folder, to check its disk for free space.")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class InspectOptions:
    """A cache on disk."""

    folder: Path = option(is_argument=True)


@dataclass(frozen=True, config=STRICT, kw_only=True)
class VerifyOptions(InspectOptions):
    """How a cache is checked."""

    hash: bool = option(False, "Read every byte and compare checksums.")
    size: bool = option(False, "Compare only file sizes (the default).")
