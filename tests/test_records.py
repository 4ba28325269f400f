"""Input rows: every source gives the same examples, and every bad row an error with file, line, field and advice."""

from __future__ import annotations

import json
import sys
import types

import pytest

from interp.prompt import Example, Message
from interp.tasks import Task, load_task, read_examples
from interp.tasks.protocol import builtin_tasks

ROWS = [
    {"id": 7, "prompt": "the fox", "label": "yes", "spans": {"fox": [4, 7]}, "groups": {"template": 3}, "source": "x"},
    {"id": "b", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}], "label": 0.5},
    {"id": "c", "text": "once upon", "answer": " a time", "label": True, "score": [1, 2]},
]
EXPECTED = [
    Example("7", (Message("user", "the fox"),), "yes", {"template": "3"}, {"fox": (4, 7)}, {"source": "x"}),
    Example("b", (Message("system", "s"), Message("user", "u")), 0.5),
    Example("c", label=1, answer=" a time", text="once upon", metadata={"score": [1, 2]}),
]


def write(path, rows):
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return path


def test_jsonl_rows_become_examples_and_other_keys_are_kept(tmp_path):
    assert read_examples(write(tmp_path / "items.jsonl", ROWS)) == EXPECTED
    assert read_examples(str(write(tmp_path / "items.ndjson", ROWS)), limit=2) == EXPECTED[:2]


def test_parquet_gives_the_same_examples_although_absent_fields_are_null_there(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{**r, "label": str(r["label"])} for r in ROWS]
    pq.write_table(pa.Table.from_pylist(rows, schema=_union(rows)), tmp_path / "items.parquet")
    assert read_examples(tmp_path / "items.parquet") == read_examples(write(tmp_path / "items.jsonl", rows))


def _union(rows):
    import pyarrow as pa

    return pa.schema([
        ("id", pa.string()), ("prompt", pa.string()), ("text", pa.string()), ("answer", pa.string()),
        ("label", pa.string()),
        ("source", pa.string()), ("score", pa.list_(pa.int64())),
        ("spans", pa.struct([("fox", pa.list_(pa.int64())), ("dog", pa.list_(pa.int64()))])),
        ("groups", pa.struct([("template", pa.int64())])),
        ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
    ])  # fmt: skip


@pytest.fixture(autouse=True)
def _string_ids_for_parquet(request, monkeypatch):
    if "parquet" in request.node.name:
        monkeypatch.setitem(ROWS[0], "id", "7")


def test_a_folder_is_read_in_the_order_of_its_file_names(tmp_path):
    write(tmp_path / "2.jsonl", ROWS[1:])
    write(tmp_path / "1.jsonl", ROWS[:1])
    (tmp_path / "notes.txt").write_text("not data")
    assert read_examples(tmp_path) == EXPECTED
    for name in "hbzkaqmcx":
        write(tmp_path / f"{name}.jsonl", [{"id": f"of {name}", "prompt": name}])
    assert [e.id for e in read_examples(tmp_path)][3:] == [f"of {name}" for name in sorted("hbzkaqmcx")]


def test_blank_lines_and_a_byte_order_mark_are_no_rows(tmp_path):
    path = tmp_path / "items.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(ROWS[0]).encode() + b"\n\n" + json.dumps(ROWS[1]).encode())
    assert read_examples(path) == EXPECTED[:2]


def test_a_dataset_id_is_read_with_its_split_config_and_revision(monkeypatch):
    asked = {}

    def load_dataset(name, config, *, split, revision):
        asked.update(name=name, config=config, split=split, revision=revision)
        return ROWS

    monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=load_dataset))
    assert read_examples("someone/items", split="test", config="small", revision="abc") == EXPECTED
    assert asked == {"name": "someone/items", "config": "small", "split": "test", "revision": "abc"}
    monkeypatch.setitem(ROWS[1], "label", float("inf"))
    with pytest.raises(ValueError, match=r"someone/items/small\[test\], row 2.*'label'"):
        read_examples("someone/items", split="test", config="small")


