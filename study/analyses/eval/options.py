"""Options of an evaluation: the section `eval` of a study file, `diptych eval`, and what Python takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from study.option_types import Count, Names
from study.options import STRICT, option

if TYPE_CHECKING:
    from interp.evaluate import Decoding

MODES: dict[str, bool | None] = {"thinking": True, "direct": False}
"""Prompt mode -> what the chat template is told of thinking."""


def _modes(names: tuple[str, ...]) -> tuple[str, ...]:
    if unknown := [name for name in names if name not in MODES]:
        raise ValueError(f"expected {' or '.join(MODES)}, got {', '.join(map(repr, unknown))}")
    if len(set(names)) != len(names):
        raise ValueError("a mode is named twice")
    return names


@dataclass(frozen=True, config=STRICT)
class EvalOptions:
    """Answers of every member on the same items; see `diptych eval`.

    Attributes:
        members: who answers; the bare bases only where they are named.
        generate: let the model write its answer; else only score the task's labels after the prompt.
        thinking: passed to the chat template; with `modes`, each mode says it.
    """

    members: Names = option(("engaged", "heuristic"), "Members to evaluate.", is_command=False)
    per_cell: Count | None = option(None, "Number of items per cell of a generated grid.", is_command=False)
    limit: Count | None = option(None, "Use at most N items, spread over cells and groups.", is_command=False)
    generate: bool = option(
        True, "Let the model write its answer; otherwise score the task's labels.", is_command=False
    )
    modes: Annotated[Names, AfterValidator(_modes)] = option(
        (), "Prompt modes in which every item is asked, e.g. 'thinking,direct'; their prompts must differ."
    )
    max_new_tokens: Count | None = option(None, "Longest reply in tokens; default: the task's own.")
    temperature: Annotated[float, Field(ge=0)] = option(0.0, "Sampling temperature; 0 is greedy.")
    samples: Count = option(1, "Number of replies per item.")
    thinking: bool | None = option(None, "Value of enable_thinking in the chat template.")
    target_delimiter: str = option(
        " ", "Separator between a label and the text before it, unless that text ends in whitespace."
    )
    tokens_per_batch: Count | None = option(None, "Token budget of one batch.")

    def __post_init__(self) -> None:
        from interp.remedy import remedy

        if self.modes and self.thinking is not None:
            raise ValueError(remedy("{modes} and {thinking} set the same thing twice. Give only one of them."))

    def decoding(self, seed: int = 0) -> Decoding:
        """How replies are drawn; `seed` is that of sampled ones."""
        from interp.evaluate import Decoding

        budget: dict[str, Any] = {"tokens_per_batch": self.tokens_per_batch} if self.tokens_per_batch else {}
        return Decoding(
            generate=self.generate,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            n_samples=self.samples,
            seed=seed,
            thinking=self.thinking,
            target_delimiter=self.target_delimiter,
            **budget,
        )
