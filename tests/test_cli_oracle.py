"""`diptych oracle`, run as a user runs it, on a tiny oracle on disk."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import pandas as pd
import pytest
from click.testing import CliRunner

from interp import progress
from interp.cache import extract
from interp.oracle import OracleSpec
from study.analyses.oracle.load import key_of, load_oracle
from study.analyses.oracle.probe import probe_accuracy
from study.cli import main
from tests.oracle_kit import CLASSES, chats, class_features, pair_with_oracle
from tests.test_progress import LINE, Clock


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """base/, oracle/ with its declaration, and two caches of it, engaged/ and heuristic/."""
    root = tmp_path_factory.mktemp("oracle")
    model = pair_with_oracle()
    model.module.save_pretrained(root, selected_adapters=["engaged", "heuristic", "oracle"])
    spec = OracleSpec(layers=(1,), enable_thinking=False, max_new_tokens=3)
    (root / "oracle" / "ao_config.json").write_text(json.dumps(spec.to_json()))
    for role in ("engaged", "heuristic"):
        with model.adapters.use(role):
            extract(model, _labelled(), out=root / f"acts_{role}", sites="resid_post.*", positions="sentence_ends",
                    progress=False)  # fmt: skip
    model.causal_lm.config.architectures = ["Qwen3ForCausalLM"]
    unwrapped = model.module.unload()
    unwrapped.save_pretrained(root / "base")
    model.tokenizer.save_pretrained(root / "base")
    return root


def _labelled():
    return [replace(example, label=("yes", "no")[i % 2]) for i, example in enumerate(chats(12))]


@pytest.fixture
def run(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("DIPTYCH_HOME", str(tmp_path / "home"))

    def call(*words, code=0):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            done = CliRunner().invoke(main, ["oracle", *map(str, words)])
        assert done.exit_code == code, done.output
        return done.output

    return call


def named(folder, *more):
    return ("--model", folder / "base", "--adapter", folder / "oracle", *more)


def test_asking_prints_steps_and_time_left(folder, run, tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "now", Clock(per_look=1.0))
    monkeypatch.setattr(progress, "EVERY", 0.0)
    for k, choices in enumerate(((), ("--choices", "yes,no"))):
        options = ["--acts", folder / "acts_engaged", "--question", "is it {choices}?", *choices, "--group", "problem"]
        options += ["--limit", 12, "--partners", 2, "--no-selftest", "--out", tmp_path / str(k)]
        said = run("ask", *named(folder), *options)
        shown = [line for line in said.splitlines() if line.startswith("oracle: ") and LINE.search(line)]
        assert len(shown) > 5, said


def test_a_free_question_leaves_answers_with_their_gaps(run, folder, tmp_path):
    out = tmp_path / "out"
    text = run("ask", *named(folder), "--acts", folder / "acts_engaged", "--question", "what is it?", "--out", out,
               "--group", "problem", "--limit", 12, "--partners", 3, "--no-selftest")  # fmt: skip
    assert "control gap (shuffled)" in text
    assert "was never tested" in text
    table = pd.read_csv(out / "answers.csv")
    assert len(table) == 12
    assert "3 partners per reading, smallest p 0.25: no single answer can be called read" in text
    assert set(table["verdict"]) <= {"too few partners to say", "not read from the activations"}
    assert (table["n_partners"] == 3).all(), "12 readings of 2 problems have 3 partners each of the other problem"
    assert set(table["source"]) == {"acts_engaged"}
    assert pd.read_csv(out / "controls.csv")["control"].tolist() == ["real", "shuffled", "zero"]


def test_choices_with_targets_leave_floors_probe_and_figures(run, folder, tmp_path):
    out = tmp_path / "out"
    text = run("ask", *named(folder), "--acts", folder / "acts_engaged", "--question", "is it {choices}?", "--choices",
               "yes,no", "--targets", "label", "--group", "problem", "--out", out, "--no-selftest",
               "--partners", 2)  # fmt: skip
    assert "floor" in text
    assert "linear probe on the same vectors" in text
    assert "was not drawn" not in text
    tasks = pd.read_csv(out / "tasks.csv")
    accuracy = tasks[tasks["metric"] == "accuracy"].iloc[0]
    assert accuracy[["floor", "majority", "probe", "gap_lo", "gap_hi", "floor_difference_lo"]].notna().all()
    assert {"balanced_accuracy", "macro_f1", "gap_shuffled", "gap_zero"} <= set(tasks["metric"])
    assert tasks["n_groups"].unique().tolist() == [6]
    assert (out / "figures" / "oracle.svg").is_file() or (out / "figures" / "oracle.png").is_file()
    assert pd.read_csv(out / "confusion.csv")["count"].sum() == len(pd.read_csv(out / "choices.csv"))


def test_a_wiring_is_tested_once_and_remembered(run, folder, tmp_path):
    said = run("selftest", *named(folder), "--n", 32, code=1)  # random weights are no oracle
    assert "FAILED: " in said
    memory = json.loads((tmp_path / "home" / "oracle_selftests.json").read_text())
    assert list(memory) == [key_of(load_oracle(str(folder / "base"), str(folder / "oracle")))]
    text = run("ask", *named(folder), "--acts", folder / "acts_engaged", "--question", "what?", "--out", tmp_path / "o",
               "--limit", 4, "--partners", 2)  # fmt: skip
    assert "testing it once" not in text
    assert "FAILED its self-test" in text
    assert json.loads((tmp_path / "o" / "run.json").read_text())["selftest"]["passed"] is False


def test_two_caches_are_compared_at_the_same_places(run, folder, tmp_path):
    text = run("compare", folder / "acts_engaged", folder / "acts_heuristic", *named(folder), "--question", "is it?",
               "--choices", "yes,no", "--group", "problem", "--targets", "label", "--out", tmp_path / "o")  # fmt: skip
    assert "acts_engaged - acts_heuristic" in text
    assert "control gap (shuffled)" in text
    table = pd.read_csv(tmp_path / "o" / "comparison.csv")
    assert table["pred"].tolist() == ["yes", "no"]
    assert (table["value"].abs() > 0).all()
    assert table[["lo", "hi", "n", "n_groups", "p_adjusted"]].notna().all(axis=None)


def test_mistakes_are_named_in_the_users_words(run, folder, tmp_path):
    acts = ("--acts", folder / "acts_engaged", "--question", "what?", "--out", tmp_path / "o", "--no-selftest")
    assert "give --adapter" in run("ask", "--model", folder / "base", *acts, code=1)
    assert "holds sentence_ends; name one of these" in run("ask", *named(folder), *acts, "--positions", "last", code=1)
    assert "not a column of" in run("ask", *named(folder), *acts, "--choices", "yes,no", "--targets", "kind", code=1)
    assert "percent of depth from '0%' to '99%'" in run("ask", *named(folder), *acts, "--layer", "100%", code=1)


def test_the_probe_reads_what_is_linearly_there_and_nothing_from_shuffled_labels():
    feats, targets = class_features(160)
    real = probe_accuracy(feats, targets)
    assert real is not None
    assert real.lo > 0.6
    names = list(targets)
    mixed = dict(zip(names, [targets[name] for name in (*names[37:], *names[:37])], strict=True))
    shuffled = probe_accuracy(feats, mixed)
    assert shuffled is not None
    assert shuffled.lo < 1 / len(CLASSES) < shuffled.hi
    assert probe_accuracy(feats, dict.fromkeys(names, "yes")) is None
