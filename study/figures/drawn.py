"""A drawn figure together with what it was drawn from and what it says."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from html import escape

from study.figures.mpl import DataFrame, Figure
from study.figures.style import styled

_NO_STAMP: dict[str, dict[str, str | None]] = {
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Date": None, "Creator": None},
    "png": {"Software": None},
}


@dataclass(frozen=True, eq=False)
class Drawn:
    """What a figure function returns; a notebook shows the picture with its caption under it.

    Attributes:
        figure:  the matplotlib figure, at its printed size.
        rows:    exactly the rows drawn, in the order of the table that was passed.
        caption: what is drawn, unit and n, interval, null, test and correction, model; built from the columns.
        alt:     text for those who cannot see it: it states the finding.
        titles:  text of each mark by its id in the SVG, shown on hover.
    """

    figure: Figure
    rows: DataFrame
    caption: str
    alt: str
    titles: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        width, height = self.figure.get_size_inches()
        return f"Drawn({width:g} × {height:g} in, {len(self.rows)} rows)\n{self.caption}"

    def _repr_png_(self) -> bytes:
        return png(self, dpi=200)

    def _repr_html_(self) -> str:
        from base64 import b64encode

        width = self.figure.get_size_inches()[0] * 96  # CSS pixels per inch: shown at about its printed size
        image = b64encode(self._repr_png_()).decode("ascii")
        return (
            f'<figure style="margin:0"><img alt="{escape(self.alt)}" style="width:{1.25 * width:.0f}px;'
            f'max-width:100%;background:#fff" src="data:image/png;base64,{image}">'
            f"<figcaption>{escape(self.caption)}</figcaption></figure>"
        )


def png(drawn: Drawn, *, dpi: int = 300) -> bytes:
    """PNG bytes; the alt text travels inside as `Description`."""
    return rendered(drawn, "png", dpi=dpi, metadata={"Description": drawn.alt})


def rendered(drawn: Drawn, kind: str, *, dpi: int = 300, metadata: Mapping[str, str] | None = None) -> bytes:
    """Bytes of a picture of this kind (pdf, svg, png) without date and maker: the same figure, the same bytes."""
    buffer = io.BytesIO()
    with styled():
        drawn.figure.savefig(buffer, format=kind, dpi=dpi, metadata={**_NO_STAMP[kind], **(metadata or {})})
    return buffer.getvalue()


def tried(draw: Callable[[], Drawn]) -> Drawn | str:
    """The figure, or why its table cannot be drawn: one such table does not cost the other figures."""
    try:
        return draw()
    except ValueError as error:
        return str(error)


def rows_by(table: DataFrame, *columns: str) -> Iterator[tuple[tuple[str, ...], DataFrame]]:
    """(values, rows) of every combination of the columns' values, in the order of the table; all rows of no columns."""
    for values, rows in table.groupby(list(columns), sort=False) if columns else [((), table)]:
        yield tuple(map(str, values)), rows


def stem(*parts: str) -> str:
    """Name of a figure's files from its parts, without "all" and without anything that a path is made of."""
    words = [part for part in parts if part and part != "all"]
    return "-".join("".join(c if c.isalnum() or c in "._" else "_" for c in word).strip(".") for word in words)
