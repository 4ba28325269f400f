"""The plan looks at the models: what a section names and they do not have is refused before anything is computed."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from interp.site import layer_index
from interp.tasks import procedural
from study.cli import main
from study.config import Study, parse_study, read_study
from study.run.planner import plan_study
from study.run.runner import run_study
from tests.study_kit import SMALL, write_study
from tests.test_study_settings import pair_folders, read, setting

# The embedded base has 4 layers of 8 heads; `resid_post` of each is cached.
UNFIT = {
    "cache.sites=resid_post.99": ("cache.sites", "resid_post.99"),
    "cache.sites='resid_post.*, z.0.8'": ("cache.sites", "8 heads"),
    "cache.sites=resid_pots.0": ("cache.sites", "resid_pots"),
    "cache.positions=lats": ("cache.positions", "lats"),
    "probes.sites=resid_post.4": ("probes.sites", "resid_post.4"),
    "probes.sites=z.*": ("probes.sites", "z.*"),
    "probes.positions=answer": ("probes.positions", "answer"),
    "heads.named=[L0.H8]": ("heads.named", "8 query heads"),
    "heads.named=[L4.H0]": ("heads.named", "4 layers"),
    "heads.named=[first]": ("heads.named", "first"),
    "heads.kinds=[mwan]": ("heads.kinds", "mwan"),
    "heads.positions=answr": ("heads.positions", "answr"),
    "steering.layers=[99]": ("steering.layers", "99"),
    "steering.layers=[4]": ("steering.layers", "4"),
    "steering.positions=lats": ("steering.positions", "lats"),
    "steering.position=answer": ("steering.position", "answer"),
    "steering.alphas='0.1:0.3:3'": ("steering.alphas", "0.1"),
    "steering.members=[engage]": ("steering.members", "engage"),
    "oracle.layers=[4]": ("oracle.layers", "4"),
    "oracle.questions.0.positions=lats": ("oracle.questions", "lats"),
}  # fmt: skip


def small(folder: Path, *overrides: str) -> Study:
    text = SMALL
    if overrides and overrides[0].startswith("oracle.questions"):  # a list: written into the file
        text, overrides = text.replace("{name: kind,", "{name: kind, positions: lats,"), ()
    return read_study(write_study(folder, text), overrides=overrides)


def test_a_plan_reads_equal_items_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    make = procedural.examples

    @functools.wraps(make)
    def counted(*args: Any, **kwargs: Any) -> Any:
        asked.append(repr((args, kwargs)))
        return make(*args, **kwargs)

    monkeypatch.setattr(procedural, "examples", counted)
    file = write_study(tmp_path, SMALL)
    done = CliRunner().invoke(main, ["study", "plan", str(file), "--out", str(tmp_path / "run")])
    assert done.exit_code == 0, (done.output, done.exception)
    assert asked and len(asked) == len(set(asked))
    CliRunner().invoke(main, ["study", "plan", str(file), "--out", str(tmp_path / "run")])
    assert len(asked) == 2 * len(set(asked)), "another plan reads the data again"


def faults_of(study: Study, out: Path) -> list[str]:
    """Lines of the error that the plan ends in; none where it does not."""
    try:
        plan_study(study, out)
    except ValueError as error:
        return str(error).splitlines()
    return []


@pytest.mark.parametrize("override", UNFIT)
def test_what_the_models_do_not_have_is_an_error_of_the_plan(override: str, tmp_path: Path) -> None:
    key, word = UNFIT[override]
    lines = faults_of(small(tmp_path, override), tmp_path / "run")
    assert len(lines) == 1 and lines[0].startswith(f"{key}: ") and word in lines[0]


@pytest.mark.parametrize("override", UNFIT)
def test_and_of_the_run_before_its_first_step(override: str, tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(ValueError, match=UNFIT[override][0]):
        run_study(small(tmp_path, override), tmp_path / "run", say=said.append)
    assert not said and not {"run.json", "study.yaml", "steps"} & {p.name for p in (tmp_path / "run").iterdir()}


def test_all_faults_are_told_at_once_and_members_that_share_one_together(tmp_path: Path) -> None:
    study = small(tmp_path, "heads.named=[L9.H0, L0.H9]", "steering.layers=[7]")
    lines = faults_of(study, tmp_path / "run")
    assert [line.split(":")[0] for line in lines] == ["heads.named", "heads.named", "steering.layers"]
    assert all("engaged and heuristic" in line for line in lines)


def test_members_of_different_depth_are_checked_each(tmp_path: Path) -> None:
    """L2.H0 and layer 2 exist in one member alone; only the other is blamed."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    deep = pair_folders(tmp_path / "a", shape={"num_hidden_layers": 4})
    flat = pair_folders(tmp_path / "b", shape={"num_hidden_layers": 2})
    pair: dict[str, object] = {"pair": {"engaged": {"base": deep["base"], "adapter": deep["one"]},
                     "heuristic": {"base": flat["base"], "adapter": flat["two"]}}}  # fmt: skip
    named = ("task.per_cell=2", "heads.n=4", "heads.members=[engaged, heuristic]")
    study = read("procedural", pair, *named, "heads.named=[L2.H0]", "steering.layers=[2]")
    lines = faults_of(study, tmp_path / "run")
    assert [line.split(": ")[:2] for line in lines] == [["heads.named", "heuristic"], ["steering.layers", "heuristic"]]
    plan_study(read("procedural", pair, *named, "heads.named=[]"), tmp_path / "run")  # shares of depth fit both


