"""A tokenizer with every published placeholder as one token, and tiny models with an oracle's adapter on them."""

from __future__ import annotations

from functools import cache

import torch

from interp.model import Model
from interp.oracle import Features, OracleSpec, Slot, collect, inject, render_question
from interp.prompt import Example, Message
from tests.tiny import CHAT_TEMPLATE, add_lora, randomise_lora, tiny, tiny_tokenizer

QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def qwen_tokenizer(*, joins: bool = False):
    """Byte-level BPE behind Qwen's own pre-tokenizer, where punctuation takes the line breaks after it along.

    Args:
        joins: learn " ?\\n" as one token, as happens to a prompt that forgets the blank before the line break.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tok.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=specials, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())  # fmt: skip
    text = "yes no step Layer: L is the a ? a @ a # a ¶ a " + ("a ?\n" * 50 if joins else "")
    tok.train_from_iterator([text * 20], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tok, eos_token="<|im_end|>", pad_token="<|endoftext|>",
                                   chat_template=CHAT_TEMPLATE, padding_side="left")  # fmt: skip


def pair_with_oracle(*names: str, family: str = "qwen3", seed: int = 0) -> Model:
    """A tiny model with random adapters "engaged", "heuristic", "oracle" (or others), none of them in training."""
    from peft import LoraConfig

    names = names or ("engaged", "heuristic", "oracle")
    tokenizer = tiny_tokenizer()
    module = add_lora(tiny(family, vocab_size=len(tokenizer), seed=seed), name=names[0])
    for name in names[1:]:
        module.add_adapter(name, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    randomise_lora(module, seed=seed + 3)
    return Model(module.eval().requires_grad_(False), tokenizer)


def chats(n: int = 8, *, per_problem: int = 2) -> list[Example]:
    """Short examples with answers of three sentences, `per_problem` to a problem."""
    words = ("quick", "lazy", "brown", "over", "dog", "fox", "one", "two")
    return [
        Example(
            id=f"e{i}",
            messages=(Message("user", f"is the {words[i % 8]} fox compliant ? " * (1 + i % 3)),),
            answer=f"step {words[i % 8]}. it is the dog. yes.",
            groups={"problem": f"p{i // per_problem}"},
        )
        for i in range(n)
    ]


def made_features(
    n: int = 12, *, d: int = 32, k: int = 2, layers=(1,), per_problem: int = 1, seed: int = 0
) -> Features:
    """Random features: `n` readings of `k` tokens at every layer, `per_problem` readings to a problem."""
    slots = tuple(
        Slot(f"i{n_}", layer, token, f"t{token}", position="last:2")
        for n_ in range(n)
        for layer in layers
        for token in range(k)
    )
    generator = torch.Generator().manual_seed(seed)
    return Features(
        torch.randn(len(slots), d, generator=generator),
        slots,
        groups={f"i{n_}": f"p{n_ // per_problem}" for n_ in range(n)},
        texts={f"i{n_}": f"the text {n_} is quick" for n_ in range(n)},
    )


CLASSES = ("yes", "no", "is", "the")  # one token each: no second token is trained
LAYER = 2


@cache
def trained_reader() -> Model:
    """A tiny model that was trained, all of it, to name the class of one injected vector, wired as `OracleSpec()`.

    150 steps on four noisy class means: under ten seconds. Read it with `Oracle(model, adapter=None)`.
    """
    tokenizer = tiny_tokenizer()
    module = tiny("qwen3", vocab_size=len(tokenizer), num_hidden_layers=4, initializer_range=0.1).requires_grad_(True)
    model, spec = Model(module, tokenizer), OracleSpec(layers=(LAYER,))
    prompts = [
        render_question(spec, tokenizer, layers=[LAYER], counts=[1], question="?", answer=name) for name in CLASSES
    ]
    start = prompts[0].answer_start
    ids = torch.tensor([prompts[0].ids[:start]] * 64)
    first = torch.tensor([prompt.ids[start] for prompt in prompts])
    optimiser = torch.optim.AdamW(module.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(1)
    for _ in range(150):
        classes, vectors = drawn(64, generator)
        with inject(model, vectors, [prompts[0].slots] * 64, spec):
            logits = module(input_ids=ids, use_cache=False, logits_to_keep=1).logits[:, -1]
        loss = torch.nn.functional.cross_entropy(logits, first[classes])
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
    module.eval().requires_grad_(False)
    return model


def drawn(n: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """(class, vector) of n draws: a class mean and noise half again as wide."""
    means = torch.randn(len(CLASSES), 32, generator=torch.Generator().manual_seed(7))
    classes = torch.randint(0, len(CLASSES), (n,), generator=generator)
    return classes, means[classes] + 1.5 * torch.randn(n, 32, generator=generator)


def class_features(n: int = 96, *, seed: int = 9) -> tuple[Features, dict[str, str]]:
    """Held-out readings for `trained_reader`, two to a problem, and the class of each."""
    classes, vectors = drawn(n, torch.Generator().manual_seed(seed))
    slots = tuple(Slot(f"i{i}", LAYER, 0) for i in range(n))
    feats = Features(vectors, slots, groups={f"i{i}": f"p{i // 2}" for i in range(n)})
    return feats, {f"i{i}": CLASSES[int(c)] for i, c in enumerate(classes)}


SPEC = OracleSpec(layers=(1,), max_new_tokens=5)
SOURCES = ("base", "engaged", "heuristic", "engaged - heuristic", "heuristic - base")


def collected(model: Model) -> dict[str, Features]:
    """Features of the sentence ends of short chats at two layers, from every source."""
    with model.adapters.use("oracle"):  # must not leak into what is read
        return collect(model, chats(), layers=[1, 2], positions="sentence_ends", per="token", sources=SOURCES,
                       group="problem")  # fmt: skip
