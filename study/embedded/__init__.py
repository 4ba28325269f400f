"""The embedded pair: two adapters on a tiny base, shipped with the package, and the script that builds them."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from interp.checkpoint import CheckpointPair

EMBEDDED = "embedded"
"""What names the shipped pair, and its oracle, on the command line and in study files."""


TRUTHS = "study.embedded.truths:TRUTHS"
"""What was planted in the shipped pair, as the section `known_truth` of a study names it."""


def weights_folder() -> Path:
    """The folder with base/, engaged/, heuristic/ and pair.json of the shipped pair."""
    return Path(str(files("study.embedded"))) / "weights"


def embedded_pair() -> CheckpointPair:
    """The shipped pair as the contrast of two checkpoints on one base, loaded like any user's."""
    from interp.checkpoint import Checkpoint, CheckpointPair

    folder = weights_folder()
    base = str(folder / "base")
    engaged, heuristic = (Checkpoint(name, base, str(folder / name)) for name in ("engaged", "heuristic"))
    return CheckpointPair(engaged, heuristic, base=base)


def rendering_of(pair: CheckpointPair) -> str:
    """Rendering of generated items that a pair is asked in: "log" for the embedded one, which knows only its words,
    "plain" for any other."""
    return "log" if pair == embedded_pair() else "plain"
