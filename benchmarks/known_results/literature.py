"""What the literature says about each claim: shown in SCIENCE.md next to what was measured."""

from __future__ import annotations

LITERATURE: dict[str, str] = {}
"""By claim, such as `induction/score`."""
