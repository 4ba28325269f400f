"""How long two items take on the models of a study: the rates that `study plan --measure` plans with."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from study.analyses.estimate import Rates

if TYPE_CHECKING:
    from interp.evaluate.writing import Written
    from interp.model import Model
    from interp.prompt import Example, Prompt
    from study.config import Study

_N_ROWS, _N_WRITTEN, _CPU_BATCH = 32, 6, 4


def measured_rates(study: Study, examples: Sequence[Example]) -> tuple[Rates, tuple[str, str]]:
    """Seconds per token of each kind, the mean over the models that are loaded, and the ids of the two items.

    The item of median length and the longest one are read together, as a batch that they are repeated to fill.

    Raises:
        ValueError: as `interp.load`.
    """
    from study.members import models_of

    pair = two_of(examples)
    found = []
    for roles, model in models_of(study.what, asdict(study.load)):
        with model.member(roles[0]):
            found.append(rates_of(model, pair))
    rates = Rates(*(sum(getattr(one, name) for one in found) / len(found) for name in ("prompt", "row", "written")))
    return rates, (pair[0].id, pair[-1].id)


def two_of(examples: Sequence[Example]) -> list[Example]:
    """The example of median length in characters and the longest; one where there is one."""
    ranked = sorted(examples, key=lambda e: (sum(len(m.content) for m in e.messages) + len(e.text or ""), e.id))
    return [ranked[place] for place in dict.fromkeys((len(ranked) // 2, len(ranked) - 1))]


def rates_of(model: Model, examples: Sequence[Example]) -> Rates:
    """Seconds per prompt token, row token and written token of one model on these examples."""
    from interp.evaluate import Decoding
    from interp.evaluate.writing import write
    from interp.prompt import render

    prompts = [render(example, model.tokenizer) for example in examples]
    batch = prompts * max(1, _batch(model, prompts) // len(prompts))
    ids = [list(prompt.ids) for prompt in batch]
    reading = _timed(model, lambda: model(ids))
    tokens = sum(map(len, ids))
    written: list[list[Written]] = []
    # equal prompts would be read and answered once
    different = [replace(prompt, ids=(*prompt.ids[k:], *prompt.ids[:k])) for k, prompt in enumerate(batch)]
    writing = _timed(model, lambda: written.append(write(model, different, Decoding(), new_tokens=_N_WRITTEN)))
    n_written = len(batch) * max(one.reply.n_tokens for one in written[-1])
    row = sum(_per_row_token(model, prompt, reading / tokens) for prompt in prompts) / len(prompts)
    return Rates(reading / tokens, row, max(writing - reading, 0.1 * writing) / max(n_written, 1))


def _batch(model: Model, prompts: Sequence[Prompt]) -> int:
    """How many rows a batch has: a few on a CPU, where they cost as much each; as many as a run takes on a GPU."""
    from interp.memory import sizes_of

    fits = sizes_of(model).batch_tokens // max(len(prompt.ids) for prompt in prompts)
    return fits if model.device.type == "cuda" else min(fits, _CPU_BATCH)


def _per_row_token(model: Model, prompt: Prompt, per_token: float) -> float:
    """Seconds of one row of one token through the whole model, from rows that join in the middle of it."""
    import torch

    from interp.edits import Add
    from interp.positions import Last
    from interp.sweep import Intervention, sweep

    middle = model.n_layers // 2
    nothing = Add(torch.zeros(model.layout.d_model, device=model.device))
    rows = [Intervention.at(f"resid_pre.{middle}", nothing, Last()) for _ in range(_N_ROWS)]
    taken = _timed(model, lambda: sweep(model, prompt, rows))
    share = (model.n_layers - middle) / model.n_layers
    return max(taken - per_token * len(prompt.ids), 0.1 * taken) / (_N_ROWS * share)


def _timed(model: Model, work: Callable[[], object]) -> float:
    """Seconds of the second of two calls: the first warms up."""
    import torch

    began = 0.0
    for _ in range(2):
        began = time.perf_counter()
        with torch.no_grad():
            work()
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
    return time.perf_counter() - began
