"""Caches with activations that a test chooses: no model, classes and strata with known means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from interp.cache import ActivationCache
from interp.cache.layout import SiteSpec
from interp.cache.manifest import create_cache
from interp.cache.plan import make_plan
from interp.cache.store import commit_shard, pending, seal
from interp.prompt import Example, Message, Prompt
from interp.site import Site
from steering.direction import Direction, Directions, DirectionStats

D = 32
IDENTITY: Mapping[str, object] = {
    "model": {"config_sha256": "c0", "weights_sha256": "w0"},
    "adapter": {"sha256": "a0", "merged": False},
    "tokenizer": "t0",
    "numerics": {"compute_dtype": "float32"},
}


def cache_of(
    folder: Path,
    feats: Mapping[str, Tensor],
    labels: Sequence[str | None],
    *,
    groups: Mapping[str, Sequence[str]],
    metadata: Mapping[str, Sequence[object]] | None = None,
    token: int = 3,
    n_tokens: int = 1,
) -> ActivationCache:
    """A cache whose row i at each site is feats[site][i], at the position "last" (n_tokens > 1: "last:n", n rows each).

    Args:
        feats: site -> [example, d_model], or [example, n_tokens, d_model].
        token: index of the last token; 0 makes every row the first token of its prompt.
    """
    text = "abcdefgh"[: token + 1]
    offsets = tuple((at, at + 1) for at in range(len(text)))
    prompts, examples = [], []
    for i, label in enumerate(labels):
        extra = {key: values[i] for key, values in (metadata or {}).items()}
        units = {key: values[i] for key, values in groups.items()}
        ids = tuple(7 * i + at for at in range(len(text)))
        prompts.append(Prompt(f"item-{i:04d}", text, ids, offsets, {"prompt": (0, len(text))}))
        examples.append(
            Example(id=f"item-{i:04d}", messages=(Message("user", "q"),), label=label, groups=units, metadata=extra)
        )
    rule = "last" if n_tokens == 1 else f"last:{n_tokens}"
    at = list(range(token + 1 - n_tokens, token + 1))
    sites = tuple(SiteSpec(site, (x.shape[-1],), str(x.dtype).removeprefix("torch.")) for site, x in feats.items())
    environment = {"checkpoint": {"name": "synthetic", "base": "none", "adapter": None}}
    plan = make_plan(
        prompts, {rule: [at] * len(prompts)}, sites, IDENTITY, examples=examples, target_bytes=20_000,
        environment=environment,
    )  # fmt: skip
    create_cache(folder, plan)
    for number in pending(folder, plan):
        bounds = plan.shards[number]
        rows = [(int(plan.rows.example[r]), int(plan.rows.ordinal[r])) for r in range(bounds.start, bounds.stop)]
        got = {s: torch.stack([x[i] if x.ndim == 2 else x[i, k] for i, k in rows]) for s, x in feats.items()}
        commit_shard(folder, plan, number, got)
    seal(folder, plan)
    return ActivationCache.open(folder)


def made_up(d: int = 32, *, seed: int = 0, n: int = 60, layers: tuple[int, ...] = (1,)) -> Directions:
    """Directions that nobody fitted, with statistics that pass."""
    stats = DirectionStats(delta_norm=1.0, resid_norm=6.0, sd_within=0.5, n_toward=n, n_away=n, n_groups=12,
                           split_half_cosine=0.8)  # fmt: skip
    rng = torch.Generator().manual_seed(seed)
    sites = [Site("resid_post", layer) for layer in layers]
    return Directions({site: Direction(torch.randn(d, generator=rng), site, "yes", "no", stats) for site in sites})


def direction(layer: int = 1, *, seed: int = 0, d: int = D, kind: str = "resid_post", means: bool = True) -> Direction:
    """A direction that nobody fitted, with class means whose middle is not 0."""
    rng = torch.Generator().manual_seed(seed)
    vec, middle = torch.randn(d, generator=rng), torch.randn(d, generator=rng)
    both = torch.stack([middle + vec / 2, middle - vec / 2])
    made = Direction(vec, Site(kind, layer), "anti", "stereo", means=both if means else None)
    stats = DirectionStats(delta_norm=float(vec.norm()), resid_norm=10.0, sd_within=1.5, **made.class_projections())
    return Direction(vec, Site(kind, layer), "anti", "stereo", stats=stats, means=made.means)
