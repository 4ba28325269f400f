"""Rows as the world writes them: formats, splits, chat shapes, labels of several types."""

from __future__ import annotations

import csv
import gzip
import json
import shutil

import pandas as pd
import pytest

from interp.prompt import Example, Message
from interp.tasks import read_examples
from interp.tasks.row_files import data_files, split_named

ROWS = [
    {"id": "a", "prompt": 'the fox, "quick"', "label": "yes", "groups": {"g": "1"}, "spans": {"fox": [4, 7]}},
    {"id": "b", "prompt": "zwölf\nlines", "label": "no", "groups": {"g": "2"}},
]


def write_jsonl(path, rows, opener=open):
    path.parent.mkdir(parents=True, exist_ok=True)
    with opener(path, "wt", encoding="utf-8") as file:
        file.write("".join(json.dumps(r) + "\n" for r in rows))
    return path


def write_csv(path, rows, opener=open):
    with opener(path, "wt", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=["id", "prompt", "label", "groups.g", "spans"])
        writer.writeheader()
        for row in rows:
            spans = json.dumps(row["spans"]) if "spans" in row else ""
            flat = {"id": row["id"], "prompt": row["prompt"], "label": row["label"], "spans": spans}
            writer.writerow(flat | {"groups.g": row["groups"]["g"]})
    return path


def written(tmp_path, kind):
    path = tmp_path / f"items.{kind}"
    opener = gzip.open if kind.endswith("gz") else open
    if ".csv" in path.name:
        return write_csv(path, ROWS, opener)
    if ".jsonl" in path.name or kind == "lines in json":
        return write_jsonl(path if kind != "lines in json" else tmp_path / "items.json", ROWS, opener)
    if kind == "parquet":
        pd.DataFrame(ROWS).to_parquet(path)
        return path
    with opener(path, "wt", encoding="utf-8") as file:
        file.write(json.dumps(ROWS, indent=1))
    return path


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "parquet", "jsonl.gz", "json.gz", "csv.gz", "lines in json"])
def test_every_format_gives_the_same_examples(tmp_path, kind):
    assert read_examples(written(tmp_path, kind)) == read_examples(write_jsonl(tmp_path / "reference.jsonl", ROWS))


@pytest.mark.parametrize(
    ("cells", "labels"),
    [(["0", "1"], [0, 1]), (["0.5", "1"], [0.5, 1.0]), (["01", "2"], ["01", "2"]), (["1", "", "x"], ["1", None, "x"]),
     (["NA", "null"], ["NA", "null"]), (["1e3", "-.5"], [1000.0, -0.5])],
)  # fmt: skip
def test_labels_of_a_csv_file_are_numbers_only_where_all_are(tmp_path, cells, labels):
    path = tmp_path / "items.csv"
    path.write_text("id,prompt,label\n" + "".join(f"{i:03d},fox,{cell}\n" for i, cell in enumerate(cells)))
    read = read_examples(path)
    assert [e.label for e in read] == labels
    assert [type(e.label) for e in read] == [type(label) for label in labels]
    assert [e.id for e in read] == [f"{i:03d}" for i in range(len(cells))]


# --- splits ---------------------------------------------------------------------------------------------------------

FOUR = {"train-00000-of-00002": "r0", "train-00001-of-00002": "r1", "test-00000-of-00001": "e", "validation": "v"}


def split_folder(root, inner="data", kind="parquet"):
    for stem, name in FOUR.items():
        path = root / inner / f"{stem}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [{"id": f"{name}-{i}", "prompt": "fox"} for i in range(3)]
        pd.DataFrame(rows).to_parquet(path) if kind == "parquet" else write_jsonl(path, rows)
    return root


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
@pytest.mark.parametrize("inner", ["", "data", "inner/data"])
def test_a_folder_gives_the_split_asked_for_and_no_row_of_another(tmp_path, inner, kind):
    root = split_folder(tmp_path, inner, kind)
    ids = {split: [e.id for e in read_examples(root, split=split)] for split in ("train", "test", "validation", "dev")}
    of = {"train": ["r0", "r1"], "test": ["e"], "validation": ["v"], "dev": ["v"]}
    assert ids == {split: [f"{name}-{i}" for name in names for i in range(3)] for split, names in of.items()}
    assert [e.id for e in read_examples(root)] == ids["train"]


