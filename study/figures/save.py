"""Write a figure as PDF, SVG and PNG with its rows and its words; the same input gives the same bytes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from interp.io.csv_text import csv_bytes
from interp.io.files import write_file
from study.figures.drawn import Drawn, png, rendered

PICTURES = ("pdf", "svg", "png")


def save(drawn: Drawn, stem: str | Path, *, formats: Sequence[str] = PICTURES) -> dict[str, Path]:
    """Write `stem.pdf`, `.svg`, `.png` (300 dpi), `.csv` (exactly the rows drawn) and `.txt` (caption, alt text).

    Args:
        drawn: result of a figure function.
        stem:  path without ending; its folder is made.
        formats: of the picture; rows and words are always written.
    Returns:
        The path written for each ending.
    Raises:
        ValueError: the stem already ends in one of these endings; an unknown format.
    """
    stem = Path(stem)
    unknown = [name for name in formats if name not in PICTURES]
    if unknown:
        raise ValueError(f"format {', '.join(unknown)}: expected some of {', '.join(PICTURES)}.")
    if stem.suffix[1:] in (*PICTURES, "csv", "txt"):
        raise ValueError(
            f"stem {stem.name!r} ends in {stem.suffix}: save writes five files. Pass {stem.with_suffix('').name!r}."
        )
    make = {"pdf": pdf, "svg": lambda one: svg(one).encode("utf-8"), "png": png}
    content = {name: make[name](drawn) for name in PICTURES if name in formats} | {
        "csv": csv_bytes(drawn.rows),
        "txt": f"{drawn.caption}\n\nAlt text: {drawn.alt}\n".encode(),
    }
    paths = {ending: stem.with_name(f"{stem.name}.{ending}") for ending in content}
    for ending, path in paths.items():
        write_file(path, content[ending])
    return paths


def save_all(figures: Iterable[tuple[str, Drawn | str]], folder: Path) -> tuple[list[Path], list[str]]:
    """Save every figure of (stem, figure or why it was not drawn); returns (PNG of each, the reasons)."""
    paths, reasons = [], []
    for stem, figure in figures:
        if isinstance(figure, str):
            reasons.append(f"{stem} was not drawn: {figure}")
        else:
            paths.append(save(figure, folder / stem)["png"])
    return paths, reasons


def pdf(drawn: Drawn) -> bytes:
    """PDF bytes with embedded TrueType fonts (venues refuse Type 3), no date and no producer."""
    return rendered(drawn, "pdf")


def svg(drawn: Drawn, *, prefix: str = "") -> str:
    """SVG text whose marks carry `<title>`, with `role="img"` and the alt text as its label.

    Args:
        prefix: put before every id, so that several figures can stand inline in one page.
    """
    text = rendered(drawn, "svg").decode("utf-8")
    text = re.sub(r'<a xlink:href="(mark-[^"]+)"[^>]*>(.*?)</a>', r'<g id="\1">\2</g>', text, flags=re.DOTALL)

    def with_title(match: re.Match[str]) -> str:
        title = drawn.titles.get(match[1])
        return match[0] if title is None else f"{match[0]}<title>{escape(title)}</title>"

    text = re.sub(r'<g id="([^"]+)">', with_title, text)
    text = text.replace("<svg ", f'<svg role="img" aria-label="{escape(drawn.alt)}" ', 1)
    if prefix:
        text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}", text)
    return text
