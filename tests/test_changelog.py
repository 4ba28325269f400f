"""CHANGELOG.md: under a version each heading stands once, and no entry is there twice."""

from __future__ import annotations

import re
from pathlib import Path

TEXT = (Path(__file__).resolve().parent.parent / "CHANGELOG.md").read_text(encoding="utf-8")


def test_headings_and_entries_stand_once() -> None:
    versions = re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]
    assert versions
    for version in versions:
        headings = re.findall(r"^### (.+)$", version, flags=re.MULTILINE)
        entries = [" ".join(one.split()) for one in re.findall(r"^- .+(?:\n  .+)*", version, flags=re.MULTILINE)]
        assert headings and sorted(set(headings)) == sorted(headings)
        assert len(entries) > len(headings) and [one for one in entries if entries.count(one) > 1] == []
