"""The options of an extraction, and the plan that follows from them on a given model or on its configuration alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch

from interp.cache.layout import SiteSpec
from interp.cache.plan import TARGET_BYTES, CachePlan, make_plan, parse_bytes
from interp.checkpoint import Checkpoint, Fingerprint
from interp.family import Layout
from interp.loading import open_skeleton
from interp.memory import MOST_TOKENS
from interp.positions import NothingSelectedError, Positions, parse_positions, span_names
from interp.prompt import Example, Prompt, render_all
from interp.replies import ReplyPrompt
from interp.rope import context_length
from interp.site import Site, expand_sites
from interp.template import clock_of

TOKENS_PER_BATCH = MOST_TOKENS
_PACKAGES = ("torch", "transformers", "peft", "safetensors")


@dataclass(frozen=True)
class Request:
    """An extraction without its model.

    Args:
        sites:     patterns, see `interp.site.expand_sites`, e.g. "resid_post.*, z.19.17".
        positions: rules or their names, e.g. [Last()] or "last, span:scenario"; one row per chosen token and example.
        dtype:     stored dtype; None stores what the model computes in.
        thinking:  passed to the chat template (`enable_thinking`) unless None.
        max_length: longest prompt in tokens; None: the model's context. A longer prompt is an error, never truncated.
        tokens_per_batch: most tokens of one forward pass, padding included. None: by the model's size and free memory
            (`interp.memory.Sizes.pass_tokens`), at most 16,384. Halved whenever memory does not suffice.
        shard_bytes: size of one file of the cache.
    Raises:
        ValueError: unknown dtype, a budget below one token, or no positions.
    """

    sites: str | Site | Sequence[str | Site]
    positions: str | Positions | Sequence[str | Positions] = "last"
    dtype: str | None = None
    thinking: bool | None = None
    max_length: int | None = None
    tokens_per_batch: int | None = None
    shard_bytes: int | str = TARGET_BYTES

    def __post_init__(self) -> None:
        if parse_bytes(self.shard_bytes) < 1:
            raise ValueError(f"shard_bytes: expected a size such as '256MB', got {self.shard_bytes}.")
        if self.most_tokens < 1:
            raise ValueError(f"tokens_per_batch: expected at least 1, got {self.tokens_per_batch}.")
        if not parse_positions(self.positions):
            raise ValueError("positions: expected at least one rule, such as 'last', got none.")

    @property
    def most_tokens(self) -> int:
        """Most tokens of one pass, on any machine: what identifies the cache."""
        return TOKENS_PER_BATCH if self.tokens_per_batch is None else self.tokens_per_batch

    def prompts(self, examples: Sequence[Example], tokenizer: Any, *, context: int | None = None) -> list[Prompt]:
        """Every example rendered as a prompt. Raises a ValueError that names the first example that is too long."""
        if tokenizer is None:
            raise ValueError(
                "rendering examples needs a tokenizer; wrap the module with Model.wrap(module, tokenizer)."
            )
        if self.max_length is not None and context is not None and self.max_length > context:
            raise ValueError(
                f"max_length: expected at most the model's context of {context} tokens, got {self.max_length}."
            )
        limit = self.max_length if self.max_length is not None else context
        return render_all(examples, tokenizer, thinking=self.thinking, max_length=limit)

    def site_specs(self, layout: Layout, dtype: torch.dtype) -> tuple[SiteSpec, ...]:
        """The stored tensor of every site. Raises a ValueError for a site that the model does not have."""
        stored = self.dtype or str(dtype).removeprefix("torch.")
        return tuple(SiteSpec(str(s), layout.row_shape(s), stored) for s in expand_sites(self.sites, layout))

    def plan(
        self,
        examples: Sequence[Example],
        prompts: Sequence[Prompt],
        *,
        layout: Layout,
        dtype: torch.dtype,
        fingerprint: Fingerprint,
        checkpoint: Checkpoint | None = None,
        template_date: str | None = None,
        replies: Mapping[str, object] | None = None,
    ) -> CachePlan:
        """The plan on one model: its rows, shards and identity; `fingerprint` is that of the active adapter.

        Of replies (`interp.replies.ReplyPrompt`), a rule that selects nothing in one gives it no row.

        `template_date` is the date passed to a chat template that reads the clock (`interp.template.clock_of`),
        `replies` says who wrote them.
        """
        adapters = sorted(fingerprint.adapters.values())
        config = layout.config
        chosen = {rule.name: [_chosen(rule, prompt) for prompt in prompts] for rule in parse_positions(self.positions)}
        return make_plan(
            prompts,
            {name: [tokens for tokens, _ in some] for name, some in chosen.items()},
            self.site_specs(layout, dtype),
            {
                "model": {"config_sha256": fingerprint.config_sha256, "weights_sha256": fingerprint.weights_sha256},
                "adapter": {"sha256": adapters[0], "merged": fingerprint.merged} if adapters else None,
                "tokenizer": fingerprint.tokenizer_sha256,
                "numerics": {
                    "compute_dtype": str(dtype).removeprefix("torch."),
                    "attention": config._attn_implementation,
                    "quantization": fingerprint.quantization,
                },
                **({"template_date": template_date} if template_date else {}),
                **({"replies": replies} if replies else {}),
                "batching": {"rule": "longest first", "tokens_per_batch": self.most_tokens},
            },
            examples=examples,
            target_bytes=self.shard_bytes,
            environment={
                "checkpoint": None if checkpoint is None else checkpoint.shared,
                "model_type": config.model_type,
                "packages": {name: version(name) for name in _PACKAGES},
                "template_system": next((p.template_system for p in prompts if p.template_system), None),
            },
            spans_by_rule={name: [spans for _, spans in some] for name, some in chosen.items()},
        )


def _chosen(rule: Positions, prompt: Prompt) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """(tokens, their spans) of a rule; no token of a reply in which it selects none."""
    try:
        return rule.resolve(prompt), span_names(rule, prompt) if isinstance(prompt, ReplyPrompt) else ()
    except NothingSelectedError:
        if not isinstance(prompt, ReplyPrompt):
            raise
        return (), ()


def preview(
    checkpoint: Checkpoint,
    examples: Sequence[Example],
    *,
    load: Mapping[str, Any] | None = None,
    **request: Any,
) -> CachePlan:
    """The plan of the cache that `extract` would make, from the model's configuration alone: no weights are read.

    Rows, sites and sizes are exact; the identity is not that of a real cache.

    Args:
        load: options of `interp.load`; its dtype is the stored one unless the request has `dtype=`.
        request: `sites`, `positions`, ...; see `interp.cache.Request`.
    Raises:
        ValueError: as `extract`: bad sites, positions or examples, or a prompt longer than the context.
    """
    skeleton = open_skeleton(checkpoint, **(load or {}))
    options = Request(**request)
    layout = Layout(skeleton.module.get_decoder())
    prompts = options.prompts(examples, skeleton.tokenizer, context=context_length(layout.config))
    unread = Fingerprint(config_sha256="not read", weights_sha256="not read")
    return options.plan(
        examples,
        prompts,
        layout=layout,
        dtype=skeleton.dtype,
        fingerprint=unread,
        template_date=clock_of(skeleton.tokenizer),
    )
