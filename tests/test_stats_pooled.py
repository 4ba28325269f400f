"""Random effects over studies, and tables of several runs: seeds as repeats, pairs as units."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from interp import stats
from interp.stats.intervals import t_value
from study.cli import main
from study.combine import combine
from study.schema import write_table
from tests.faults.kit import signed
from tests.report_kit import write_run
from tests.report_tables import pair_table


@pytest.mark.parametrize("seed", range(5))
def test_random_effects_are_those_of_statsmodels(seed: int) -> None:
    from statsmodels.stats.meta_analysis import combine_effects

    rng = np.random.default_rng(seed)
    se = rng.uniform(0.05, 0.2, 6)
    y = rng.normal(0.3, 0.15 * (seed > 1), 6) + rng.normal(0, se)
    other: Any = combine_effects(y, se**2, method_re="iterated", use_t=True)
    found = stats.random_effects(y, se)
    expected: Any = other.summary_frame().loc["random effect wls"]  # Hartung-Knapp-Sidik-Jonkman
    assert found.mean.value == pytest.approx(expected["eff"], rel=1e-5)
    assert (found.mean.lo, found.mean.hi) == pytest.approx((expected["ci_low"], expected["ci_upp"]), rel=1e-4)
    assert found.tau**2 == pytest.approx(max(other.tau2, 0.0), abs=1e-6)
    assert found.share == pytest.approx(max(other.i2, 0.0), abs=1e-9)


def test_two_alike_studies_give_a_t_interval_of_one_degree_of_freedom() -> None:
    """y = 0.2, 0.6, equal errors s = 0.1: tau² = (0.4²/2) - 0.01 = 0.07, interval 0.4 ± 12.706 · sqrt(0.08/2)."""
    found = stats.random_effects([0.2, 0.6], [0.1, 0.1])
    assert found.tau**2 == pytest.approx(0.07)
    assert found.mean.hi - 0.4 == pytest.approx(12.7062 * np.sqrt(0.04), rel=1e-4)
    assert found.range == (0.2, 0.6) and found.mean.n == 2
    assert stats.random_effects([0.2, 0.2, 0.2], [0.1, 0.2, 0.1]).tau == 0


@pytest.mark.parametrize(
    ("values", "se", "said"),
    [
        ([0.1], [0.1], "values"),
        ([0.1, 0.2], [0.1, 0.0], "above 0"),
        ([0.1, 0.2], [0.1], "se"),
        ([0.1, np.nan], [1.0, 1.0], "values"),
    ],
)
def test_studies_that_cannot_be_weighed_are_refused(values: list[float], se: list[float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        stats.random_effects(values, se)


@pytest.mark.parametrize("seed", range(3))
def test_the_standard_error_of_an_interval_is_read_back(seed: int) -> None:
    """Equal groups: the jackknife of a mean is sd(group means)/sqrt(G), and one arm of the interval is t of it."""
    rng = np.random.default_rng(seed)
    x, groups = rng.exponential(size=60), np.repeat(np.arange(12), 5)
    own = stats.cluster_t(x, groups=groups)
    means = x.reshape(12, 5).mean(1)
    assert stats.standard_errors([own])[0] == pytest.approx(means.std(ddof=1) / np.sqrt(12), rel=1e-6)
    assert own.hi - own.value > own.value - own.lo  # skewed to the right, and widened there only


def test_the_standard_error_of_a_rate_near_1_is_not_that_of_its_shorter_arm() -> None:
    """95 of 100: sqrt(.95 · .05/100) = 0.0218; Wilson's arms are 0.0618 and 0.0285 = t · (0.0311, 0.0144)."""
    rate = stats.wilson(95, 100)
    found = stats.standard_errors([rate], is_bounded=True)[0]
    assert found == pytest.approx((0.97846 - 0.88825) / 2 / 1.98422, rel=1e-3)
    assert stats.standard_errors([rate])[0] < 0.7 * np.sqrt(0.95 * 0.05 / 100) < found
    assert stats.standard_errors([stats.wilson(100, 100)], is_bounded=True)[0] > 0


def run_with(root: Path, values: dict[str, float], weights: str) -> Path:
    """A run whose differences are shifted; `weights` says which pair it is of."""
    table = pair_table()
    shift = table["cell"].map(values).fillna(0.0)
    for column in ("value", "lo", "hi"):
        table[column] = table[column] + shift
    write_run(root, tables={"pair": table}, drawn={})
    content = json.loads((root / "run.json").read_text())
    for own in content["checkpoints"].values():
        own["weights"] = weights + own["weights"][4:]
    (root / "run.json").write_text(json.dumps(signed(content, "sha256")))
    return root


