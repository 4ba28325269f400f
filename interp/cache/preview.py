"""The plan of a cache before any weight is read: the model's shape comes from its configuration alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from interp.cache.plan import CachePlan
from interp.cache.request import Request
from interp.checkpoint import Checkpoint, Fingerprint
from interp.family import Layout
from interp.loading import open_skeleton
from interp.prompt import Example
from interp.rope import context_length


def preview(checkpoint: Checkpoint, examples: Sequence[Example], *, dtype: Any = "auto", **request: Any) -> CachePlan:
    """Rows, sites and sizes of the cache that `extract` would make; its identity is not that of a real one.

    Args:
        dtype: what the model will compute in, as for `interp.load`; it is what is stored unless `dtype=` of the
            request says otherwise (pass that as `stored`).
        request: `sites`, `positions`, ...; see `interp.cache.Request`.
    Raises:
        ValueError: as `extract`: bad sites, positions or examples, a prompt longer than the context.
    """
    skeleton = open_skeleton(checkpoint, dtype=dtype)
    wanted = Request(**request)
    layout = Layout(skeleton.module.get_decoder())
    prompts = wanted.prompts(examples, skeleton.tokenizer, context=context_length(layout.config))
    unread = Fingerprint(config_sha256="not read", weights_sha256="not read")
    return wanted.plan(examples, prompts, layout=layout, dtype=skeleton.dtype, fingerprint=unread)
