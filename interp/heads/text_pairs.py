"""Pairs from text: two examples and two answers become token ids that end where the answers part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from interp.heads.pairs import TokenPair
from interp.prompt import Example, Prompt, joined, render


def text_pair(
    base: Example | str | None,
    exp: Example | str,
    tokenizer: Any,
    *,
    answer: str,
    foil: str,
    before: str = "",
    base_before: str | None = None,
    base_answer: str | None = None,
    kind: str = "",
    thinking: bool | None = None,
    delimiter: str = " ",
) -> TokenPair:
    """The pair of two prompts, cut just before the token at which `answer` and `foil` first differ.

    Answers may be of several tokens: what they share is teacher-forced in both runs. The same holds for `before`, what
    the assistant has written before the label: the model's own reasoning, or a forced "Answer:". It follows the
    example's own `answer`, where there is one.

    Args:
        base: example that activations come from, or a raw text; None where nothing is patched.
        answer: right answer of exp; foil: the other one, that of base if the two differ.
        base_answer: right answer of base; None: the foil.
        before: text put after the generation prompt of exp.
        base_before: the same for base; None: `before`.
        delimiter: between the label and a text before it that does not end in a blank; see `interp.prompt.joined`.
    Raises:
        ValueError: answers that the tokenizer does not tell apart, and as `interp.prompt.render`.
    """
    item = _example(exp, "exp")
    prompt, ids, tokens = _cut(item, tokenizer, before, (answer, foil), thinking, delimiter)
    base_ids: tuple[int, ...] | None = None
    base_roles: Mapping[str, tuple[int, ...]] = {}
    if base is not None:
        text = before if base_before is None else base_before
        item_base = _example(base, "base")
        base_prompt, base_ids, base_tokens = _cut(item_base, tokenizer, text, (answer, foil), thinking, delimiter)
        base_roles = _roles(base_prompt, len(base_ids))
        if base_tokens != tokens:
            raise ValueError(
                f"pair {item.id!r}: the answers are tokens {tokens} after exp and {base_tokens} after base."
            )
    if base_answer not in (None, answer, foil):
        raise ValueError(f"pair {item.id!r}: base_answer {base_answer!r} is neither {answer!r} nor {foil!r}.")
    groups = dict(item.groups)
    return TokenPair(
        base_ids,
        ids,
        tokens[0],
        tokens[1],
        base_answer=None if base_answer is None else tokens[base_answer == foil],
        id=item.id,
        group=groups.get("procedure") or next(iter(groups.values()), None),
        label=None if item.label is None else str(item.label),
        kind=kind,
        roles=_roles(prompt, len(ids)),
        base_roles=base_roles,
    )


def _example(given: Example | str, name: str) -> Example:
    return Example(id=f"{name}:{given[:40]}", text=given) if isinstance(given, str) else given


def _cut(
    example: Example, tokenizer: Any, before: str, answers: tuple[str, str], thinking: bool | None, delimiter: str
) -> tuple[Prompt, tuple[int, ...], tuple[int, int]]:
    """(the prompt with the first answer, ids up to where the answers part, the two tokens there)."""
    prompts = [
        render(replace(example, answer=joined(example, before, answer, delimiter)), tokenizer, thinking=thinking)
        for answer in answers
    ]
    first, second = (prompt.ids for prompt in prompts)
    n = next((i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second)))
    if n >= len(first) or n >= len(second):
        raise ValueError(
            f"example {example.id!r}: answer {answers[0]!r} and foil {answers[1]!r} do not part at a token (one is the "
            "beginning of the other). Add what follows the answer, such as a full stop or the end of the line."
        )
    return prompts[0], first[:n], (first[n], second[n])


def _roles(prompt: Prompt, n: int) -> dict[str, tuple[int, ...]]:
    """Token numbers of each span that lies before the answer slot's end."""
    found = {name: tuple(i for i in prompt.tokens_in(*span) if i < n) for name, span in prompt.spans.items()}
    return {name: tokens for name, tokens in found.items() if tokens and name != "answer"}
