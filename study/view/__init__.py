"""Coloured tokens: one self-contained HTML page that shows scores along replies, both members side by side.

    from study.view import of_choices, of_lens, of_monitor, of_pattern, of_replies

Each returns a `View`: shown in a notebook as it is, written to a file by `View.save`. `diptych view FOLDER` makes the
page of a folder of `diptych probes along`.
"""

from study.view.answers import of_choices
from study.view.data import Item, Strip, Track
from study.view.lens import of_lens
from study.view.pattern import of_pattern
from study.view.scores import of_monitor, of_replies
from study.view.views import View

__all__ = ["Item", "Strip", "Track", "View", "of_choices", "of_lens", "of_monitor", "of_pattern", "of_replies"]
