"""Rows chosen by conditions on columns: the same rule for items, caches, probes, directions and studies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from interp.cache import extract
from interp.example import Example
from interp.model import Model
from interp.where import Condition, columns_of, examples_where, kept, some
from probes import SweepConfig, sweep
from probes.design import positive_of, targets
from study.cli import main
from study.task_options import ItemOptions
from tests.tiny import tiny, tiny_tokenizer

ROWS = {
    "label": ["a", None, "b", "", "a"],
    "n": [1, 2.0, None, float("nan"), 10],
    "flag": [True, False, None, True, True],
}


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("label", [0, 2, 4]),
        ("label!=", [0, 2, 4]),
        ("label=", [1, 3]),
        ("label=a", [0, 4]),
        ("label == a", [0, 4]),
        ("label=a, b", [0, 2, 4]),
        ("label!=a", [2]),
        ("n=1", [0]),
        ("n=1.0,10", [0, 4]),
        ("n=2", [1]),
        ("n<2", [0]),
        ("n<=2", [0, 1]),
        ("n>2", [4]),
        ("n>=2", [1, 4]),
        ("flag=true", [0, 3, 4]),
        ("flag=False", [1]),
    ],
)
def test_a_condition_keeps_the_rows_that_it_says(text: str, rows: list[int]) -> None:
    assert np.flatnonzero(kept(ROWS, text, n=5)).tolist() == rows
    assert np.flatnonzero(kept(pd.DataFrame(ROWS), text, n=5)).tolist() == rows


def test_several_conditions_must_all_hold_and_a_mapping_means_equality() -> None:
    assert np.flatnonzero(kept(ROWS, ["label", "n>=1"], n=5)).tolist() == [0, 4]
    assert np.flatnonzero(kept(ROWS, {"label": ("a", "b"), "flag": ("true",)}, n=5)).tolist() == [0, 4]
    assert kept(ROWS, (), n=5).all()
    assert columns_of({"label": ("a",)}) == columns_of(["label!=x"]) == ("label",)


def test_missing_values_of_nullable_columns_are_missing() -> None:
    frame = pd.DataFrame(
        {"label": pd.array([1, None, 0], dtype="Int64"), "ok": pd.array([True, None, False], "boolean")}
    )
    assert kept(frame, "label", n=3).tolist() == [True, False, True]
    assert kept(frame, "ok!=true", n=3).tolist() == [False, False, True]


@pytest.mark.parametrize("text", ["", "=a", "n<", "n<two", "n>=True", "a<b<c", "__import__('os').system('x')=<"])
def test_what_is_no_condition_is_refused_and_nothing_is_evaluated(text: str) -> None:
    with pytest.raises(ValueError, match=r"condition|no column"):
        kept(ROWS, [text], n=5)


def test_errors_name_the_option_the_columns_and_what_the_column_holds() -> None:
    with pytest.raises(ValueError, match=r"--where lable: no column 'lable'. Columns: label, n, flag"):
        kept(ROWS, "lable", n=5, option="--where")
    with pytest.raises(ValueError, match=r"--where label=c: no row is left. 'label' holds a, b\."):
        kept(ROWS, "label=c", n=5, option="--where")
    many = {"x": [f"v{i}" for i in range(100)]}
    with pytest.raises(ValueError, match=r"holds v0, .*v11 and 88 more\."):
        kept(many, "x=none", n=100)
    assert some(range(3)) == "0, 1, 2"


def test_a_parsed_condition_is_written_as_it_was_read() -> None:
    for text in ("label", "label=a,b", "label!=a", "n<3", "n>=0.5", "label="):
        assert str(Condition.parse(text)) == text
        assert Condition.parse(str(Condition.parse(text))) == Condition.parse(text)


EXAMPLES = [
    Example(f"e{i}", text="x", label=[None, "yes", "no"][i % 3], groups={"story": f"s{i % 4}"}, metadata={"n": i})
    for i in range(12)
]


def test_examples_are_chosen_by_id_label_group_and_further_keys() -> None:
    assert [e.id for e in examples_where(EXAMPLES, ["label=yes", "n<5"])] == ["e1", "e4"]
    assert {e.groups["story"] for e in examples_where(EXAMPLES, "story=s1")} == {"s1"}
    assert [e.id for e in examples_where(EXAMPLES, "id=e3")] == ["e3"]
    assert len(examples_where(EXAMPLES, "label")) == 8


def test_where_comes_before_limit(tmp_path: Path) -> None:
    file = tmp_path / "items.jsonl"
    lines = [{"id": e.id, "prompt": "x", "label": e.label, "n": e.metadata["n"]} for e in EXAMPLES]
    file.write_text("\n".join(map(json.dumps, lines)))
    found = [e.id for e in ItemOptions(data=str(file), limit=3, where=("label", "n>=6")).examples()]
    assert len(found) == 3 and set(found) <= {"e7", "e8", "e10", "e11"}


def _data(n_groups: int = 24) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    rng, groups = np.random.default_rng(0), np.repeat(np.arange(n_groups), 4)
    labels = (groups % 2).astype(int)
    return labels, groups, {"resid_post.0": (rng.normal(size=(len(labels), 6)) + labels[:, None]).astype(np.float32)}


def test_a_sweep_of_the_kept_rows_is_the_sweep_of_data_that_holds_only_them() -> None:
    labels, groups, feats = _data()
    keep = np.arange(len(labels)) % 4 != 1
    config = SweepConfig(kinds=("ridge",), n_perm=19, n_seeds=1, n_boot=200)
    ids = [f"r{i}" for i in range(len(labels))]
    own: dict[str, Any] = dict(target=labels[keep], groups=groups[keep], config=config)
    whole = sweep(feats, keep=keep, ids=ids, **own)
    part = sweep(
        {site: f[keep] for site, f in feats.items()}, ids=[i for i, k in zip(ids, keep, strict=True) if k], **own
    )
    pd.testing.assert_frame_equal(whole.table, part.table)
    assert whole.ids == part.ids and len(whole.ids) == keep.sum()
    with pytest.raises(ValueError, match=r"keep: .*\(96,\), got \(3,\)"):
        sweep(feats, keep=[True] * 3, **own)


def test_unlabelled_rows_name_an_option_that_leaves_them_out() -> None:
    values = np.array([1, pd.NA, 0, None, float("nan"), 1], dtype=object)
    with pytest.raises(ValueError, match=r"3 of 6 rows have no label, first row 1. Leave them out with keep="):
        targets(values, None)


def test_measurements_and_names_are_no_classes_and_the_error_stays_short() -> None:
    values = np.random.default_rng(0).normal(size=120)
    with pytest.raises(ValueError, match=r"120 different numbers, from -.* positive='>=X'") as error:
        targets(values, None)
    assert len(str(error.value)) < 400
    names = np.array([f"row-{i}" for i in range(120)])
    with pytest.raises(ValueError, match=r"and 108 more\): names of rows, not classes") as error:
        targets(names, None)
    assert len(str(error.value)) < 400
    assert len(targets(np.arange(120) % 20, None)) == 20


def test_a_bound_cuts_a_measurement_into_two_labels() -> None:
    values = np.array([0.1, 0.5, None, 0.7], dtype=object)
    labels, positive = positive_of(values, ">=0.5")
    assert labels.tolist() == ["otherwise", ">=0.5", None, ">=0.5"] and positive == ">=0.5"
    found = targets(labels[[0, 1, 3]], positive)
    assert found[">=0.5"].tolist() == [0, 1, 1]
    with pytest.raises(ValueError, match=r"probes.positive c: not a label. Labels: a, b\."):
        positive_of(np.array(["a", "b"]), "c", option="probes.positive")
    with pytest.raises(ValueError, match="expected a number after >"):
        positive_of(values, ">x")


@pytest.fixture(scope="module")
def partly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of 48 items in 16 groups, a quarter of which has no label."""
    folder = tmp_path_factory.mktemp("partly")
    rng = np.random.default_rng(1)
    items = [
        Example(
            f"e{i}", text=f"item {i} {'yes' if i // 3 % 2 else 'no'} {rng.integers(1000)}",
            label=None if i % 4 == 3 else i // 3 % 2, groups={"story": f"s{i // 3}"}, metadata={"score": float(i) / 47},
        )
        for i in range(48)
    ]  # fmt: skip
    model = Model.wrap(tiny("qwen2", vocab_size=len(tiny_tokenizer())), tiny_tokenizer())
    extract(model, items, out=folder / "cache", sites="resid_post.0", progress=False)
    return folder / "cache"


