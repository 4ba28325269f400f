"""Nothing that is shared names a folder, user or host of the machine that made it."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

from interp.checkpoint import Checkpoint
from interp.io.paths import portable, shown
from interp.oracle.spec import OracleSpec
from interp.oracle.train import adapter_config
from study.cli import main
from study.config import read_study
from study.config.write import resolved_yaml
from study.embedded import weights_folder

USER, HOST = "ada-lovelace", "analytical-engine"
STUDY = """\
name: shared
pair: ../ada-lovelace/pair.yaml
seed: 5
task: {path: interp.tasks.procedural, data: ../ada-lovelace/items.jsonl, split: all}
eval: {generate: false}
cache: {sites: 'resid_post.2', positions: last}
figures: false
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder that holds the models and the data."""
    home = tmp_path / USER
    for name in ("base", "engaged", "heuristic"):
        shutil.copytree(weights_folder() / name, home / "models" / name)
    base, engaged, heuristic = (str(home / "models" / name) for name in ("base", "engaged", "heuristic"))
    pair = {"base": base, "engaged": {"adapter": engaged}, "heuristic": {"adapter": heuristic}}
    (home / "pair.yaml").write_text(yaml.safe_dump(pair))
    rows = ("data", "procedural", "--n", "60", "--rendering", "log", "--out", str(home / "items.jsonl"))
    assert CliRunner().invoke(main, list(rows)).exit_code == 0
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USER", USER)
    monkeypatch.setattr(socket, "gethostname", lambda: HOST)
    return home


def contents(path: Path) -> Iterator[bytes]:
    """The bytes of a file, and those inside it that are compressed."""
    yield path.read_bytes()
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        yield f"{table.schema.metadata}{table.to_pylist()}".encode()
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            yield from (file[name].tobytes() for name in file.files)


def check(folder: Path, root: Path) -> None:
    """No file below `folder` names the home folder, the folder of all of this, the user, the host or the process."""
    words = [str(root), USER, HOST, f".{os.getpid()}.", f'"pid": {os.getpid()}']
    names = [p.relative_to(folder).as_posix() for p in folder.rglob("*")]
    assert not [name for name in names if any(word in name for word in words)]
    found = [
        (path.relative_to(folder).as_posix(), word)
        for path in sorted(folder.rglob("*")) if path.is_file()
        for content in contents(path) for word in words if word.encode() in content
    ]  # fmt: skip
    assert not found, found
    assert len(names) > 3


@pytest.mark.slow
def test_a_study_and_what_is_made_of_it_name_no_folder_user_or_host(home: Path, tmp_path: Path) -> None:
    def run(*words: str | Path) -> None:
        done = CliRunner().invoke(main, [str(word) for word in words])
        assert done.exit_code == 0, done.output

    out = tmp_path / "shared"
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "study.yaml").write_text(STUDY)
    run("study", "plan", tmp_path / "studies" / "study.yaml", "--out", out / "run", "--register")
    run("study", "run", tmp_path / "studies" / "study.yaml", "--out", out / "run", "--quiet")
    caches = out / "run" / "steps" / "cache"
    task = ("--task", "interp.tasks.procedural", "--data", home / "items.jsonl", "--split", "all", "--limit", "6")
    options = ("--mode", "labels", "--quiet", "--no-figures")
    run("eval", "--checkpoint", _one(home), *task, *options, "--out", out / "eval")
    sides = ("--toward", "noncompliant", "--away", "compliant", "--groups", "procedure", "--no-sign-check")
    run("steer", "fit", caches / "engaged", *sides, "--sites", "resid_post.2", "--out", out / "d.safetensors")
    check(out, tmp_path)
    again = read_study(out / "run" / "study.yaml")  # the names still lead to the files
    assert {Path(c.base).expanduser().resolve() for c in again.members.values()} == {home / "models" / "base"}


def _one(home: Path) -> Path:
    member = {"name": "one", "base": str(home / "models" / "base"), "adapter": str(home / "models" / "engaged")}
    (home / "one.yaml").write_text(yaml.safe_dump(member))
    return home / "one.yaml"


def test_a_checkpoint_is_shared_by_the_names_of_its_folders(home: Path) -> None:
    one = Checkpoint("one", str(home / "models" / "base"), adapter="owner/name", revision="main")
    blank = dict.fromkeys(("adapter_revision", "subfolder", "tokenizer"))
    given = {"name": "one", "base": "base", "adapter": "owner/name", "revision": "main"}
    assert one.shared == {**given, **blank, "local": ["base"]}
    assert shown(str(home / "hub/models--owner--name/snapshots/0a1b")) == "owner/name"


def test_an_oracles_files_name_its_base_alone(home: Path) -> None:
    class Config:
        def to_dict(self) -> dict[str, object]:
            return {"base_model_name_or_path": str(home / "models" / "base"), "target_modules": {"b", "a"}}

    class Peft:
        def __init__(self) -> None:
            self.peft_config = {"oracle": Config()}

    base = str(home / "models" / "base")
    assert adapter_config(Peft(), "oracle", base=base)["base_model_name_or_path"] == "base"
    assert adapter_config(Peft(), "oracle", base=None)["base_model_name_or_path"] == "base"
    assert OracleSpec(base_model=base).to_json()["model_name"] == "base"


def test_a_study_file_leads_home_without_spelling_it_out(home: Path, tmp_path: Path) -> None:
    assert portable(home / "models" / "base", tmp_path / "run") == "~/models/base"
    assert portable(home / "models" / "base", home / "runs" / "x") == "../../models/base"
    assert portable(tmp_path / "data", tmp_path / "run") == "../data"
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "study.yaml").write_text(STUDY)
    study = read_study(tmp_path / "s" / "study.yaml")
    text = resolved_yaml(study, tmp_path / "s")
    assert USER not in text
    (tmp_path / "s" / "again.yaml").write_text(text)
    assert resolved_yaml(read_study(tmp_path / "s" / "again.yaml"), tmp_path / "s") == text


@pytest.mark.parametrize("name", ["../other.safetensors", "/etc/passwd", "a/b.safetensors", "", "..", "a\x00b"])
def test_an_index_names_no_file_outside_its_folder(name: str, tmp_path: Path) -> None:
    from interp.loading.files import shards_of

    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "other.safetensors").write_bytes(b"")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": name}}))
    with pytest.raises(ValueError, match=r"model\.safetensors\.index\.json|missing"):
        shards_of(index, "base 'a'")
