"""The word-level tokenizer of the embedded pair: every word that the log rendering can print is one token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from interp.io.files import write_json
from interp.tasks.procedural.vocabulary import word_list

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

END, START, STOP, UNKNOWN = "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|unk|>"
SPECIALS = (END, START, STOP, UNKNOWN)
# ChatML as Qwen2.5 writes it, without the system turn that its template inserts; line breaks are no tokens here.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}"
)


def vocabulary() -> dict[str, int]:
    """word -> token id: the four specials, then `word_list()` in its order."""
    return {word: index for index, word in enumerate((*SPECIALS, *word_list()))}


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A fast tokenizer that splits on spaces and looks words up; pads on the left with <|endoftext|>, stops at
    <|im_end|>. What is not in the vocabulary becomes <|unk|>.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel(vocabulary(), unk_token=UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token=UNKNOWN,
        pad_token=END,
        eos_token=STOP,
        additional_special_tokens=[START],
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def save_tokenizer(folder: Path) -> None:
    """Write the tokenizer into a model or adapter folder such that AutoTokenizer reads it as it is.

    Next to the config.json of a qwen2 model, transformers 5 overrides the declared class and rebuilds any tokenizer as
    a BPE, which loses the split on spaces without a warning. There an `auto_map` entry makes it keep the
    declared class; the entry names no code, and none is run. An adapter folder has no config.json and needs no entry.
    """
    build_tokenizer().save_pretrained(folder)
    if (folder / "config.json").exists():
        path = folder / "tokenizer_config.json"
        config = json.loads(path.read_text()) | {"auto_map": {"AutoTokenizer": [None, None]}}
        write_json(path, config, indent=2, sort_keys=True)
