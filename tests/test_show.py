"""What a notebook shows of a result: static, escaped, at most twelve rows, with interval and n."""

from __future__ import annotations

import re

import numpy as np
import pytest

from interp import stats
from interp.show import html_table, interval, p_value
from tests.test_report_text import read


def test_cells_are_text_and_rows_beyond_twelve_are_counted():
    html = html_table(["a<b"], [[f"<script>{i}</script>"] for i in range(15)], title="t&", rest="x.table()")
    found = read(html)
    assert {tag for tag, _ in found.tags} == {"p", "table", "thead", "tr", "th", "tbody", "td", "code"}
    assert sum(tag == "td" for tag, _ in found.tags) == 12
    assert "<script>11</script>" in found.text
    assert "3 more in x.table()." in found.text
    assert "more" not in read(html_table(["a"], [["b"]] * 12)).text


@pytest.mark.parametrize(
    ("args", "text"),
    [((0.7, 0.61, 0.78), "0.70 [0.61, 0.78]"), ((-0.1, -0.2, 0.0), "−0.10 [−0.20, 0.00]"), ((float("nan"),) * 3, "–")],
)
def test_an_interval_is_written_with_a_true_minus(args, text):
    assert interval(*args) == text
    assert p_value(0.0004) == "< 0.001"
    assert p_value(0.0312) == "0.031"
    assert p_value(float("nan")) == "–"


def test_a_comparison_shows_both_sides_the_difference_and_its_tests():
    rng = np.random.default_rng(0)
    a, b = rng.random(60) < 0.9, rng.random(60) < 0.5
    found = stats.compare_paired(a, b, groups=np.arange(60) // 2)
    html = found._repr_html_()
    assert "<script" not in html
    assert "60 (30)" in html
    assert found.equivalence.wording in html
    assert len(re.findall(r"\[[+−0-9.]+, [+−0-9.]+\]", read(html).text)) == 3


def test_an_estimate_shows_its_interval_and_n():
    assert stats.wilson(7, 10)._repr_html_() == str(stats.wilson(7, 10))


def test_head_effects_show_the_largest_with_their_control(heads):
    html = heads._repr_html_()
    found = read(html)
    assert sum(tag == "tr" for tag, _ in found.tags) <= 13
    for words in ("control heads", "p (max over heads)", "reported on the other", heads.plan.kind):
        assert words in found.text


def test_a_matching_shows_its_null(heads):
    from interp.heads import match_heads

    text = read(match_heads(heads, heads, n_permutations=50)._repr_html_()).text
    assert "under permuted items" in text
    assert "L1.H0" in text


@pytest.fixture(scope="module")
def heads():
    from interp.heads import Mean, head_sweep
    from tests.heads_kit import retrieval_model, retrieval_pairs

    return head_sweep(retrieval_model(1.0, 0.6), retrieval_pairs(12), kind=Mean())
