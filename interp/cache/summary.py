"""A cache in a few lines, for a terminal and for a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

from interp.cache.index import CacheIndex
from interp.cache.plan import format_bytes


def summary_text(root: Path, manifest: Mapping[str, Any], index: CacheIndex) -> str:
    """One line per fact, aligned."""
    facts = _facts(root, manifest, index)
    width = max(map(len, facts))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in facts.items())


def summary_html(root: Path, manifest: Mapping[str, Any], index: CacheIndex) -> str:
    """The same facts as a table."""
    lines = (
        f"<tr><th style='text-align:left'>{escape(name)}</th><td style='text-align:left'>{escape(value)}</td></tr>"
        for name, value in _facts(root, manifest, index).items()
    )
    return f"<table>{''.join(lines)}</table>"


def _facts(root: Path, manifest: Mapping[str, Any], index: CacheIndex) -> dict[str, str]:
    identity = manifest["identity"]
    done = sum(shard.file is not None for shard in index.shards)
    rules = list(index.single)
    counts = [sum(shard.runs[k] for shard in index.shards) for k in range(len(rules))]
    return {
        "cache": f"{root} (plan {index.plan_id}, {'sealed' if index.sealed else 'NOT finished'})",
        "model": _named(identity["model"]),
        "adapter": _named(identity["adapter"]),
        "examples": f"{index.n_examples:,}",
        "rows": ", ".join(f"{rule}: {count:,}" for rule, count in zip(rules, counts, strict=True)),
        "sites": ", ".join(format_sites(index.sites)),
        "shards": f"{done:,} of {len(index.shards):,}, {format_bytes(sum(shard.bytes for shard in index.shards))}",
    }


def format_sites(sites: Iterable[str]) -> list[str]:
    """["resid_post.0", "resid_post.1", "resid_post.5", "z.2.3"] -> ["resid_post.0-1,5", "z.2.3"]."""
    out: list[str] = []
    layers: dict[str, list[int]] = {}
    for site in sites:
        kind, _, layer = site.partition(".")
        if layer.isdigit():
            layers.setdefault(kind, []).append(int(layer))
        else:
            out.append(site)
    return [f"{kind}.{_ranges(sorted(numbers))}" for kind, numbers in layers.items()] + out


def _ranges(numbers: list[int]) -> str:
    runs = [[n for _, n in run] for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])]
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _named(part: object) -> str:
    if not isinstance(part, Mapping):
        return "none" if part is None else str(part)
    known = [str(part[key]) for key in ("name", "id", "base", "revision", "sha256") if part.get(key)]
    return " ".join(known) or str(dict(part))[:80]
