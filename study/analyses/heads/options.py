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
        at: decision sites of the task (`interp.tasks.decision_sites`), where heads are changed and the answer is read.
        slot: "own", the model's own reply up to each decision; "gold", the task's right reply, the same for every
            member; or a text that is forced on every prompt, after which the label stands.
        named: heads of a hypothesis, named before the sweep, e.g. L19.H17; figures box them.
        effect: "total", or "direct": only the head's own path to the logits.
        verify: of the first pair never less than 1 %.
        members: who is swept; the bare bases only where they are named.
    """

    n: Annotated[int, Field(ge=4)] = option(48, "Number of procedures (each with its twins) or of examples.")
    kinds: Annotated[Names, Field(min_length=1)] = option(
        ("mean", "zero", "patch"),
        "Kinds of ablation: mean, mean:class, zero, patch, resample:derangement:4, uniform_attention, noise.",
        flag="--kind",
    )
    positions: str = option("answer", "Tokens at which the heads are changed.")
    at: Names = option((), "Decision sites of the task, e.g. step_lookup,label; default: all that it names.")
    slot: str = option(
        "own", "Reply that decides: own (the model's), gold (the task's right one), or a text forced before the label."
    )
    effect: Literal["total", "direct"] = option(
        "total", "Effect to measure: total, or direct (only the head's own path to the logits)."
    )
    named: Names = option((), "Heads named in advance, e.g. L19.H17; figures mark them with a box.", is_repeated=True)
    verify: Verified = option(0.0, "Share of rows that are recomputed with ordinary hooked passes.")
    members: Names = option(("engaged", "heuristic"), "Members to sweep.", is_command=False)
