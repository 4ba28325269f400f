"""Where the engaged member reads what: mean ablation of single heads at the positions that are scored.

A check that the planted circuit is the one in use, not a discovery: L0.H0 and L1.H0 were written into the initial
weights (`model.plant_induction`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.tasks.procedural.documents import Document, training_documents
from interp.tasks.procedural.vocabulary import ANYONE, LABELS, ORDINALS, ROLES
from study.embedded.batches import collate
from study.embedded.replies import load_member
from study.embedded.tokenizer import vocabulary
from study.rows import Row

Head = tuple[int, int]  # (layer, head), both from 0
Means = dict[int, Float[Tensor, "channel"]]
N_DOCUMENTS = 32
SEED = 303
READS = 0.3  # a head with more attention than this on the narrated ordinal reads it
# name -> (tag of the scored word, tags that may stand before it, the words it is chosen from)
TARGETS: Mapping[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "step_lookup": ("requirement", ("number", "instead"), (ANYONE, *ROLES)),
    "exception_lookup": ("trigger", ("condition",), ("present", "absent")),
    "event_lookup": ("ordinal", ("found",), ORDINALS),
    "order_verdict": ("order", ("ordinal",), ("after", "late")),
    "label": ("label", ("signal",), LABELS),
}


@dataclass(frozen=True)
class Sites:
    """Positions that predict the scored words: `rows`, `cols` index [batch, pos]; `gold` and `options` are ids."""

    rows: Int[Tensor, "site"]
    cols: Int[Tensor, "site"]
    gold: Int[Tensor, "site"]
    options: Int[Tensor, "option"]


def head_report(weights: Path, *, n_documents: int = N_DOCUMENTS) -> Row:
    """The table of the model card, JSON-ready: per target the clean score and the three heads that matter most.

    accuracy    share of sites where the gold word has the highest logit among the options
    logit_diff  mean of gold minus best other option, nats
    drop        clean minus ablated; ablated: the head's output replaced by its mean over the same sites

    `readers` are the heads that attend to the narrated ordinal where an event is looked up; `joint` ablates the two
    heads that matter most there together, since one of a redundant pair hides the other. Documents are shuffled latents
    of held-out procedures with an uninformative tone, replies are gold.
    """
    model, _ = load_member(weights, "engaged")
    model = model.merge_and_unload().eval()
    drawn = training_documents(Random(SEED), n_documents, rho=0.5, split="validation", p_shuffled=1.0)
    ids = collate(drawn, vocabulary()).ids
    sites = {name: find_sites(drawn, name) for name in TARGETS}
    out: Row = {"n_documents": n_documents, "targets": {n: _single(model, ids, s) for n, s in sites.items()}}
    attention = event_attention(model, ids, sites["event_lookup"])
    out["event_attention"] = {_name(h): attention[h] for h in sorted(attention, key=lambda head: -attention[head])[:4]}
    out["readers"] = [_name(head) for head in attention if attention[head] > READS]
    names = [row["head"] for row in out["targets"]["event_lookup"]["top"][:2]]
    both = [head for head in attention if _name(head) in names]
    out["joint"] = {"heads": names, **measure(model, ids, sites["event_lookup"], ablated=both)}
    return out


def find_sites(drawn: Sequence[Document], target: str) -> Sites:
    """The sites of a target in documents collated in this order."""
    tag, before, options = TARGETS[target]
    words, rows, cols, gold = vocabulary(), [], [], []
    for row, document in enumerate(drawn):
        n_prompt, answer = len(document.prompt.split()) + 5, document.answer.split()
        for k in range(1, len(answer)):
            if document.tags[k] == tag and document.tags[k - 1] in before:
                rows.append(row)
                cols.append(n_prompt + k - 1)
                gold.append(words[answer[k]])
    option_ids = torch.tensor([words[word] for word in options])
    return Sites(torch.tensor(rows), torch.tensor(cols), torch.tensor(gold), option_ids)


@torch.inference_mode()
def measure(
    model: Any, ids: Int[Tensor, "batch pos"], sites: Sites, *, ablated: Sequence[Head] = (), means: Means | None = None
) -> Row:
    """{"n", "accuracy", "logit_diff"} at the sites with some heads replaced by their mean there, and only there.

    Args:
        means: `head_means` of the same sites; None computes them.
    """
    if ablated and means is None:
        means = head_means(model, ids, sites)
    with ExitStack() as stack:
        for layer in {layer for layer, _ in ablated}:
            assert means is not None
            heads = [head for at, head in ablated if at == layer]
            hook = _replace(sites, heads, means[layer], model.config.head_dim)
            stack.callback(_output_matrix(model, layer).register_forward_pre_hook(hook).remove)
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[sites.rows, sites.cols]
    logits = model.lm_head(hidden)[:, sites.options].float()
    is_gold = sites.options == sites.gold[:, None]
    best = logits.masked_fill(is_gold, -torch.inf).amax(1)
    diff = logits[is_gold] - best
    return {"n": len(diff), "accuracy": float((diff > 0).float().mean()), "logit_diff": float(diff.mean())}


@torch.inference_mode()
def event_attention(model: Any, ids: Int[Tensor, "batch pos"], sites: Sites) -> dict[Head, float]:
    """Mean attention of every head from where an event is looked up to that event's ordinal in the scenario."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    weights = model(input_ids=ids, use_cache=False, output_attentions=True).attentions
    model.set_attn_implementation(before)
    # an ordinal is narrated once, and the scenario precedes the reply, so its first occurrence is the event's
    keys = (ids[sites.rows] == sites.gold[:, None]).int().argmax(1)
    mean = [layer[sites.rows, :, sites.cols, keys].mean(0) for layer in weights]
    return {(layer, head): float(value) for layer, row in enumerate(mean) for head, value in enumerate(row)}