def test_shares_of_depth_are_the_layers_of_the_published_settings() -> None:
    """bbq: layer 30 of 36; procedural: 14 and 20 of 28. On a model of 30 layers, layer 25."""
    import yaml

    found: dict[str, Any] = {}
    for name in ("bbq", "procedural"):
        content = yaml.safe_load(setting(name))
        content["task"].pop("data", None)
        section = parse_study(content, name).steering
        assert section is not None and section.layers is not None
        found[name] = section.layers
    assert [layer_index(word, 36) for word in found["bbq"]] == [30]
    assert [layer_index(word, 30) for word in found["bbq"]] == [25]
    assert [layer_index(word, 28) for word in found["procedural"]] == [14, 20]


@pytest.mark.parametrize("word", ["-1", "'100%'", "fifty", "1.5", "true"])
def test_a_layer_that_no_model_has_is_an_error_of_the_file(word: str, tmp_path: Path) -> None:
    for section in ("steering", "oracle"):
        with pytest.raises(ValueError, match=rf"{section}\.layers"):
            small(tmp_path, f"{section}.layers=[{word}]")


def test_layers_that_are_steered_are_kept_as_indices(tmp_path: Path) -> None:
    from study.analyses.base import Context
    from study.analyses.steering.step import _chosen_layers

    study = small(tmp_path, "steering.layers=['67%', 2, 0]")  # int(4 x 0.67) = 2
    context = Context(tmp_path / "run", "steering", study, {})
    assert _chosen_layers(context, "engaged") == (2, 0)
    assert json.loads((context.folder / "engaged" / "layers.json").read_text()) == [2, 0]


def test_the_command_prints_the_fault_and_no_plan(tmp_path: Path) -> None:
    file = write_study(tmp_path)
    done = CliRunner().invoke(main, ["study", "plan", str(file), "--set", "steering.layers=[99]"])
    assert done.exit_code == 1
    assert done.output.startswith("Error: steering.layers: engaged and heuristic: ") and "tokens in" not in done.output


def work_of(study: Study, out: Path, step: str) -> Any:
    planned, _ = plan_study(study, out)
    return next(one.work for one in planned if one.name == step)


