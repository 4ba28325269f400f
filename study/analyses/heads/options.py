"""Options of a head sweep: the section `heads` of a study file, `diptych heads`, and what Python takes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from study.option_types import Names, Verified
from study.options import STRICT, option


@dataclass(frozen=True, config=STRICT)
class HeadsOptions:
    """What is swept: the effect of every head of each member; see `diptych heads`.

    Attributes:
        n: procedures of twins where the task makes them, else items.
        kinds: as `interp.heads.parse_kind` reads them.
        positions: as `interp.positions` reads them.
        slot: "own", the model's own reply up to its decision, or a text that is forced on every prompt.
        named: heads of a hypothesis, named before the sweep, e.g. L19.H17; figures box them.
        effect: "total", or "direct": only the head's own path to the logits.
        verify: of the first pair never less than 1 %.
        members: who is swept; the bare bases only where they are named.
    """

    n: Annotated[int, Field(ge=4)] = option(48, "Procedures (twins) or examples.")
    kinds: Annotated[Names, Field(min_length=1)] = option(
        ("mean", "zero", "patch"),
        "mean, mean:class, zero, patch, resample:derangement:4, uniform_attention, noise.",
        flag="--kind",
    )
    positions: str = option("answer", "Tokens at which heads are changed.")
    slot: str = option("own", "Text before the label: own (the model's own reply), or a text forced on all.")
    effect: Literal["total", "direct"] = option("total", "total, or direct: only the head's own path to the logits.")
    named: Names = option((), "A head named beforehand, e.g. L19.H17; figures box it.", is_repeated=True)
    verify: Verified = option(0.0, "Share of rows recomputed by hooked passes.")
    members: Names = option(("engaged", "heuristic"), "Members that are swept.", is_command=False)
