"""What a page of coloured tokens shows: items, a strip of tokens for each member, and tracks of numbers along them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


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


@dataclass(frozen=True)
class View:
    """A page of coloured tokens.

    Attributes:
        lead: one or two sentences: what is shown, and from where.
        n_left_out: items that the source has and the page does not.

    Example:
        >>> from study.view import Item, Strip, Track, View
        >>> from study.view.data import Values
        >>> strip = Strip("engaged", ["So", " yes"], [Values([0.1, 2.0], rank=[7, 1], n_controls=19)])
        >>> view = View("Scores", [Track("verdict", "logits", 0.0, 2.0, "yes", "no")], [Item("a", [strip])])
        >>> "<script" in view.html()
        True
    """

    title: str
    tracks: Sequence[Track]
    items: Sequence[Item]
    lead: str = ""
    n_left_out: int = 0

    def __post_init__(self) -> None:
        if not self.items or not self.tracks:
            raise ValueError(f"view {self.title!r}: expected at least one item and one track, got none.")
        for item in self.items:
            for strip in item.strips:
                self._check(item, strip)

    def _check(self, item: Item, strip: Strip) -> None:
        """Refuse a strip whose numbers do not belong to its tokens."""
        where = f"item {item.id!r}, {strip.member}"
        if len(strip.values) != len(self.tracks):
            raise ValueError(f"{where}: {len(strip.values)} tracks of values; the view has {len(self.tracks)}.")
        for track, values in zip(self.tracks, strip.values, strict=True):
            parts = {"score": values.score, "reference": values.reference, "lo": values.lo, "hi": values.hi,
                     "rank": values.rank, "notes": values.notes}  # fmt: skip
            for name, part in parts.items():
                if len(part) != len(strip.tokens) and (name == "score" or len(part)):
                    raise ValueError(f"{where}, {track.name}: {len(part)} of {name} for {len(strip.tokens)} tokens.")

    def html(self) -> str:
        """The page as text: no network, no date, no path; the same view gives the same bytes."""
        from study.view.page import render

        return render(self)

    def save(self, path: str | Path) -> Path:
        """Write the page, atomically."""
        from interp.io.files import write_file

        path = Path(path)
        write_file(path, self.html().encode("utf-8"))
        return path

    def _repr_html_(self) -> str:
        from study.view.page import framed

        return framed(self)
