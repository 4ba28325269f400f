"""A reply as the model wrote it: token ids after those of the prompt, with character offsets read off the ids.

Text that is tokenized again need not give the ids that were generated, so a reply is never tokenized again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from interp.prompt import Prompt

_BROKEN = "\N{REPLACEMENT CHARACTER}"
"""What a byte-level tokenizer decodes part of a character to."""


@dataclass(frozen=True)
class ReplyPrompt(Prompt):
    """A prompt and a reply to it, as one list of token ids; the span "answer" is the reply.

    Attributes:
        n_before: number of tokens of the prompt.
        decisions: (name, character of `text` behind which it is decided) of each decision in the reply.
    """

    n_before: int = 0
    decisions: tuple[tuple[str, int], ...] = ()

    @property
    def n_prompt(self) -> int:
        """How many tokens precede the reply."""
        return self.n_before

    @property
    def n_reply(self) -> int:
        """How many tokens the reply has."""
        return len(self.ids) - self.n_before

    def fraction(self, token: int) -> float | None:
        """Share of the reply that has been read at a token: 1 at its last token, 0 at the last token of the prompt.

        None at earlier tokens of the prompt, and where the reply has no tokens.
        """
        read = token - self.n_before + 1
        return read / self.n_reply if read >= 0 and self.n_reply else None


def reply_prompt(
    prompt: Prompt,
    ids: Sequence[int],
    tokenizer: Any,
    *,
    example_id: str | None = None,
    decisions: Sequence[tuple[str, int]] = (),
) -> ReplyPrompt:
    """The prompt with the generated `ids` after its own.

    Args:
        decisions: (name, characters of the reply in front of it) of each decision.

    Example:
        >>> from interp.prompt import Example, render
        >>> asked = render(Example("a", text="the quick brown"), tokenizer)
        >>> reply = reply_prompt(asked, tokenizer(" fox")["input_ids"], tokenizer)
        >>> reply.text[slice(*reply.spans["answer"])], reply.n_before == len(asked.ids)
        (' fox', True)
    """
    text, offsets = token_ranges(tokenizer, ids)
    start = len(prompt.text)
    return ReplyPrompt(
        example_id=example_id or prompt.example_id,
        text=prompt.text + text,
        ids=(*prompt.ids, *ids),
        offsets=(*prompt.offsets, *((start + a, start + b) for a, b in offsets)),
        spans={**prompt.spans, "answer": (start, start + len(text))},
        template_system=prompt.template_system,
        tokens=(*prompt.tokens, *map(sys.intern, tokenizer.convert_ids_to_tokens(list(ids)))),
        kept_as_text=prompt.kept_as_text,
        dropped_bos=prompt.dropped_bos,
        n_before=len(prompt.ids),
        decisions=tuple((name, start + at) for name, at in decisions),
    )


def token_ranges(tokenizer: Any, ids: Sequence[int]) -> tuple[str, list[tuple[int, int]]]:
    """(decoded text, character range of each token in it); tokens that split a character share it.

    A token without characters of its own, such as half of a control sequence, has an empty range.
    """
    text = _decode(tokenizer, ids)
    ends = _ends_in_windows(tokenizer, ids, text) or _ends_of_prefixes(tokenizer, ids, text)
    ranges, start = [], 0
    for whole, n_open in ends:
        # a token that ends inside a character shares it with the tokens that complete it
        ranges.append((start, min(whole + n_open, len(text))))
        start = whole
    return text, ranges


def token_texts(text: str, offsets: Sequence[tuple[int, int]]) -> list[str]:
    """The text that each token completes, up to where the next one begins; joined they are the text.

    Args:
        offsets: character range of each token in `text`, as of `token_ranges` or a prompt; a character that several
            tokens share is the text of the last of them.

    Example:
        >>> token_texts("néé", [(0, 1), (1, 2), (1, 2), (2, 3)])
        ['n', '', 'é', 'é']
    """
    starts = [0, *(begin for begin, _ in offsets[1:])]
    return [text[a:b] for a, b in zip(starts, [*starts[1:], len(text)], strict=True)] if offsets else []


def check_context(prompts: Sequence[Prompt], context: int | None, name: str) -> None:
    """Refuse prompts with replies that a model cannot read.

    Args:
        context: number of tokens that it reads; None: not known.
        name: of the model.
    Raises:
        ValueError: the first one that is longer.
    """
    for prompt in prompts:
        if context is not None and len(prompt.ids) > context:
            raise ValueError(
                f"example {prompt.example_id!r}: prompt and reply have {len(prompt.ids)} tokens, the context of "
                f"{name} has {context}. Leave it out, or read the replies through the member that wrote them."
            )


def _decode(tokenizer: Any, ids: Sequence[int]) -> str:
    return tokenizer.decode(list(ids), skip_special_tokens=False)


def _ends_in_windows(tokenizer: Any, ids: Sequence[int], text: str) -> list[tuple[int, int]] | None:
    """(characters that are complete after each token, further ones that are begun); None where windows mislead.

    Each token is decoded with the one or few in front of it, which keeps the blank that a tokenizer drops at the start
    of a text. The pieces must add up to `text`.
    """
    ends: list[tuple[int, int]] = []
    anchor, read, done, before = 0, 0, "", ""
    new = ""
    for k in range(len(ids)):
        window = _decode(tokenizer, ids[anchor : k + 1])
        if not window.startswith(before):
            return None
        new = window[len(before) :]
        whole = new.rstrip(_BROKEN)
        ends.append((len(done) + len(whole), len(new) - len(whole)))
        if whole == new:
            done += new
            anchor, read, new = read, k + 1, ""
            before = _decode(tokenizer, ids[anchor:read])
    return ends if done + new == text else None


def _ends_of_prefixes(tokenizer: Any, ids: Sequence[int], text: str) -> list[tuple[int, int]]:
    """The same by decoding every prefix of `ids`: right for any tokenizer, in quadratic time."""
    ends: list[tuple[int, int]] = []
    at = 0
    for k in range(len(ids)):
        prefix = _decode(tokenizer, ids[: k + 1])
        whole = prefix.rstrip(_BROKEN)
        n_open = len(prefix) - len(whole)
        if text.startswith(whole):
            at = max(at, len(whole))
        else:  # a later token changes this text (clean-up of blanks), so the two share what follows
            n_open = max(n_open, 1)
        ends.append((at, n_open))
    return ends
