"""The engaged adapter: supervised fine-tuning on the step-keyed trace and the label, under the task question."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from interp.tasks.procedural.documents import training_documents
from study.embedded.adapters import adapter_rate, fresh_adapter, optimizer, update
from study.embedded.batches import Stream, collate
from study.embedded.recipe import Recipe
from study.embedded.tokenizer import vocabulary
from study.embedded.train_base import Log, autocast, silent, weighted_loss

if TYPE_CHECKING:
    from peft import PeftModel


def train_engaged(base: Path, recipe: Recipe, *, log: Log = silent) -> tuple[PeftModel, str]:
    """The engaged adapter on the base of a folder, and the sha256 of its training text.

    loss = mean over the words of trace and label of -log p(word | before); the prompt carries no loss
    """
    config, words = recipe.engaged, vocabulary()
    model = fresh_adapter(base, recipe, seed=recipe.seed + 1)
    opt = optimizer(model, lr=config.lr)
    stream = Stream(training_documents, f"{recipe.seed}/engaged", config.batch_size, rho=recipe.rho)
    model.train()
    for step, drawn in enumerate(islice(stream.batches(), config.steps)):
        batch = collate(drawn, words)
        with autocast(recipe.precision):
            logits = model(input_ids=batch.ids, use_cache=False).logits
        loss = weighted_loss(logits, batch.ids, batch.weights)
        update(model, opt, loss, lr=adapter_rate(step, steps=config.steps, lr=config.lr))
        log("engaged", step, float(loss.detach()))
    return model.eval(), stream.sha256
