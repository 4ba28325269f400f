"""Members whose items give no direction: a finding with its reason, for one member as for all, not a failed step."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from steering.rows import NoDirectionError
from study.analyses.steering import step
from study.config import read_study
from study.report import render
from study.run.runner import run_study
from study.schema import read_tables
from tests.steering_kit import made_up
from tests.study_kit import statuses, write_study

STUDY = """\
name: none
pair: embedded
seed: 5
task: {path: interp.tasks.procedural, per_cell: 2}
cache: {sites: resid_post.2, positions: last}
steering: {groups: procedure, target: surface_label, where: {surface_label: [compliant]}, toward: noncompliant,
           away_from: compliant, layers: [2], min_items: 2, min_groups: 1}
"""


def test_a_study_in_which_no_member_has_both_classes_ends_and_says_why(tmp_path: Path) -> None:
    out = tmp_path / "run"
    finished = run_study(read_study(write_study(tmp_path, STUDY)), out, say=lambda line: None)
    assert set(finished.failed) == {"figures"}  # there is no table to draw
    assert statuses(out)["steering"] == "done"
    assert not {"steering", "steering_slopes"} & set(read_tables(out))
    page = render(out)
    why = "class &#39;noncompliant&#39; has no example to fit on"
    assert f"engaged: {why}" in page and f"heuristic: {why}" in page
    assert "Step steering did not finish" not in page and "the step failed" not in page
    assert 'id="steering"' in page and "no steering in this study" not in page


def test_a_member_without_a_direction_leaves_the_curves_of_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    curve = SimpleNamespace(out=tmp_path / "dose")
    (curve.out / "heuristic").mkdir(parents=True)

    def job(context: Any, member: str, *_: object) -> Any:
        if member == "engaged":
            raise NoDirectionError("no direction at layer 2: the classes are not separable")
        return SimpleNamespace(by_site=lambda: [curve])

    for member in ("engaged", "heuristic"):
        (tmp_path / member).mkdir()
        made_up(layers=(2,)).save(tmp_path / member / "fit-0.safetensors")
    monkeypatch.setattr(step, "_members", lambda _: ("engaged", "heuristic"))
    monkeypatch.setattr(step, "_chosen_layers", lambda *_: (2,))
    monkeypatch.setattr(step, "_job", job)
    monkeypatch.setattr("study.analyses.steering.store.is_finished", lambda _: True)
    context: Any = SimpleNamespace(study=None, folder=tmp_path)
    assert list(step._jobs(context)) == [("heuristic", curve, ("heuristic",))]
