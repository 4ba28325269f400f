"""Fixtures: one thread per process, the shared reference data, tiny models of every family."""

from __future__ import annotations

import fcntl
import gc
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch
from hypothesis import HealthCheck, settings

from interp.prompt import Example
from tests.tiny import FAMILIES, tiny, tiny_tokenizer

torch.set_num_threads(1)
# how busy the machine is must not fail a test
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("DIPTYCH_SHARED", ROOT.parent / "shared"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--studies", type=int, default=40, help="simulated studies of each check in tests/validity")
    parser.addoption("--kills", type=int, default=4, help="kills of each long command in tests/faults")
    parser.addoption("--inputs", type=int, default=20, help="malformed inputs of each reader in tests/faults")
    parser.addoption("--bbq-rows", type=int, default=1200, help="real rows of the evaluation that is killed")
    parser.addoption("--validity-out", default=None, help="folder for the rates that tests/validity measures")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that no process is left alone with one of them at the end.

    A file stays together: each process that takes a part of it makes its module fixtures again.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("long")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    _freeze()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    if nextitem is None or nextitem.path != item.path:
        _freeze()


def _freeze() -> None:
    """What lives now (modules, items of BBQ) lives to the end: the garbage collector does not walk it again.

    Otherwise every collection, which `interp.load` asks for too, takes a second and more.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"reference data not found at {SHARED}; set DIPTYCH_SHARED to its folder")
    return SHARED


@pytest.fixture(scope="session")
def official_bbq(shared: Path) -> Path:
    """The official BBQ files with their templates."""
    path = shared / "data" / "bbq"
    if not path.is_dir():
        pytest.skip(f"BBQ files not found at {path}")
    return path


@pytest.fixture(scope="session")
def bbq_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The official BBQ files, or made-up rows in their layout where these are absent."""
    from tests.bbq_rows import made_folder

    if (SHARED / "data" / "bbq").is_dir():
        return request.getfixturevalue("official_bbq")
    return made_folder(tmp_path_factory.mktemp("bbq") / "BBQ")


@pytest.fixture(scope="session")
def bbq_items(bbq_folder: Path) -> list[Example]:
    """Every item of `bbq_folder`, in its order."""
    from interp.tasks import bbq

    return bbq.examples(bbq_folder)


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A finished run of `tests.study_kit.SMALL`, one for all test processes. Copy it before you change anything."""
    from tests.study_kit import main, write_study

    own = tmp_path_factory.getbasetemp()
    root = (own if worker_id == "master" else own.parent) / "small-run"
    root.mkdir(exist_ok=True)
    with open(root / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released with the file
        if not (root / "finished").exists():
            main(str(write_study(root)), str(root / "run"))
            (root / "finished").touch()
    return root / "run"


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def tiny_qwen2() -> torch.nn.Module:
    return tiny("qwen2")


@pytest.fixture(scope="session")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture
def ids(rng: torch.Generator) -> torch.Tensor:
    return torch.randint(3, 128, (2, 11), generator=rng)
