"""The claims of a whole study: without any effect none is supported or qualified; with effects they are."""

from __future__ import annotations

import numpy as np
import pytest

from study.report.claims import claims
from tests.validity.whole_study import study_tables


@pytest.mark.parametrize("n_groups", [10, 40])
def test_a_study_without_any_effect_supports_and_qualifies_nothing(n_groups: int, studies: int, record_rate) -> None:
    rng = np.random.default_rng(n_groups)
    verdicts = [{c.verdict for c in claims(study_tables(n_groups, rng))} for _ in range(studies)]
    design = f"all analyses, no effect anywhere, {n_groups} groups"
    record_rate(
        ["supported" in v for v in verdicts], kind="level", name="claims ledger, any supported", design=design,
        at_most=0.05,
    )  # fmt: skip
    record_rate(
        [bool(v & {"supported", "qualified"}) for v in verdicts], kind="level",
        name="claims ledger, any supported or qualified", design=design, at_most=0.05,
        before="0.79–0.83 with a qualified head claim",
    )  # fmt: skip


def test_a_study_with_effects_supports_them(studies: int, record_rate) -> None:
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(max(10, studies // 10)):
        found = [c for c in claims(study_tables(20, rng, size=1.0)) if not c.text.startswith("L") or "L0.H0" in c.text]
        shares += [c.verdict == "supported" for c in found]
    record_rate(shares, kind="power", name="claims ledger, claims that are true",
                design="all analyses, large effects, 20 groups", at_least=0.8)  # fmt: skip
