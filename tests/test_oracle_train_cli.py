"""`diptych oracle train`: a file to a checkpoint folder; what is wrong in the file is said in the user's words."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from study.analyses.oracle.training import TrainingFile, items_of, read_labels
from study.cli.oracle import train as command
from tests.oracle_train_kit import tiny_model
from tests.tiny import save_checkpoint


def corpus(folder: Path, n: int = 12) -> tuple[Path, Path]:
    """Chains of four sentences and labels for each: two classes in turn, a value, a probability."""
    rows, labels = [], []
    for k in range(n):
        cot = f"First we read number {k}. Then we add {k} and one. That gives {k + 1} in all. So the answer is {k + 1}."
        rows.append({"id": f"e{k}", "question": f"What is {k} plus one?", "cot": cot, "answer": str(k + 1)})
        for i in range(4):
            said = ("fact_retrieval", "active_computation", "result_consolidation", "final_answer")[i]
            values = {
                "taxonomy": {"label": said},
                "importance": {"value": ((i + k) % 4) / 4},
                "answer": {"value": i / 4},
            }
            labels += [{"id": f"e{k}", "sentence": i, "task": task, **v} for task, v in values.items()]
    data, marks = folder / "cot.jsonl", folder / "labels.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    marks.write_text("".join(json.dumps(row) + "\n" for row in labels))
    return data, marks


def summarise(chain) -> str:
    """A summary by a user's function."""
    return (
        f"Adds one to a number and gives what {chain.id} asks for, after reading it twice and checking {chain.problem}."
    )


def write(folder: Path, **changes: object) -> Path:
    data, marks = corpus(folder)
    content = {
        "base": str(save_checkpoint(folder / "base")),
        "corpus": str(data),
        "labels": str(marks),
        "summaries": "tests.test_oracle_train_cli:summarise",
        "tasks": {"context": 24, "taxonomy": None, "importance": None, "answer": None, "summary": None},
        "spec": {"layers": ["34%"], "hook_layer": 1},
        "validation": 3,
        "recipe": {"rank": 2, "alpha": 4, "batch_size": 8, "max_steps": 2, "lr": 0.01, "save_every": None},
    }
    content |= changes
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}))
    return file


def test_a_file_is_trained_and_leaves_a_plain_adapter(tmp_path: Path) -> None:
    file, out = write(tmp_path), tmp_path / "out"
    dry = CliRunner().invoke(command, [str(file), "--out", str(out), "--dry-run"])
    assert dry.exit_code == 0, dry.output
    assert "taxonomy: " in dry.output
    assert "OK      taxonomy/fallback" in dry.output
    assert not out.exists()
    done = CliRunner().invoke(command, [str(file), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "best: step 2, control gap" in done.output
    assert (out / "best" / "adapter_model.safetensors").is_file()
    assert json.loads((out / "best" / "ao_config.json").read_text())["layer_combinations"] == [[34]]
    again = CliRunner().invoke(command, [str(file), "--out", str(out)])
    assert again.exit_code == 1
    assert "holds this run up to a checkpoint" in again.output
    assert CliRunner().invoke(command, [str(file), "--out", str(out), "--resume"]).exit_code == 0


def test_faulty_labels_stop_the_command_before_any_step(tmp_path: Path) -> None:
    file, out = write(tmp_path, tasks={"taxonomy": None}), tmp_path / "out"
    rows = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines()]
    same = [row | {"label": "active_computation"} for row in rows if row["task"] == "taxonomy"]
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in same))
    result = CliRunner().invoke(command, [str(file), "--out", str(out)])
    assert result.exit_code == 1
    assert "FAIL    constant: 1 (threshold 0.8)" in result.output
    assert not out.exists()


def test_every_task_is_built_from_the_corpus(tmp_path: Path) -> None:
    made = items_of(TrainingFile.read(write(tmp_path)), tiny_model())
    assert {i.task for i in made} == {"previous", "next", "taxonomy", "importance", "answer", "summary"}
    assert all(i.layers == (1,) for i in made)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"corpsu": "x"}, "unknown key 'corpsu'.*Did you mean 'corpus'"),
        ({"corpus": None}, "expected either corpus or items, got neither"),
        ({"tasks": {"taxnomy": 3}}, "tasks: unknown key 'taxnomy'.*Did you mean 'taxonomy'"),
        ({"tasks": {"context": None}}, "tasks.context: expected how many"),
        ({"labels": None}, "need labels; give the file as `labels`"),
        ({"recipe": {"batchsize": 2}}, "recipe.batchsize: unknown key.*Did you mean 'batch_size'"),
        ({"summaries": "tests.nowhere:f"}, "'tests.nowhere:f': expected the import path"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    result = CliRunner().invoke(command, [str(write(tmp_path, **changes)), "--out", str(tmp_path / "out")])
    assert result.exit_code == 1
    assert re.search(message, result.output.replace("\n", " ")), result.output


def test_a_sentence_with_two_labels_is_refused(tmp_path: Path) -> None:
    row = {"id": "e0", "sentence": 0, "task": "taxonomy", "label": "fact_retrieval"}
    file = tmp_path / "labels.jsonl"
    file.write_text(2 * (json.dumps(row) + "\n"))
    with pytest.raises(ValueError, match="sentence 0 of 'e0' has a label of task 'taxonomy' already"):
        read_labels(file)
    file.write_text(json.dumps({**row, "task": "answer"}) + "\n")
    with pytest.raises(ValueError, match="task 'answer': expected field 'value'"):
        read_labels(file)
