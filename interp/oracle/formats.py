"""Prompt formats of published oracles: how layers and placeholders are written in front of the question."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

Format = Literal["A", "A'", "B", "D", "E"]
FORMATS: tuple[str, ...] = get_args(Format)


@dataclass(frozen=True)
class Prefix:
    """The text before the question and, per placeholder in reading order, where its visible character stands.

    Attributes:
        text:   ends with a line break.
        marks:  character of each placeholder without its blank: "?" of " ?".
        layers: source layer of each placeholder; vectors are injected in this order.
    """

    text: str
    marks: tuple[int, ...]
    layers: tuple[int, ...]


def render_prefix(
    format: Format, placeholders: Sequence[str], *, layers: Sequence[int], counts: Sequence[int], flat: bool = False
) -> Prefix:
    """The prefix of one format. With layers 9, 18 and two positions each ("\\n" is a line break):

        A   Layer: 18\\n ? ? \\n                          one layer
        A'  Layer: 9\\n ? ? \\nLayer: 18\\n ? ? \\n        A once per layer
        B   L9: ? ? L18: ? ?.\\n
        D   Layer: 9, 18\\n @ ? @ ? \\n                   position by position; placeholders may differ by layer
        E   L9: ¶ ¶ L18: ¶ ¶\\n, or flat: ¶ ¶ ¶ ¶\\n       placeholder " ¶"

    Args:
        placeholders: one for all layers, or one per layer.
        layers: block indices, in the order in which they are written.
        counts: positions of each layer.
        flat: format E without layer names.
    Raises:
        ValueError: an unknown format, counts that do not fit it.
    Source: dataset_utils.py of adamkarvonen/activation_oracles (A), of its multi-layer fork (A'), and of
        ceselder/cot-oracle (B, D, E).
    """
    _check(format, placeholders, layers, counts, flat)
    marks = list(placeholders) * len(layers) if len(placeholders) == 1 else list(placeholders)
    page = _Page()
    _WRITERS[format](page, list(zip(layers, counts, marks, strict=True)), flat)
    return page.prefix()


class _Page:
    """Text that grows, remembering where placeholders were put."""

    def __init__(self) -> None:
        self.text = ""
        self.marks: list[int] = []
        self.layers: list[int] = []

    def write(self, text: str) -> None:
        self.text += text

    def put(self, placeholder: str, layer: int) -> None:
        self.marks.append(len(self.text) + len(placeholder) - len(placeholder.lstrip()))
        self.layers.append(layer)
        self.text += placeholder

    def prefix(self) -> Prefix:
        return Prefix(self.text, tuple(self.marks), tuple(self.layers))


_Blocks = list[tuple[int, int, str]]


def _a(page: _Page, blocks: _Blocks, flat: bool) -> None:
    for layer, count, placeholder in blocks:
        page.write(f"Layer: {layer}\n")
        for _ in range(count):
            page.put(placeholder, layer)
        page.write(" \n")  # without the blank, " ?\n" would be one unit of Qwen's pre-tokenizer


def _named(page: _Page, blocks: _Blocks) -> None:
    for number, (layer, count, placeholder) in enumerate(blocks):
        page.write(f"{' ' if number else ''}L{layer}:")
        for _ in range(count):
            page.put(placeholder, layer)


def _b(page: _Page, blocks: _Blocks, flat: bool) -> None:
    _named(page, blocks)
    page.write(".\n")


def _d(page: _Page, blocks: _Blocks, flat: bool) -> None:
    page.write(f"Layer: {', '.join(str(layer) for layer, _, _ in blocks)}\n")
    for _ in range(blocks[0][1]):
        for layer, _, placeholder in blocks:
            page.put(placeholder, layer)
    page.write(" \n")


def _e(page: _Page, blocks: _Blocks, flat: bool) -> None:
    if flat:
        for layer, count, placeholder in blocks:
            for _ in range(count):
                page.put(placeholder, layer)
    else:
        _named(page, blocks)
    page.write("\n")


_WRITERS: dict[str, Callable[[_Page, _Blocks, bool], None]] = {"A": _a, "A'": _a, "B": _b, "D": _d, "E": _e}


def _check(format: str, placeholders: Sequence[str], layers: Sequence[int], counts: Sequence[int], flat: bool) -> None:
    if format not in FORMATS:
        raise ValueError(f"oracle prompt format: expected one of {', '.join(FORMATS)}, got {format!r}.")
    if not layers or len(counts) != len(layers) or min(counts) < 1:
        raise ValueError(
            f"oracle prompt: expected one count of at least 1 per layer; layers {list(layers)}, counts {list(counts)}."
        )
    if len(set(layers)) != len(layers):
        raise ValueError(f"oracle prompt: layers {list(layers)} name one twice.")
    if len(placeholders) not in (1, len(layers)):
        raise ValueError(
            f"oracle prompt: {len(placeholders)} placeholders for {len(layers)} layers; give one, or one each."
        )
    if format == "A" and len(layers) > 1:
        raise ValueError(f"oracle prompt format A holds one layer, got {list(layers)}; use A' for several.")
    if format == "D" and len(set(counts)) > 1:
        raise ValueError(
            f"oracle prompt format D writes position by position, so counts must agree; got {list(counts)}."
        )
    if flat and format != "E":
        raise ValueError(f"flat prefixes exist in format E only, got format {format!r}.")
