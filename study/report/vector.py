"""A saved SVG as part of a page: ids of its own, colours of the page's theme, nothing that could run."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from functools import cache
from html import escape

from study.figures.style import tokens
from study.pages.sheet import ROLES

_SVG, _XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
_ELEMENT_NAMES = """
    svg g defs path use text tspan title desc rect circle ellipse line polyline polygon clipPath image pattern
    linearGradient stop"""
_ATTRIBUTE_NAMES = """
    id class style transform d x y x1 y1 x2 y2 cx cy r rx ry dx dy width height points viewBox clip-path clipPathUnits
    clip-rule fill fill-rule fill-opacity stroke stroke-width stroke-opacity stroke-dasharray opacity offset stop-color
    stop-opacity patternUnits patternTransform preserveAspectRatio text-anchor"""
_ELEMENTS, _ATTRIBUTES = frozenset(_ELEMENT_NAMES.split()), frozenset(_ATTRIBUTE_NAMES.split())
_IMAGE = re.compile(r"data:image/png;base64,[A-Za-z0-9+/=\s]*")
_FONT = re.compile(r"(font(?:-family)?\s*:[^;\"]*?)'DejaVu Sans'[^;]*")
_HEX = re.compile(r"#[0-9a-fA-F]{6}\b")


def inline(svg: str, *, prefix: str, alt: str) -> str:
    """An SVG document as an element of an HTML page.

    Ids and references get the prefix, hex colours of the light palette become `var(--role)`, the font becomes the
    page's; `--w` holds its width in points. Only drawing elements and attributes stay: no script, no style sheet, no
    link, no raster other than PNG within the file.

    Args:
        prefix: unlike that of any other figure in the page, ending in `-`.
        alt:    what the figure shows, in words.
    Raises:
        ValueError: not an SVG document; a reference to something outside the file.
    """
    try:
        root = ET.fromstring(svg)
    except ET.ParseError as error:
        raise ValueError(f"not an SVG document ({error}). Draw the figure again.") from error
    if root.tag != f"{_SVG}svg":
        raise ValueError(f"the document is a <{root.tag}>, an <svg> was expected.")
    box = root.get("viewBox", "0 0 486 300")
    width = float(box.split()[2])
    head = f'<svg role="img" aria-label="{escape(alt)}" style="--w:{width:g}" viewBox="{escape(box)}">'
    return head + "".join(_children(root, prefix)) + "</svg>"


def _children(element: ET.Element, prefix: str) -> Iterator[str]:
    yield escape(element.text.strip("\n") if element.text and element.text.strip() else "", quote=False)
    for child in element:
        yield from _written(child, prefix)
        if child.tail and child.tail.strip():
            yield escape(child.tail, quote=False)


def _written(element: ET.Element, prefix: str) -> Iterator[str]:
    name = element.tag.removeprefix(_SVG) if isinstance(element.tag, str) else ""
    if name not in _ELEMENTS or name == "svg":
        return
    attributes = dict(_attributes(element, name, prefix))
    if name == "g" and any(child.tag == f"{_SVG}title" for child in element):
        attributes["class"] = "tip"
    opened = "".join(f' {key}="{escape(value)}"' for key, value in attributes.items())
    inner = "".join(_children(element, prefix))
    if name != "g" or inner or "id" in attributes:
        yield f"<{name}{opened}>{inner}</{name}>" if inner else f"<{name}{opened}/>"


def _attributes(element: ET.Element, name: str, prefix: str) -> Iterator[tuple[str, str]]:
    for key, value in element.items():
        if key == "id":
            yield "id", prefix + value
        elif key in (f"{_XLINK}href", "href"):
            yield "href", _reference(value, name, prefix)
        elif key in _ATTRIBUTES:
            yield key, _themed(re.sub(r"url\(#", f"url(#{prefix}", value))


def _reference(value: str, name: str, prefix: str) -> str:
    if value.startswith("#"):
        return f"#{prefix}{value[1:]}"
    if name == "image" and _IMAGE.fullmatch(value):
        return re.sub(r"\s+", "", value)
    raise ValueError(f"the figure refers to {value[:60]!r}, outside the file. Draw it again with `diptych figures`.")


def _themed(value: str) -> str:
    value = _HEX.sub(lambda match: _variables().get(match[0].lower(), match[0]), value)
    return _FONT.sub(r"\g<1>var(--sans)", value)


@cache
def _variables() -> dict[str, str]:
    """Light hex -> CSS variable; of two roles with one colour, the first named."""
    light = tokens()["light"]
    return {light[role].lower(): f"var(--{role.replace('_', '-')})" for role in reversed(ROLES)}
