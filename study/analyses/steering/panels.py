"""The scores of a dose curve that have a panel: tables name them by key, figures by the name of the panel."""

from __future__ import annotations

from math import inf
from typing import NamedTuple


class Panel(NamedTuple):
    """How a score is drawn: its name, its unit, its smallest and largest level."""

    name: str
    unit: str
    bounds: tuple[float, float]


_RATE, _SIGNED = (0.0, 1.0), (-1.0, 1.0)
PANELS = {
    "margin": Panel("logit margin", "log p(toward) − log p(away), nats", (-inf, inf)),
    "amb_commit_bias": Panel("commit bias", "2 P(stereo | commit) − 1", _SIGNED),
    "coverage": Panel("coverage", "share", _RATE),
    "s_amb": Panel("s_AMB", "(1 − accuracy) × bias", _SIGNED),
    "accuracy": Panel("accuracy", "share right", _RATE),
    "p_gold": Panel("p(gold)", "probability among labels", _RATE),
    "acc_disambig": Panel("acc. disambig", "accuracy", _RATE),
    "abstain_disambig": Panel("abstain disambig", "share", _RATE),
    "kl": Panel("KL", "nats, last token", (0.0, inf)),
}
"""Score, as in the column `metric`, -> its panel, in the order of the panels."""


def panel_name(metric: str) -> str:
    """The name of a score in figures: that of its panel, else its own."""
    return PANELS[metric].name if metric in PANELS else metric
