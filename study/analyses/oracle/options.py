"""Options of what an oracle is asked: the section `oracle` of a study file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field
from pydantic.dataclasses import dataclass

from study.option_types import Count, Layer, Names
from study.options import STRICT, option


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
    labels: str | None = option(None, "File of right answers of sentences.")
    readings: str | None = option(None, "Import path of a function that makes the readings.")
    positions: str = option("last", "Position rule of the readings.")


@dataclass(frozen=True, config=STRICT)
class OracleOptions:
    """What an oracle adapter reads from activations of its base, or of adapters on it.

    Attributes:
        adapter, adapter_revision, subfolder: of the oracle, on the base of the study; `embedded` is the one that comes
            with the package, with its prior-only twin.
        prior: an oracle that was trained on zeroed activations: the floor of any accuracy.
        sources: base, a member, or a difference such as `engaged - base`.
        layers: block indices or percents of depth such as 50%; none: those that the oracle was trained on.
        n_partners: partners of the matched shuffle, over which the gap is averaged.
        groups: group of the examples that is the independent unit.
        spec: fields of `interp.oracle.OracleSpec`, where nothing declares how the adapter is wired.
    """

    adapter: str
    questions: Annotated[tuple[OracleQuestion, ...], Field(min_length=1)]
    adapter_revision: str | None = option(None, "Commit, tag or branch of the adapter.")
    subfolder: str | None = option(None, "Folder of the adapter inside its repository.")
    prior: str | None = option(None, "Id or folder of an oracle trained on zeroed activations, the floor.")
    sources: Names = option(("base",), "Base, a member, or a difference such as 'engaged - base'.")
    layers: Annotated[tuple[Layer, ...], Field(min_length=1)] | None = option(
        None, "Blocks or percents of depth; default: the oracle's own."
    )
    groups: str | None = option(None, "Column of the independent unit; default: the example.")
    thinking: bool | None = option(None, "Passed to the chat template.")
    n_partners: Count = option(8, "Partners of the matched shuffle.")
    limit: Count | None = option(None, "At most N items.")
    spec: Mapping[str, Any] = option({}, "Fields of OracleSpec, where nothing declares the wiring.", is_command=False)