def test_a_split_that_is_not_there_names_those_that_are(tmp_path):
    root = split_folder(tmp_path)
    with pytest.raises(ValueError, match=r"no files of split 'hold'; it holds test, train, validation"):
        read_examples(root, split="hold")
    plain = write_jsonl(tmp_path / "plain" / "1.jsonl", ROWS)
    assert len(read_examples(plain.parent)) == 2
    for source in (plain, plain.parent):
        with pytest.raises(ValueError, match=r"split 'test'.*Leave the split out"):
            read_examples(source, split="test")
    test = write_jsonl(tmp_path / "items_test.jsonl", ROWS)
    assert len(read_examples(test, split="test")) == len(read_examples(test)) == 2


def test_splits_as_folders_and_files_of_no_split_beside_them(tmp_path):
    for split in ("train", "test"):
        write_jsonl(tmp_path / split / "part.jsonl", [{"id": split, "prompt": "fox"}])
    assert [e.id for e in read_examples(tmp_path, split="test")] == ["test"]
    write_jsonl(tmp_path / "more" / "train.jsonl", [{"id": "t", "prompt": "fox"}])
    write_jsonl(tmp_path / "more" / "extra.jsonl", [{"id": "x", "prompt": "fox"}])
    with pytest.warns(UserWarning, match=r"1 files belong to no split and are left out \(extra\.jsonl\)"):
        assert [e.id for e in read_examples(tmp_path / "more")] == ["t"]


def test_several_data_sets_below_one_folder_are_not_mixed(tmp_path):
    for name in ("easy", "hard"):
        write_jsonl(tmp_path / name / "train.jsonl", [{"id": name, "prompt": "fox"}])
    with pytest.raises(ValueError, match=r"several data sets .*\(easy, hard\)"):
        read_examples(tmp_path)
    assert [e.id for e in read_examples(tmp_path, config="hard")] == ["hard"]


def test_names_that_mean_a_split():
    from pathlib import Path

    means = {"train-00000-of-00001.parquet": "train", "my_test.jsonl": "test", "dev.json": "validation",
             "validation-1.csv": "validation", "test/part.jsonl": "test", "contest.jsonl": None,
             "training2.csv": "train",
             "train_test.jsonl": None, "Age.jsonl": None, "latest-items.jsonl": None}  # fmt: skip
    assert {name: split_named(Path(name)) for name in means} == means


def test_settings_of_a_data_set_are_not_its_rows(tmp_path):
    write_jsonl(tmp_path / "items.jsonl", ROWS)
    (tmp_path / "dataset_infos.json").write_text("{}")
    assert [f.name for f in data_files(tmp_path)] == ["items.jsonl"]


# --- labels of several types ----------------------------------------------------------------------------------------


def with_labels(tmp_path, labels):
    return write_jsonl(tmp_path / "items.jsonl", [{"id": i, "prompt": "fox", "label": v} for i, v in enumerate(labels)])


@pytest.mark.parametrize(
    "labels",
    [[1, "1"], [True, "true"], [True, 1], ["False", False], [0.0, "0"], [2, "2 "], ["a", 1, "1", True, "true"]],
)
def test_labels_that_look_the_same_and_are_of_different_types_name_both_lines(tmp_path, labels):
    with pytest.raises(ValueError, match=r"line (2|3), field 'label': expected one type .*items\.jsonl, line (1|2)"):
        read_examples(with_labels(tmp_path, labels))


@pytest.mark.parametrize(
    ("labels", "read"),
    [
        ([True, False, True], [1, 0, 1]),
        ([1, 0.5, 1.0], [1, 0.5, 1.0]),
        (["1", "x"], ["1", "x"]),
        (["yes", None], ["yes", None]),
    ],
)
def test_labels_of_one_type_stay_what_they_are(tmp_path, labels, read):
    assert [e.label for e in read_examples(with_labels(tmp_path, labels))] == read


def test_groups_of_different_types_do_not_become_one(tmp_path):
    rows = [{"id": i, "prompt": "fox", "groups": {"g": v}} for i, v in enumerate([1, "1"])]
    with pytest.raises(ValueError, match=r"line 2, field 'groups\.g'.*line 1"):
        read_examples(write_jsonl(tmp_path / "items.jsonl", rows))


# --- shapes of chats ------------------------------------------------------------------------------------------------


def one(tmp_path, row):
    (example,) = read_examples(write_jsonl(tmp_path / "items.jsonl", [{"id": "q", **row}]))
    return example


