"""Design tokens as matplotlib settings: colours, markers, lines, maps and widths, each by what it means.

`tokens.json` is the one place where a value is written; matplotlib and the report's CSS both read it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Literal, TypedDict, get_args

from study.figures.mpl import Axes

if TYPE_CHECKING:
    from matplotlib.colors import LinearSegmentedColormap

Width = Literal["icml", "neurips", "full"]
MapName = Literal["member_diverging", "effect_diverging", "sequential"]


class Size(TypedDict, total=False):
    """The size of a figure; without a width it has its own default."""

    width: Width


class Place(Size, total=False):
    """Where a figure is drawn: on a page of its own of this width, or on the axes of a composite."""

    ax: Axes


RGBA = tuple[float, float, float, float]

MEMBERS = ("engaged", "heuristic", "base")
LABEL, NOTE, TICK, PANEL_LETTER = 7.0, 5.8, 6.5, 9.0
"""Text sizes in points; nothing is set smaller than NOTE."""
DATA_LINE, INTERVAL_LINE, REFERENCE_LINE, RULE_LINE = 1.2, 1.1, 0.7, 0.5
"""Line widths in points."""
BAND_ALPHA = 0.16

_WIDTH_TOKEN = {"icml": "icml_column", "neurips": "neurips_iclr_text", "full": "icml_text"}


@cache
def tokens() -> dict[str, Any]:
    """The content of `tokens.json`."""
    return json.loads(files("study.figures").joinpath("tokens.json").read_text(encoding="utf-8"))


def colour(role: str, theme: Literal["light", "dark"] = "light") -> str:
    """Hex colour of a role: `engaged`, `heuristic`, `base`, `control`, `null`, `ink`, `ink2`, `grid`, `paper`, ...

    Raises:
        ValueError: no such role; the roles are listed.
    """
    palette = tokens()[theme]
    if role not in palette:
        raise ValueError(f"colour role {role!r} is not in tokens.json ({theme}). Roles: {', '.join(palette)}.")
    return palette[role]


def text_colour(role: str) -> str:
    """Colour of text that names a role: the heuristic's own colour is too light for text."""
    return colour("heuristic_text" if role == "heuristic" else role)


def marker(role: str) -> str:
    """Marker of a role; mandatory beside its colour, because two pairs of colours collapse in grey."""
    return tokens()["marker"].get(role, "o")


def line(role: str) -> Any:
    """Line style of a role as matplotlib takes it."""
    style = tokens()["line"].get(role, "solid")
    if isinstance(style, str):
        return style.split()[0]
    offset, dashes = style
    return (offset, tuple(dashes))


def width_in(width: Width) -> float:
    """Final width in inches: a figure is made at the size at which it is printed and never rescaled."""
    if width not in _WIDTH_TOKEN:
        raise ValueError(f"width {width!r} is not one of {', '.join(map(repr, get_args(Width)))}.")
    return tokens()["width_in"][_WIDTH_TOKEN[width]]


def colour_map(name: MapName) -> LinearSegmentedColormap:
    """A map chosen by meaning: member difference, signed effect inside one model, or unsigned from chance."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list(name, tokens()["maps"][name])


@contextmanager
def styled() -> Iterator[None]:
    """Library defaults plus the tokens, whatever the user's matplotlibrc says; restored on leaving."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(tokens()["rc"])
        matplotlib.rcParams.update(
            {
                "text.color": colour("ink"),
                "axes.labelcolor": colour("ink"),
                "axes.edgecolor": colour("ink2"),
                "xtick.color": colour("ink2"),
                "ytick.color": colour("ink2"),
                "xtick.labelcolor": colour("ink"),
                "ytick.labelcolor": colour("ink"),
                "xtick.major.width": 0.6,
                "ytick.major.width": 0.6,
                "axes.formatter.useoffset": False,
                "hatch.linewidth": 0.4,
                "hatch.color": colour("control"),
            }
        )
        yield
