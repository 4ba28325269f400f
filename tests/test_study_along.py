"""The section `along` of a study: the probes of the run read along the replies of its evaluation."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest

from study.config import read_study
from study.run.runner import run_study
from study.schema import read_tables
from study.tokens import read_tokens
from tests.study_kit import SMALL, write_study

SECTION = "along: {perm: 19, boot: 100, fractions: [0, 0.5, 1], pool: [mean, last]}\n"


@pytest.mark.slow
def test_a_run_with_the_section_has_its_table_its_figure_and_its_block(small_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(small_run, run)
    study = read_study(write_study(tmp_path, SMALL + SECTION))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        finished = run_study(study, run, say=lambda _: None)
    assert "along" in finished.ran and not {"eval", "cache", "probes", "heads"} & set(finished.ran)
    table = read_tables(run)["along"]
    assert {"engaged", "heuristic", "engaged - heuristic"} == set(table["member"])
    assert (table.loc[table["member"] == "engaged", "weights"] != "").all()
    assert (table["data_sha256"] != "").all()
    tokens, replies = read_tokens(run / "steps" / "along" / "replies")
    assert len(replies) == 2 * 76 and set(replies["target"]) == {"surface_label=noncompliant"} and len(tokens) > 500
    page = (run / "report.html").read_text()
    block = page[page.index('<section id="along"') :].split("</section>")[0]
    assert "How far into its own reply" in block and "without the confounds" in block and "<svg" in block
    assert run_study(study, run, say=lambda _: None).ran == ()


@pytest.mark.parametrize(
    ("override", "word"),
    [
        ("along.target=mood", "probes.targets"),
        ("along.mode=thinking", "eval.modes"),
        ("eval.generate=false", "eval.generate"),
        ("probes.test_share=0", "probes.test_share"),
        ("along.pool=[middle]", "max, mean, last"),
        ("probes=false", "needs"),
    ],
)
def test_what_cannot_run_is_refused_before_anything_runs(tmp_path: Path, override: str, word: str) -> None:
    from study.run.steps import steps_of

    with pytest.raises(ValueError, match=word):
        study = read_study(write_study(tmp_path, SMALL + SECTION), overrides=[override])
        steps = steps_of(study)
        check = steps["along"].check
        assert check is not None
        check(study)
