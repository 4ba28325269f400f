"""Prompt modes of one item, such as with and without thinking, and the proof that they are different prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from interp.model import Model
from interp.prompt import Example, render
from interp.remedy import remedy

MODES: dict[str, bool | None] = {"thinking": True, "direct": False}


def prompt_modes(text: str | None, *, thinking: bool | None = None) -> tuple[str, ...]:
    """The modes of a comma-separated list; none for None.

    Raises:
        ValueError: an unknown or repeated mode; modes beside --thinking or --no-thinking.
    """
    names = tuple(name.strip() for name in text.split(",")) if text else ()
    if strange := [name for name in names if name not in MODES]:
        raise ValueError(f"{remedy('{modes}')}: expected {' or '.join(MODES)}, got {', '.join(map(repr, strange))}.")
    if len(set(names)) != len(names):
        raise ValueError(f"{remedy('{modes}')}: {text!r} names a mode twice.")
    if names and thinking is not None:
        raise ValueError(remedy("{modes} and {thinking} say the same thing twice. Give one of them."))
    return names


def in_mode(examples: Sequence[Example], mode: str) -> list[Example]:
    """The examples with their mode in the metadata, where the task and the tables see it."""
    return [replace(e, metadata={**e.metadata, "mode": mode}) for e in examples]


def check_modes_differ(model: Model, examples: Sequence[Example], modes: Sequence[str]) -> None:
    """Every item must be another prompt in every mode, or the comparison of the modes would be of nothing.

    Raises:
        ValueError: two modes give an item the same token ids.
    """
    for example in examples:
        hashes = {mode: render(example, model.tokenizer, thinking=MODES[mode]).sha256 for mode in modes}
        if len(set(hashes.values())) < len(hashes):
            what = f"example {example.id!r}: the chat template gives the same prompt for {' and '.join(modes)}"
            raise ValueError(
                f"{what} ({next(iter(hashes.values()))[:12]}). This model has one mode; {remedy('leave out {modes}')}."
            )
