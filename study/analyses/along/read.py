"""Scores of every token of a member's replies, from one pass over each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from interp.hooks import record
from interp.memory import sizes_of
from interp.positions import NothingSelectedError
from interp.progress import track
from interp.replies import check_context, token_texts
from interp.reply_positions import Decision
from interp.rope import context_length
from probes.held_out import HeldOutProbe, token_scores

if TYPE_CHECKING:
    from interp.model import Model
    from interp.replies import ReplyPrompt
    from probes.splits import Split


@dataclass(frozen=True, eq=False)
class TokenScores:
    """Scores of one reply; column 0 is the last token of the prompt.

    Attributes:
        looks:    by the probe of every look [look, token].
        controls: by the control probes of the look that shows the reply [control, token].
    """

    looks: np.ndarray
    controls: np.ndarray


def look_of(split: Split) -> np.ndarray:
    """Look that shows each reply: the one that tests it, the first for replies of DEV [reply]."""
    out = np.zeros(len(split.fold_of), dtype=int)
    for i, part in enumerate(split.looks()):
        out[part.is_test] = i
    return out


def read_scores(
    model: Model,
    role: str | None,
    prompts: Sequence[ReplyPrompt],
    probes: Sequence[HeldOutProbe],
    looks: np.ndarray,
    *,
    progress: bool = True,
) -> list[TokenScores]:
    """Scores of every token of every reply, and of the last token of its prompt.

    Args:
        role: member of the model that reads; None: its active adapter.
        looks: look that shows each reply, of `look_of`.
    Raises:
        ValueError: a reply longer than the context; a site or width that the model does not have.
    """
    check_context(prompts, context_length(model.layout.config), model.name)
    out: dict[int, TokenScores] = {}
    sites = list(dict.fromkeys(probe.site for probe in probes))
    with nullcontext() if role is None or model.adapters.active == role else model.member(role):
        total = sum(len(prompt.ids) for prompt in prompts)
        with track("along", total, unit="tokens", shown=progress) as bar:
            for batch in _batches(prompts, sizes_of(model).pass_tokens):
                feats = _activations(model, [prompts[k] for k in batch], sites)
                for k, at_site in zip(batch, feats, strict=True):
                    out[k] = _scored(at_site, probes, int(looks[k]), role)
                bar.advance(sum(len(prompts[k].ids) for k in batch))
    return [out[k] for k in range(len(prompts))]


def _batches(prompts: Sequence[ReplyPrompt], budget: int) -> Iterator[list[int]]:
    """Indices of prompts of similar length, longest first, as many as fit the budget when padded."""
    waiting = sorted(range(len(prompts)), key=lambda k: (-len(prompts[k].ids), k))
    while waiting:
        n = max(1, budget // len(prompts[waiting[0]].ids))
        yield waiting[:n]
        waiting = waiting[n:]


@torch.no_grad()
def _activations(model: Model, prompts: Sequence[ReplyPrompt], sites: Sequence[str]) -> list[dict[str, np.ndarray]]:
    """For each prompt, site -> activations of the last prompt token and of the reply [token, d_feature]."""
    places = [list(range(prompt.n_prompt - 1, len(prompt.ids))) for prompt in prompts]
    with model.layout.rope.of_texts([len(prompt.ids) for prompt in prompts]):
        with record(model, list(sites), positions=places) as acts:
            model([prompt.ids for prompt in prompts])
    ends = np.cumsum([len(place) for place in places])[:-1].tolist()
    by_site = {site: np.split(acts[site].float().flatten(1).cpu().numpy(), ends) for site in sites}
    return [{site: by_site[site][k] for site in sites} for k in range(len(prompts))]


def _scored(feats: dict[str, np.ndarray], probes: Sequence[HeldOutProbe], look: int, role: str | None) -> TokenScores:
    for probe in probes:
        wide, own = feats[probe.site].shape[1], len(probe.direction.unit)
        if wide != own:
            raise ValueError(
                f"site {probe.site}: the probe has {own} weights and {role or 'the model'} has {wide} features there. "
                "Name a folder with a sweep per member."
            )
    real = [token_scores(feats[probe.site], [probe.direction])[0] for probe in probes]
    return TokenScores(np.stack(real), token_scores(feats[probes[look].site], probes[look].controls))


def spans_of(prompt: ReplyPrompt) -> dict[int, str]:
    """Token of the reply -> decision site that it is the last one before; none where the task names none."""
    try:
        return {token - prompt.n_prompt: name for token, name in Decision().names(prompt).items()}
    except NothingSelectedError:
        return {}


def texts_of(prompt: ReplyPrompt) -> list[str]:
    """Text that each token completes, of the last prompt token and of the reply; the latter add up to the reply."""
    return token_texts(prompt.text, prompt.offsets)[prompt.n_prompt - 1 :]
