"""A number without an interval says why in the column that names the interval; figures caption the others."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from interp import stats
from study.analyses.eval.member import row
from study.figures import checks


@pytest.mark.filterwarnings("ignore::interp.stats.NoWidthWarning")
def test_a_row_without_an_interval_says_why() -> None:
    alike = stats.cluster_t([3.0] * 8, groups=np.arange(8))
    assert row("base", "all", "new_tokens", alike, interval=stats.RULE)["interval"] == stats.NO_SPREAD
    varied = stats.cluster_t([3.0] * 7 + [4.0], groups=np.arange(8))
    assert row("base", "all", "new_tokens", varied, interval=stats.RULE)["interval"] == stats.RULE
    assert stats.Estimate.undefined().interval_kind(stats.RULE) == stats.RULE  # no number, nothing to explain


def test_a_caption_names_the_interval_of_the_rows_that_have_one() -> None:
    table = pd.DataFrame({"interval": [stats.RULE, stats.NO_SPREAD]})
    assert checks.interval_kind(table, figure="x") == stats.RULE
    assert checks.interval_kind(table.iloc[[1]], figure="x") == stats.NO_SPREAD
    with pytest.raises(ValueError, match="interval"):
        checks.interval_kind(pd.DataFrame({"interval": ["Wilson", stats.RULE]}), figure="x")


def test_a_head_without_an_interval_costs_the_forest_its_row_and_not_the_figure() -> None:
    from study.analyses.heads.figures import forest_rows
    from study.figures import top_heads
    from tests.figure_tables import forest_table

    table = forest_table().reset_index(drop=True).assign(metric="abl_logit")
    table.loc[1, ["lo", "hi"]] = np.nan
    with pytest.raises(ValueError, match="column 'lo' is NaN"):
        top_heads(table)
    shown = forest_rows(table)
    assert len(shown) == len(table) - 1 and len(top_heads(shown).rows) <= len(shown)
