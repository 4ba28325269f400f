"""A hub that cannot be reached: the cache on this disk is used, and what is not cached is an error in one sentence."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError

from interp.checkpoint import Checkpoint
from interp.loading import files, load
from study.cli import main
from tests.hub_folders import IDS, expected, make_hub

CLIENT_ERROR = next(kind for kind in HfHubHTTPError.__mro__ if kind.__module__.startswith("httpx"))
"""Base of what the hub's HTTP client raises; its errors of a connection are neither OSError nor HfHubHTTPError."""


@pytest.fixture
def asked() -> list[str]:
    """The repositories that the hub was asked for."""
    return []


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str]) -> Path:
    """An empty cache of the hub, on a machine that believes that it is online and has no network."""

    def no_answer(*names: object, **__: object) -> list[str]:
        asked.extend(map(str, names))
        assert not issubclass(CLIENT_ERROR, OSError | HfHubHTTPError)
        raise CLIENT_ERROR("[Errno -2] Name or service not known")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.list_repo_files", no_answer)
    monkeypatch.setattr(files, "_SILENCE", files._Silence())
    return tmp_path / "cache"


def test_without_a_network_a_cached_checkpoint_loads(cache: Path, tmp_path: Path) -> None:
    hub = make_hub(tmp_path / "hub")
    commit = "0123456789abcdef0123456789abcdef01234567"
    for name in ("base", "lora"):
        repo = cache / f"models--org--{name}"
        shutil.copytree(hub / name, repo / "snapshots" / commit)
        (repo / "refs").mkdir()
        (repo / "refs" / "main").write_text(commit)
    model = load(Checkpoint("a", base="org/base", adapter="org/lora"), dtype=torch.float32)
    torch.testing.assert_close(model(IDS).logits, expected(hub, "lora"))


@pytest.mark.usefixtures("cache")
def test_without_a_network_what_is_not_cached_is_named_with_the_cause() -> None:
    with pytest.raises(ValueError, match=r"base 'org/absent' of 'a': .* cannot be reached \(\[Errno -2\] Name or ser"):
        load(Checkpoint("a", base="org/absent"))


@pytest.mark.usefixtures("cache")
def test_a_hub_that_gives_no_answer_is_asked_again_only_after_a_while(
    asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("org/absent", "org/other"):
        with pytest.raises(ValueError, match=r"cannot be reached \(\[Errno -2\] Name or ser"):
            load(Checkpoint("a", base=name))
    assert asked == ["org/absent"]
    monkeypatch.setattr(files, "_SILENT", 0.0)
    monkeypatch.setattr(files, "_SILENCE", files._Silence())
    for name in ("org/absent", "org/other"):
        with pytest.raises(ValueError, match=r"cannot be reached"):
            load(Checkpoint("a", base=name))
    assert asked == ["org/absent", "org/absent", "org/other"]


@pytest.mark.usefixtures("cache")
def test_a_study_is_planned_without_a_network(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(CliRunner().invoke(main, ["study", "init", "procedural"]).output)
    done = CliRunner().invoke(main, ["study", "plan", str(file), "--power", "0.8"])
    assert done.exit_code == 0, (done.output, done.exception)
    assert "not downloaded yet: Qwen/Qwen2.5-7B-Instruct" in done.output
    assert "sizes are not checked: base 'Qwen/Qwen2.5-7B-Instruct'" in done.output