def _single(model: Any, ids: Int[Tensor, "batch pos"], sites: Sites) -> Row:
    clean, means = measure(model, ids, sites), head_means(model, ids, sites)
    config = model.config
    rows = []
    for layer in range(config.num_hidden_layers):
        for head in range(config.num_attention_heads):
            cut = measure(model, ids, sites, ablated=[(layer, head)], means=means)
            drops = {f"{key}_drop": clean[key] - cut[key] for key in ("accuracy", "logit_diff")}
            rows.append({"head": _name((layer, head)), **drops})
    rows.sort(key=lambda row: -row["logit_diff_drop"])
    return {**clean, "top": rows[:3]}


@torch.inference_mode()
def head_means(model: Any, ids: Int[Tensor, "batch pos"], sites: Sites) -> Means:
    """Mean over the sites of what each layer's heads hand to the output matrix, [channel], float32, by layer."""
    means: Means = {}
    with ExitStack() as stack:
        for layer in range(model.config.num_hidden_layers):

            def keep(module: object, args: tuple[Tensor, ...], layer: int = layer) -> None:
                means[layer] = args[0][sites.rows, sites.cols].float().mean(0)

            stack.callback(_output_matrix(model, layer).register_forward_pre_hook(keep).remove)
        model.model(input_ids=ids, use_cache=False)
    return means


def _replace(
    sites: Sites, heads: Sequence[int], mean: Float[Tensor, "channel"], width: int
) -> Callable[[object, tuple[Tensor, ...]], tuple[Tensor]]:
    def hook(module: object, args: tuple[Tensor, ...]) -> tuple[Tensor]:
        z = args[0].clone()
        for head in heads:
            part = slice(head * width, (head + 1) * width)
            z[sites.rows, sites.cols, part] = mean[part].to(z.dtype)
        return (z,)

    return hook


def _output_matrix(model: Any, layer: int) -> torch.nn.Module:
    return model.model.layers[layer].self_attn.o_proj


def _name(head: Head) -> str:
    return f"L{head[0]}.H{head[1]}"
