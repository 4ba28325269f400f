"""Scores of a probe at every token while a model writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from interp.family import Layout, Tap
from interp.hooks import place
from interp.model import Model
from interp.passes import around_generate, given_prompts
from interp.site import SITE_KINDS, Site, check_site

if TYPE_CHECKING:
    import pandas as pd

Score = Callable[[Float[Tensor, "row d_feature"]], Float[Tensor, "row"]]
_LAST_ONLY = {
    "num_beams": "beams are reordered at every step, so a row holds tokens of several texts: use num_beams=1, or "
    "score the finished replies (`diptych probes along`)",
    "assistant_model": "drafted tokens may be rejected after they were scored: generate without an assistant",
    "prompt_lookup_num_tokens": "drafted tokens may be rejected after they were scored: generate without prompt lookup",
}


@dataclass(frozen=True)
class Step:
    """What a callback sees after each decoding step.

    Attributes:
        scores: scores so far, [row, step]: column 0 is the last prompt token, column k the k-th token of the reply.
        done: rows that have ended; their later columns are not part of a reply.
    """

    scores: Float[Tensor, "row step"]
    done: Bool[Tensor, "row"]

    @property
    def newest(self) -> Float[Tensor, "row"]:
        return self.scores[:, -1]


Stop = Callable[[Step], "Bool[Tensor, 'row'] | Sequence[bool]"]


@dataclass(frozen=True)
class Watched:
    """Scores of one reply.

    Attributes:
        text: which text of the call to `generate`.  sample: which of its samples.
        scores: [token], float32; the first is of the last prompt token, whose output is the first token of the reply.
        ids: the tokens that were scored; None in place of a prompt given as embeddings.
        stopped: whether the callback ended it.
    """

    text: int
    sample: int
    scores: Float[np.ndarray, " token"]
    ids: tuple[int | None, ...]
    stopped: bool


@dataclass
class Monitor:
    """What a `monitor` block has seen: one `Watched` per reply, in the order of the calls to `generate`."""

    site: Site
    calls: list[list[Watched]] = field(default_factory=list)

    @property
    def replies(self) -> list[Watched]:
        """The replies of all calls."""
        return [reply for call in self.calls for reply in call]

    @property
    def scores(self) -> list[Float[np.ndarray, " token"]]:
        """Scores of each reply; see `Watched.scores`."""
        return [reply.scores for reply in self.replies]

    def table(self) -> pd.DataFrame:
        """One row per token: call, text, sample, token (0: the last of the prompt), token_id, score."""
        import pandas as pd

        rows = [
            (call, reply.text, reply.sample, number, token, float(score))
            for call, replies in enumerate(self.calls)
            for reply in replies
            for number, (token, score) in enumerate(zip(reply.ids, reply.scores, strict=True))
        ]
        return pd.DataFrame(rows, columns=["call", "text", "sample", "token", "token_id", "score"])


@contextmanager
def monitor(
    model: Model | nn.Module, probe: Any, *, site: str | Site | None = None, stop: Stop | None = None
) -> Iterator[Monitor]:
    """Score every token that `generate` writes inside the block, in float32, as it is written.

    The activation is that of the newest token at each decoding step, so the scores are those of a forward pass over the
    finished text: `score[k] = feats[k] · w + b`. Padding and rows that have ended are left out. What is written stays
    the same.

    Args:
        probe: a `SweepResult` with one selected cell, one of its `directions`, a fitted `Probe` of two classes, a
            steering `Direction` (score = activation · unit vector), (weights [d_feature], bias), or a function of
            activations [row, d_feature] that returns [row].
        site: where to read; taken from a `SweepResult` or a `Direction`, else required.
        stop: called after each step; rows for which it returns True end there, as if they had written an end token.
    Raises:
        ValueError: no site, a site or width that the model does not have, beams or drafted tokens, prompts padded on
            the right, a callback that returns another shape, no call to `generate` in the block.
        RuntimeError: a decoding step did not reach the hook (a compiled model skips hooks).

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> shape = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
        >>> model = LlamaForCausalLM(LlamaConfig(vocab_size=99, **shape)).eval()
        >>> weights = torch.ones(32)
        >>> with monitor(model, (weights, 0.0), site="resid_post.1") as m:
        ...     _ = model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=4, do_sample=False, eos_token_id=None)
        >>> m.scores[0].shape  # the last prompt token, and the first 3 of 4 new tokens: the last is never read
        (4,)
    """
    wrapped = Model.wrap(model)
    score, where = score_of(probe, site)
    tap = _tap(wrapped.layout, where, score)
    watch = _Watch(wrapped, Monitor(where), score, stop)
    with ExitStack() as stack:
        stack.callback(place(tap, lambda whole: watch.see(tap.view.read(whole)), last=True).remove)
        before = wrapped.decoder.register_forward_pre_hook(watch.begin, with_kwargs=True)
        stack.callback(before.remove)
        stack.enter_context(around_generate(wrapped.causal_lm, watch.generate))
        yield watch.monitor
    if not watch.monitor.calls:
        raise ValueError(
            "no call to `generate` ran in this monitor block. Call generate inside it; for a plain forward pass use "
            "`record`."
        )


def score_of(probe: Any, site: str | Site | None) -> tuple[Score, Site]:
    """The scoring function of anything that `monitor` accepts, and the site it reads.

    Raises:
        ValueError: no site is known, two sites contradict each other, or `probe` cannot score.
    """
    own = getattr(probe, "site", None)
    if hasattr(probe, "selected") and hasattr(probe, "directions"):
        cell = probe.pick()
        probe, own = probe.directions[cell.key], cell.site
    named = [Site.parse(str(one)) for one in (own, site) if one is not None]
    if not named:
        raise ValueError(
            f"monitor: a {type(probe).__name__} does not say where it reads; pass site=, e.g. resid_post.3."
        )
    if len(set(named)) > 1:
        raise ValueError(f"monitor: the probe reads {named[0]}, but site={site!r} was given. Leave site out.")
    return _function(probe), named[0]


def _function(probe: Any) -> Score:
    """`probe` as a function of activations [row, d_feature]."""
    if hasattr(probe, "coef_"):
        coef = torch.as_tensor(probe.coef_, dtype=torch.float32)
        if coef.shape[0] != 1:
            raise ValueError(
                f"monitor: expected a probe of two classes, got one of {coef.shape[0]}: it has no one score."
            )
        return _Linear(coef[0], float(probe.intercept_[0]))
    if all(hasattr(probe, name) for name in ("unit", "norm", "bias")):
        return _Linear(probe.unit.float() * probe.norm, float(probe.bias))
    if hasattr(probe, "unit"):
        return _Linear(probe.unit.float(), 0.0)
    if isinstance(probe, tuple) and len(probe) == 2:
        return _Linear(torch.as_tensor(probe[0], dtype=torch.float32), float(probe[1]))
    scorer: Any = probe
    if callable(probe):
        return scorer
    raise ValueError(
        f"monitor: expected a SweepResult, a Probe, a Direction, (weights, bias) or a function of activations; got a "
        f"{type(probe).__name__}."
    )


class _Linear:
    """feats · weights + bias on whatever device the activations are."""

    def __init__(self, weights: Float[Tensor, "d_feature"], bias: float) -> None:
        self.weights, self.bias = weights.detach(), bias

    def __call__(self, feats: Float[Tensor, "row d_feature"]) -> Float[Tensor, "row"]:
        if self.weights.device != feats.device:
            self.weights = self.weights.to(feats.device)
        return feats @ self.weights + self.bias


def _tap(layout: Layout, site: Site, score: Score) -> Tap:
    check_site(site, layout)
    if site.kind in ("logits", "pattern"):
        raise ValueError(f"monitor: a probe cannot read '{site}'; name a site of the residual stream, mlp_out or z.")
    width = len(score.weights) if isinstance(score, _Linear) and SITE_KINDS[site.kind].shape == "d_model" else None
    if width not in (None, layout.d_model):
        raise ValueError(f"monitor: the probe has {width} weights, '{site}' of this model {layout.d_model} components.")
    return layout.tap(site)


class _Watch:
    """State of a `monitor` block: the scores of the call to `generate` that is running.

    Attributes:
        width: columns of the prompt; None outside of `generate`.
        columns, ids: scores and tokens of each step, [row] each.
        newest, computed: tokens in the last column of this pass, and columns that are computed after it.
        stopped_at: step at which the callback ended each row, -1 for the others.
    """

    def __init__(self, model: Model, seen: Monitor, score: Score, stop: Stop | None) -> None:
        self.model, self.monitor, self.score, self.stop = model, seen, score, stop
        self.width: int | None = None
        self.columns: list[Tensor] = []
        self.ids: list[Tensor | None] = []
        self.ends: Tensor | None = None
        self.stopped_at: Tensor | None = None
        self.newest: Tensor | None = None
        self.computed = 0

    def begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Before a pass: which token its last column is, and how many columns are computed after it."""
        ids = kwargs.get("input_ids", args[0] if args else None)
        tokens, cache = ids if ids is not None else kwargs["inputs_embeds"], kwargs.get("past_key_values")
        self.newest = None if ids is None else ids[:, -1]
        self.computed = tokens.shape[1] + (0 if cache is None else int(cache.get_seq_length()))

    def see(self, whole: Tensor) -> None:
        if self.width is None or self.computed < self.width:  # outside of `generate`, or a piece of a long prompt
            return
        feats = whole[:, -1].detach().flatten(1).float()
        scores = self.score(feats)
        if scores.shape != feats.shape[:1]:
            raise ValueError(
                f"monitor: the probe returned {list(scores.shape)} for {len(feats)} rows; expected one each."
            )
        self.columns.append(scores.float())
        self.ids.append(self.newest)

    def generate(self, inner: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        n_texts, self.width = self._prompt(args, kwargs)
        self.columns, self.ids, self.stopped_at = [], [], None
        self.ends = _end_tokens(self.model, kwargs)
        try:
            out = inner(*args, **self._with_callback(kwargs))
        finally:
            self.width, width = None, self.width
        self._check_steps(getattr(out, "sequences", out), kwargs, width)
        self.monitor.calls.append(self._replies(n_texts))
        return out

    def _prompt(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[int, int]:
        """(texts, columns) of the input of `generate`, after the checks that need no pass."""
        for option, reason in _LAST_ONLY.items():
            value = _setting(self.model, kwargs, option)
            if value is not None and value != 1:
                raise ValueError(f"monitor: {option}={value if option != 'assistant_model' else '...'}: {reason}.")
        given = given_prompts(args, kwargs)
        if given.mask is not None and not bool(given.mask[:, -1].all()):
            raise ValueError(
                "monitor: prompts are padded on the right; `generate` continues the pads. Pad on the left."
            )
        return given.items, given.width

    def _with_callback(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        if self.stop is None:
            return kwargs
        from transformers import StoppingCriteriaList

        criteria = StoppingCriteriaList([*(kwargs.get("stopping_criteria") or ()), self._is_stopped])
        return {**kwargs, "stopping_criteria": criteria}

    def _is_stopped(self, ids: Tensor, scores: Any, **_: Any) -> Bool[Tensor, "row"]:
        """Rows that the callback has ended, now or before."""
        assert self.stop is not None
        n_steps = len(self.columns)
        if self.stopped_at is None:
            self.stopped_at = torch.full((len(ids),), -1, device=ids.device)
        done = (self.stopped_at >= 0) | (self._ended(ids.device) < n_steps)
        wants = torch.as_tensor(self.stop(Step(self._matrix(ids.device), done)), dtype=torch.bool, device=ids.device)
        if wants.shape != done.shape:
            raise ValueError(
                f"monitor: stop returned {list(wants.shape)}, expected one bool for each of {len(ids)} rows."
            )
        self.stopped_at = torch.where(wants & ~done, n_steps, self.stopped_at)
        return self.stopped_at >= 0

    def _matrix(self, device: torch.device) -> Float[Tensor, "row step"]:
        return torch.stack([column.to(device) for column in self.columns], dim=1)

    def _ended(self, device: torch.device) -> Tensor:
        """Scored columns of each row before its end token."""
        n_steps = len(self.columns)
        known = [i for i in self.ids if i is not None]
        if self.ends is None or len(known) < 2:
            return torch.full((len(self.columns[0]),), n_steps, device=device)
        written = torch.stack([i.to(device) for i in self.ids[1:] if i is not None], dim=1)  # [row, step - 1]
        is_end = torch.isin(written, self.ends.to(device))
        first = torch.where(is_end.any(dim=1), is_end.int().argmax(dim=1) + 1, n_steps)
        return first

    def _check_steps(self, out: Tensor, kwargs: Mapping[str, Any], width: int | None) -> None:
        with_prompt = kwargs.get("inputs_embeds") is None or kwargs.get("input_ids") is not None
        n_new = out.shape[1] - (width or 0 if with_prompt else 0)
        if len(self.columns) != n_new:
            raise RuntimeError(
                f"monitor: {n_new} tokens were written, but the hook at {self.monitor.site} saw {len(self.columns)} "
                f"steps. A compiled model (cache_implementation='static') skips hooks, and drafted tokens take fewer "
                f"steps: use plain decoding."
            )

    def _replies(self, n_texts: int) -> list[Watched]:
        cpu = torch.device("cpu")
        matrix, kept = self._matrix(cpu), self._ended(cpu)
        stopped = torch.full_like(kept, -1) if self.stopped_at is None else self.stopped_at.cpu()
        kept = torch.where(stopped >= 0, torch.minimum(kept, stopped), kept).tolist()
        n_samples = len(kept) // n_texts
        columns = [[None] * len(kept) if i is None else i.tolist() for i in self.ids]
        return [
            Watched(
                row // n_samples,
                row % n_samples,
                matrix[row, : kept[row]].numpy(),
                tuple(column[row] for column in columns[: kept[row]]),
                bool(stopped[row] >= 0),
            )
            for row in range(len(kept))
        ]


def _setting(model: Model, kwargs: Mapping[str, Any], name: str) -> Any:
    """The value that `generate` will use: a keyword, the given configuration, or the model's own."""
    configs = (kwargs.get("generation_config"), getattr(model.causal_lm, "generation_config", None))
    if name in kwargs:
        return kwargs[name]
    return next((value for value in (getattr(config, name, None) for config in configs) if value is not None), None)


def _end_tokens(model: Model, kwargs: Mapping[str, Any]) -> Tensor | None:
    """Tokens after which a row is padded; None: no row ends early."""
    value = _setting(model, kwargs, "eos_token_id")
    if value is None:
        return None
    return torch.as_tensor(value).flatten()
