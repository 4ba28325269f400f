"""Tiny random models, adapters and tokenizers of every supported family; seeded, no network."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

COMMON = dict(
    vocab_size=128,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
    initializer_range=0.2,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)


def _qwen35(**kw):
    from transformers import Qwen3_5TextConfig

    return Qwen3_5TextConfig(
        **{**COMMON, "num_hidden_layers": 4, **kw},
        head_dim=16,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
    )


def _config(family: str, **kw):
    import transformers as t

    common = {**COMMON, **kw}
    if family == "qwen3_5":
        return _qwen35(**kw)
    if family == "gpt2":
        shape = dict(
            n_embd=common["hidden_size"], n_layer=common["num_hidden_layers"], n_head=common["num_attention_heads"]
        )
        dropout = dict(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
        tokens = dict(vocab_size=common["vocab_size"], bos_token_id=1, eos_token_id=2, pad_token_id=0)
        return t.GPT2Config(n_positions=512, initializer_range=0.2, **shape, **dropout, **tokens)
    if family == "gpt_neox":
        common.pop("num_key_value_heads")
        return t.GPTNeoXConfig(**common, rotary_pct=0.5, use_parallel_residual=True)
    makers = {
        "qwen2": t.Qwen2Config,
        "qwen3": lambda **c: t.Qwen3Config(**c, head_dim=16),
        "llama": t.LlamaConfig,
        "mistral": lambda **c: t.MistralConfig(**c, sliding_window=None),
        "gemma2": lambda **c: t.Gemma2Config(**c, head_dim=16, query_pre_attn_scalar=16, sliding_window=16),
        "gemma3": lambda **c: t.Gemma3TextConfig(**c, head_dim=16, query_pre_attn_scalar=16, sliding_window=16),
        "olmo2": t.Olmo2Config,
    }
    return makers[family](**common)


FAMILIES = ("qwen2", "qwen3", "qwen3_5", "llama", "mistral", "gemma2", "gemma3", "gpt2", "gpt_neox", "olmo2")


def tiny(family: str, *, seed: int = 0, dtype: torch.dtype = torch.float32, attn: str = "sdpa", **kw) -> nn.Module:
    """A random causal LM of `family`, in eval mode, with random biases and random norm gains (so that no gain is 1)."""
    from transformers import AutoModelForCausalLM

    config = _config(family, **kw)
    attn = "eager" if family == "gemma2" else attn  # its logit soft-capping has no SDPA kernel
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attn)
    config.architectures = [type(model).__name__]
    randomise(model, seed=seed + 1)
    return model.to(dtype).eval().requires_grad_(False)


def randomise(model: nn.Module, *, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name.lower() or ".ln_" in name:
                p.add_(0.3 * torch.randn(p.shape, generator=generator))
            elif name.endswith("bias"):
                p.copy_(0.2 * torch.randn(p.shape, generator=generator))


def add_lora(
    model: nn.Module, *, seed: int = 7, dora: bool = False, name: str = "default", rank: int = 4, rslora: bool = False
):
    """`model` wrapped by PEFT with a random (non-zero) adapter on every linear layer; returns the PeftModel."""
    from peft import LoraConfig, get_peft_model

    target = ["c_attn", "c_proj", "c_fc"] if model.config.model_type == "gpt2" else "all-linear"
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=target,
        use_dora=dora,
        use_rslora=rslora,
        lora_dropout=0.1,
        fan_in_fan_out=model.config.model_type == "gpt2",
        task_type="CAUSAL_LM",
    )
    peft_model = get_peft_model(model, config, adapter_name=name)
    randomise_lora(peft_model, seed=seed)
    return peft_model.eval().requires_grad_(False)


def randomise_lora(peft_model: nn.Module, *, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, p in peft_model.named_parameters():
            if "lora_B" in key:
                p.copy_(0.2 * torch.randn(p.shape, generator=generator))
            elif "lora_magnitude" in key:
                p.mul_(1 + 0.2 * torch.rand(p.shape, generator=generator))


CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)


def tiny_tokenizer(vocab_size: int = 512):
    """A byte-level BPE tokenizer with Qwen's special tokens, trained on a few words; every text round-trips."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=specials, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())  # fmt: skip
    words = "the quick brown fox jumps over the lazy dog . is this compliant ? noncompliant yes no step one two three "
    tok.train_from_iterator([words * 20], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tok, eos_token="<|im_end|>", pad_token="<|endoftext|>",
                                   chat_template=CHAT_TEMPLATE, padding_side="left")  # fmt: skip


def save_checkpoint(folder: Path, family: str = "qwen2", **kw) -> Path:
    """Write a tiny base model with its tokenizer as a Hugging Face folder; returns the folder."""
    tokenizer = tiny_tokenizer()
    model = tiny(family, **{"vocab_size": len(tokenizer), **kw})
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
