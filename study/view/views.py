"""A view: items with their tracks, written as a page or shown in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from study.view.data import Item, Strip, Track


@dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        tracks = ", ".join(track.name for track in self.tracks)
        return f"View({self.title!r}, {len(self.items)} items, tracks: {tracks})"

    def html(self) -> str:
        """The page as text: no network, no date, no path; the same view gives the same bytes."""
        from study.view.page import render

        return render(self.title, self.tracks, self.items, lead=self.lead, n_left_out=self.n_left_out)

    def save(self, path: str | Path) -> Path:
        """Write the page, atomically."""
        from interp.io.files import write_file

        path = Path(path)
        write_file(path, self.html().encode("utf-8"))
        return path

    def _repr_html_(self) -> str:
        from study.view.page import framed

        return framed(self.html(), self.title)
