"""The published settings: complete study files, each run end to end on tiny models of the same shape."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from study.cli import main
from study.cli.study import SETTINGS
from study.config import Study, parse_study
from study.report.published import ASPECTS
from study.run.runner import run_study
from study.schema import check_table, read_tables
from tests.bbq_rows import thinned
from tests.tiny import add_lora, save_checkpoint, tiny, tiny_tokenizer

CELLS = "training_distribution, baseline_noncompliant, adversarial_surface_compliant, exception_handled"


def setting(name: str) -> str:
    return files("study.settings").joinpath(f"{name}.yaml").read_text(encoding="utf-8")


def pair_folders(
    root: Path, *, seeds: tuple[int, int] = (7, 8), family: str = "qwen2", shape: dict[str, int] | None = None
) -> dict[str, str]:
    """A tiny base with two adapters on it."""
    shape = {"max_position_embeddings": 4096, **(shape or {})}
    save_checkpoint(root / "base", family, **shape)
    for name, seed in zip(("one", "two"), seeds, strict=True):
        peft = add_lora(tiny(family, vocab_size=len(tiny_tokenizer()), **shape), seed=seed)
        peft.save_pretrained(root / name)
        path = root / name / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": str(root / "base")}))
    return {name: str(root / name) for name in ("base", "one", "two")}


def read(name: str, pair: dict[str, object], *overrides: str) -> Study:
    import yaml

    content = yaml.safe_load(setting(name))
    content.pop("checkpoint", None)
    content.pop("pair", None)
    return parse_study({**content, **pair}, name, overrides=overrides)


def run(study: Study, out: Path) -> dict[str, str]:
    finished = run_study(study, out, say=lambda line: None)
    assert not finished.failed, finished.failed
    for name, table in read_tables(out).items():
        check_table(table, name)
    page = (out / "report.html").read_text()
    for entry in study.published:
        assert entry.source.split()[0] in page
    return {name: state.status for name, state in finished.state.steps.items()}


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_a_complete_study_that_init_prints(name: str) -> None:
    import yaml

    done = CliRunner().invoke(main, ["study", "init", name])
    assert done.exit_code == 0 and done.output == setting(name)
    content = yaml.safe_load(setting(name))
    content["task"].pop("data", None)  # not here
    for question in content.get("oracle", {}).get("questions", ()):
        question.pop("labels", None)
    study = parse_study(content, name)
    assert study.eval is not None or study.oracle is not None
    if name != "embedded":
        assert study.published, "a published setting lists the numbers of its card"
        for entry in study.published:
            assert entry.source and entry.leaves_out
            declared = [getattr(entry, name) for name in ASPECTS]
            if entry.table == "eval":
                assert isinstance(entry.model, dict), "another model in its place is no replication"
            assert entry.not_comparable or any(declared), "what is the same as in the source, and what is not"
            for aspect in declared:
                for key, value in aspect.items() if isinstance(aspect, dict) else ():
                    own = content
                    for part in key.split("."):
                        own = own.get(part) if isinstance(own, dict) else None
                    if own is not None:  # what a setting gives is what its card used; the rest is the user's to give
                        assert str(own).removeprefix("YOUR/") == str(value), (entry.name, key)
                    assert key.startswith(("pair.", "eval.", "task."))


@pytest.mark.slow
def test_bbq_runs_on_the_real_rows(tmp_path: Path, bbq_folder: Path) -> None:
    data = thinned(bbq_folder, tmp_path / "bbq", ("Age", "Religion", "Nationality"), every=8)
    at = pair_folders(tmp_path)
    pair = {"pair": {"engaged": {"base": at["base"], "adapter": at["one"]}, "heuristic": {"base": at["base"]}}}
    study = read(
        "bbq", pair, f"task.data={data}", "task.limit=120",
        "task.options={categories: [Age, Religion, Nationality]}",
        "probes.perm=19", "probes.boot=100", "probes.kinds=[ridge]", "probes.n_folds=2", "steering.layers=[1]",
        "eval.generate=false",  # random weights write no letters; their answers have no direction: steer the topic
        "steering.target=category", "steering.where={}", "steering.toward=Age", "steering.away_from=Religion",
        "steering.orthogonal_to=[[Nationality, Religion]]",
        "steering.limit=24", "steering.n_random=19", "steering.alphas='-0.2:0.2:3'", "steering.n_complement=2",
        "steering.n_shuffled=2", "steering.min_items=2", "steering.min_groups=2", "steering.boot=100",
        "figures.formats=[svg]",
    )  # fmt: skip
    assert set(run(study, tmp_path / "run").values()) == {"done"}
    tables = read_tables(tmp_path / "run")
    scores = tables["eval"][(tables["eval"]["cell"] == "all") & (tables["eval"]["member"] == "heuristic")]
    assert {"acc_ambig", "acc_disambig", "abstain_disambig", "s_amb", "amb_commit_bias"} <= set(scores["metric"])
    for entry in study.published:
        if entry.table == "eval":
            rows = tables["eval"]
            for column, value in entry.where.items():
                rows = rows[rows[column] == value]
            assert len(rows) == 1, entry.name
    assert {"direction", "orthogonalized", "control"} <= set(tables["steering"]["arm"])


@pytest.mark.long
def test_procedural_runs_on_members_of_different_depth_and_width(tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "large").mkdir()
    small = pair_folders(tmp_path / "small")
    large = pair_folders(tmp_path / "large", seeds=(9, 10), family="qwen3")
    pair = {"pair": {"base": small["base"], "heuristic_base": large["base"],
                     "engaged": {"base": small["base"], "adapter": small["one"]},
                     "heuristic": {"base": large["base"], "adapter": large["two"]}}}  # fmt: skip
    study = read(
        "procedural", pair, f"task.options={{cells: [{CELLS}]}}", "task.per_cell=10", "task.rendering=log",
        "eval.max_new_tokens=4", "cache.positions=last", "probes.perm=19", "probes.boot=100", "probes.kinds=[ridge]",
        "probes.n_folds=2", "heads.n=4", "heads.kinds=[mean, patch]", "heads.named=[L1.H2]", "heads.slot=''",
        "steering.layers=[1]", "steering.alphas='-0.2:0.2:3'", "steering.n_complement=0", "steering.n_shuffled=2",
        "steering.min_items=2", "steering.min_groups=2", "steering.boot=100", "steering.limit=8",
        "figures.formats=[svg]",
    )  # fmt: skip
    assert set(run(study, tmp_path / "run").values()) == {"done"}
    tables = read_tables(tmp_path / "run")
    assert set(tables["heads"]["member"]) == {"engaged", "heuristic", "base"}
    patched = tables["heads"][(tables["heads"]["member"] == "base") & (tables["heads"]["head"] == "L1.H2")]
    assert "cma" in set(patched["metric"])


@pytest.mark.long
def test_esi_runs_in_both_modes(tmp_path: Path) -> None:
    at = pair_folders(tmp_path)
    members = {
        name: {"base": at["base"], "adapter": at[folder]} for name, folder in (("engaged", "one"), ("heuristic", "two"))
    }
    study = read("esi", {"pair": members}, "task.per_cell=8", "eval.max_new_tokens=4", "probes.perm=19",
                 "probes.boot=100", "probes.kinds=[ridge]", "probes.n_folds=2", "figures.formats=[svg]")  # fmt: skip
    assert set(run(study, tmp_path / "run").values()) == {"done"}
    tables = read_tables(tmp_path / "run")
    assert {"thinking", "direct", "between"} <= set(tables["eval"]["mode"])
    assert tables["eval"]["note"].str.startswith("Not for clinical use.").all()


def test_a_problem_column_that_some_items_lack_is_refused() -> None:
    from interp.prompt import Example
    from study.analyses.oracle.step import _problem_column

    have = [Example(f"e{k}", text="x", groups={"problem": f"p{k // 2}"}) for k in range(4)]
    lack = [Example("odd", text="x", groups={})]
    assert _problem_column("problem", have) == "problem" and _problem_column("problem", lack) is None
    with pytest.raises(ValueError, match="1 of 5 lack it: odd"):
        _problem_column("problem", have + lack)


@pytest.mark.slow
def test_the_oracle_runs_on_chains_of_thought(tmp_path: Path) -> None:
    at = pair_folders(tmp_path, family="qwen3")
    steps = ["Let us set up the problem.", "Then we compute the sum.", "So the answer is four."]
    rows = [{"id": f"c{k}", "problem": f"p{k}", "question": f"What is {k}, and two?", "cot": " ".join(steps)}
            for k in range(8)]  # fmt: skip
    (tmp_path / "chains.jsonl").write_text("".join(json.dumps({**row, "answer": "4"}) + "\n" for row in rows))
    kinds = ["problem_setup", "active_computation", "final_answer"]
    labels = [{"id": f"c{k}", "sentence": s, "task": task, "label": label}
              for k in range(8) for s in range(3)
              for task, label in (("taxonomy", kinds[s]), ("importance", "anchor" if s == 1 else "other"))]  # fmt: skip
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labels))
    import yaml

    content = yaml.safe_load(setting("cot"))
    content["checkpoint"] = {"name": "tiny", "base": at["base"]}
    content["oracle"] |= {"adapter": at["one"], "subfolder": None, "spec": {"hook_layer": 1, "layers": ["50%"]}}
    study = parse_study(content, "cot", folder=tmp_path, overrides=["figures.formats=[svg]"])
    assert set(run(study, tmp_path / "run").values()) == {"done"}
    table = read_tables(tmp_path / "run")["oracle"]
    accuracy = table[table["metric"] == "accuracy"].set_index("target")
    assert accuracy.loc["taxonomy", "n"] == 24 and accuracy.loc["taxonomy", "n_groups"] == 8
    assert accuracy.loc["importance", "majority"] == pytest.approx(2 / 3)
    assert {"gap_shuffled", "gap_zero", "gap_text_only"} <= set(table["metric"])
    labels[0]["label"] = "final_answer"
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in labels))
    assert "oracle" in run_study(study, tmp_path / "run", say=lambda line: None).ran  # its labels are an input


@pytest.mark.long
@pytest.mark.parametrize("seed", [5, 1])
def test_the_embedded_study_has_enough_items_to_show_equality_on_the_training_distribution(
    tmp_path: Path, seed: int
) -> None:
    from study.analyses.eval.run import run_eval
    from study.analyses.items import examples_of

    study = parse_study(yaml.safe_load(setting("embedded")) | {"seed": seed}, "embedded")
    assert study.eval is not None
    items = [e for e in examples_of(study, study.eval) if e.metadata["cell"] == "training_distribution"]
    assert len(items) == 480
    table = run_eval(
        study.what, study.task.path, items, out=tmp_path, options=study.eval, progress=False, seed=seed
    ).tables["pair"]
    (row,) = table[table["is_difference"].eq(True)].to_dict("records")
    assert row["margin"] == 0.05
    assert row["n_groups"] <= 480
    assert row["hi"] < 0.05
    assert row["verdict"].startswith("equivalent")
