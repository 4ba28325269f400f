"""Malformed input to every reader: a value, or a message that names the file and says what to do.

No traceback, no hang, little memory. `--inputs` says how many of each reader; folders of a whole study are attacked
where it is large (`make test-slow`).
"""

from __future__ import annotations

import resource
import time
import warnings
from collections import Counter
from pathlib import Path

import pytest

from study.run.process import user_errors
from tests.faults.doors import MODELS, RUNS, SMALL, model_doors, run_doors, small_doors
from tests.faults.malformed import Door, Input, damaged, inputs_of, spread

SECONDS, KILOBYTES, LONGEST = 10, 1_000_000, 2_500


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Door]:
    return {door.name: door for door in small_doors(tmp_path_factory.mktemp("small"))}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Door]:
    return {door.name: door for door in model_doors(tmp_path_factory.mktemp("models"))}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Door]:
    return {door.name: door for door in run_doors(tmp_path_factory.mktemp("runs"))}


@pytest.mark.parametrize("name", SMALL)
def test_a_damaged_file(name: str, small: dict[str, Door], tmp_path: Path, request: pytest.FixtureRequest) -> None:
    attack(small[name], tmp_path, request.config.getoption("--inputs"))


@pytest.mark.parametrize("name", MODELS)
def test_a_damaged_model(name: str, models: dict[str, Door], tmp_path: Path, request: pytest.FixtureRequest) -> None:
    attack(models[name], tmp_path, request.config.getoption("--inputs"))


@pytest.mark.long
@pytest.mark.parametrize("name", RUNS)
def test_a_damaged_folder_of_results(
    name: str, runs: dict[str, Door], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    attack(runs[name], tmp_path, request.config.getoption("--inputs") // 4)


def test_there_are_enough_inputs(small: dict[str, Door], models: dict[str, Door]) -> None:
    names = [one.name for door in (*small.values(), *models.values()) for one in inputs_of(door)]
    assert len(names) > 5_000
    assert len(set(names)) > 0.99 * len(names)


def attack(door: Door, work: Path, n: int) -> None:
    """Try inputs of a reader; fails with all those that end in anything but a value or a message."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        door.load(door.folder)  # what is not damaged is read
        before, ends, faults = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, Counter[str](), []
        for one in spread(inputs_of(door), n):
            end, fault = _try(door, one, work)
            ends[end] += 1
            faults += [ascii(f"{one.name}: {fault}")] if fault else []
    assert not faults, "\n".join(faults[:20])
    assert ends["refused"], f"{door.name}: nothing was refused"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < KILOBYTES, door.name


def _try(door: Door, one: Input, work: Path) -> tuple[str, str]:
    """("read" or "refused", what is wrong with how it ended)"""
    began = time.process_time()
    with damaged(door, one, work) as folder:
        try:
            door.load(folder)
            end, fault = "read", ""
        except user_errors() as error:
            end, fault = "refused", _fault_of(str(error), one, folder)
        except Exception as error:
            end, fault = "raised", f"{type(error).__name__}: {error!s:.200}"
    seconds = time.process_time() - began
    return end, fault or (f"{seconds:.0f} s" if seconds > SECONDS else "")


def _fault_of(text: str, one: Input, folder: Path) -> str:
    """A message is short, and names the file or its folder."""
    if not text.strip() or len(text) > LONGEST:
        return f"a message of {len(text)} characters"
    name = Path(one.file)
    is_named = any(word in text for word in (name.name, name.stem, str(folder)))
    return "" if is_named else f"the file is not named in {text!r:.200}"
