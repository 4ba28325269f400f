"""Synthetic prompts, plans and activations for the cache tests: no model, everything a function of its number."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from interp.cache.layout import SiteSpec
from interp.cache.manifest import create_cache
from interp.cache.plan import CachePlan, make_plan
from interp.cache.store import commit_shard, pending, seal
from interp.prompt import Example, Message, Prompt

SITES = (
    SiteSpec("resid_post.0", (8,), "bfloat16"),
    SiteSpec("resid_post.1", (8,), "bfloat16"),
    SiteSpec("z.1", (2, 4), "bfloat16"),
    SiteSpec("mlp_out.1", (8,), "float32"),
)
IDENTITY: Mapping[str, object] = {
    "model": {"base": "tiny", "weights_sha256": "w0"},
    "adapter": {"id": "engaged", "sha256": "a0"},
    "tokenizer": {"sha256": "t0"},
    "numerics": {"compute": "bfloat16", "tensor_parallel": 1},
    "batching": "plan order, 4 at a time",
}


def make_prompts(n_examples: int = 12) -> list[Prompt]:
    """Prompt i has 3 + i % 5 tokens "a", "b", ...; ids are letter numbers shifted by i."""
    prompts = []
    for i in range(n_examples):
        text = "abcdefgh"[: 3 + i % 5]
        offsets = tuple((at, at + 1) for at in range(len(text)))
        ids = tuple(i + at for at in range(len(text)))
        prompts.append(Prompt(f"item-{i:03d}", text, ids, offsets, {"prompt": (0, len(text))}))
    return prompts


def make_examples(n_examples: int = 12) -> list[Example]:
    return [
        Example(
            id=f"item-{i:03d}",
            messages=(Message("user", "question"),),
            label="yes" if i % 2 else "no",
            groups={"template": f"t{i % 3}"},
            metadata={"score": i / 2, "tags": ["x", i], "template": "taken"},
        )
        for i in range(n_examples)
    ]


def tiny_plan(n_examples: int = 12, *, target_bytes: int = 1500, identity: Mapping[str, object] = IDENTITY, **options):
    """Rules: "last" (one row per example) and "even" (tokens 2, 4, ...: one, two or three rows)."""
    prompts = make_prompts(n_examples)
    rules = {
        "last": [[len(p.ids) - 1] for p in prompts],
        "even": [list(range(2, len(p.ids), 2)) for p in prompts],
    }
    options.setdefault("examples", make_examples(n_examples))
    options.setdefault("sites", SITES)
    return make_plan(prompts, rules, options.pop("sites"), identity, target_bytes=target_bytes, **options)


def activations(plan: CachePlan, shard: int, *, salt: int = 0) -> dict[str, Tensor]:
    """Gaussian rows seeded by (example, token position, site): the same wherever the row is stored."""
    bounds = plan.shards[shard]
    out = {}
    for number, site in enumerate(plan.sites):
        rows = [activation(plan, row, number, salt) for row in range(bounds.start, bounds.stop)]
        out[site.site] = torch.stack(rows)
    return out


def activation(plan: CachePlan, row: int, site: int, salt: int = 0) -> Tensor:
    seed = int(plan.rows.example[row]) * 10_000 + int(plan.rows.position[row]) * 100 + site + salt * 10**7
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(plan.sites[site].shape, generator=generator).to(plan.sites[site].torch_dtype)


def build(root: Path, plan: CachePlan, *, salt: int = 0) -> Path:
    """A whole cache, undisturbed."""
    create_cache(root, plan)
    for shard in pending(root, plan):
        commit_shard(root, plan, shard, activations(plan, shard, salt=salt))
    seal(root, plan)
    return root


def content(root: Path) -> dict[str, bytes]:
    """Every file of the byte-identical set (see interp/cache/store.py)."""
    files = (path for path in root.rglob("*") if path.is_file())
    named = {str(path.relative_to(root)): path for path in files}
    return {name: path.read_bytes() for name, path in sorted(named.items()) if not name.startswith(".")}


def fork(*work: Callable[[], object]) -> int:
    """Process id of a child that does this work and ends, with status 99 where it raises."""
    pid = os.fork()
    if pid == 0:
        try:
            for step in work:
                step()
            os._exit(0)
        except BaseException:  # reported through the exit status: the child must never return into pytest
            traceback.print_exc()
            os._exit(99)
    return pid


def status(pid: int) -> int:
    """Exit status of a child, once it has ended."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
