"""The plan of a cache before any weight is read: the model's shape comes from its configuration alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from interp.cache.plan import CachePlan
from interp.cache.request import Request
from interp.checkpoint import Checkpoint, Fingerprint
from interp.family import Layout
from interp.loading import open_skeleton
from interp.prompt import Example
from interp.rope import context_length
from interp.template import clock_of


def preview(
    checkpoint: Checkpoint,
    examples: Sequence[Example],
    *,
    load: Mapping[str, Any] | None = None,
    **request: Any,
) -> CachePlan:
    """Rows, sites and sizes of the cache that `extract` would make; its identity is not that of a real one.

    Args:
        load: options of `interp.load`; its dtype is what is stored unless `dtype=` of the request says otherwise.
        request: `sites`, `positions`, ...; see `interp.cache.Request`.
    Raises:
        ValueError: as `extract`: bad sites, positions or examples, a prompt longer than the context.
    """
    skeleton = open_skeleton(checkpoint, **(load or {}))
    wanted = Request(**request)
    layout = Layout(skeleton.module.get_decoder())
    prompts = wanted.prompts(examples, skeleton.tokenizer, context=context_length(layout.config))
    unread = Fingerprint(config_sha256="not read", weights_sha256="not read")
    return wanted.plan(examples, prompts, layout=layout, dtype=skeleton.dtype, fingerprint=unread,
                       template_date=clock_of(skeleton.tokenizer))  # fmt: skip
