"""Options of probes along replies: `diptych probes along`, and what Python takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from probes.along import FRACTIONS, POOLS, Axis
from study.analyses.probes.options import Permutations
from study.option_types import Names
from study.options import STRICT, option

AUTO, NONE = "auto", "none"
LENGTH, SOURCE, FIRST_TOKEN = "length", "source", "first_token"


def _pools(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names or set(names) - set(POOLS) or len(set(names)) < len(names):
        raise ValueError(f"expected one or more of {', '.join(POOLS)}, each once, got {', '.join(names) or 'none'}")
    return names


def _fractions(shares: tuple[float, ...]) -> tuple[float, ...]:
    return Axis("fraction", shares).at


@dataclass(frozen=True, config=STRICT, kw_only=True)
class AlongOptions:
    """A probe scored at every token of the replies that the members wrote; see `diptych probes along`.

    Attributes:
        target: of a study, the entry of `probes.targets` whose sweeps read the replies; the first by default.
        confounds: auto: length of the reply, source of the item, first token of the reply; none; or columns of the
            items, with or without these three words.
    """

    target: str | None = option(None, "Target of the sweeps that read; default: the first.", is_command=False)
    positive: str | None = option(None, "Label that counts as 1, if the sweep has several.")
    kind: str | None = option(None, "Kind of probe; default: the first that was swept of logistic, ridge, massmean.")
    pool: Annotated[Names, AfterValidator(_pools)] = option(
        POOLS, "How scores of the tokens read so far become one; the best on DEV is chosen."
    )
    fractions: Annotated[tuple[float, ...], AfterValidator(_fractions)] = option(
        FRACTIONS, "Shares of the reply at which labels are compared; 0 is the last token of the prompt."
    )
    confounds: Names = option(
        (AUTO,), "What the scores are corrected for: auto (length, source, first_token), none, or columns of the items."
    )
    forced: str = option(
        "",
        "Text after which the label is asked where a reply is cut, e.g. '[SIG=DECIDE]': adds the forced-answer curve.",
    )
    controls: Annotated[int, Field(ge=19)] = option(19, "Number of probes fitted on shuffled labels.")
    perm: Permutations = option(999, "Number of permutations of the labels of the replies.")
    boot: Annotated[int, Field(ge=100)] = option(2000, "Number of resamples of groups for an interval.")
    mode: str | None = option(None, "Prompt mode of an evaluation in several.", is_command=False)
    unfinished: Literal["exclude", "keep"] = option("exclude", "Replies that were cut.", is_command=False)


@dataclass(frozen=True, config=STRICT, kw_only=True)
class AlongCommand:
    """What the command needs besides, where no study says it.

    Attributes:
        probes: a finished sweep, whose probe reads the replies of every member; or a folder with a sweep per member,
            `probes/engaged` and `probes/heuristic`, each of which reads the replies of its member.
    """

    probes: Path = option(is_argument=True, metavar="PROBES")
    seed: int = option(0, "Seed of permutations, resamples and shuffled labels.")
    out: Path = option(help="Folder for the tables and the figure.")
