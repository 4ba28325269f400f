"""Options of what an oracle is asked: the section `oracle` of a study file, and the commands of `diptych oracle`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from study.option_types import Count, InFile, InPath, Layer, Names
from study.options import STRICT, option

TAXONOMY = "taxonomy8"


@dataclass(frozen=True, config=STRICT)
class OracleQuestion:
    """One question with given answers.

    Attributes:
        name: what tables call it.
        labels: JSON lines {id, sentence, label, [task, status]}: right answers of sentences, `positions` being sentence
            ends; none: the label of each example.
        readings: import path `module:function` of a function(model, sources, seed) that returns activations by source
            and right answers by reading, in place of the items of the task.
    """

    name: str
    question: str
    choices: Annotated[Names, Field(min_length=2)]
    labels: str | None = option(None, "File with the right answer for each sentence.")
    readings: str | None = option(None, "Import path of a function that returns the readings.")
    positions: str = option("last", "Position rule of the readings.")


@dataclass(frozen=True, config=STRICT)
class OracleOptions:
    """Questions to an oracle adapter about activations of its base, or of adapters on that base.

    Attributes:
        adapter, adapter_revision, subfolder: the oracle, an adapter on the base of the study; `embedded` is the oracle
            that ships with the package, with its prior-only counterpart.
        prior: an oracle that was trained on zeroed activations: the floor of every accuracy.
        sources: base, a member, or a difference such as `engaged - base`.
        layers: block indices or percentages of depth such as 50%; default: those that the oracle was trained on.
        n_partners: partners of the matched shuffle, over which the gap is averaged.
        groups: group of the examples that is the independent unit.
        spec: fields of `interp.oracle.OracleSpec`, if nothing else declares how the adapter is wired.
    """

    adapter: str
    questions: Annotated[tuple[OracleQuestion, ...], Field(min_length=1)]
    adapter_revision: str | None = option(None, "Commit, tag or branch of the adapter.")
    subfolder: str | None = option(None, "Subfolder of the adapter inside its repository.")
    prior: str | None = option(None, "Id or folder of an oracle trained on zeroed activations (the prior-only floor).")
    sources: Names = option(
        ("base",), "Sources of the activations: base, a member, or a difference such as 'engaged - base'."
    )
    layers: Annotated[tuple[Layer, ...], Field(min_length=1)] | None = option(
        None, "Block indices or percentages of depth; default: the oracle's own layers."
    )
    groups: str | None = option(None, "Column of the independent unit; default: the example.")
    thinking: bool | None = option(None, "Value of enable_thinking in the chat template.")
    n_partners: Count = option(8, "Number of partners in the matched shuffle.")
    limit: Count | None = option(None, "Use at most N items.")
    spec: Mapping[str, Any] = option({}, "Fields of OracleSpec, if nothing else declares the wiring.", is_command=False)


@dataclass(frozen=True, config=STRICT, kw_only=True)
class OracleNames:
    """Which oracle: its base, its adapter and its prior-only counterpart."""

    model: str = option(help="Id or folder of the oracle's base, or 'embedded'.")
    adapter: str | None = option(None, "Id or folder of the oracle's adapter.")
    subfolder: str | None = option(None, "Subfolder of the adapter inside its repository.")
    revision: str | None = option(None, "Commit, tag or branch of the base.")
    adapter_revision: str | None = option(None, "Commit, tag or branch of the adapter.")
    prior: str | None = option(None, "Id or folder of an oracle trained on zeroed activations (the prior-only floor).")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class ReadingOptions:
    """Which readings of a cache, and the question that is asked of each.

    Attributes:
        per: a reading per token, example or run; a number N for runs of N tokens.
        choices: `taxonomy8`, or answers separated by commas; None for a free answer.
        out: folder of tables and figures; it holds one question.
    """

    positions: str | None = option(None, "Position rule of the cache; may be omitted if the cache has only one.")
    layers: tuple[Layer, ...] = option(
        (), "Block index or percentage of depth; default: the oracle's own layers.", flag="--layer", is_repeated=True
    )
    per: Annotated[int, Field(ge=1)] | Literal["token", "example"] = option(
        "token", "One reading per token, per example or per run of tokens."
    )
    group: str | None = option(None, "Column that names the problem, the independent unit; default: the example.")
    limit: Count | None = option(None, "Use at most N readings.")
    question: str = option(help="Question to ask; may contain {choices}.")
    choices: str | None = option(None, "Choices: 'taxonomy8', or answers separated by commas.")
    targets: str | None = option(None, "Column of the examples that holds the right choice.")
    partners: Count | None = option(
        None,
        "Number of partners in the matched shuffle; default: 99 for free answers (each is tested on its own), 8 "
        "for choices (the gap over all readings is tested).",
    )
    seed: int = option(0, "Seed of partners and sampled answers.")
    out: Path = option(help="Folder for tables and figures.")

    @property
    def answers(self) -> tuple[str, ...]:
        """The given answers; none for a free one."""
        from interp.oracle import TAXONOMY8

        if self.choices == TAXONOMY:
            return TAXONOMY8
        return tuple(word.strip() for word in (self.choices or "").split(",") if word.strip())


@dataclass(frozen=True, config=STRICT, kw_only=True)
class AskOptions(ReadingOptions):
    """One question of every reading of one cache."""

    acts: InPath = option(help="Activation cache with the readings.")
    controls: Names = option(("shuffled", "zero"), "Controls: shuffled, zero, mean, gaussian, no_adapter, prior.")
    max_new_tokens: Count | None = option(None, "Longest free answer, in tokens.")
    no_selftest: bool = option(False, "Skip the test of the wiring, even if this oracle was never tested.")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class CompareOptions(ReadingOptions):
    """The same question of the readings of two caches."""

    engaged: InPath = option(is_argument=True)
    heuristic: InPath = option(is_argument=True)


@dataclass(frozen=True, config=STRICT, kw_only=True)
class SelftestOptions:
    """Texts of a self-test, and its items."""

    task: str | None = option(None, "Import path of a task whose items are the texts; default: plain English passages.")
    data: str | None = option(None, "Data of the task.")
    options: tuple[str, ...] = option(
        (),
        "Option of the task itself; can be repeated.",
        flag="--task-option",
        metavar="KEY=VALUE",
        is_repeated=True,
    )
    n: Annotated[int, Field(ge=16)] = option(64, "Number of items.")
    limit: Annotated[int, Field(ge=2)] = option(32, "Number of texts.")
    seed: int = option(0, "Seed of the items.")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class RecipeDevice:
    """What stands in place of the `load` of a recipe, where it is given."""

    device: str | None = option(None, "Overrides `load.device` of the recipe: cpu, cuda, cuda:1, ...")
    dtype: str | None = option(None, "Overrides `load.dtype` of the recipe.", flag="--load-dtype", param="load_dtype")
    device_map: str | None = option(
        None, "Overrides `load.device_map` of the recipe; 'auto' spreads the base over several GPUs."
    )
    quantization: str | None = option(None, "Overrides `load.quantization` of the recipe: 4bit or 8bit (bitsandbytes).")
    attn_implementation: str | None = option(
        None, "Overrides `load.attn_implementation` of the recipe: eager, sdpa, ..."
    )

    def given(self) -> dict[str, str]:
        """What is given."""
        return {key: value for key, value in vars(self).items() if isinstance(value, str)}


@dataclass(frozen=True, config=STRICT, kw_only=True)
class TrainOptions:
    """A training run."""

    recipe: InFile = option(is_argument=True)
    out: Path = option(help="Folder for the checkpoints: best/, last/, ...")
    resume: bool = option(False, "Continue from the last checkpoint in --out.")
    dry_run: bool = option(False, "Build and audit the items, then stop.")
    every: Count = option(50, "Print the loss every N steps.")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class BuildOptions:
    """What is trained from nothing."""

    seed: int = option(0, "Seed of the adapters' weights, the items and their order.")
    out: Path = option(help="Output folder; it must be new or empty.")