def test_a_dataset_id_without_datasets_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"someone/items.*diptych\[datasets\]"):
        read_examples("someone/items")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": None}, ["'id'", "an id"]),
        ({"id": None, "idx": 4}, ["'id'", "Did you mean 'idx'"]),
        ({"id": ""}, ["'id'", "not empty", "''"]),
        ({"id": 1.5}, ["'id'", "1.5"]),
        ({"id": True}, ["'id'", "True"]),
        ({"id": "first"}, ["'id'", "'first'", "items.jsonl, line 1", "Rename one"]),
        ({"prompt": None}, ["'messages'", "exactly one of messages, prompt, text"]),
        ({"prompt": None, "promt": "x"}, ["'messages'", "Did you mean 'prompt' by 'promt'"]),
        ({"text": "x"}, ["'messages'", "['prompt', 'text']"]),
        ({"prompt": " "}, ["'prompt'", "not empty"]),
        ({"prompt": 5}, ["'prompt'", "5"]),
        ({"prompt": None, "messages": []}, ["'messages'", "[]", "'prompt'"]),
        ({"prompt": None, "messages": "hi"}, ["'messages'", "'hi'"]),
        ({"prompt": None, "messages": ["hi"]}, ["'messages[0]'", "'hi'"]),
        ({"prompt": None, "messages": [{"role": "user"}]}, ["'messages[0].content'", "None"]),
        (
            {"prompt": None, "messages": [{"role": "robot", "content": "x"}]},
            ["messages[0].role", "'robot'", "system, user"],
        ),
        (
            {"prompt": None, "messages": [{"role": "assistant", "content": "x"}]},
            ["messages[0].role", "end with 'user'"],
        ),
        ({"prompt": None, "messages": [{"role": "user", "content": "x", "name": "y"}]}, ["'messages[0]'", "['name']"]),
        ({"label": float("nan")}, ["'label'", "finite", "nan"]),
        ({"label": [1]}, ["'label'", "[1]"]),
        ({"answer": ""}, ["'answer'", "''"]),
        ({"spans": {"x": [0, 99]}}, ["'spans.x'", "[0, 99]", "<= 7", "characters"]),
        ({"spans": {"x": [3, 3]}}, ["'spans.x'", "[3, 3]"]),
        ({"spans": {"x": [1]}}, ["'spans.x'", "[1]", "two whole numbers"]),
        ({"spans": {"x": [0, 1.5]}}, ["'spans.x'", "1.5"]),
        ({"spans": [0, 1]}, ["'spans'", "[0, 1]"]),
        ({"spans": {"prompt": [0, 1]}}, ["'spans'", "'prompt'", "Rename"]),
        ({"groups": "t"}, ["'groups'", "'t'"]),
        ({"groups": {"t": [1]}}, ["'groups.t'", "[1]"]),
    ],
)
def test_a_bad_row_is_refused_naming_file_line_and_field(change, words, tmp_path):
    row = {k: v for k, v in {"id": "second", "prompt": "the fox", **change}.items() if v is not None}
    path = write(tmp_path / "items.jsonl", [{"id": "first", "prompt": "a"}, row])
    with pytest.raises(ValueError, match="items.jsonl, line 2") as error:
        read_examples(path)
    assert all(w in str(error.value) for w in words), str(error.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"id": "b", "prompt": "x"', ["line 2, column 26", "not valid JSON"]),
        (b'["b"]', ["line 2", "expected a JSON object"]),
        (b'{"id": "b", "id": "c", "prompt": "x"}', ["line 2", "'id'", "2 times"]),
        (b'{"id": "b", "prompt": "\xff"}', ["line 2, byte 23", "not UTF-8"]),
    ],
)
def test_a_line_that_is_no_object_is_refused_with_its_place(line, words, tmp_path):
    path = tmp_path / "items.jsonl"
    path.write_bytes(b'{"id": "a", "prompt": "x"}\n' + line + b"\n")
    with pytest.raises(ValueError, match="items.jsonl") as error:
        read_examples(path)
    assert all(w in str(error.value) for w in words), str(error.value)


def test_a_repeated_id_across_files_and_types_names_both_places(tmp_path):
    write(tmp_path / "1.jsonl", [{"id": 3, "prompt": "x"}])
    write(tmp_path / "2.jsonl", [{"id": "3", "prompt": "y"}])
    with pytest.raises(ValueError, match=r"2\.jsonl, line 1, field 'id'.*'3'.*1\.jsonl, line 1"):
        read_examples(tmp_path)


def test_sources_that_hold_no_rows_or_do_not_exist_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one row"):
        read_examples(write(tmp_path / "empty.jsonl", []))
    with pytest.raises(FileNotFoundError, match=r"missing\.jsonl"):
        read_examples(tmp_path / "missing.jsonl")
    with pytest.raises(FileNotFoundError, match=r"data/missing\.jsonl"):
        read_examples("data/missing.jsonl")
    (tmp_path / "items.xlsx").write_text("id,prompt\n")
    with pytest.raises(ValueError, match=r"\.jsonl, \.ndjson, \.json, \.csv, \.parquet.*'\.xlsx'"):
        read_examples(tmp_path / "items.xlsx")
    (tmp_path / "sub").mkdir()
    with pytest.raises(ValueError, match="got none"):
        read_examples(tmp_path / "sub")
    (tmp_path / "bad.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(ValueError, match=r"bad\.parquet: not a readable Parquet file"):
        read_examples(tmp_path / "bad.parquet")
    with pytest.raises(ValueError, match="limit"):
        read_examples(tmp_path / "empty.jsonl", limit=0)


# --- tasks by import path -------------------------------------------------------------------------------------------


def test_a_task_is_found_by_import_path_as_module_or_object(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "class T:\n    def examples(self, data, **options):\n        return []\ntriage = T()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert load_task("interp.tasks.bbq").__name__ == "interp.tasks.bbq"
    assert load_task("mine:triage").examples("x") == []
    assert isinstance(load_task("interp.tasks.bbq"), Task)
    assert "interp.tasks.bbq" in builtin_tasks()
    assert not {"interp.tasks.protocol", "interp.tasks.records", "interp.tasks.bbq.targets"} & set(builtin_tasks())


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("interp.tasks.bqb", ["no module", "Did you mean 'interp.tasks.bbq'"]),
        ("nowhere.at.all", ["no module 'nowhere'", "interp.tasks.bbq"]),
        ("interp/tasks/bbq.py", ["not an import path"]),
        ("interp.tasks.records", ["no function examples"]),
        ("interp.tasks.bbq:triage", ["no 'triage'"]),
    ],
)
def test_a_wrong_task_path_lists_the_tasks(path, words):
    with pytest.raises(ValueError, match="task ") as error:
        load_task(path)
    assert all(w in str(error.value) for w in words), str(error.value)


def test_an_import_that_fails_inside_a_task_is_shown_as_it_is(tmp_path, monkeypatch):
    (tmp_path / "broken.py").write_text("import not_installed_anywhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        load_task("broken")
