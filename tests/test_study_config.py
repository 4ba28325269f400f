"""A study file: read, refused in the user's words, written back; tables that refuse a number without its control."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from study.config import read_study, resolved_yaml
from study.schema import COLUMNS, KEYS, check_table, read_table, tidy, write_table
from tests.study_kit import SMALL, write_study


def refusal(tmp_path: Path, *overrides: str, text: str = SMALL) -> str:
    with pytest.raises(ValueError, match=".") as caught:
        read_study(write_study(tmp_path, text), overrides=overrides)
    return str(caught.value).replace(str(tmp_path), "")


def test_what_is_resolved_is_read_back_as_the_same_study(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text("{}\n")
    study = read_study(write_study(tmp_path, SMALL), overrides=["task.data=items.jsonl", "heads=false"])
    again = write_study(tmp_path / "runs" / "x", resolved_yaml(study, tmp_path / "runs" / "x"))
    assert "../../items.jsonl" in again.read_text()
    assert read_study(again) == study


def test_local_checkpoints_are_written_relative_to_the_run(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    pair = f"pair: {{engaged: {{base: {tmp_path}/base, adapter: hub/one}}, heuristic: {{base: {tmp_path}/base}}}}"
    study = read_study(write_study(tmp_path, SMALL.replace("pair: embedded", pair)))
    text = resolved_yaml(study, tmp_path / "run")
    assert "base: ../base" in text and "adapter: hub/one" in text and str(tmp_path) not in text


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("eval.per_cel=3", "section eval: unknown key 'per_cel'; did you mean 'per_cell'?"),
        ("evla.per_cell=3", "--set evla.per_cell=3: unknown key 'evla'; did you mean 'eval'?"),
        ("eval.per_cell=many", "--set eval.per_cell=many: eval.per_cell: input should be a valid integer"),
        ("probes.test_share=1", "probes.test_share: expected auto, crossed or a share from 0 to below 1, got 1"),
        ("probes.perm=9", "probes.perm: expected 0 for no null, else 19 or more: 9 give no p of 0.05"),
        ("probes.kinds=[lasso]", "lasso"),
        ("name=../x", "name: string should match pattern"),
        ("task.data=none.jsonl", "task.data: no file or folder 'none.jsonl'"),
        ("checkpoint.base=x", "give exactly one of pair and checkpoint"),
        ("eval", "expected section.key=value"),
        ("published=[{name: a, valu: 1, source: b}]", "section published: unknown key 'valu'; did you mean 'value'?"),
        ("published=[{name: a, source: b}]", "published.0.value is missing"),
    ],
)
def test_a_wrong_override_is_said_with_its_key(tmp_path: Path, override: str, said: str) -> None:
    assert said in refusal(tmp_path, override)


def test_a_wrong_key_of_the_file_is_said_with_its_line(tmp_path: Path) -> None:
    text = SMALL.replace("heads: {n: 4", "heads: {nn: 4")
    assert "/study.yaml, line 8: section heads: unknown key 'nn'; did you mean 'n'?" in refusal(tmp_path, text=text)
    text = SMALL.replace("pair: embedded", "pair: {engaged: {bse: x}, heuristic: {base: y}}")
    assert "line 2" in refusal(tmp_path, text=text) and "did you mean 'base'" in refusal(tmp_path, text=text)
    assert "key 'seed' is already given on line 3" in refusal(tmp_path, text=SMALL + "seed: 1\n")
    assert "task is missing" in refusal(tmp_path, text="name: x\npair: embedded\n")


def test_a_section_is_on_where_it_is_named_and_off_where_it_is_false(tmp_path: Path) -> None:
    study = read_study(
        write_study(tmp_path, "name: x\npair: embedded\ntask: {path: t}\neval:\n"), overrides=["report=false"]
    )
    assert study.eval is not None and study.cache is None and study.report is None and study.figures is not None


def test_cells_of_a_study_may_have_sizes_of_their_own_until_a_section_says_per_cell(tmp_path: Path) -> None:
    from collections import Counter

    from study.analyses.items import examples_of

    named = ["task.sizes.training_distribution=6", "eval.limit=null", "cache.limit=null"]
    study = read_study(write_study(tmp_path), overrides=[*named, "cache.per_cell=2"])
    counts = {section: Counter(e.metadata["cell"] for e in examples_of(study, getattr(study, section, None)))
              for section in ("eval", "cache")}  # fmt: skip
    assert counts["eval"].pop("training_distribution") == 6
    assert set(counts["eval"].values()) == {4}
    assert set(counts["cache"].values()) == {2}
    wrong = read_study(write_study(tmp_path), overrides=["task.sizes={training_distributon: 6}"])
    with pytest.raises(ValueError, match="sizes: 'training_distributon'.*Did you mean 'training_distribution'"):
        examples_of(wrong)
    with pytest.raises(ValueError, match=r"task\.sizes"):
        read_study(write_study(tmp_path), overrides=["task.sizes={training_distribution: 0}"])
    elsewhere = read_study(write_study(tmp_path), overrides=["task.path=interp.tasks.esi", "task.sizes={a: 2}"])
    with pytest.raises(ValueError, match="interp.tasks.esi does not take sizes"):
        examples_of(elsewhere)


def test_what_a_member_answered_needs_an_evaluation(tmp_path: Path) -> None:
    from study.run.steps import steps_of

    study = read_study(write_study(tmp_path), overrides=["eval=false"])
    assert "eval" not in steps_of(study)
    study = read_study(write_study(tmp_path), overrides=["eval=false", "probes.targets=[answer.correct]"])
    with pytest.raises(ValueError, match="step 'probes' needs eval"):
        steps_of(study)


ROW = {"member": "engaged", "metric": "accuracy", "value": 0.5, "lo": 0.4, "hi": 0.6, "n": 9, "interval": "Wilson",
       "note": ""}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lo": None}, "a value without lo"),
        ({"n": None}, "a value without n"),
        ({"lo": 0.7}, "lo > hi"),
        ({"n": 0}, "n below 1"),
        ({"value": None}, "neither a value nor a note"),
        ({"interval": ""}, "no interval"),
        ({"member": ""}, "no member"),
    ],
)
def test_a_number_without_its_control_is_refused(change: dict[str, object], said: str) -> None:
    good, bad = tidy([ROW], analysis="eval"), tidy([{**ROW, **change}], analysis="eval")
    assert len(check_table(good, "eval")) == 1
    with pytest.raises(ValueError, match=said):
        check_table(bad, "eval")


def test_a_value_that_is_missing_says_why(tmp_path: Path) -> None:
    row = {**ROW, "value": None, "lo": None, "hi": None, "note": "refused: the denominator may be 0"}
    assert len(check_table(tidy([row], analysis="heads"), "heads")) == 1


def test_a_table_is_the_same_bytes_twice_and_reads_back(tmp_path: Path) -> None:
    table = tidy([ROW, {**ROW, "value": 1 / 3, "lo": 0.1, "note": 'a,\n"b" é'}], analysis="eval", seed=3, named=True)
    first = [path.read_bytes() for path in write_table(table, tmp_path / "a" / "tables", "eval")]
    again = [path.read_bytes() for path in write_table(table.copy(), tmp_path / "b" / "tables", "eval")]
    assert first == again
    read = read_table(tmp_path / "a", "eval")
    assert read["value"].tolist() == table["value"].tolist() and read["note"][1] == 'a,\n"b" é'
    assert pd.read_csv(tmp_path / "a" / "tables" / "eval.csv")["seed"].tolist() == [3, 3]
    assert not (tmp_path / "a" / "tables" / ".tmp").exists()


def test_unknown_columns_and_tables_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="columns 'acc': not in study.schema.COLUMNS"):
        tidy([{**ROW, "acc": 1}])
    with pytest.raises(ValueError, match="lacks analysis"):
        check_table(tidy([ROW]).drop(columns="analysis"), "eval")
    write_table(tidy([ROW], analysis="eval"), tmp_path / "tables", "eval")
    with pytest.raises(ValueError, match="no table 'evl'. Tables: eval."):
        read_table(tmp_path, "evl")


def test_every_key_column_is_documented() -> None:
    assert set(KEYS) <= set(COLUMNS)
    assert all(column.means for column in COLUMNS.values())
