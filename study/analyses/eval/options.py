"""Options of an evaluation: the section `eval` of a study file, `diptych eval`, and what Python takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from study.option_types import Count, Names, Quiet
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
    tokens_per_batch: Count | None = option(
        None, "Token budget of one batch; default: by the model's size and free memory, see `study plan`."
    )

    def __post_init__(self) -> None:
        from interp.remedy import remedy

        if self.modes and self.thinking is not None:
            raise ValueError(remedy("{modes} and {thinking} set the same thing twice. Give only one of them."))

    def decoding(self, seed: int = 0) -> Decoding:
        """How replies are drawn; `seed` is that of sampled ones."""
        from interp.evaluate import Decoding

        return Decoding(
            generate=self.generate,
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            n_samples=self.samples,
            seed=seed,
            thinking=self.thinking,
            target_delimiter=self.target_delimiter,
            tokens_per_batch=self.tokens_per_batch,
        )


@dataclass(frozen=True, config=STRICT, kw_only=True)
class RunOptions(Quiet):
    """Of the command alone."""

    out: Path = option(help="Folder of answers and tables; an interrupted run continues.")
    mode: Literal["generate", "labels"] = option(
        "generate", "generate: the model writes its answer; labels: only score the task's labels after the prompt."
    )


@dataclass(frozen=True, config=STRICT, kw_only=True)
class FiguresOptions:
    """Figures of an evaluation that is on disk."""

    folder: Path = option(is_argument=True)
    out: Path | None = option(None, "Folder for the figures; default: FOLDER/figures.")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class ScoreOptions:
    """Answers of another system, and the task that they answer."""

    task: str = option(help="Import path of a task, e.g. interp.tasks.bbq.")
    data: str = option(help="Data of the task.")
    options: tuple[str, ...] = option(
        (),
        "Option of the task itself; can be repeated.",
        flag="--task-option",
        metavar="KEY=VALUE",
        is_repeated=True,
    )
    answers: Path = option(help="JSON lines, one answer per item.")
    tags: str | None = option(
        None, "BBQ only: as_published scores Physical_appearance with the paper's tags.", flag="--set"
    )
    unparsed: Literal["exclude", "wrong"] | None = option(
        None, "BBQ only: exclude null answers (the default), or count them as wrong."
    )
    seed: int = option(0, "Seed of the bootstrap for the intervals.")
    name: str | None = option(None, "Name of the system in the table; default: the name of the file.")
    out: Path | None = option(None, "Also write the table to this file, .csv or .parquet.")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class CompareOptions:
    """Two evaluations of the same items."""

    before: Path = option(is_argument=True)
    after: Path = option(is_argument=True)
    seed: int = option(0, "Seed of the bootstrap for the intervals.")
    out: Path | None = option(None, "Also write the table to this file, .csv or .parquet.")
    figures: Path | None = option(None, "Folder for figures of the change.")
