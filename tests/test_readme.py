"""Every command and every line of Python in the README runs, on tiny stand-ins for the weights that it names."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from study.cli import main
from study.report.published import parse_published
from tests.bbq_rows import thinned
from tests.tiny import add_lora, save_checkpoint, tiny, tiny_tokenizer

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()


ELSEWHERE = ("pair", "study", "tables", "figures", "report", "oracle")
"""Commands that need a run, an oracle or minutes of training; they have tests of their own."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bbq_folder: Path) -> dict[str, str]:
    """A folder where every name of the README stands for something small; returns what to put in its place."""
    monkeypatch.chdir(tmp_path)
    names = {"../BBQ": str(tmp_path / "BBQ")}
    for base, adapter, seed in (("Qwen2.5-7B-Instruct", "b5-sft-7b", 7), ("Qwen2.5-14B-Instruct", "v7-grpo-14b", 8)):
        save_checkpoint(tmp_path / base, seed=seed, max_position_embeddings=2048)
        peft = add_lora(
            tiny("qwen2", vocab_size=len(tiny_tokenizer()), max_position_embeddings=2048, seed=seed), seed=seed
        )
        peft.save_pretrained(tmp_path / adapter)
        config = json.loads((tmp_path / adapter / "adapter_config.json").read_text())
        named = {**config, "base_model_name_or_path": f"Qwen/{base}"}
        (tmp_path / adapter / "adapter_config.json").write_text(json.dumps(named))
        names |= {f"Qwen/{base}": str(tmp_path / base), f"kennethp97/{adapter}": str(tmp_path / adapter)}
    thinned(bbq_folder, tmp_path / "BBQ", ["Age"], every=8)
    rows = [
        {"id": k, "prompt": f"the quick brown fox {k}", "label": k % 2, "groups": {"procedure_id": str(k // 2)},
         "entity": f"e{k % 7}"}
        for k in range(48)
    ]  # fmt: skip
    from interp.tasks.procedural import generate_records

    records = generate_records(4, 1, split="test")
    (tmp_path / "my_dataset.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "pair.yaml").write_text(fill(blocks("yaml")[0], names))
    return names


def fill(text: str, names: dict[str, str]) -> str:
    for name in sorted(names, key=len, reverse=True):
        text = text.replace(name, names[name])
    return text


@pytest.mark.slow
def test_every_diptych_command_of_the_readme_runs(world: dict[str, str]) -> None:
    lines = [line for block in blocks("bash") for line in fill(block, world).splitlines()]
    commands = [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("diptych ")]
    assert len(commands) >= 9
    for command in commands:
        if command[0] in ELSEWHERE or command[:2] == ["steer", "dose"]:
            continue
        if "interp.tasks.bbq" in command:
            command += ["--limit", "12"]
        if command[0] == "heads" and "show" not in command:
            command = [*("L1.H2" if word == "L19.H17" else word for word in command), "--n", "4", "--slot", ""]
        if command[:2] == ["heads", "show"]:
            command[-1] = "L1.H2"
        if command[0] == "eval":
            command += ["--per-cell", "2", "--max-new-tokens", "4" if "pair.yaml" in command else "40"]
        if command[:2] == ["data", "procedural"]:
            command[command.index("2000")] = "200"
        if command[:2] == ["probes", "sweep"]:
            command[command.index("999")] = "19"
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 0, (command, done.output)


@pytest.mark.slow
def test_the_python_of_the_readme_runs(world: dict[str, str]) -> None:
    scope: dict[str, object] = {}
    for block in blocks("python"):
        exec(compile(fill(block, world), "README.md", "exec"), scope)
    assert scope["feats"].shape == (48, 32)  # type: ignore[union-attr]
    assert not (scope["logits"][0] == scope["base_logits"][0]).all()  # type: ignore[index]


def test_every_make_target_that_is_named_exists() -> None:
    root = Path(__file__).resolve().parent.parent
    targets = set(re.findall(r"^([a-z-]+):", (root / "Makefile").read_text(), re.M))
    named = {
        m
        for name in ("README.md", "CONTRIBUTING.md")
        for m in re.findall(r"\bmake ([a-z-]+)", (root / name).read_text())
    }
    assert named <= targets


def test_yaml_of_the_documents_can_be_read() -> None:
    root = Path(__file__).resolve().parent.parent
    n = 0
    for document in [*root.glob("*.md"), *root.glob("docs/**/*.md")]:
        for block in re.findall(r"^ *```ya?ml\n(.*?)^ *```", document.read_text(), re.S | re.M):
            try:
                assert yaml.safe_load(block)
            except yaml.YAMLError as error:
                pytest.fail(f"{document.name}: {error}")
            n += 1
    assert n >= 4


def test_published_values_of_the_report_page_are_read() -> None:
    text = (Path(__file__).resolve().parent.parent / "docs" / "howto" / "report.md").read_text()
    (block,) = re.findall(r"```yaml\n(published:.*?)```", text, re.S)
    first, *rest = parse_published(yaml.safe_load(block)["published"])
    assert (first.value, first.prompt, first.metric) == (0.68, "same", "same")
    assert len(rest) == 2


def test_links_of_the_documents_lead_somewhere() -> None:
    root = Path(__file__).resolve().parent.parent
    for document in [*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob("benchmarks/*.md")]:
        for target in re.findall(r"\]\((?!http|#|mailto)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
