"""The section `along` of a study: the probes of the run read along the replies of its evaluation."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from study.config import read_study
from study.run.runner import run_study
from study.schema import read_tables
from study.tokens import read_tokens
from tests.study_kit import SMALL, write_study

SECTION = "along: {perm: 19, boot: 100, fractions: [0, 0.5, 1], pool: [mean, last]}\n"
TINY = """\
name: tiny
pair: embedded
seed: 3
task: {path: interp.tasks.procedural, per_cell: 6, options: {cells: [baseline_compliant, baseline_noncompliant]}}
eval: {max_new_tokens: 120}
cache: {sites: 'resid_post.*', positions: last}
probes: {targets: [label, label.shuffled], groups: procedure, kinds: [ridge], perm: 19, boot: 100, transfer: none}
figures: {formats: [svg]}
"""


@pytest.mark.long
def test_a_run_with_the_section_has_its_table_its_figure_and_its_block(tmp_path: Path) -> None:
    run = tmp_path / "run"
    study = read_study(write_study(tmp_path, TINY + SECTION))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        finished = run_study(study, run, say=lambda _: None)
    assert "along" in finished.ran and not finished.failed
    table = read_tables(run)["along"]
    assert set(table["member"]) == {"engaged", "heuristic", "engaged - heuristic"}
    assert (table.loc[table["member"] == "engaged", "weights"] != "").all() and (table["data_sha256"] != "").all()
    tokens, replies = read_tokens(run / "steps" / "along" / "replies")
    assert len(replies) == 24 and set(replies["target"]) == {"label=noncompliant"} and len(tokens) > 200
    page = (run / "report.html").read_text()
    block = page[page.index('<section id="along"') :].split("</section>")[0]
    assert "How far into its own reply" in block and "without the confounds" in block and "<svg" in block
    shuffled = read_study(write_study(tmp_path, TINY + SECTION), overrides=["along.target=label.shuffled"])
    assert run_study(shuffled, run, say=lambda _: None).ran[0] == "along", (
        "of another target only this step is run again"
    )
    assert set(read_tables(run)["along"]["target"]) == {"label.shuffled=noncompliant"}
    assert run_study(shuffled, run, say=lambda _: None).ran == ()


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