def test_the_cost_of_steering_follows_arms_strengths_and_layers(tmp_path: Path) -> None:
    """By hand: 1 + 19 + 2 arms at 2 strengths are 44 rows of one token. A row changed at the end of layer 2 of 4
    goes through one layer, 0.25 of the model; at the end of layer 1 through two. 16 items, 2 members."""

    def rows(*overrides: str) -> int:
        return work_of(small(tmp_path, *overrides), tmp_path / "run", "steering").row_tokens

    assert rows() == 44 * 0.25 * 32 == 352
    assert rows("steering.layers=[2, 1]") == 44 * (0.25 + 0.5) * 32
    assert rows("steering.layers=null") == 44 * (0.75 + 0.5 + 0.25 + 0) * 32
    assert rows("steering.n_random=41") == 88 * 0.25 * 32
    assert rows("steering.alphas='-0.2:0.2:5'") == 88 * 0.25 * 32
    assert rows("steering.orthogonal_to=[[compliant, noncompliant]]") == (22 + 2) * 2 * 0.25 * 32
    whole = work_of(small(tmp_path, "steering.positions=all"), tmp_path / "run", "steering")
    assert whole.row_tokens == 44 * 0.25 * whole.tokens  # every token of every prompt is computed anew


def test_neutral_texts_are_in_the_cost_of_steering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By hand: the direction and 5 random controls at 2 strengths are 12 rows, of 20 tokens in two texts, each through
    a quarter of the model, for 2 members."""
    before = work_of(small(tmp_path), tmp_path / "run", "steering").row_tokens
    monkeypatch.setattr("study.analyses.steering.job.neutral_ids", lambda tokenizer, texts: [[1] * 10] * 2)
    assert work_of(small(tmp_path), tmp_path / "run", "steering").row_tokens - before == 12 * 20 * 0.25 * 2


def test_the_cost_of_heads_follows_heads_and_kinds(tmp_path: Path) -> None:
    """By hand: 8 heads in each of 4 layers are 8 · (1 + 0.75 + 0.5 + 0.25) = 20 passes per pair and kind; 4 pairs, 2
    members."""
    one = work_of(small(tmp_path), tmp_path / "run", "heads")
    two = work_of(small(tmp_path, "heads.kinds=[mean, zero]"), tmp_path / "run", "heads")
    assert two.row_tokens - one.row_tokens == 20 * 4 * 2
    drawn = work_of(small(tmp_path, "heads.kinds=[mean, 'resample:derangement:3']"), tmp_path / "run", "heads")
    assert drawn.row_tokens - one.row_tokens == 3 * 20 * 4 * 2  # a row for each draw
    assert two.tokens == 2 * one.tokens


def test_seconds_are_tokens_at_the_rate_of_their_sort() -> None:
    from study.analyses.base import Work
    from study.analyses.estimate import Rates, seconds

    assert seconds(Work(tokens=10, row_tokens=20, tokens_written=30, n_parameters=1), Rates(1, 2, 3)) == 10 + 40 + 90
    assert seconds(Work(tokens=10), Rates(1, 2, 3)) == 0  # no model runs


def test_measured_times_come_from_two_items_on_the_loaded_models(tmp_path: Path) -> None:
    from interp.tasks.procedural import examples
    from study.run.measure import two_of

    items = examples(None, per_cell=2, rendering="log")
    lengths = sorted(len(e.messages[0].content) for e in items)
    chosen = two_of(items)
    assert [len(e.messages[0].content) for e in chosen] == [lengths[len(lengths) // 2], lengths[-1]]
    study = small(tmp_path, "eval=false", "probes=false", "heads=false", "steering=false", "oracle=false")
    planned, notes = plan_study(study, tmp_path / "run", measure=True)
    assert next(step.seconds for step in planned if step.name == "cache") > 0
    assert [note for note in notes if note.startswith("measured on items")]


def test_shares_of_depth_are_registered_as_the_layers_that_will_be_claimed(tmp_path: Path) -> None:
    """The report keys a claim by its site: block 2 of 4 is 50 %."""
    from study.report.registration import planned_claims

    def keys(layers: str) -> set[str]:
        claims = planned_claims(small(tmp_path, f"steering.layers={layers}"))
        return {key for key in claims if key.startswith("steering/")}

    assert keys("['50%']") == keys("[2]") == {f"steering/margin/{m}/resid_post.2" for m in ("engaged", "heuristic")}
    assert keys("null") == set()