U = (Message("user", "is it?"),)


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": t} for t in ("is ", "it?")]}]},
         Example("q", U)),
        ({"prompt": "is it?", "completion": " yes"}, Example("q", U, answer=" yes")),
        ({"prompt": [{"role": "user", "content": "is it?"}]}, Example("q", U)),
        ({"prompt": [{"role": "user", "content": "is it?"}], "completion": [{"role": "assistant", "content": "yes"}]},
         Example("q", U, answer="yes")),
        ({"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "is it?"}]},
         Example("q", (Message("system", "s"), *U))),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"},
                            {"from": "human", "value": "is it?"}, {"from": "gpt", "value": "yes"}]},
         Example("q", (Message("user", "a"), Message("assistant", "b"), *U), answer="yes")),
        ({"conversations": [{"role": "user", "content": "is it?"}]}, Example("q", U)),
    ],
)  # fmt: skip
def test_shapes_of_the_world_become_ours(tmp_path, row, expected):
    assert one(tmp_path, row) == expected


def test_a_developer_s_turn_is_a_system_turn_and_counted(tmp_path):
    with pytest.warns(UserWarning, match=r"1 rows have turns of role 'developer', read as 'system'"):
        example = one(
            tmp_path, {"messages": [{"role": "developer", "content": "s"}, {"role": "user", "content": "is it?"}]}
        )
    assert example.messages == (Message("system", "s"), *U)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
         ["messages[0].content[0]", "'image_url'", "Only text"]),
        ({"messages": [{"role": "tool", "content": "x"}, {"role": "user", "content": "y"}]},
         ["messages[0].role", "'tool'"]),
        ({"messages": [{"role": "user", "content": []}]}, ["messages[0].content", "[]"]),
        ({"conversations": [{"from": "narrator", "value": "x"}]}, ["conversations[0]", "human, user", "narrator"]),
        ({"conversations": "hi"}, ["'conversations'", "list of {from, value}"]),
        ({"prompt": "x", "completion": "y", "answer": "z"}, ["'completion'", "'answer'", "Keep one"]),
        ({"instruction": "x", "input": "", "output": "y"}, ["Did you mean 'prompt' by 'instruction'"]),
        ({"question": "x"}, ["Did you mean 'prompt' by 'question'"]),
        ({"text": "\u200b"}, ["'text'"]),
        ({"prompt": "a\ud800"}, ["messages[0].content", "\\ud800"]),
    ],
)  # fmt: skip
def test_a_shape_that_cannot_be_read_has_a_remedy_that_fits(tmp_path, row, words):
    with pytest.raises(ValueError, match=r"items\.jsonl, line 1") as error:
        one(tmp_path, row)
    assert all(w in str(error.value) for w in words), str(error.value)


# --- damaged files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", b'{"data": [1, 2]}', "expected a JSON array"),
        ("a.json", b'{"id": {"0": "x"},\n "prompt": {"0": "y"}}', "expected a JSON array"),
        ("a.json", b"[1, 2]", "row 1: expected a JSON object"),
        ("a.json", b'[{"id": "a", "prompt": "x"}', "not valid JSON"),
        ("a.json", b'"text"', "expected a JSON array"),
        ("a.json", b"[" * 100_000, "nested too deeply|not valid JSON"),
        ("a.jsonl", b'{"id": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "line 1.*nested too deeply"),
        ("a.jsonl.gz", b"not gzip", "not readable as gzip"),
        ("a.csv.gz", b"not gzip", "not readable as CSV"),
        ("a.json.gz", gzip.compress(b"[{}]" * 9000, mtime=0)[:40], "not readable as gzip"),
        ("a.csv", b"id,prompt\n1,2,3\n4,5,6\n7,8,9,10\n", "not readable as CSV.*line 4"),
        ("a.csv", b"id,prompt\n1,\xff\xfe\n", "not UTF-8"),
        ("a.csv", b'id,prompt,spans\n1,fox,"{nope"\n', "field 'spans', column 2: not valid JSON"),
        ("a.csv", b"", "at least one row"),
        ("a.csv", b"id,prompt\n", "at least one row"),
        ("a.parquet.gz", gzip.compress(b"PAR1", mtime=0), "unpack the file"),
        ("a.json", b"", "not valid JSON"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named_with_what_to_do(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=words) as error:
        read_examples(tmp_path / name)
    assert "a." in str(error.value)
    assert len(str(error.value)) < 600


def test_a_line_without_an_end_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("interp.tasks.row_files.MAX_LINE", 1000)
    with gzip.open(tmp_path / "a.jsonl.gz", "wb") as file:
        file.write(b'{"id": "' + b"0" * 5000)
    with pytest.raises(ValueError, match=r"line 1: longer than 1,000 bytes"):
        read_examples(tmp_path / "a.jsonl.gz")


def test_a_folder_that_is_copied_one_level_up_reads_the_same(tmp_path):
    split_folder(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b" / "set")
    assert read_examples(tmp_path / "b", split="test") == read_examples(tmp_path / "a" / "data", split="test")
