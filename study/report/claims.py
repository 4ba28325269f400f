"""Every claim that the tables of a run allow, corrected over the whole report; pure functions of the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from interp import stats
from interp.label_mass import MIN_MASS
from study.analyses.registry import analyses
from study.config.sections import SmallestEffects
from study.ledger import (
    VERDICTS,
    Above,
    Below,
    Claim,
    Control,
    Corrected,
    Evidence,
    Measured,
    Verdict,
    Within,
    judge,
)
from study.ledger_rows import Tables
from study.report.mass import judged, with_masses

__all__ = [
    "VERDICTS", "Above", "Below", "Claim", "Control", "Corrected", "Evidence", "Measured", "SmallestEffects", "Tables",
    "Verdict", "Within", "claims", "correct", "judge",
]  # fmt: skip


def claims(
    tables: Tables,
    *,
    failed: Mapping[str, str] | None = None,
    empty: Mapping[str, str] | None = None,
    smallest: SmallestEffects | None = None,
    min_label_mass: float = MIN_MASS,
) -> tuple[Claim, ...]:
    """Every claim that the tables allow, and for each analysis without tables the row "not tested".

    Args:
        tables: tables of a run by name, columns of `study.schema.COLUMNS`.
        failed: analysis -> why its step did not run to the end.
        empty: analysis -> why its step measured nothing.
        smallest: smallest effects of interest; those of the study, or the defaults.
        min_label_mass: below it nothing is claimed of answers that were read off the labels.
    """
    smallest = smallest or SmallestEffects()
    found: list[Claim] = []
    tables = with_masses(tables)
    for name, analysis in analyses().items():
        if analysis.claims is None:
            continue
        made = [judged(claim, min_label_mass) for claim in analysis.claims(tables, smallest)]
        cause = (failed or {}).get(name, "")
        why = f"the step failed: {cause}" if cause else (empty or {}).get(name, "")
        found += made if any(c.measured for c in made) or not why else [replace(c, why=why) for c in made]
    return correct(found)


def correct(found: Sequence[Claim]) -> tuple[Claim, ...]:
    """The claims with their p corrected within each question (an analysis) and then across questions.

    p of a claim is `Claim.p`. Both corrections of `interp.stats.hierarchical` are kept: Holm bounds the probability of
    any false rejection, FDR the expected share of false ones. The verdict uses the second, which without any effect at
    all bounds the same probability.
    """
    tested = [(i, claim.p, claim.analysis) for i, claim in enumerate(found) if claim.p is not None]
    if not tested:
        return tuple(found)
    places, p, questions = zip(*tested, strict=True)
    holm, fdr = (stats.hierarchical(p, questions, method=method) for method in ("holm", "fdr"))
    out = list(found)
    for i, by_holm, by_fdr in zip(places, holm.overall, fdr.overall, strict=True):
        out[i] = replace(out[i], corrected=Corrected(float(by_holm), float(by_fdr), len(p), len(set(questions))))
    return tuple(out)
