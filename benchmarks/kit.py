"""What every benchmark shares: interleaved timing, one line per comparison, results as JSON."""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

HERE = Path(__file__).resolve().parent


@dataclass
class Report:
    """Rows of one benchmark: {name: ratio, goal, limit, agree}; `finish` prints them and writes the JSON."""

    title: str
    rows: dict[str, dict[str, object]] = field(default_factory=dict)

    def add(
        self, name: str, ratio: float, *, goal: str = "", limit: str = "", agree: float | None = None, note: str = ""
    ) -> None:
        """One comparison.

        Args:
            ratio: what the name says, without a unit.
            goal: as the issue states it, e.g. "<= 1.03"; empty for a peer that is shown for comparison.
            limit: what no implementation could beat, where that is known.
            agree: largest difference between our output and the peer's, before anything was timed.
        """
        row: dict[str, object] = {"ratio": round(ratio, 4), "goal": goal, "limit": limit, "agree": agree}
        self.rows[name] = {**row, "note": note} if note else row
        met = "" if not goal else ("met" if is_met(ratio, goal) else "MISSED")
        print(f"{name:<58} {ratio:>9.3f}  {goal:>8} {met:<7} limit {limit or '-':<8} agree {agree} {note}", flush=True)

    def finish(self, path: Path | None) -> None:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(self.rows, indent=1, sort_keys=True) + "\n")


def is_met(ratio: float, goal: str) -> bool:
    """Whether a ratio meets a goal such as ">= 3" or "<= 1.15"."""
    sign, number = goal.split()
    return ratio >= float(number) if sign == ">=" else ratio <= float(number)


def interleave(methods: Mapping[str, Callable[[], object]], *, rounds: int, warm_up: int = 1) -> dict[str, float]:
    """Least wall time of each method in seconds; methods take turns, so that a busy moment hits them all.

    The minimum is reported because noise of a shared machine only ever adds.
    """
    for _ in range(warm_up):
        for run in methods.values():
            run()
    best = dict.fromkeys(methods, float("inf"))
    for _ in range(rounds):
        for name, run in methods.items():
            began = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            best[name] = min(best[name], time.perf_counter() - began)
    return best


@dataclass(frozen=True)
class Setting:
    """What a benchmark runs on, and where its results go.

    Attributes:
        gpu: the shapes of a GPU, on `device`; on "cpu" they are shrunk and nothing is written: a rehearsal, which shows
            that every line runs.
        json: where {name: {ratio, goal, limit, agree}} is written.
        model: folder in `DIPTYCH_REAL`. dtype: in which it is loaded.
    """

    json: Path | None
    rounds: int
    threads: int
    gpu: bool
    device: str
    model: str = "smollm2"
    dtype: str = "auto"

    @property
    def kind(self) -> Literal["cpu", "gpu", "rehearsal"]:
        if not self.gpu:
            return "cpu"
        return "gpu" if self.device == "cuda" else "rehearsal"


def fastest(
    methods: Mapping[str, Callable[[], object]], *, rounds: int, device: str, warm_up: Sequence[str] | None = None
) -> dict[str, float]:
    """Least seconds of each method, in turn: CPU seconds of the process, or seconds of the clock on a GPU.

    Args:
        warm_up: methods that run once before anything is timed; None: all of them.
    """
    now = time.perf_counter if device == "cuda" else time.process_time
    for name in methods if warm_up is None else warm_up:
        methods[name]()
    best = dict.fromkeys(methods, float("inf"))
    for _ in range(rounds):
        for name, run in methods.items():
            synchronize(device)
            began = now()
            run()
            synchronize(device)
            best[name] = min(best[name], now() - began)
    return best


def synchronize(device: str) -> None:
    """Wait for what was started on the device."""
    if device == "cuda":
        torch.cuda.synchronize()


def arguments(description: str, *, real: bool = False) -> Setting:
    """`--json PATH`, `--rounds N`, `--threads N`, `--gpu`, `--device`: the options of every benchmark.

    Args:
        real: also `--model` and `--dtype` of a checkpoint.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write {name: {ratio, goal, limit, agree}} here")
    parser.add_argument("--rounds", type=int, default=2 if real else 5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--gpu", action="store_true", help="the shapes for a CUDA device")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda",
                        help="with --gpu: cpu rehearses every line on small shapes and writes nothing")  # fmt: skip
    if real:
        parser.add_argument("--model", default="smollm2", help="a folder in DIPTYCH_REAL")
        parser.add_argument("--dtype", default="auto", help="auto: bfloat16 on a GPU, float32 on a CPU")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    if not options.gpu:
        options.device = "cpu"
    elif options.device == "cpu":
        options.json, options.rounds = None, 1
        print("rehearsal on the CPU with small shapes: ratios mean nothing and nothing is written", flush=True)
    elif not torch.cuda.is_available():
        raise SystemExit("--gpu needs a CUDA device; none is visible here. `--device cpu` rehearses it.")
    return Setting(**vars(options))


def machine() -> str:
    """The device that was measured, for the head of a results table."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    name = next(
        (line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.machine()
    )
    return f"{name}, {torch.get_num_threads()} thread"


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def free_cached(path: Path) -> None:
    """Ask the system to forget a file, so that the next read comes from the disk."""
    import os

    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)
