"""Reading a cache against safetensors.safe_open on the same files, cold: opening, one layer, one row, 256 random rows.

    python -m benchmarks.cache_read [--rows 4096] [--layers 28] [--width 3584] [--rounds 5] [--json PATH]

Both readers are handed the same bytes and must return equal tensors before any time is printed. Cold: every file
was fsynced and its pages dropped with posix_fadvise(DONTNEED) just before each call; readers of both kinds are
opened anew for every call (untimed, except in "open"), because mapped pages cannot be dropped. The two take turns
inside one process. Ours pays for its descriptors and row checksums inside the timed call, for its table of example
ids before it. safe_open's random rows are the faster of single-row slices and whole tensors.

ratio = median seconds of safe_open / median seconds of ours. limit = the same with bare preadv of the wanted bytes
in the place of ours (announced with WILLNEED, nothing checked): what a reader of these files could reach.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from interp.cache.activation_cache import ActivationCache
from interp.cache.index import record_path
from interp.cache.layout import SiteSpec
from interp.cache.manifest import create_cache
from interp.cache.plan import CachePlan, make_plan
from interp.cache.store import commit_shard, seal
from interp.prompt import Prompt

GOALS = {"open": 10.0, "layer": 3.0, "row": 10.0, "rows": 3.0}
Got = list[Tensor]
Range = tuple[Path, int, int]


@dataclass(frozen=True)
class Reader:
    """One way to read: `open` is not timed, `call` is; the result of `call` is compared."""

    open: Callable[[], object]
    call: Callable[[Any], Got]


def main() -> None:
    """Parse the options, build the cache in a temporary folder, compare, time, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rows", 4096), ("layers", 28), ("width", 3584), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=".") as folder:
        plan = write_cache(Path(folder), options.rows, options.layers, options.width)
        results = {f"cache_read_{name}": run(Path(folder), plan, name, options.rounds) for name in GOALS}
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


