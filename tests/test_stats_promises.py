"""The check that users run on their own design: it counts what it says, and it finds a broken promise."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from interp import stats
from interp.stats import promises
from study.cli import main

DESIGN = stats.Design(stats.group_sizes(8, 6, equal=False), shape="binary", mean=0.7)


@pytest.fixture(scope="module")
def found() -> stats.Verification:
    return stats.verify(DESIGN, n_studies=30, seed=5)


def test_a_row_counts_the_studies_whose_interval_covers(found: stats.Verification):
    row, rng = found.rows[2], np.random.default_rng([5, 2])
    assert row.statistic == "wilson_clustered" and row.kind == "coverage"
    hits = 0
    for _ in range(30):
        e = stats.wilson_clustered(DESIGN.draw(rng), groups=DESIGN.groups)
        hits += e.lo <= 0.7 <= e.hi
    exact = stats.clopper_pearson(hits, 30)
    assert (row.rate, row.n_refused) == (exact, 0)


def test_every_promise_names_its_statistic_and_the_table_holds_them(found: stats.Verification):
    assert {row.statistic for row in found.rows} == {
        "cluster_mean", "paired_difference", "wilson_clustered", "auroc", "auroc_difference", "tost_paired",
        "mean_test", "sign_flip",
    }  # fmt: skip
    table = found.table()
    assert len(table) == len(found.rows) == 10 and set(table["kind"]) == {"coverage", "level"}
    assert (table["lo"] <= table["rate"]).all() and (table["n"] + table["n_refused"] == 30).all()
    for text in (str(found), found._repr_html_()):
        assert "8 groups of" in text and "tost_paired" in text and "[0." in text
    assert stats.verify(DESIGN, n_studies=30, seed=5) == found


def test_an_interval_that_is_too_narrow_is_called_broken(monkeypatch: pytest.MonkeyPatch):
    narrow = lambda values, **_: stats.Estimate(values.mean(), values.mean(), values.mean(), len(values), 8)  # noqa: E731
    monkeypatch.setattr(promises, "cluster_mean", narrow)
    monkeypatch.setattr(promises, "tost_paired", lambda a, b, **kw: stats.tost_paired(a, a, groups=None, margin=0.9))
    found = stats.verify(DESIGN, n_studies=40)
    assert {"cluster_mean", "tost_paired"} <= {row.statistic for row in found.broken}
    result = CliRunner().invoke(main, ["verify", "--groups", "8", "--size", "6", "--studies", "40"])
    assert result.exit_code == 1 and "broken" in result.output


def test_studies_without_a_result_are_counted_not_hidden():
    found = stats.verify(stats.Design((1,) * 12, icc=0.0), n_studies=40, positive=0.05)
    mixed = next(r for r in found.rows if r.statistic == "auroc" and "both labels" in r.data)
    # no positive among 12 examples: 0.95 to the 12th = 0.54 of the studies
    assert mixed.n_refused + mixed.rate.n == 40 and 10 <= mixed.n_refused <= 33
    none = stats.Promise("level", "x", "y", 0.06, stats.Estimate.undefined(), 40)
    assert (none.verdict, none.measured) == ("no result", "–")
    with pytest.raises(ValueError, match="n_studies: expected at least 1"):
        stats.verify(DESIGN, n_studies=0)


def test_the_command_writes_the_rows(tmp_path):
    out = tmp_path / "rows.csv"
    result = CliRunner().invoke(
        main, ["verify", "--groups", "6", "--size", "4", "--unequal", "--shape", "gaussian", "--mean", "0", "--studies",
               "20", "--positive", "0.3", "--seed", "3", "--icc", "0.1", "--out", str(out)],
    )  # fmt: skip
    assert "6 groups of" in result.output and "0.3 positive" in result.output
    assert out.read_text().splitlines()[0].startswith("kind,statistic,data,promised,rate")
