"""Letter-logit evaluation beside a plain loop of `model.generate(max_new_tokens=4)` with batch 8, on the same items.

    python -m benchmarks.eval [--gpu] [--json PATH]

Items are BBQ-like quads (two contexts by two questions, the seed prompt). Ratios are items per second over the loop's.
Compared first: the log-probabilities of the three letters, ours against those of the loop's first new token.
"""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from benchmarks.cache import SHAPES
from benchmarks.kit import Report, Setting, arguments, interleave
from interp.evaluate import Decoding, evaluate
from interp.model import Model
from interp.prompt import Example, Message, render
from interp.tasks import bbq
from tests.tiny import CHAT_TEMPLATE

PEOPLE = ("grandfather", "grandson", "secretary", "engineer", "nurse", "tailor", "baker", "pilot", "driver", "teacher")
PLACES = ("outside the supermarket", "at the bus stop", "in the waiting room", "near the old library", "at the airport")
ACTS = ("trying to book a ride on the phone", "talking about the new machine", "waiting for the doctor to come back")
BATCH = 8


def quads(n: int) -> list[Example]:
    """`n` quads of four items with the lengths of real ones: 35 to 60 words of context."""
    out = []
    for k, (a, b, place, act) in enumerate(itertools.islice(itertools.product(PEOPLE, PEOPLE[::-1], PLACES, ACTS), n)):
        ambig = f"I saw the {a} and the {b} last week {place}, both of them {act} while it was raining quite hard."
        told = (
            f" The {b} was pleased with how quickly it went, but the {a} could not get used to it and asked for help."
        )
        asks = (f"Who was not comfortable {place}?", "Who was quick to finish with everything that day?")
        for i, (ask, context) in enumerate(itertools.product(asks, (ambig, ambig + told))):
            text, _ = bbq.seed_prompt(context, ask, [f"The {a}", f"The {b}", "Not enough information"])
            groups = {"quad": f"q{k}", "story": f"s{k}"}
            metadata = {"unknown": 2, "stereo": 0, "biased": "0", "ans0": a, "ans1": b, "ans2": "?"}
            out.append(Example(f"q{k}-{i}", (Message("user", text),), "C", groups, metadata=metadata))
    return out


def tokenizer_of(items: list[Example]) -> Any:
    """Byte-level BPE in which most words of the items are one token, with a system turn as long as Qwen's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=4096,
        special_tokens=specials,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    system = "You are a helpful assistant. Answer as briefly as you can and do not explain."
    tok.train_from_iterator([*(e.content for e in items), system], trainer)
    template = f"<|im_start|>system\n{system}<|im_end|>\n" + CHAT_TEMPLATE
    return PreTrainedTokenizerFast(
        tokenizer_object=tok,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=template,
        padding_side="left",
    )


def build(setting: Setting, tokenizer: Any) -> Model:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    kind = setting.kind
    config = Qwen2Config(
        vocab_size=151_936,
        num_key_value_heads=4 if kind == "gpu" else 2,
        pad_token_id=0,
        tie_word_embeddings=kind == "cpu",
        max_position_embeddings=4096,
        **SHAPES[kind],
    )
    torch.manual_seed(0)
    with torch.device(setting.device):
        torch.set_default_dtype(torch.bfloat16 if setting.gpu else torch.float32)
        module = Qwen2ForCausalLM(config).eval()
        torch.set_default_dtype(torch.float32)
    return Model.wrap(module, tokenizer)


def plain_loop(model: Model, items: list[Example], *, logits: bool = False) -> list[Tensor]:
    """What a script does: batches of 8 in file order, left padding, greedy, four tokens; per item its first logits."""
    out: list[Tensor] = []
    for at in range(0, len(items), BATCH):
        texts = [render(e, model.tokenizer).text for e in items[at : at + BATCH]]
        inputs = model.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(model.device)
        inputs.pop("token_type_ids", None)
        done = model.module.generate(
            **inputs,
            max_new_tokens=4,
            do_sample=False,
            output_logits=logits,
            return_dict_in_generate=True,
            pad_token_id=0,
            eos_token_id=None,
        )
        model.tokenizer.batch_decode(done.sequences[:, inputs["input_ids"].shape[1] :])
        out += list(done.logits[0].float().log_softmax(-1).cpu()) if logits else []
    return out


def ours(model: Model, items: list[Example]) -> dict[str, Any]:
    decoding = Decoding(generate=False)
    return {a.example_id: a for _, batch in evaluate(model, bbq, items, decoding=decoding) for a in batch}


def main() -> None:
    options = arguments(__doc__ or "")
    items = quads(500 if options.kind == "gpu" else 12)
    tokenizer = tokenizer_of(items)
    model = build(options, tokenizer)
    tokens = {x: [i[0] for s in bbq.spellings(x) if len(i := tokenizer.encode(s)) == 1] for x in "ABC"}
    mine = ours(model, items)
    first = plain_loop(model, items, logits=True)
    gaps = (
        abs(mine[e.id].logp[x] - float(logp[tokens[x]].logsumexp(-1)))
        for e, logp in zip(items, first, strict=True)
        for x in "ABC"
    )
    agree = max(gaps)
    report = Report("eval")
    methods = {"loop": lambda: plain_loop(model, items), "ours": lambda: ours(model, items)}
    seconds = interleave(methods, rounds=min(options.rounds, 3))
    per_item = sum(len(render(e, tokenizer).ids) for e in items) / len(items)
    note = f"{len(items)} items of {per_item:.0f} tokens, {len(items) / seconds['ours']:.1f} items/s"
    report.add(
        "items/s over generate(max_new_tokens=4), batch 8",
        seconds["loop"] / seconds["ours"],
        goal=">= 3",
        agree=agree,
        note=note,
    )
    report.finish(options.json)


if __name__ == "__main__":
    main()