def write_cache(root: Path, n_rows: int, n_layers: int, width: int) -> CachePlan:
    """A sealed cache of Gaussian bf16 residuals, one row per example, in 8 shards."""
    sites = [SiteSpec(f"resid_post.{layer}", (width,), "bfloat16") for layer in range(n_layers)]
    prompts = [Prompt(f"item-{i}", "ab", (i, 1), ((0, 1), (1, 2)), {}) for i in range(n_rows)]
    identity = {"model": "random", "adapter": None, "tokenizer": None, "numerics": "bfloat16"}
    size = -(-n_rows // 8) * n_layers * (2 * width + 8)
    plan = make_plan(prompts, {"last": [[1]] * n_rows}, sites, identity, target_bytes=size)
    create_cache(root, plan)
    generator = torch.Generator().manual_seed(0)
    for shard in plan.shards:
        shape = (shard.n_rows, width)
        commit_shard(
            root, plan, shard.index, {s.site: torch.randn(shape, generator=generator).bfloat16() for s in sites}
        )
    seal(root, plan)
    return plan


def run(root: Path, plan: CachePlan, name: str, rounds: int) -> dict[str, float]:
    """Compare the readers of one operation, then time them in turn; prints and returns the result."""
    dice = random.Random(name)
    times: dict[str, list[float]] = {}
    agree = 0.0
    for _ in range(rounds):
        rows = sorted(dice.sample(range(len(plan.rows)), min(256, len(plan.rows))))
        layer = plan.sites[dice.randrange(len(plan.sites))].site
        got = {
            which: timed(root, reader, times.setdefault(which, []))
            for which, reader in readers(root, plan, name, rows, layer).items()
        }
        agree = max(agree, max_difference([got[which] for which in got if which != "bare"]))
    assert agree == 0, f"{name}: the readers differ by {agree}"
    ours, bare = median(times["ours"]), median(times["bare"])
    theirs = min(median(times[which]) for which in times if which.startswith("safe_open"))
    result = {"ratio": theirs / ours, "goal": f">= {GOALS[name]:g}", "limit": theirs / bare, "agree": agree}
    print(
        f"{name:6} safe_open {theirs * 1e3:8.2f} ms  ours {ours * 1e3:8.2f} ms  ratio {result['ratio']:6.1f}  "
        f"goal {GOALS[name]:4.0f}  limit {result['limit']:6.1f}"
    )
    return result


def timed(root: Path, reader: Reader, into: list[float]) -> Got:
    """One cold call."""
    opened = reader.open()
    for path in root.rglob("*"):
        if path.is_file():
            drop(path)
    started = time.perf_counter()
    got = reader.call(opened)
    into.append(time.perf_counter() - started)
    return [feats.clone() for feats in got]  # safe_open's results keep its mapping, whose pages cannot be dropped


def drop(path: Path) -> None:
    """Write back and forget the pages of a file."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def max_difference(results: Sequence[Got]) -> float:
    """Largest absolute difference between the results of the readers, which must agree in shape and dtype."""
    first = results[0]
    worst = 0.0
    for other in results[1:]:
        assert [(t.shape, t.dtype) for t in first] == [(t.shape, t.dtype) for t in other]
        worst = max([worst, *(float((a.float() - b.float()).abs().max()) for a, b in zip(first, other, strict=True))])
    return worst


def readers(root: Path, plan: CachePlan, name: str, rows: Sequence[int], layer: str) -> dict[str, Reader]:
    """The ways to do one operation; "bare" is the lower bound and its result is not compared."""
    paths = [root / "shards" / json.loads(record_path(root, s.index).read_bytes())["file"] for s in plan.shards]
    sites = [site.site for site in plan.sites]
    where = [next((s.index, row - s.start) for s in plan.shards if s.start <= row < s.stop) for row in rows]
    middle = len(rows) // 2
    shard, at = where[middle]
    if name == "open":
        return {
            "ours": Reader(lambda: None, lambda _: [torch.tensor(ActivationCache.open(root).n_rows)]),
            "safe_open": Reader(lambda: None, lambda _: [torch.tensor(sum(count(f, layer) for f in opened(paths)))]),
            "bare": Reader(lambda: None, lambda _: [torch.tensor(len((root / "SEALED.json").read_bytes()))]),
        }
    calls: dict[str, tuple[Callable, Callable, list[Range]]] = {
        "layer": (
            lambda cache: [cache.read(layer, "last")],
            lambda files: [torch.cat([file.get_tensor(layer) for file in files])],
            [span(plan, paths, s.index, layer, 0, s.n_rows) for s in plan.shards],
        ),
        "row": (
            lambda cache: list(cache.row(f"item-{rows[middle]}", "last").values()),
            lambda files: [files[shard].get_slice(site)[at : at + 1][0] for site in sites],
            [span(plan, paths, shard, site, at, 1) for site in sites],
        ),
        "rows": (
            lambda cache: [cache.rows_at(rows, layer)],
            lambda files: [torch.cat([files[s].get_slice(layer)[i : i + 1] for s, i in where])],
            [span(plan, paths, s, layer, i, 1) for s, i in where],
        ),
    }
    ours, theirs, spans = calls[name]
    ways = {
        "ours": Reader(lambda: warm(root, rows), ours),
        "safe_open": Reader(lambda: opened(paths), theirs),
        "bare": Reader(
            lambda: [(os.open(p, os.O_RDONLY), a, n) for p, a, n in spans], lambda s: bare(s, name != "layer")
        ),
    }
    if name == "rows":
        whole = lambda files: [torch.cat([file.get_tensor(layer) for file in files])[list(rows)]]  # noqa: E731
        ways["safe_open, whole"] = Reader(lambda: opened(paths), whole)
    return ways


def warm(root: Path, rows: Sequence[int]) -> ActivationCache:
    """An open cache whose table of example ids is in memory and whose shards are not."""
    cache = ActivationCache.open(root)
    cache.row(f"item-{rows[0]}", "last")
    cache.close()
    return cache


def opened(paths: Sequence[Path]) -> list:
    return [safe_open(path, framework="pt") for path in paths]


def count(file, site: str) -> int:
    return file.get_slice(site).get_shape()[0]


def span(plan: CachePlan, paths: Sequence[Path], shard: int, site: str, row: int, n_rows: int) -> Range:
    """File, first byte and length of some rows of one shard, from the header that safetensors defines."""
    header = plan.header(shard)
    start = json.loads(header[8:])[site]["data_offsets"][0]
    size = next(s.row_bytes for s in plan.sites if s.site == site)
    return paths[shard], len(header) + start + row * size, n_rows * size


def bare(spans: Sequence[tuple[int, int, int]], is_random: bool) -> Got:
    """Announce every range, read every range, check nothing."""
    for descriptor, start, size in spans:
        if is_random:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        os.posix_fadvise(descriptor, start, size, os.POSIX_FADV_WILLNEED)
    into = memoryview(bytearray(max(size for _, _, size in spans)))
    for descriptor, start, size in spans:
        os.preadv(descriptor, [into[:size]], start)
    for descriptor, _, _ in spans:
        os.close(descriptor)
    return []


if __name__ == "__main__":
    main()
