"""Known truths on pairs that are not the shipped one: its members swapped, and one member against itself."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from study.embedded import TRUTHS, weights_folder
from study.known_truth.show import TABLE, counts
from study.report.run_folder import read_run_folder
from study.report.run_ledger import ledger_of
from study.schema import read_table
from tests.study_kit import main as run_study
from tests.study_kit import write_study

CELLS = "[training_distribution, adversarial_surface_compliant, adversarial_surface_noncompliant, ord_swap_flip, " \
        "ord_swap_rebind]"  # fmt: skip
STUDY = """\
name: {name}
pair:
  engaged: {{name: engaged, base: {base}, adapter: {engaged}}}
  heuristic: {{name: heuristic, base: {base}, adapter: {heuristic}}}
seed: 5
task: {{path: interp.tasks.procedural, per_cell: 16, rendering: log, options: {{cells: {cells}}}}}
eval: {{max_new_tokens: 120, tokens_per_batch: 16384}}
heads: {{n: 6, kinds: [mean], slot: ''}}
known_truth: {{path: '{truths}'}}
figures: false
report: false
"""
ABOUT_ENGAGED = ("eval/separates", "eval/binding")


def run_of(folder: Path, *, engaged: str, heuristic: str) -> Path:
    """A small study of a pair whose roles are taken by these members of the shipped one."""
    weights = weights_folder()
    text = STUDY.format(name=f"{engaged}-{Path(heuristic).name}", base=weights / "base", engaged=weights / engaged,
                        heuristic=weights / heuristic, cells=CELLS, truths=TRUTHS)  # fmt: skip
    run_study(str(write_study(folder, text)), str(folder / "run"))
    return folder / "run"


@pytest.fixture(scope="module")
def swapped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_of(tmp_path_factory.mktemp("swapped"), engaged="heuristic", heuristic="engaged")


def outcomes(run: Path) -> pd.Series:
    table = read_table(run, TABLE)
    return table.set_index("claim_key")["verdict"]


@pytest.mark.slow
def test_swapped_members_contradict_what_is_claimed_of_the_engaged_one(swapped: Path) -> None:
    ledger = {claim.key: claim for claim in ledger_of(read_run_folder(swapped), [])}
    assert ledger["eval/separates"].verdict == "contradicted"
    assert ledger["eval/binding"].verdict in ("not supported", "not testable")  # half right, as a constant answer is
    found = outcomes(swapped)
    assert found["eval/separates"] == "missed"
    assert found["reliance-heuristic"] in ("missed", "not_testable")


@pytest.mark.slow
def test_what_was_planted_in_the_other_member_is_a_false_alarm(swapped: Path) -> None:
    """The member in the engaged role answers by the tone now; the comparison says so, so it can raise an alarm."""
    assert outcomes(swapped)["reliance-engaged"] == "false_alarm"
    assert counts(read_table(swapped, TABLE)).false_alarm >= 1


@pytest.mark.slow
def test_a_member_against_itself_supports_no_difference(tmp_path: Path) -> None:
    twin = shutil.copytree(weights_folder() / "engaged", tmp_path / "twin")  # a pair of one folder is refused
    run = run_of(tmp_path, engaged="engaged", heuristic=str(twin))
    differences = [claim for claim in ledger_of(read_run_folder(run), []) if claim.key in
                   ("eval/separates", "heads/changed")]  # fmt: skip
    assert [claim.key for claim in differences if claim.measured is not None]
    assert {claim.verdict for claim in differences} <= {"not supported", "not testable", "not tested"}
    pair = read_table(run, "pair")
    assert (pair.loc[pair["metric"] == "accuracy_difference", "value"] == 0).all()
    found = outcomes(run)
    assert found["eval/separates"] in ("missed", "not_testable")
    assert {found[key] for key in ("aligned", "distractor") if key in found} <= {"silent", "not_testable"}
    assert found["binding-heuristic"] == "false_alarm"  # the member in that role binds as the engaged one does
