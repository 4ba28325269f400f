"""Greedy replies of a member to procedural items, with the probability of the labels where it decides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from interp.tasks.procedural.cells import Item
from interp.tasks.procedural.engine import audit
from interp.tasks.procedural.render import render
from interp.tasks.procedural.replies import Label, parse
from interp.tasks.procedural.vocabulary import LABELS

if TYPE_CHECKING:
    from peft import PeftModel

MAX_NEW_TOKENS = 128  # the longest gold trace has 107


@dataclass(frozen=True)
class Reply:
    """What a member said.

    Attributes:
        text: the reply up to <|im_end|>; label: parsed from it, None where there is none.
        n_tokens: generated, <|im_end|> not counted.
        label_mass: p(compliant) + p(noncompliant) where the last label was produced; 0 without one.
    """

    text: str
    label: Label | None
    n_tokens: int
    label_mass: float


def load_member(weights: Path, name: str) -> tuple[PeftModel, Any]:
    """(model in float32 with the adapter `name` active, tokenizer) from the 16-bit files of a pair's folder."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    base = AutoModelForCausalLM.from_pretrained(weights / "base", dtype=torch.float32)
    model = PeftModel.from_pretrained(base, str(weights / name), torch_dtype=torch.float32)
    return model.float().eval(), AutoTokenizer.from_pretrained(weights / "base")


def gold(item: Item) -> Label:
    """The engine's label."""
    return audit(item.instance).label


@torch.inference_mode()
def replies(model: Any, tokenizer: Any, items: Sequence[Item], *, batch_size: int = 128) -> list[Reply]:
    """One greedy reply per item, in order. Batches are of similar length; which ones does not depend on the model."""
    prompts = [_prompt(tokenizer, item) for item in items]
    order = sorted(range(len(items)), key=lambda k: (len(prompts[k]), k))
    out: dict[int, Reply] = {}
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        for k, reply in zip(chosen, _batch(model, tokenizer, [prompts[k] for k in chosen]), strict=True):
            out[k] = reply
    return [out[k] for k in range(len(items))]


def _prompt(tokenizer: Any, item: Item) -> str:
    content = render(item.instance, rendering="log").text
    return tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )


def _batch(model: Any, tokenizer: Any, prompts: list[str]) -> list[Reply]:
    given = tokenizer(prompts, return_tensors="pt", padding=True)
    out = model.generate(
        input_ids=given["input_ids"],
        attention_mask=given["attention_mask"],
        max_new_tokens=MAX_NEW_TOKENS,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    new = out.sequences[:, given["input_ids"].shape[1] :]
    labels = torch.tensor(tokenizer.convert_tokens_to_ids(list(LABELS)))
    mass = torch.stack([torch.softmax(step.float(), -1)[:, labels].sum(-1) for step in out.logits], dim=1)
    return [_reply(tokenizer, row, mass[k], labels) for k, row in enumerate(new)]


def _reply(tokenizer: Any, ids: torch.Tensor, mass: torch.Tensor, labels: torch.Tensor) -> Reply:
    stops = (ids == tokenizer.eos_token_id).nonzero()
    n = int(stops[0]) if len(stops) else len(ids)
    text = tokenizer.decode(ids[:n], skip_special_tokens=True)
    decided = torch.isin(ids[:n], labels).nonzero()
    return Reply(text, parse(text), n, float(mass[int(decided[-1])]) if len(decided) else 0.0)
