"""What a report is made of, read from a run folder: its record, study, tables, figures and a few answers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.checkpoint import MEMBERS
from interp.io.paths import without_folder
from interp.io.yaml_text import parse_yaml
from study.analyses.registry import names
from study.folders import FIGURES, RUN, STEPS, STUDY
from study.report.registration import Registration, read_registration
from study.rows import Row
from study.run.state import RunState, read_run
from study.schema import read_tables

if TYPE_CHECKING:
    import pandas as pd

_ALT = "Alt text: "
_BY_WORD = (
    ("headline", ("headline",)),
    ("steering", ("dose", "steer", "plane")),
    ("oracle", ("oracle",)),
    ("along", ("along",)),
    ("probes", ("probe", "layers", "selectivity", "transfer", "cosine", "reliability", "cohort")),
    ("heads", ("head", "-map", "-top", "cumulative", "match", "difference")),
    ("eval", ("dumbbell", "accuracy", "rules", "pair", "eval", "esi", "bias")),
)


@dataclass(frozen=True)
class SavedFigure:
    """A figure as `study.figures.save` wrote it: its SVG, the rows drawn, caption and alt text."""

    stem: str
    analysis: str
    svg: str
    csv: str
    caption: str
    alt: str


@dataclass(frozen=True)
class Reply:
    """What one member answered to an item; `text` is None where it wrote nothing because its labels were scored."""

    member: str
    text: str | None
    label: str
    is_right: bool


@dataclass(frozen=True)
class Shown:
    """An item with the replies of both members, drawn by seed within its outcome."""

    id: str
    cell: str
    gold: str
    outcome: str
    replies: tuple[Reply, ...]


@dataclass(frozen=True)
class RunFolder:
    """The content of a run folder that a report shows.

    Attributes:
        state:   `run.json`.
        study:   `study.yaml` as plain values.
        study_sha256: of its bytes.
        tables:  name -> tidy table.
        figures: in the order of their names.
        unread:  what could not be read, in words; the report says so.
        shown:   items drawn by seed.
        registration: what was written down before the run, where anything was.
    """

    state: RunState
    study: Mapping[str, Any]
    study_sha256: str
    tables: Mapping[str, pd.DataFrame]
    figures: tuple[SavedFigure, ...]
    unread: tuple[str, ...]
    shown: tuple[Shown, ...]
    registration: Registration | None = None


def read_run_folder(run: Path) -> RunFolder:
    """Everything that a report needs; a part that is missing or broken is named and left out.

    Raises:
        ValueError: the folder is no run of a study.
    """
    state = read_run(run)
    study, unread = _study(run / STUDY)
    figures = []
    for path in sorted((run / FIGURES).glob("*.svg")):
        try:
            figures.append(_figure(path, state))
        except (OSError, UnicodeDecodeError) as error:
            unread.append(f"figure {path.stem}: {type(error).__name__}")
    digest = hashlib.sha256((run / STUDY).read_bytes()).hexdigest() if (run / STUDY).is_file() else ""
    try:
        registration = read_registration(run.absolute())
    except ValueError as error:
        registration = None
        unread.append(without_folder(str(error), run, "the run folder"))
    return RunFolder(
        state,
        study,
        digest,
        read_tables(run),
        tuple(figures),
        tuple(unread),
        tuple(draw_examples(run, state.checkpoints, seed=state.seed)),
        registration,
    )


def _study(path: Path) -> tuple[Row, list[str]]:
    if not path.is_file():
        return {}, [f"{STUDY} is missing: titles and published values are left out"]
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"), STUDY)
    except ValueError as error:
        return {}, [f"{STUDY} is not YAML ({str(error).splitlines()[0]})"]
    return (content, []) if isinstance(content, dict) else ({}, [f"{STUDY} holds no mapping"])


def _figure(path: Path, state: RunState) -> SavedFigure:
    """One figure with its rows and words; those of another tool that lack them get none."""
    beside = {ending: path.with_suffix(f".{ending}") for ending in ("csv", "txt")}
    text = beside["txt"].read_text(encoding="utf-8") if beside["txt"].is_file() else ""
    caption, _, alt = text.partition(_ALT)
    csv = beside["csv"].read_text(encoding="utf-8") if beside["csv"].is_file() else ""
    analysis = _owner(path.stem, state)
    return SavedFigure(path.stem, analysis, path.read_text(encoding="utf-8"), csv, caption.strip(), alt.strip())


def _owner(stem: str, state: RunState) -> str:
    """The analysis that a figure belongs to: the step that lists it as an output, else by the words of its name."""
    for name, step in state.steps.items():
        if name not in ("figures", "report") and any(f"{FIGURES}/{stem}." in output for output in step.outputs):
            return name
    first = stem.partition("-")[0]
    if first in names():
        return first
    lowered = stem.lower()
    return next((analysis for analysis, words in _BY_WORD if any(word in lowered for word in words)), "other")


def draw_examples(run: Path, members: Iterable[str], *, seed: int) -> list[Shown]:
    """One item of each outcome (who was right), the one whose digest with the seed is smallest: drawn, not picked.

    Args:
        members: of the run; of a pair the engaged and the heuristic one are shown.
    """
    import pandas as pd

    frames = {}
    named = list(members)
    for member in [name for name in MEMBERS if name in named] or named:
        found = sorted((run / STEPS).glob(f"*/{member}/answers.parquet")) or sorted(
            (run / STEPS).glob(f"*/{member}/*/answers.parquet")
        )
        if found:
            frames[member] = pd.read_parquet(found[0]).drop_duplicates("id").set_index("id")
    if not frames or any("score.correct" not in frame.columns for frame in frames.values()):
        return []
    common = [str(item) for item in next(iter(frames.values())).index if all(item in f.index for f in frames.values())]
    by_outcome: dict[str, list[str]] = {}
    for item in common:
        right = [m for m, frame in frames.items() if float(frame.at[item, "score.correct"]) >= 0.5]
        by_outcome.setdefault(_outcome(right, list(frames)), []).append(item)
    drawn = {
        outcome: min(items, key=lambda i: hashlib.sha256(f"{seed}:{i}".encode()).digest())
        for outcome, items in by_outcome.items()
    }
    order = ("only engaged right", "only heuristic right", "both wrong", "both right", "right", "wrong")
    return [_shown(drawn[o], o, frames) for o in order if o in drawn]


def _outcome(right: list[str], members: list[str]) -> str:
    if len(members) == 1:
        return "right" if right else "wrong"
    return {0: "both wrong", 2: "both right"}.get(len(right), f"only {right[0]} right" if right else "")


def _shown(item: str, outcome: str, frames: Mapping[str, pd.DataFrame]) -> Shown:
    first: Any = next(iter(frames.values())).loc[item]
    replies = []
    for member, frame in frames.items():
        row: Any = frame.loc[item]
        label = row.get("label")
        text = row.get("text")
        replies.append(
            Reply(
                member,
                None if text is None or text != text else str(text),
                "no label read" if label is None or label != label else str(label),
                float(row["score.correct"]) >= 0.5,
            )
        )
    return Shown(item, str(first.get("cell", "")), str(first.get("gold", "")), outcome, tuple(replies))


__all__ = ["RUN", "Reply", "RunFolder", "SavedFigure", "Shown", "draw_examples", "read_run_folder"]
