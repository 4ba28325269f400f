"""What every figure must satisfy: texts apart and on the page, the same bytes in another process."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

from study import figures
from study.figures import style

ROOT = Path(__file__).resolve().parent.parent

_SCRIPT = """
import hashlib, importlib, sys
from study.figures.save import pdf, png, svg
assert not {{"matplotlib", "pandas"}} & set(sys.modules), "imported before a figure is drawn"
for name, draw in importlib.import_module({module!r}).DRAW.items():
    one = draw()
    print(name, *(hashlib.sha256(b).hexdigest() for b in (pdf(one), svg(one).encode(), png(one, dpi=100))))
assert "matplotlib.pyplot" not in sys.modules
"""


def visible_texts(figure) -> list[tuple[str, object]]:
    """Every text that is drawn, with its box in pixels."""
    from matplotlib.text import Text

    ticks, shown = set(), []
    for ax in figure.axes:
        for axis, limits in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                ticks.update({tick.label1, tick.label2})
            low, high = sorted(limits)
            slack = 1e-9 * (high - low)
            labels = zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=False)
            shown += [label for place, label in labels if low - slack <= place <= high + slack]
    shown += [text for text in figure.findobj(Text) if text not in ticks]
    renderer = figure.canvas.get_renderer()
    return [
        (text.get_text(), text.get_window_extent(renderer))
        for text in shown
        if text.get_visible() and text.get_text().strip()
    ]


def assert_marks_have_words(one: figures.Drawn, *, prefix: str) -> None:
    """The SVG stands inline under a prefix: unique ids, the alt text, and a title on every mark that has words."""
    from study.figures.save import svg

    text = svg(one, prefix=prefix)
    root = ElementTree.fromstring(text.encode())
    ids = [element.get("id", "") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids)) and root.get("aria-label") == one.alt
    assert {f"{prefix}{key}" for key in one.titles} <= set(ids)
    assert len(re.findall(rf'id="{prefix}mark-[^"]+"><title>[^<]+</title>', text)) == len(one.titles) > 0


def assert_texts_are_clear(draw: Callable[[], figures.Drawn]) -> None:
    """No text of the figure leaves the page or covers another."""
    with style.styled():
        figure = draw().figure
        figure.canvas.draw()
        texts = visible_texts(figure)
    assert len(texts) >= 5
    width, height = figure.bbox.size
    for text, box in texts:
        assert box.x0 >= -0.5 and box.y0 >= -0.5 and box.x1 <= width + 0.5 and box.y1 <= height + 0.5, text
    for (a, one), (b, two) in combinations(texts, 2):
        gap_x, gap_y = max(one.x0, two.x0) - min(one.x1, two.x1), max(one.y0, two.y0) - min(one.y1, two.y1)
        # boxes reach from ascender to descender: neighbouring lines may share up to 2.2 px of empty leading at 100 dpi
        assert gap_x > -0.5 or gap_y > -2.2, (a, b)


def assert_same_bytes_elsewhere(files: Mapping[str, Mapping[str, bytes]], module: str) -> None:
    """A process with another hash seed, clock and time zone writes these bytes from the tables of `module`.DRAW."""
    env = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT), "SOURCE_DATE_EPOCH": "1", "TZ": "Asia/Tokyo"}
    script = _SCRIPT.format(module=module)
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    here = [
        " ".join([name, *(hashlib.sha256(content).hexdigest() for content in rendered.values())])
        for name, rendered in files.items()
    ]
    assert run.stdout.splitlines() == here


def assert_files_are_clean(files: Mapping[str, Mapping[str, bytes]]) -> None:
    """No date, producer, Type 3 font, link or path in any file; fonts are embedded as TrueType."""
    for name, rendered in files.items():
        for content in rendered.values():
            for word in (b"Type3", b"CreationDate", b"/Producer", b"dc:date", b"/home", b"/tmp", b"/URI"):
                assert word not in content, (name, word)
            assert str(ROOT).encode() not in content
        assert b"FontFile2" in rendered["pdf"], "fonts are embedded as TrueType"
