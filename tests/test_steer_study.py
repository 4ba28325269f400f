"""`diptych steer dose | pair | figures`: studies that resume, tables with controls, refusals before anything runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result

from interp import progress
from interp.cache import extract
from interp.checkpoint import Checkpoint
from interp.loading import load
from interp.site import Site
from interp.tasks.protocol import load_task
from steering.difference import difference_of_means
from steering.direction import Directions
from steering.dose import DoseSweep
from steering.select import BBQ, Objective, rank_candidates, shrinkage, split_by_group
from study.analyses.steering.items import dose_items
from study.analyses.steering.job import DoseJob
from study.analyses.steering.options import DoseOptions
from study.analyses.steering.run import run_dose
from study.analyses.steering.show import headline
from study.analyses.steering.shuffled import shuffled_from_cache
from study.analyses.steering.tables import members, tables_of_doses
from study.cli import steer
from tests import steer_task
from tests.steering_kit import made_up
from tests.test_progress import LINE, Clock
from tests.tiny import save_checkpoint

TASK = "tests.steer_task"
NEUTRAL = Path(__file__).with_name("neutral.txt")
QUICK = [
    "--neutral",
    str(NEUTRAL),
    "--task",
    TASK,
    "--boot",
    "100",
    "--quiet",
    "--load-dtype",
    "float32",
    "--alphas=-0.4:0.4:5",
    "--slot",
    ".",
    "--n-random",
    "20",
    "--n-shuffled",
    "20",
]
SITE = Site("resid_post", 1)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def cache(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cache") / "b"
    extract(load(Checkpoint("b", str(base)), dtype="float32"), steer_task.examples(seed=1) * 1, out=folder,
            sites="resid_post.*", positions="last", progress=False)  # fmt: skip
    return folder


def fitted(cache: Path) -> Directions:
    from interp.cache import ActivationCache

    with ActivationCache.open(cache) as opened:
        made = difference_of_means(opened, toward="yes", away_from="no", target="answer", groups="story",
                                   check_sign=False)  # fmt: skip
    return made


def run(command: str, *args: str | Path) -> Result:
    return CliRunner().invoke(getattr(steer, command), [str(arg) for arg in args])


def test_a_dose_study_prints_steps_and_time_left(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_up().save(tmp_path / "v.safetensors")
    monkeypatch.setattr(progress, "now", Clock(per_look=1.0))
    monkeypatch.setattr(progress, "EVERY", 0.0)
    options = [word for word in QUICK if word != "--quiet"]
    done = run("dose", "--base", base, "--name", "b", *options, "--task", "tests.abstain_task", "--direction",
               tmp_path / "v.safetensors", "--no-figures", "--out", tmp_path / "dose")  # fmt: skip
    assert done.exit_code == 0, done.output
    shown = [line for line in done.stderr.splitlines() if LINE.search(line)]
    assert sum(line.startswith("dose b: ") for line in shown) > 20
    assert any(line.startswith("dose b, neutral texts: ") for line in shown)


def test_a_model_that_abstains_in_most_groups_gets_all_of_its_tables(base: Path, tmp_path: Path) -> None:
    """12 stories and 2 items that commit: n and groups of commit bias are those of the two items."""
    made_up().save(tmp_path / "v.safetensors")
    done = run("dose", "--base", base, "--name", "b", *QUICK, "--task", "tests.abstain_task", "--direction",
               tmp_path / "v.safetensors", "--out", tmp_path / "dose")  # fmt: skip
    assert done.exit_code == 0, done.output
    tables = {name: pd.read_csv(tmp_path / "dose" / "b" / f"{name}.csv") for name in ("table", "slopes", "entangle")}
    bias = tables["slopes"][tables["slopes"]["metric"] == "amb_commit_bias"]
    assert set(zip(bias["n"], bias["n_groups"], strict=True)) == {(2, 2)}
    assert set(tables["table"].loc[tables["table"]["metric"] == "coverage", "n_groups"]) == {12}
    slope = tables["entangle"][tables["entangle"]["metric"] == "d commit bias / d alpha"]
    assert (slope["n"] == 2).all() and (slope["n_groups"] == 2).all()


def test_a_table_that_fails_takes_no_other_with_it(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_up().save(tmp_path / "v.safetensors")
    asked = ["dose", "--base", base, "--name", "b", *QUICK, "--task", "tests.abstain_task", "--direction",
             tmp_path / "v.safetensors", "--out", tmp_path / "dose"]  # fmt: skip
    with monkeypatch.context() as broken:
        broken.setattr("steering.response.DoseResult.plane", lambda _: 1 / 0)
        done = run(*asked)
    assert isinstance(done.exception, ZeroDivisionError)
    assert "plane of" in done.exception.__notes__[0]
    folder = tmp_path / "dose" / "b"
    assert all((folder / f"{name}.csv").exists() for name in ("table", "slopes", "entangle", "texts"))
    assert len(set((folder / "items").glob("*.item")) - {folder / "items/read.item", folder / "items/texts.item"}) == 60
    assert not (folder / "plane.csv").exists()
    assert run(*asked).exit_code == 0  # nothing is computed again
    assert (folder / "plane.csv").exists()


def test_a_study_writes_tables_and_figures_with_every_control(base: Path, cache: Path, tmp_path: Path) -> None:
    held = Directions({SITE: fitted(cache)[SITE]})
    held.save(tmp_path / "v.safetensors")
    made_up(seed=5).save(tmp_path / "other.safetensors")
    common = ["--base", base, "--name", "b", *QUICK, "--min-class", "20"]
    named = ["--direction", tmp_path / "v.safetensors", "--orthogonal-to", tmp_path / "other.safetensors"]
    done = run("dose", *common, *named, "--cache", cache, "--verify", "0.02", "--out", tmp_path / "dose")
    assert done.exit_code == 0, done.output
    folder = tmp_path / "dose" / "b"
    table = pd.read_csv(folder / "table.csv")
    arms = table.groupby("arm")["draw"].nunique().to_dict()
    assert arms == {"direction": 1, "opposite": 1, "orthogonalized": 1, "nuisance": 1, "random": 20, "complement": 5,
                    "shuffled": 20, "prompt": 1}  # fmt: skip
    wanted = {
        "arm",
        "layer",
        "alpha",
        "alpha_unit",
        "metric",
        "value",
        "lo",
        "hi",
        "n",
        "n_groups",
        "interval",
        "control_value",
        "p",
    }
    assert wanted <= set(table.columns)
    steered = table[table["arm"] != "prompt"]
    assert steered[["value", "lo", "hi", "n", "n_groups", "control_value", "null_lo", "null_hi"]].notna().all(axis=None)
    assert set(steered["alpha"]) == {-0.4, -0.2, 0.0, 0.2, 0.4} and (table["n_groups"] == 12).all()
    zero = steered[steered["alpha"] == 0]
    assert (zero["change"] == 0).all() and zero.groupby("metric")["value"].nunique().eq(1).all()
    tested = table[(table["arm"] == "direction") & (table["alpha"] != 0)]
    assert tested[["p_random", "p_shuffled", "p", "p_max"]].notna().all(axis=None)
    assert (tested["p"] == tested[["p_random", "p_shuffled"]].max(axis=1)).all()
    slopes = pd.read_csv(folder / "slopes.csv")
    assert {"margin", "accuracy", "kl", "anti_steerable"} <= set(slopes["metric"])
    assert "random and label-shuffled directions" in done.output and "margin" in done.output
    figures = tmp_path / "dose" / "figures"
    assert (figures / "b-resid_post.1.svg").read_text().startswith("<?xml")
    before = (figures / "b-resid_post.1.png").read_bytes()
    again = run("figures", tmp_path / "dose")
    assert again.exit_code == 0 and (figures / "b-resid_post.1.png").read_bytes() == before
    assert json.loads((folder / "plan.json").read_text())["identity"]["n_items"] == 60


def test_a_killed_study_continues_to_the_same_tables_and_another_one_is_refused(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_up().save(tmp_path / "v.safetensors")
    common = ["--base", base, "--name", "b", *QUICK, "--direction", tmp_path / "v.safetensors", "--no-figures"]
    assert run("dose", *common, "--out", tmp_path / "whole").exit_code == 0
    outcome, computed = DoseSweep.outcome, []

    def stops(self: DoseSweep, index: int, key: str = "", **options):
        if len(computed) == 7:
            raise ValueError("the machine went away")
        computed.append(index)
        return outcome(self, index, key, **options)

    monkeypatch.setattr(DoseSweep, "outcome", stops)
    done = run("dose", *common, "--out", tmp_path / "cut")
    assert done.exit_code == 1 and "went away" in done.output
    assert len(list((tmp_path / "cut" / "b" / "items").glob("*.item"))) == 7
    monkeypatch.setattr(
        DoseSweep, "outcome", lambda self, i, key="", **kw: computed.append(i) or outcome(self, i, key, **kw)
    )
    assert run("dose", *common, "--out", tmp_path / "cut").exit_code == 0
    assert sorted(computed) == list(range(60))  # nothing was computed twice
    for name in ("table.csv", "slopes.csv"):
        assert (tmp_path / "cut" / "b" / name).read_bytes() == (tmp_path / "whole" / "b" / name).read_bytes()
    other = run("dose", *common, "--unit", "sd", "--out", tmp_path / "cut")
    assert other.exit_code == 1 and "holds another dose sweep" in other.output and "unit" in other.output


def test_refusals_come_before_a_model_is_loaded(tmp_path: Path) -> None:
    made_up(n=49).save(tmp_path / "few.safetensors")
    made_up().save(tmp_path / "v.safetensors")
    where = ["--base", "no/such-model", *QUICK, "--out", tmp_path / "out"]
    few = run("dose", *where, "--direction", tmp_path / "few.safetensors")
    assert few.exit_code == 1 and "49 rows of 'yes'" in few.output and "--min-class" in few.output
    layer = run("dose", *where, "--direction", tmp_path / "v.safetensors", "--layers", "2")
    assert layer.exit_code == 1 and "are of layers 1" in layer.output
    alphas = run("dose", *where, "--direction", tmp_path / "v.safetensors", "--alphas", "0.1,0.2")
    assert alphas.exit_code == 1 and "with 0 among them" in alphas.output


def test_items_that_the_direction_was_fitted_on_are_refused(base: Path, cache: Path, tmp_path: Path) -> None:
    study = DoseOptions(alphas="0,0.2", cache=cache, slot=".", min_items=20)
    with pytest.raises(ValueError, match="among the rows that the direction was fitted on"):
        run_dose(Checkpoint("b", str(base)), TASK, steer_task.examples(seed=1), Directions({SITE: fitted(cache)[SITE]}),
                 out=tmp_path, options=study, loading={"dtype": "float32"}, progress=False)  # fmt: skip


def test_shuffled_arms_of_a_cache_are_the_pipeline_on_permuted_labels(cache: Path, tmp_path: Path) -> None:
    direction = fitted(cache)[SITE]
    arms, ids = shuffled_from_cache(direction, cache, n=6)
    assert ids == {example.id for example in steer_task.examples(seed=1)}
    cosines = [abs(float(arm.unit @ direction.unit)) for arm in arms]
    assert max(cosines) < 0.9 and len({round(c, 6) for c in cosines}) == 6
    with pytest.raises(ValueError, match="is not the cache"):
        shuffled_from_cache(made_up()[SITE], cache)
    own = {example.id: str(example.metadata["answer"]) for example in steer_task.examples(seed=1)}
    again, _ = shuffled_from_cache(direction, cache, n=6, labels=own)  # the same classes, from a file
    assert all(torch.equal(a.unit, b.unit) for a, b in zip(arms, again, strict=True))
    with pytest.raises(ValueError, match="not fitted on these rows or classes"):
        shuffled_from_cache(direction, cache, labels={**own, "s1-0": "no" if own["s1-0"] == "yes" else "yes"})
    from interp.cache import ActivationCache

    words = {example.id: str(example.label) for example in steer_task.examples(seed=1)}
    with ActivationCache.open(cache) as opened:
        order = opened.examples["id"].tolist()
        how = {"balance": "strata", "groups": "story", "check_sign": False, "site": SITE}
        given = difference_of_means(opened, toward="yes", away_from="no", target=[own[i] for i in order],
                                    strata=[words[i] for i in order], **how)  # fmt: skip
    with pytest.raises(ValueError, match="Give them with strata="):
        shuffled_from_cache(given, cache, labels=own)
    balanced, _ = shuffled_from_cache(given, cache, labels=own, strata=words, n=2)
    assert len(balanced) == 2 and abs(float(balanced[0].unit @ given.unit)) < 0.999
    free, _ = shuffled_from_cache(direction, cache, n=2, equal_length=False)
    assert all(0 < arm.length != 1 for arm in free)


def test_items_end_where_the_label_is_decided(base: Path) -> None:
    model = load(Checkpoint("b", str(base)), dtype="float32")
    task, examples = load_task(TASK), steer_task.examples()[:4]
    for item, example in zip(dose_items(model, task, examples, slot="step"), examples, strict=True):
        text = model.tokenizer.decode(list(item.ids))
        assert text == f"{example.text}step"
        first = [model.tokenizer.encode(f" {label}")[0] for label in item.labels]
        assert [ids[0] for ids in item.label_ids] == first and item.group == example.groups["story"]
        assert item.baseline is not None and len(item.baseline) > len(item.ids)


def test_a_response_at_another_decision_is_read_in_front_of_it_with_its_own_right_answer(tmp_path: Path) -> None:
    from interp.tasks import procedural
    from interp.tasks.decision_sites import decision_sites

    base = save_checkpoint(tmp_path / "base", max_position_embeddings=4096)
    model = load(Checkpoint("b", str(base)), dtype="float32")
    examples = procedural.examples(per_cell=1, rendering="log")[:12]
    items = dose_items(model, procedural, examples, slot="gold", at="step_lookup")
    assert [item.example.id for item in items] == [example.id for example in examples]
    for item, example in zip(items, examples, strict=True):
        text = str(model.tokenizer.decode(list(item.ids)))
        sites = decision_sites(procedural, example, procedural.gold_reply(example) or "")
        here = [site for site in sites if site.name == "step_lookup" and text.rstrip().endswith(site.before)]
        assert len(here) == 1 and item.example.label == here[0].answer
        assert item.gold is not None and item.labels[item.gold] == here[0].answer
        assert set(item.labels) <= set(here[0].options) and len(item.labels) >= 2
    for at in ("", "label"):
        at_label = dose_items(model, procedural, examples, slot="compliant so", at=at)
        assert [one.sha256 for one in at_label] == [
            one.sha256 for one in dose_items(model, procedural, examples, slot="compliant so")
        ]
    options = DoseOptions(alphas="-0.4,0,0.4", slot="gold", at=("step_lookup",), boot=100, neutral=(), n_random=19,
                          min_items=8, min_groups=2)  # fmt: skip
    how: dict[str, Any] = {"loading": {"dtype": "float32"}, "progress": False}
    task = "interp.tasks.procedural"
    done = run_dose(Checkpoint("b", str(base)), task, examples, made_up(), out=tmp_path / "x", options=options, **how)
    (result,) = done.values()
    assert {"accuracy", "p_gold", "kl"} <= set(result.table()["metric"]) and "margin" not in set(
        result.table()["metric"]
    )
    table = pd.read_csv(next((tmp_path / "x").rglob("table.csv")))
    assert set(table["decision_site"]) == {"step_lookup"}
    both = replace(options, at=("step_lookup", "label"))
    of_both = run_dose(
        Checkpoint("b", str(base)), task, examples, made_up(), out=tmp_path / "both", options=both, **how
    )
    assert list(of_both) == ["b at step_lookup", "b at label"] and set(of_both) == set(members(tmp_path / "both"))
    at_label = replace(options, at=())
    (label,) = run_dose(
        Checkpoint("b", str(base)), task, examples, made_up(), out=tmp_path / "z", options=at_label, **how
    ).values()
    for site, alone in (("step_lookup", result), ("label", label)):
        pd.testing.assert_frame_equal(of_both[f"b at {site}"].table(), alone.table())
    assert all(f"b at {site}" in headline(tmp_path / "both") for site in ("step_lookup", "label"))
    nowhere = Checkpoint("m", str(tmp_path / "no-such-model"))
    for change, words in (
        ({"at": ("step_lokup",)}, "Did you mean 'step_lookup'"),
        ({"at": ("step_lookup", "label"), "slot": "so"}, "followed by the label"),
    ):
        with pytest.raises(ValueError, match=words):
            run_dose(nowhere, task, examples, made_up(), out=tmp_path / "y", options=replace(options, **change), **how)


def test_layers_are_ranked_by_a_declared_objective_and_reasons_are_given(base: Path, tmp_path: Path) -> None:
    study = DoseOptions(alphas="-0.4,0,0.4", slot=".", boot=100, neutral=())
    found = run_dose(Checkpoint("b", str(base)), TASK, steer_task.examples(), made_up(layers=(0, 1, 2)), out=tmp_path,
                     options=study, loading={"dtype": "float32"}, progress=False)["b"]  # fmt: skip
    table = found.table()
    ranked = rank_candidates(table, Objective("margin", "higher"), n_layers=3)
    best = table[(table["arm"] == "direction") & (table["metric"] == "margin")].groupby("layer")["change"].max()
    assert ranked["layer"].iloc[0] == best.idxmax() and ranked["gain"].iloc[0] == pytest.approx(best.max())
    assert ranked["allowed"].all() and ranked["chosen"].sum() == 1 and (ranked["rank"] == [1, 2, 3]).all()
    assert {"null_lo", "null_hi", "interval"} <= set(ranked.columns)
    strict = rank_candidates(table, Objective("margin", "higher", {"accuracy": -1.0}), n_layers=3)
    assert not strict["chosen"].any() and strict["reason"].str.contains("accuracy changes").all()
    shallow = rank_candidates(table, Objective("margin", "higher", max_depth=0.7), n_layers=3)
    assert shallow.set_index("layer")["reason"][2].startswith("layer 2 lies beyond 70%")
    both = shrinkage(ranked, table, Objective("margin", "higher"))
    assert both["gain"].nunique() == 1  # the same table on both sides
    with pytest.raises(ValueError, match="amb_commit_bias"):
        rank_candidates(table, BBQ, n_layers=3)

    from study.figures import layer_selection

    drawn = layer_selection(ranked.assign(test_gain=np.where(ranked["chosen"], 0.1, np.nan), test_lo=0.0, test_hi=0.2))
    assert "Chosen: layer" in drawn.caption and len(drawn.titles) == 4


def test_tables_are_made_again_of_the_outcomes_on_disk(base: Path, tmp_path: Path, monkeypatch: Any) -> None:
    study = DoseOptions(alphas="-0.4,0,0.4", slot=".", boot=100, neutral=(NEUTRAL.read_text(), "the a b c."))
    given: dict[str, Any] = {"out": tmp_path, "options": study}
    run_dose(Checkpoint("b", str(base)), TASK, steer_task.examples(), made_up(), loading={"dtype": "float32"},
             progress=False, **given)  # fmt: skip
    before = {path.name: path.read_bytes() for path in (tmp_path / "b").glob("*.csv")}
    assert {"table.csv", "slopes.csv", "texts.csv"} <= set(before)
    for name in before:
        (tmp_path / "b" / name).unlink()
    monkeypatch.setattr(torch.nn.Module, "__call__", None)  # no forward pass
    job = DoseJob(TASK, steer_task.examples(), made_up(), **given)
    found = tables_of_doses(job, ("b",))
    assert {path.name: path.read_bytes() for path in (tmp_path / "b").glob("*.csv")} == before
    assert set(found) == {"b"}
    with pytest.raises(ValueError, match="is not among the examples"):
        tables_of_doses(replace(job, examples=steer_task.examples()[:4]), ("b",))
    with pytest.raises(ValueError, match="no finished dose sweep"):
        tables_of_doses(job, ("c",))


def test_no_group_is_on_two_sides_of_a_split() -> None:
    groups = [f"g{k % 23}" for k in range(200)]
    sides = split_by_group(groups, seed=1)
    assert sorted(i for part in sides.values() for i in part) == list(range(200))
    names = [{groups[i] for i in part} for part in sides.values()]
    assert not names[0] & names[1] and not names[1] & names[2] and not names[0] & names[2]
    assert [round(len(part) / 200, 1) for part in sides.values()] == [0.6, 0.2, 0.2]
    with pytest.raises(ValueError, match="no item is left for select, test: group 'a' alone has 100 of 102"):
        split_by_group(["a"] * 100 + ["b", "c"], seed=1)


@pytest.mark.slow
def test_each_vector_is_added_in_each_member(base: Path, tmp_path: Path) -> None:
    for name, seed in (("e", 1), ("h", 2)):
        made_up(seed=seed).save(tmp_path / f"{name}.safetensors")
    second = save_checkpoint(tmp_path / "second", seed=3)
    pair = tmp_path / "pair.yaml"
    pair.write_text(f"engaged: {{name: e, base: {base}}}\nheuristic: {{name: h, base: {second}}}\n")
    done = run("pair", "--pair", pair, *QUICK, "--engaged", tmp_path / "e.safetensors", "--heuristic",
               tmp_path / "h.safetensors", "--out", tmp_path / "out")  # fmt: skip
    assert done.exit_code == 0, done.output
    transfer = pd.read_csv(tmp_path / "out" / "transfer.csv")
    cells = transfer[transfer["metric"] == "margin"].set_index(["vector_from", "applied_to"])
    assert len(cells) == 4 and cells[["value", "lo", "hi", "null_lo", "null_hi", "p"]].notna().all(axis=None)
    own = pd.read_csv(tmp_path / "out" / "engaged" / "slopes.csv")
    own = own[(own["arm"] == "transferred") & (own["metric"] == "margin")].iloc[0]
    assert cells.loc[("heuristic", "engaged"), "value"] == pytest.approx(own["value"])
    assert (tmp_path / "out" / "figures" / "cosines.png").exists() and "ceiling" in done.output
