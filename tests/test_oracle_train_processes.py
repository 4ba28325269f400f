"""Two processes train the same adapter as one: gradients are summed over the answer tokens of the whole batch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from interp.oracle.run import Processes
from interp.oracle.train import train_oracle
from tests.cache_kit import fork, status
from tests.oracle_train_kit import SPEC, mixture, recipe, tiny_model

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = """
import sys
from pathlib import Path
from tests.test_oracle_train_processes import train
train(Path(sys.argv[1]))
"""


def test_alone_nothing_is_shared_and_nothing_is_imported() -> None:
    alone = Processes.current()
    assert (alone.rank, alone.count, alone.accelerator) == (0, 1, None)
    assert alone.mine([1, 2, 3]) == [1, 2, 3]
    assert alone.total(2.5) == 2.5
    assert [Processes(rank, 2).mine([1, 2, 3, 4, 5]) for rank in (0, 1)] == [[1, 3, 5], [2, 4]]


def launched(out: Path) -> None:
    """Two processes that torchrun starts, as a user would."""
    script = out.with_name("run.py")
    script.write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port())]
    env = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "HOME": str(out.parent)}
    done = subprocess.run([*launch, str(script), str(out)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def forked(out: Path) -> None:
    """Two children in the environment that torchrun gives, which import nothing again."""
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}

    def rank(number: int) -> None:
        os.environ |= {**shared, "RANK": str(number), "LOCAL_RANK": str(number)}
        train(out)

    children = [fork(partial(rank, number)) for number in (0, 1)]
    assert [status(child) for child in children] == [0, 0]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def train(out: Path) -> None:
    train_oracle(tiny_model(), mixture(), SPEC, recipe(max_steps=4, dropout=0.0, lr=1e-3), out=out)


@pytest.mark.parametrize("start", [forked, pytest.param(launched, marks=pytest.mark.long)])
def test_two_processes_end_with_the_weights_of_one(tmp_path: Path, start: Callable[[Path], None]) -> None:
    pytest.importorskip("accelerate", reason="several processes need accelerate")
    train(tmp_path / "one")  # first, so that forked children import nothing again
    start(tmp_path / "two")
    one, two = (load_file(tmp_path / name / "last" / "adapter_model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for key in one:  # Adam divides by the gradient's size, so rounding of a sum can grow where a gradient is tiny
        assert torch.allclose(one[key], two[key], atol=2e-4), key
    moved = max(float((one[key]).abs().max()) for key in one if "lora_B" in key)
    assert moved > 2e-3