HARD = "adversarial_surface_compliant"


def difference(table: pd.DataFrame, cell: str = HARD) -> pd.Series:
    return table[(table["cell"] == cell) & (table["metric"] == "accuracy_difference")].iloc[0]


def test_repeats_of_one_pair_give_a_spread_and_no_narrower_interval(tmp_path: Path) -> None:
    shifts = (0.0, 0.06, -0.03)
    runs = [run_with(tmp_path / f"seed-{i}", {HARD: s}, "aaaa") for i, s in enumerate(shifts)]
    row = difference(combine(runs, "pair"))
    assert (row["n_runs"], row["n_pairs"]) == (3, 1)
    assert row["value"] == pytest.approx(0.51 + np.mean(shifts)) and row["spread"] == pytest.approx(
        np.std(shifts, ddof=1)
    )
    assert (row["least"], row["most"]) == pytest.approx((0.48, 0.57))
    assert np.isnan(row["lo"]) and row["half_width"] == pytest.approx(0.055)


def test_pairs_are_units_and_their_repeats_are_averaged_before(tmp_path: Path) -> None:
    shifts = {"aaaa": (0.0, 0.02), "bbbb": (0.2,), "cccc": (-0.1,)}
    runs = [run_with(tmp_path / f"{w}-{i}", {HARD: s}, w) for w, own in shifts.items() for i, s in enumerate(own)]
    row = difference(combine(runs, "pair"))
    se = 0.055 / t_value(0.95, 112 // 3 - 1)
    expected = stats.random_effects([0.51 + np.mean(own) for own in shifts.values()], [se] * 3)
    assert (row["value"], row["lo"], row["hi"]) == pytest.approx(
        (expected.mean.value, expected.mean.lo, expected.mean.hi)
    )
    assert (row["n_runs"], row["n_pairs"], row["tau"]) == (4, 3, pytest.approx(expected.tau))
    assert row["spread"] == pytest.approx(np.std((0.0, 0.02), ddof=1))


def test_the_command_prints_one_row_per_quantity_of_all_runs(tmp_path: Path) -> None:
    runs = [str(run_with(tmp_path / w, {HARD: s}, w)) for w, s in (("aaaa", 0.0), ("bbbb", 0.1))]
    done = CliRunner().invoke(main, ["tables", *runs, "--table", "pair", "--where", "metric=accuracy_difference"])
    assert done.exit_code == 0, done.output
    assert "pairs as units" in done.output and len(done.output.strip().splitlines()) == 1 + 5
    assert CliRunner().invoke(main, ["tables", *runs]).exit_code == 1
    assert (
        "two or more different runs" in CliRunner().invoke(main, ["tables", runs[0], runs[0], "--table", "pair"]).output
    )
    one = CliRunner().invoke(main, ["tables", runs[0], "--table", "pair", "--limit", "2"])
    assert one.exit_code == 0 and "more rows" in one.output


def test_a_run_without_the_table_is_named(tmp_path: Path) -> None:
    runs = [run_with(tmp_path / w, {}, w) for w in ("aaaa", "bbbb")]
    shutil.rmtree(runs[1] / "tables")
    write_table(pair_table(), runs[1] / "tables", "other")
    with pytest.raises(ValueError, match="no table 'pair'"):
        combine(runs, "pair")


def test_a_study_is_repeated_over_seeds(tmp_path: Path) -> None:
    from tests.study_kit import write_study
    from tests.test_study_keys import EVAL

    file = write_study(tmp_path, EVAL.replace("per_cell: 2", "per_cell: 2, limit: 10") + "report: false\n")
    wrong = CliRunner().invoke(main, ["study", "run", str(file), "--out", str(tmp_path / "r"), "--seeds", "1,1"])
    assert wrong.exit_code == 1 and "different whole numbers" in wrong.output
    done = CliRunner().invoke(
        main, ["study", "run", str(file), "--out", str(tmp_path / "r"), "--seeds", "1,2", "--quiet"]
    )
    assert done.exit_code == 0, done.output
    assert sorted(p.name for p in (tmp_path / "r").iterdir()) == ["seed-1", "seed-2"]
    assert "spread" in done.output and "training_distribution" in done.output