def test_probes_and_directions_leave_unlabelled_rows_out_where_they_are_told_to(partly: Path, tmp_path: Path) -> None:
    run = CliRunner()
    common = [str(partly), "--target", "label", "--groups", "story", "--unit", "none"]
    few = ["--kinds", "ridge", "--perm", "0", "--boot", "100", "--split-seeds", "1"]
    asked = ["probes", "sweep", *common, *few, "--out"]
    refused = run.invoke(main, [*asked, str(tmp_path / "a")])
    assert refused.exit_code == 1 and "12 of 48 rows have no label" in refused.output and "--where" in refused.output
    swept = run.invoke(main, [*asked, str(tmp_path / "b"), "--where", "label"])
    assert swept.exit_code == 0, swept.output
    table = pd.read_csv(tmp_path / "b" / "table.csv")
    assert (table.loc[table["split"] == "oof", "n"] == 36).all()
    assert json.loads((tmp_path / "b" / "plan.json").read_text())["identity"]["where"] == ["label"]
    other = run.invoke(main, [*asked, str(tmp_path / "b"), "--where", "label", "--where", "id!=e0"])
    assert other.exit_code == 1 and "holds another sweep" in other.output
    continuous = [*asked, str(tmp_path / "c"), "--positive", ">=0.5"]
    continuous[continuous.index("label")] = "score"
    assert run.invoke(main, continuous).exit_code == 0
    how = ["--orders", "1", "--where", "label", "--sites", "resid_post.0"]
    checked = run.invoke(main, ["probes", "mdl", *common, *how])
    assert checked.exit_code == 0 and "36" in checked.output, checked.output


