"""The resolved study as YAML: every default written out, paths relative to where it is kept."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from interp.checkpoint import Checkpoint, CheckpointPair
from interp.io.paths import portable
from interp.io.yaml_text import dump_yaml
from study.config.sections import SECTIONS, Study
from study.rows import Row


def resolved_yaml(study: Study, folder: Path) -> str:
    """YAML that `read_study` reads back as the same study, when it lies in `folder`."""
    content: Row = {
        "name": study.name,
        "seed": study.seed,
        "claim_margin": study.claim_margin,
        "min_label_mass": study.min_label_mass,
    }
    if study.is_embedded:
        content["pair"] = "embedded"
    elif study.pair is not None:
        content["pair"] = _pair(study.pair, folder)
    elif study.checkpoint is not None:
        content["checkpoint"] = _checkpoint(study.checkpoint, folder)
    content["task"] = asdict(study.task)
    if study.task.data is not None:
        content["task"]["data"] = portable(study.task.data, folder)
    content["load"], content["smallest_effects"] = asdict(study.load), asdict(study.smallest_effects)
    for name in SECTIONS:
        section = getattr(study, name)
        content[name] = False if section is None else asdict(section)
    for key in ("adapter", "prior") if content["oracle"] else ():
        if content["oracle"][key] is not None:
            content["oracle"][key] = _relative(content["oracle"][key], folder)
    for question in content["oracle"]["questions"] if content["oracle"] else ():
        if question["labels"] is not None:
            question["labels"] = portable(question["labels"], folder)
    content |= {name: asdict(section) for name, section in study.added.items()}
    content["published"] = [asdict(entry) for entry in study.published]
    return dump_yaml(_plain(content))


def _pair(pair: CheckpointPair, folder: Path) -> Row:
    content = {role: _checkpoint(getattr(pair, role), folder) for role in ("engaged", "heuristic")}
    bases = {key: getattr(pair, key) for key in ("base", "heuristic_base")}
    return content | {key: _relative(base, folder) for key, base in bases.items() if base is not None}


def _checkpoint(checkpoint: Checkpoint, folder: Path) -> Row:
    given = {key: value for key, value in asdict(checkpoint).items() if value is not None}
    return {key: _relative(value, folder) if key in ("base", "adapter") else value for key, value in given.items()}


def _relative(name: str, folder: Path) -> str:
    """A local folder relative to the file, with the leading ./ that marks it as one; a hub id as it is."""
    path = Path(name).expanduser()
    if not path.is_dir():
        return name
    relative = portable(path, folder)
    return relative if relative.startswith(("../", "~")) else f"./{relative}"


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
