"""View of the logit lens: what each layer would write next."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from interp.bridges import logit_lens
from interp.hooks import record
from interp.model import Model
from interp.prompt import Prompt
from interp.site import layer_index
from study.view.data import Track, Values
from study.view.reading import Prompts, items_of
from study.view.views import View

N_TOP = 5


def of_lens(
    model: Model,
    prompts: Prompts,
    *,
    layers: Sequence[int | str] = ("50%",),
    members: Sequence[str] = (),
    top: int = N_TOP,
) -> View:
    """What `logit_lens` reads at every token, one track for each layer.

    The value is log p of the token that follows in the text, as the lens gives it; the reference is that of the model's
    own output, so a layer that already knows what comes next has the reference's value. The likeliest tokens stand with
    each token.

    Args:
        prompts: of `interp.prompt.render_all` or `interp.replies`; a mapping gives each member its own.
        layers: indices from 0, or shares of the depth such as "50%".
        members: roles of the model, side by side; none: the model as it is.
        top:    number of likeliest tokens that are named.
    Raises:
        ValueError: no such layer, no prompts, a model without a tokenizer.
    """
    if model.tokenizer is None:
        raise ValueError(f"{model.name}: the logit lens names tokens, and the model has no tokenizer. Give it one.")
    chosen = list(dict.fromkeys(layer_index(word, model.n_layers) for word in layers))
    sites = [f"resid_post.{layer}" for layer in chosen]

    def values(reader: Model, prompt: Prompt) -> list[Values]:
        with record(reader, [*sites, "logits"]) as acts:
            reader([list(prompt.ids)])
        following = torch.tensor([*prompt.ids[1:], 0])
        own = _log_p(acts["logits"][0], following)
        out = []
        for site in sites:
            logits = logit_lens(reader, acts[site][0])
            likeliest = logits.topk(top, dim=-1).indices.cpu().tolist()
            words = [" ".join(repr(str(reader.tokenizer.decode([one]))) for one in row) for row in likeliest]
            out.append(Values(_log_p(logits, following).tolist(), own.tolist(), notes=words))
        return out

    tracks = [
        Track(f"logit lens at {site}", "log p of the next token, nats", -5.0, 5.0, "expected", "not expected",
              reference="the model's own output") for site in sites
    ]  # fmt: skip
    lead = "The lens reads a layer as if the model ended there; middle layers write in another basis, so a token that it does not show may still be encoded."  # noqa: E501
    return View("Logit lens", tracks, items_of(model, prompts, members, values), lead)


def _log_p(logits: torch.Tensor, following: torch.Tensor) -> np.ndarray:
    """log p of the token that follows each one; NaN at the last."""
    logp = torch.log_softmax(logits.float().cpu(), dim=-1).gather(-1, following[:, None])[:, 0].numpy()
    logp[-1] = np.nan
    return logp
