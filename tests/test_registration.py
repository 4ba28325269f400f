"""A study that is registered before it is run: what is written, and what the report says of it afterwards."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest
from click.testing import CliRunner

from study.cli import main
from study.config import Study, parse_study, read_study
from study.report import render
from study.report.claims import claims
from study.report.registration import compare, digest_of, planned_claims, read_registration, register
from study.report.run_folder import read_run_folder
from tests.report_kit import write_run
from tests.report_tables import all_tables
from tests.study_kit import SMALL, write_study
from tests.test_report_text import read


def embedded() -> Study:
    import yaml

    return parse_study(yaml.safe_load(files("study.settings").joinpath("embedded.yaml").read_text()), "embedded")


def test_registering_writes_claims_margins_effects_and_seeds_with_their_digest(tmp_path: Path) -> None:
    file, out = write_study(tmp_path, SMALL.replace("kinds: [mean]", "kinds: [mean], named: [L1.H0]")), tmp_path / "run"
    done = CliRunner().invoke(main, ["study", "plan", str(file), "--out", str(out), "--register"])
    assert done.exit_code == 0, done.output
    content = json.loads((out / "registration.json").read_text())
    assert content["sha256"] in done.output
    assert (content["seed"], content["claim_margin"], content["smallest_effects"]["logits"]) == (5, 0.05, 0.1)
    assert content["study"]["task.per_cell"] == "4" and content["ended"] == []
    assert set(content["claims"]) == {
        "eval/separates", "eval/equivalent", "eval/binding", "probes/decodable/surface_label/engaged",
        "probes/decodable/surface_label/heuristic", "heads/necessary/L1.H0/label/engaged",
        "heads/necessary/L1.H0/label/heuristic",
        "steering/margin/engaged/resid_post.2", "steering/margin/heuristic/resid_post.2", "oracle/reads/kind/base",
    }  # fmt: skip
    known = read_registration(out)
    assert known is not None and digest_of(known) == known.sha256
    again = CliRunner().invoke(main, ["study", "plan", str(file), "--out", str(out), "--register"])
    assert again.exit_code == 0 and content["sha256"] in again.output, "the same study is registered once"
    other = CliRunner().invoke(
        main, ["study", "plan", str(file), "--out", str(out), "--set", "claim_margin=0.1", "--register"]
    )
    assert other.exit_code == 1 and "a different study is registered here" in other.output
    assert json.loads((out / "registration.json").read_text()) == content


def test_the_claims_of_the_tables_are_those_that_were_planned_and_maxima_are_not() -> None:
    made = {c.key for c in claims(all_tables())}
    assert {"eval/separates", "eval/equivalent", "eval/binding", "probes/decodable/gold_label/engaged"} <= made
    assert {"steering/margin/engaged/resid_post.2", "oracle/reads/step type/engaged"} <= made
    planned = planned_claims(embedded())
    assert not [key for key in planned if "largest" in key or key.startswith("heads/changed")]
    assert {key for key in made if "largest" in key}, "found in the data, so not registered"
    assert "heads/carries/L1.H0/step_lookup/engaged" in planned
    assert "probes/transfer/surface_label/engaged/heuristic" in planned
    assert len(set(planned.values())) == len(planned)


def test_every_claim_has_a_key_of_its_own() -> None:
    keys = [c.key for c in claims(all_tables())]
    assert all(keys) and len(keys) == len(set(keys))


def test_the_report_says_what_was_registered_what_not_and_what_changed(tmp_path: Path) -> None:
    plain = read(render(write_run(tmp_path / "none"))).text
    assert "Nothing was registered before this run" in plain
    run = write_run(tmp_path / "run")
    study = read_study(write_study(tmp_path, SMALL))
    made = register(study, run)
    assert set(made.ended) >= {"eval", "heads"}, "the results were there already, and it says so"
    folder = read_run_folder(run)
    assert folder.registration == made
    text = read(render(run)).text
    assert made.sha256 in text and "It was written after results of eval" in text
    assert "The pair separates on adversarial surface cells registered" in " ".join(text.split())
    assert "Registered, and not in the ledger: surface_label is linearly decodable in the engaged member" in text
    assert "Changed since:" in text and 'name: "small", then "procedural"' in text


def test_a_registration_that_was_edited_is_said_to_be(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    register(read_study(write_study(tmp_path / "file", SMALL)), run)
    path = run / "registration.json"
    path.write_text(path.read_text().replace('"claim_margin": 0.05', '"claim_margin": 0.3'))
    assert "its digest differs" in read(render(run)).text
    path.write_text("{")
    assert "registration.json: not readable as JSON" in read(render(run)).text
    with pytest.raises(ValueError, match="registration.json: not readable as JSON"):
        read_registration(run)


def test_an_unchanged_study_has_no_changes(tmp_path: Path) -> None:
    import yaml

    from study.config import resolved_yaml

    study = read_study(write_study(tmp_path, SMALL))
    made = register(study, tmp_path / "run")
    same = yaml.safe_load(resolved_yaml(study, tmp_path / "run"))
    found = compare(made, same, claims(all_tables()))
    assert found.changed == () and found.is_whole
    same["eval"]["temperature"] = 0.7
    assert compare(made, same, ()).changed == ("eval.temperature: 0.0, then 0.7",)