def test_rows_that_conditions_leave_out_need_no_group(partly: Path) -> None:
    from interp.cache import ActivationCache
    from steering import difference_of_means

    how: dict[str, Any] = dict(toward="1", away_from="0", site="resid_post.0", check_sign=False)
    with ActivationCache.open(partly) as cache:
        frame = cache.examples
        # 15 scores lie below 0.3 (i/47, i <= 14), of which 3 rows have no label
        some_lack = [
            None if score < 0.3 else story for story, score in zip(frame["story"], frame["score"], strict=True)
        ]
        with pytest.raises(ValueError, match=r"groups: 12 of 48 .* Leave them out with where="):
            difference_of_means(cache, groups=some_lack, **how)
        kept_only = difference_of_means(cache, groups=some_lack, where="score>=0.3", **how)
        whole = difference_of_means(cache, groups="story", where="score>=0.3", **how)
    assert np.array_equal(kept_only.vec.numpy(), whole.vec.numpy())
    assert kept_only.stats.n_groups == whole.stats.n_groups


def test_a_direction_of_the_kept_rows_is_that_of_classes_that_the_others_lack(partly: Path) -> None:
    from interp.cache import ActivationCache
    from steering import difference_of_means

    how: dict[str, Any] = dict(toward="1", away_from="0", site="resid_post.0", groups="story", check_sign=False)
    with ActivationCache.open(partly) as cache:
        frame = cache.examples
        given = [None if pd.isna(a) or b < 0.3 else a for a, b in zip(frame["label"], frame["score"], strict=True)]
        one = difference_of_means(cache, target=given, **how)
        same = difference_of_means(cache, where=["label", "score>=0.3"], **how)
        every = difference_of_means(cache, **how)
    assert np.array_equal(one.vec.numpy(), same.vec.numpy()) and not np.array_equal(one.vec.numpy(), every.vec.numpy())
    assert same.provenance["where"] == ["label", "score>=0.3"] and "where" not in every.provenance
