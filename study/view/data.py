"""What a page of coloured tokens shows: items, a strip of tokens for each member, and tracks of numbers along them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Track:
    """One kind of number along the tokens, and how it is coloured.

    Attributes:
        name:   shown in the chooser, e.g. "verdict = compliant at resid_post.3".
        unit:   of the values, shown in the legend.
        centre: the value without colour, the median of the null; the map goes to both sides of it.
        reach:  distance from the centre at which the colour is full.
        low, high: what a value below and above the centre means; low is "" where none is.
        reference: what `Strip.reference` holds, e.g. "null median".
        is_pattern: values are those of the chosen token, which looks back at the others (attention).
    """

    name: str
    unit: str
    centre: float
    reach: float
    high: str
    low: str = ""
    reference: str = "null median"
    is_pattern: bool = False

    def __post_init__(self) -> None:
        if not self.reach > 0 or not math.isfinite(self.reach) or not math.isfinite(self.centre):
            raise ValueError(f"track {self.name!r}: expected a finite centre and a reach above 0, got {self}.")


@dataclass(frozen=True)
class Values:
    """One track of one strip.

    Attributes:
        score: value of each token [token]; NaN where it has none. Of a pattern, of each token the values of the tokens
            up to it [token][earlier token].
        reference: median of the null at each token [token], or what the track's `reference` says; none: not known.
        lo, hi: 2.5 % and 97.5 % point of the null at each token [token].
        rank:  1 + number of control directions with a higher score [token].
        n_controls: number of those directions.
        notes: further words on each token [token], e.g. the likeliest next tokens.
    """

    score: Sequence[float] | Sequence[Sequence[float]]
    reference: Sequence[float] = ()
    lo: Sequence[float] = ()
    hi: Sequence[float] = ()
    rank: Sequence[float] = ()
    n_controls: int = 0
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Strip:
    """Tokens of one reply of one member.

    Attributes:
        tokens: text of each token; joined they are what is shown.
        values: one for each track of the view.
        first:  number of the first token: -1 where it is the last of the prompt.
        spans:  number of a token -> name of the span that it ends.
        facts:  short words on the reply: gold, answer, group, ...
        is_right: whether its label is the gold label; None: not known.
        prompt: text in front of the tokens, shown folded.
    """

    member: str
    tokens: Sequence[str]
    values: Sequence[Values]
    first: int = 0
    spans: Mapping[int, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    is_right: bool | None = None
    prompt: str = ""


@dataclass(frozen=True)
class Item:
    """One item with a strip for each member that has one."""

    id: str
    strips: Sequence[Strip]
    cell: str = ""
