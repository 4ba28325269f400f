"""Text of models and of users as inert HTML: escaped, with what cannot be seen made visible, and of bounded length."""

from __future__ import annotations

import unicodedata

from markupsafe import Markup, escape

MAX_CHARACTERS = 4_000
MAX_WORD = 200
_KEPT = "\n"


def is_hidden(character: str) -> bool:
    """Whether a character does something that cannot be seen: controls, bidi marks, zero-width, lone surrogates.

    Every character of the Unicode categories Cc, Cf, Cs, Co, Cn and Zl, Zp, but the line feed; and the fillers and
    selectors that draw nothing although their category is another.
    """
    if character == _KEPT:
        return False
    category = unicodedata.category(character)
    return category in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") or character in _BLANK


_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0\u2800") | frozenset(map(chr, range(0xFE00, 0xFE10)))


def chip(character: str) -> Markup:
    """A character that cannot be seen, as its number: `U+202E`."""
    name = unicodedata.name(character, "control character").lower()
    return Markup('<span class="chip" title="{}">U+{:04X}</span>').format(name, ord(character))


def inert(text: object, *, limit: int = MAX_CHARACTERS, word: int = MAX_WORD) -> Markup:
    """Text as HTML that shows it and does nothing.

    Args:
        text:  anything; `None` shows as nothing.
        limit: characters shown. What is left out is counted in place, never dropped silently.
        word:  longest run without white space that is shown whole.
    Returns:
        Markup in which `&<>"'` are escaped and hidden characters are chips.
    """
    if text is None:
        return Markup("")
    shown = "" if text != text else str(text)
    pieces = _bounded(shown[:limit], word)
    if len(shown) > limit:
        cut = pieces.pop() if pieces and isinstance(pieces[-1], int) else 0
        pieces.append(cut + len(shown) - limit)  # type: ignore[operator]
    return Markup("").join(map(_visible, pieces))


def plain(text: object, *, limit: int = 300) -> str:
    """Text for an attribute or a title: hidden characters as `U+202E`, one line, of bounded length."""
    shown = str(text)
    parts = (f"U+{ord(c):04X}" if is_hidden(c) else " " if c == "\n" else c for c in shown[:limit])
    return "".join(parts) + ("…" if len(shown) > limit else "")


def _bounded(text: str, word: int) -> list[str | int]:
    """Pieces of text, and the number of characters left out where a word was too long."""
    pieces: list[str | int] = []
    for run in _runs(text):
        pieces += [run] if len(run) <= word or run[0].isspace() else [run[:word], len(run) - word]
    return pieces


def _runs(text: str) -> list[str]:
    """Maximal runs of white space and of what is not; joined they are the text."""
    runs: list[str] = []
    start = 0
    for i in range(1, len(text) + 1):
        if i == len(text) or text[i].isspace() != text[start].isspace():
            runs.append(text[start:i])
            start = i
    return runs if text else []


def _visible(piece: str | int) -> Markup:
    if isinstance(piece, int):
        return _cut(piece)
    if not any(map(is_hidden, piece)):
        return escape(piece)
    return Markup("").join(chip(c) if is_hidden(c) else escape(c) for c in piece)


def _cut(count: int) -> Markup:
    return Markup('<span class="cut">… {} characters not shown</span>').format(f"{count:,}")
