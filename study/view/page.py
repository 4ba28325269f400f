"""A view as one self-contained HTML page. Text of models is data: it is never part of the markup or of the script."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

from markupsafe import Markup

from study.figures.style import tokens as design
from study.pages.sheet import css, policy
from study.pages.text import is_hidden

if TYPE_CHECKING:
    from jinja2 import Template

    from study.view.data import Item, Strip, Track, Values

LEVELS = 8
"""Steps of colour on each side of the centre."""
FULL = 0.78
"""Share of the map's end in the strongest step; the rest is the colour of the page."""
SIGNIFICANT = 4
"""Digits of a number in the page."""
HEIGHT = 720
"""Pixels of a view in a notebook."""


def render(title: str, tracks: Sequence[Track], items: Sequence[Item], *, lead: str, n_left_out: int) -> str:
    """The page of a view (`study.view.View`) as text; the same view gives the same bytes."""
    script = _asset("view.js")
    content = {
        "title": title,
        "lead": lead,
        "tracks": tracks,
        "items": items,
        "n_left_out": n_left_out,
        "css": Markup(css() + _asset("view.css") + _steps()),
        "script": Markup(script),
        "csp": policy(script),
        "data": Markup(_inert(_data(tracks, items))),
        "cells": sorted({item.cell for item in items if item.cell}),
        "first": [_still(strip, tracks[0]) for strip in items[0].strips],
        "levels": range(-LEVELS, LEVELS + 1) if tracks[0].low else range(LEVELS + 1),
        "step": step_name,
    }
    return _template().render(**content) + "\n"


def framed(page: str, title: str) -> str:
    """The page in a frame of its own, for a notebook: nothing of it reaches the notebook, and the reverse."""
    return (
        f'<iframe sandbox="allow-scripts" srcdoc="{escape(page)}" title="{escape(title)}" '
        f'style="width:100%;height:{HEIGHT}px;border:1px solid #8884"></iframe>'
    )


def level_of(value: float | None, track: Track) -> int:
    """Step of colour of a value, from -8 to 8; 0 for none."""
    if value is None or value != value:
        return 0
    share = (value - track.centre) / track.reach
    return max(-LEVELS if track.low else 0, min(LEVELS, round(LEVELS * share)))


def step_name(level: int) -> str:
    """CSS class of a step of colour."""
    return f"{'n' if level < 0 else 'p'}{abs(level)}"


def visible(text: str) -> str:
    """Text whose characters that cannot be seen are written as their numbers; a line break stays one."""
    return "".join(f"⟦U+{ord(one):04X}⟧" if is_hidden(one) else one for one in text)


def shortened(number: float) -> float | None:
    """A number as the page holds it; None where there is none."""
    return float(f"{number:.{SIGNIFICANT}g}") if math.isfinite(number) else None


def _data(tracks: Sequence[Track], items: Sequence[Item]) -> dict[str, object]:
    return {
        "levels": LEVELS,
        "tracks": [
            {"name": visible(t.name), "unit": visible(t.unit), "high": visible(t.high), "low": visible(t.low),
             "centre": shortened(t.centre), "reach": shortened(t.reach), "reference": t.reference,
             "pattern": t.is_pattern}
            for t in tracks
        ],
        "items": [
            {"id": visible(item.id), "cell": visible(item.cell), "strips": [_strip(strip) for strip in item.strips]}
            for item in items
        ],
    }  # fmt: skip


def _strip(strip: Strip) -> dict[str, object]:
    return {
        "member": visible(strip.member),
        "tokens": [visible(text) for text in strip.tokens],
        "first": strip.first,
        "spans": {str(at): visible(name) for at, name in strip.spans.items()},
        "facts": [[visible(name), visible(word)] for name, word in strip.facts.items()],
        "right": strip.is_right,
        "prompt": visible(strip.prompt),
        "values": [dict(_values(values)) for values in strip.values],
    }


def _values(values: Values) -> Iterator[tuple[str, object]]:
    yield "score", [_numbers(one) if isinstance(one, Sequence) else shortened(float(one)) for one in values.score]
    for name, part in (("ref", values.reference), ("lo", values.lo), ("hi", values.hi)):
        if len(part):
            yield name, _numbers(part)
    if len(values.rank):
        yield "rank", [None if one != one else int(one) for one in values.rank]
        yield "controls", values.n_controls
    if values.notes:
        yield "notes", [visible(note) for note in values.notes]


def _numbers(values: Sequence[float]) -> list[float | None]:
    return [shortened(float(one)) for one in values]


def _inert(data: Mapping[str, object]) -> str:
    """JSON that no HTML parser takes for markup, whatever its strings hold."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _still(strip: Strip, track: Track) -> dict[str, object]:
    """A strip as it stands in the page before the script runs, or without one."""
    scores = strip.values[0].score
    last = scores[-1] if track.is_pattern else scores
    of_token = list(last) if isinstance(last, Sequence) else []
    steps = [step_name(0 if isinstance(one, Sequence) else level_of(one, track)) for one in of_token]
    texts = [visible(text).replace("\n", "↵\n") for text in strip.tokens]
    return {"strip": strip, "tokens": list(zip(texts, steps, strict=True))}


@cache
def _steps() -> str:
    """Ground and ink of every step of colour, in both themes."""
    of_theme = {theme: "".join(_of_theme(theme)) for theme in ("light", "dark")}
    dark = of_theme["dark"]
    return (
        of_theme["light"]
        + f"\n@media screen and (prefers-color-scheme:dark){{{_under(':root:not([data-theme=light])', dark)}}}"
        + f"\n@media screen{{{_under(':root[data-theme=dark]', dark)}}}\n"
    )


def _of_theme(theme: str) -> Iterator[str]:
    ends, palette = design()["maps"]["effect_diverging"], design()[theme]
    inks = (palette["ink"], palette["paper"])
    for name, end in (("n", ends[1]), ("p", ends[-2])):
        for level in range(1, LEVELS + 1):
            ground = _mixed(palette["paper"], end, FULL * level / LEVELS)
            ink = max(inks, key=lambda one: _contrast(one, ground))
            yield f".{name}{level}{{background:{ground};color:{ink}}}"


def _under(root: str, rules: str) -> str:
    return rules.replace(".n", f"{root} .n").replace(".p", f"{root} .p")


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _mixed(a: str, b: str, share: float) -> str:
    parts = (round(x + (y - x) * share) for x, y in zip(_rgb(a), _rgb(b), strict=True))
    return "#" + "".join(f"{part:02x}" for part in parts)


def _contrast(a: str, b: str) -> float:
    """Contrast of two colours, WCAG 2."""
    low, high = sorted(map(_luminance, (a, b)))
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (one / 255 for one in _rgb(colour))]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@cache
def _template() -> Template:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    env = Environment(
        loader=FunctionLoader(_asset), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    env.filters["visible"] = visible
    return env.get_template("view.html.jinja")


def _asset(name: str) -> str:
    return files("study.view").joinpath(name).read_text(encoding="utf-8")
