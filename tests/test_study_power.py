"""What `study plan` says that the n of every planned claim can show, before any weights are there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats as scipy_stats

from study.cli import main
from study.cli.study import SETTINGS
from study.config import Study, parse_study, read_study
from study.reach import Design
from study.report.registration import planned_claims
from study.run.power import Assumed, PlannedClaim, planned_power, power_lines
from tests.study_kit import SMALL, write_study
from tests.test_study_settings import setting

SIZES = ("task.per_cell=30", "cache.per_cell=20", "probes.targets=[label]", "heads.n=16", "heads.kinds=[mean, patch]",
         "heads.named=[L1.H0]", "steering.limit=60")  # fmt: skip


def embedded(folder: Path, *overrides: str) -> Study:
    return read_study(write_study(folder, SMALL), overrides=[*SIZES, *overrides])


def by_key(study: Study, *assumed: str) -> dict[str, PlannedClaim]:
    return {one.key: one for one in planned_power(study, Assumed.of(assumed))}


def head(planned: dict[str, PlannedClaim], kind: str) -> Design:
    """The design of L1.H0 in the engaged member, at the first of its sites."""
    own = [one.design for key, one in planned.items()
           if key.startswith(f"heads/{kind}/L1.H0") and key.endswith("/engaged")]  # fmt: skip
    assert own and own[0] is not None
    return own[0]


def test_every_planned_claim_has_a_design_of_its_own_size(tmp_path: Path) -> None:
    """Sizes counted from the study file: items of a cell, 19 cells in the cache, procedures of 2 twins, 60 steered."""
    study = embedded(tmp_path, "task.sizes={training_distribution: 40}")
    planned = by_key(study)
    assert set(planned) == set(planned_claims(study)) and all(one.design for one in planned.values())
    sizes = {key: one.design.size for key, one in planned.items() if one.design is not None}
    assert (sizes["eval/separates"].n, sizes["eval/equivalent"].n) == (30, 40)
    rows = sizes["probes/decodable/label/engaged"]
    assert rows.n == 19 * 20 and rows.n_groups is not None and rows.n_groups < rows.n
    whole, carried = head(planned, "necessary").size, head(planned, "carries").size
    assert (whole.n, whole.n_groups) == (32, 16) and carried.n == 16, "half of the twins flip the answer"
    steered = [size for key, size in sizes.items() if key.startswith("steering/")]
    assert steered and all(size.n == 60 for size in steered), "limit: 60"


def test_the_smallest_effect_of_a_head_is_that_of_a_t_test_over_all_heads(tmp_path: Path) -> None:
    """16 groups of 2 pairs, ICC 0.1, 32 heads: noncentral t by scipy, with the factor for few groups by hand."""
    design = head(by_key(embedded(tmp_path)), "necessary")
    n_effective, few = 32 / (1 + 0.1), 1 + 0.1 * (np.log(32) - 1.3) * (8 / 16) ** 2
    ncp = design.smallest() * np.sqrt(n_effective) / few
    assert scipy_stats.nct.sf(scipy_stats.t.isf(0.025 / 32, 15), 15, ncp) == pytest.approx(0.8, abs=0.005)


@pytest.mark.slow
def test_equivalence_cannot_be_shown_with_30_items_and_can_with_those_that_the_plan_asks_for(tmp_path: Path) -> None:
    """Normal approximation: ±0.05 at discordance 0.1 takes (1.96 + 1.28)²·0.1/0.05² = 420 items; Newcombe some more."""
    few = "task.sizes={training_distribution: 30}"
    design = by_key(embedded(tmp_path, few))["eval/equivalent"].design
    assert design is not None and design.smallest() > 0.05
    n = design.needed()
    assert n is not None and 420 <= n <= 1.1 * 420
    enough = by_key(embedded(tmp_path / "more", few.replace("30", str(n))))["eval/equivalent"].design
    assert enough is not None and enough.smallest() <= 0.0505
    text = "\n".join(power_lines(embedded(tmp_path / "text", few)))
    assert "equality within 0.23: not at the margin" in text


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_planned_without_weights(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Models of the hub are not there, nor rows of data: what depends on them says so, the rest has its n."""
    import yaml

    monkeypatch.chdir(tmp_path)
    (tmp_path / "BBQ").mkdir()
    for file in ("chains.jsonl", "labels.jsonl"):
        (tmp_path / file).write_text("")
    study = parse_study(yaml.safe_load(setting(name)), name)
    planned, text = planned_power(study), "\n".join(power_lines(study, power=0.8))
    assert planned and "n needed" in text and all(one.text in text for one in planned)
    if name in ("procedural", "esi", "embedded"):  # their items are generated
        assert all(one.design for one in planned), [one.why for one in planned]
    else:
        assert all(one.design or one.why for one in planned)
    if name == "procedural":
        assert "over 784 heads" in text and "a direction at layer 50%" in text, "of a model that nobody has read"


def test_assumptions_change_what_is_shown_and_strange_ones_are_refused(tmp_path: Path) -> None:
    small, large = (head(by_key(embedded(tmp_path), word), "necessary") for word in ("icc=0", "icc=0.5"))
    # design effects 1 and 1.5: the same t, so effects in the ratio of their roots
    assert large.smallest() / small.smallest() == pytest.approx(np.sqrt(1.5), rel=1e-3)
    assert Assumed.of(["head_sd=0.3", "n_heads=144"]) == Assumed(head_sd=0.3, n_heads=144)
    for word, said in (("sd=1", "expected one of"), ("icc=much", "expected a number after icc=")):
        with pytest.raises(ValueError, match=said):
            Assumed.of([word])


@pytest.mark.slow
def test_the_command_prints_it_with_the_n_for_the_power_asked_for(tmp_path: Path) -> None:
    path = str(write_study(tmp_path, setting("embedded")))
    done = CliRunner().invoke(main, ["study", "plan", path, "--out", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    assert "shown in 80 %" in done.output and "n needed" not in done.output
    options = ["--power", "0.9", "--assume", "icc=0.3", "--assume", "discordance=0.05"]
    done = CliRunner().invoke(main, ["study", "plan", path, "--out", str(tmp_path / "run"), *options])
    assert done.exit_code == 0, done.output
    assert "shown in 90 %" in done.output and "n needed" in done.output and "discordance 0.05" in done.output
    wrong = CliRunner().invoke(main, ["study", "plan", path, "--assume", "sd=1"])
    assert wrong.exit_code and "expected one of discordance" in wrong.output
