"""Studies small enough for a test, steps that are made up, and a run that is killed where it is told to.

python -m tests.study_kit STUDY.YAML OUT [STEP NTH]     SIGKILL at the NTH file that STEP writes
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

SMALL = """\
name: small
pair: embedded
seed: 5
task: {path: interp.tasks.procedural, per_cell: 4}
eval: {max_new_tokens: 120, tokens_per_batch: 8192}
cache: {sites: 'resid_post.*', positions: last}
probes: {targets: [surface_label], groups: procedure, kinds: [ridge], perm: 19, boot: 100, n_folds: 2, transfer: none}
heads: {n: 4, kinds: [mean], slot: ''}
steering: {groups: procedure, target: surface_label, toward: noncompliant, away_from: compliant, layers: [2], slot: '',
           alphas: '-0.2:0.2:3', n_random: 19, n_shuffled: 2, n_complement: 0, min_items: 2, min_groups: 1, boot: 100,
           limit: 16, test_share: 0.5}
oracle:
  adapter: embedded
  limit: 24
  questions:
    - {name: kind, question: 'Which kind of sentence is this?',
       choices: [step, needs, if, present, absent, by, mood], readings: 'study.analyses.oracle.embedded:sentence_kinds'}
figures: {formats: [svg]}
"""


def write_study(folder: Path, text: str = SMALL, name: str = "study.yaml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text)
    return path


def tree(root: Path, *parts: str) -> dict[str, bytes]:
    """Path -> bytes of every file under the given parts of a run folder."""
    paths = [p for part in parts for p in ([root / part] if (root / part).is_file() else (root / part).rglob("*"))]
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in paths if p.is_file()}


def statuses(root: Path) -> dict[str, str]:
    """Step -> how it ended; none where no step has."""
    path = root / "run.json"
    return {name: s["status"] for name, s in json.loads(path.read_text())["steps"].items()} if path.exists() else {}


class Deadly:
    """Counts the files that one step writes, and ends the process at the nth of them."""

    def __init__(self, step: str, nth: int) -> None:
        self.step, self.left, self.now = step, nth, ""

    def say(self, line: str) -> None:
        name, _, what = line.partition(": ")
        self.now = name if what == "running" else ""

    def arm(self) -> None:
        from interp.io import files

        durable, plain = files.write_durable, Path.write_bytes
        files.write_durable = lambda path, data: self.count(path, data) or durable(path, data)
        Path.write_bytes = lambda path, data: self.count(path, data) or plain(path, data)  # type: ignore[method-assign]

    def count(self, path: Path, data: Any) -> None:
        if not self.step or self.now != self.step or ".digests" in path.name:
            return
        self.left -= 1
        if self.left == 0:
            with open(path, "wb") as file:
                file.write(bytes(data)[: len(data) // 2])  # torn in the middle
            os.kill(os.getpid(), signal.SIGKILL)


def main(file: str, out: str, step: str = "", nth: str = "1") -> None:
    import torch

    from study.config import read_study
    from study.run.runner import run_study

    torch.set_num_threads(1)
    deadly = Deadly(step, int(nth))
    deadly.arm()
    finished = run_study(read_study(file), Path(out), say=deadly.say)
    assert not finished.failed, finished.failed


if __name__ == "__main__":
    main(*sys.argv[1:])
