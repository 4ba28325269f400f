"""Rates over simulated studies: checked against what is promised, and written down for the documentation."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.stats import binom

from interp.stats import clopper_pearson

PAGE = Path(__file__).parents[2] / "docs" / "concepts" / "validity.md"
SURE = 1e-3
"""A check fails where the measured rate has a smaller probability than this under the promise."""


@dataclass(frozen=True)
class Rate:
    """One row of docs/concepts/validity.md.

    Attributes:
        kind:     what is promised: `level` (false positives), `coverage`, or `power`.
        name:     the public function or rule.
        design:   structure of the simulated data, in words.
        promised: the promise, in words (`≤ 0.05`, `0.93–0.97`).
        before:   the rate of the version before, where it was measured.
    """

    kind: str
    name: str
    design: str
    promised: str
    hits: int
    n_studies: int
    before: str = ""

    @property
    def slug(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", f"{self.kind} {self.name} {self.design}".lower()).strip("-")

    @property
    def row(self) -> str:
        """How the row of the page begins."""
        return f"| {escaped(self.name)} | {escaped(self.design)} |"

    @property
    def shown(self) -> str:
        e = clopper_pearson(self.hits, self.n_studies)
        return f"{e.value:.3f} [{e.lo:.3f}, {e.hi:.3f}]"


@dataclass(frozen=True)
class Recorder:
    """Checks rates; writes each to `out` as a small file where a folder is given, else finds its row in the page."""

    out: str | None

    def __call__(
        self,
        hits: Sequence[bool] | np.ndarray,
        *,
        kind: str,
        name: str,
        design: str,
        at_most: float = 1.0,
        at_least: float = 0.0,
        before: str = "",
    ) -> None:
        """Fail where the hits are incompatible with a rate in [at_least, at_most] (binomial tail below 0.001)."""
        n, k = len(hits), int(np.sum(hits))
        assert n > 0, "no study was run"
        rate = Rate(kind, name, design, _promise(at_least, at_most), k, n, before)
        if self.out:
            folder = Path(self.out)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{rate.slug}.json").write_text(json.dumps(asdict(rate)))
        else:
            known = PAGE.read_text() if PAGE.exists() else ""
            assert rate.row in known, f"{rate.row} is not in docs/concepts/validity.md; run make test-slow"
        too_many = binom.sf(k - 1, n, at_most) < SURE
        too_few = binom.cdf(k, n, at_least) < SURE
        assert not too_many, f"{name}, {design}: {kind} {rate.shown}, promised {rate.promised}"
        assert not too_few, f"{name}, {design}: {kind} {rate.shown}, promised {rate.promised}"


def escaped(text: str) -> str:
    """Text of a cell of a Markdown table."""
    return text.replace("|", "\\|")


def _promise(at_least: float, at_most: float) -> str:
    if at_most == 1.0:
        return f"≥ {at_least:g}"
    return f"≤ {at_most:g}" if at_least == 0.0 else f"{at_least:g}–{at_most:g}"
