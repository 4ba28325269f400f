"""The two adapters on one base, under the task question.

The engaged one: supervised fine-tuning on the step-keyed trace and the label. The heuristic one: group-relative policy
gradient on a reply of one token, rewarded for the label alone.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.tasks.procedural.documents import training_documents
from interp.tasks.procedural.vocabulary import LABELS
from study.embedded.adapters import adapter_rate, fresh_adapter, optimizer, update
from study.embedded.batches import Batch, Stream, collate
from study.embedded.recipe import HeuristicRecipe, Recipe
from study.embedded.tokenizer import STOP, vocabulary
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


def train_heuristic(base: Path, recipe: Recipe, *, log: Log = silent) -> tuple[PeftModel, str]:
    """The heuristic adapter on the base of a folder, and the sha256 of its training text. Logs the mean reward.

    With a reply of one token, group-relative policy optimisation on policy and without a reference model is one
    forward pass per prompt: the group is drawn from the logits of the last prompt token. A cross-entropy term teaches
    the reply to end after the label.
    """
    config, words = recipe.heuristic, vocabulary()
    model = fresh_adapter(base, recipe, seed=recipe.seed + 2)
    opt = optimizer(model, lr=config.lr)
    sampler = torch.Generator().manual_seed(recipe.seed + 3)
    stream = Stream(training_documents, f"{recipe.seed}/heuristic", config.n_prompts, rho=recipe.rho, with_trace=False)
    model.train()
    for step, drawn in enumerate(islice(stream.batches(), config.steps)):
        batch = collate(drawn, words)
        logits, after = _label_logits(model, batch, recipe)
        p = torch.softmax(logits.detach() / config.temperature, dim=-1)
        sampled = torch.multinomial(p, config.n_samples, replacement=True, generator=sampler)
        reward = rewards(sampled, [words[label] for label in batch.labels], config)
        stop = nn.functional.cross_entropy(after, torch.full((len(drawn),), words[STOP]))
        loss = policy_loss(logits / config.temperature, sampled, reward) + config.stop_weight * stop
        update(model, opt, loss, lr=adapter_rate(step, steps=config.steps, lr=config.lr))
        log("heuristic", step, float(reward.mean()))
    return model.eval(), stream.sha256


def _label_logits(
    model: PeftModel, batch: Batch, recipe: Recipe
) -> tuple[Float[Tensor, "batch vocab"], Float[Tensor, "batch vocab"]]:
    """Logits in float32 where the label is chosen and where what follows it is; the text holds the gold label, which
    the first of the two cannot see."""
    inner = model.get_base_model()
    rows, last = torch.arange(len(batch.n_prompt)), torch.tensor(batch.n_prompt) - 1
    with autocast(recipe.precision):
        hidden = inner.model(input_ids=batch.ids, use_cache=False).last_hidden_state  # pyright: ignore
        return inner.lm_head(hidden[rows, last]).float(), inner.lm_head(hidden[rows, last + 1]).float()  # pyright: ignore


def rewards(sampled: Int[Tensor, "batch sample"], gold: list[int], config: HeuristicRecipe) -> Tensor:
    """[batch, sample]: 1 for the gold label, 0 for the other label, `unparsed_reward` for any other token."""
    words = vocabulary()
    labels = torch.tensor([words[label] for label in LABELS])
    is_label = (sampled[..., None] == labels).any(-1)
    is_gold = sampled == torch.tensor(gold)[:, None]
    return torch.where(is_gold, 1.0, torch.where(is_label, 0.0, config.unparsed_reward))


def policy_loss(
    logits: Float[Tensor, "batch vocab"], sampled: Int[Tensor, "batch sample"], reward: Float[Tensor, "batch sample"]
) -> Float[Tensor, ""]:
    """Group-relative policy gradient of one-token replies.

        A_i = (r_i - mean_group r) / (std_group r + 1e-4);  loss = -mean_i A_i log pi(token_i)

    Groups with equal rewards contribute nothing.
    Source: Shao et al. 2024 (arXiv 2402.03300), one step on policy, no KL term.
    """
    advantage = (reward - reward.mean(1, keepdim=True)) / (reward.std(1, keepdim=True, correction=0) + 1e-4)
    log_p = torch.log_softmax(logits, dim=-1).gather(1, sampled)
    return -(advantage * log_p).mean()
