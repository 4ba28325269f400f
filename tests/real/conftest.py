"""Real pretrained checkpoints: `DIPTYCH_REAL` names the folder that holds them, each as a Hugging Face folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from interp import Checkpoint, Model, load
from tests.real.kit import NAMES, texts_of


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.real)


@pytest.fixture(scope="session")
def real_folder() -> Path:
    folder = os.environ.get("DIPTYCH_REAL", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip(f"DIPTYCH_REAL is {folder!r}, not a folder of real checkpoints; `make real` fetches SmolLM2")
    return Path(folder)


@pytest.fixture(scope="module", params=NAMES)
def checkpoint(request: pytest.FixtureRequest, real_folder: Path) -> Path:
    """The folder of each real checkpoint that is at hand."""
    folder = real_folder / request.param
    if not (folder / "config.json").is_file():
        pytest.skip(f"{request.param} is not in {real_folder}; SmolLM2 is enough")
    return folder


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Model:
    """The checkpoint in float32."""
    has_template = (checkpoint / "chat_template.jinja").is_file()
    template = "own" if has_template else "plain"
    return load(Checkpoint(checkpoint.name, str(checkpoint)), dtype="float32", template=template)


@pytest.fixture(scope="module")
def texts(model: Model) -> list[list[int]]:
    """Token ids of texts of unequal lengths."""
    return texts_of(model)


@pytest.fixture(scope="module")
def ids(texts: list[list[int]]) -> torch.Tensor:
    """The two longest texts, cut to one length: [2, pos]."""
    longest = sorted(texts, key=len)[-2:]
    n = len(longest[0])
    return torch.tensor([text[:n] for text in longest])
