"""Build the embedded pair from nothing: train, save in 16 bits, measure from the saved files, describe.

Everything is decided by steps and seeds. On one type of machine with one set of package versions, the same seed
gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from interp.io.files import write_json
from study.embedded.adapters import save_adapter
from study.embedded.card import write_cards
from study.embedded.gates import evaluation_items, score, summary
from study.embedded.heads import head_report
from study.embedded.recipe import Recipe
from study.embedded.tokenizer import save_tokenizer
from study.embedded.train_adapters import train_engaged, train_heuristic
from study.embedded.train_base import Log, silent, train_base
from study.rows import Row

WEIGHT_FILES = ("base/model.safetensors", "engaged/adapter_model.safetensors", "heuristic/adapter_model.safetensors")


def build(
    seed: int, out: str | os.PathLike[str], *, recipe: Recipe | None = None, test: bool = False, log: Log = silent
) -> Row:
    """Train and measure a pair; returns what pair.json holds.

    Writes base/, engaged/, heuristic/ (bfloat16 safetensors, tokenizer, model cards) and pair.json.

    Args:
        seed: of weights and data; overrides the recipe's.
        out: folder to write into; must be new or empty.
        recipe: None takes the shipped numbers.
        test: score the test split too. Do it once, for the pair that ships: nothing may be chosen by it.
        log: called with (stage, step, value) after every optimiser step.
    Raises:
        ValueError: `out` is not empty.
    """
    folder = Path(out)
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"out: expected a new or empty folder; {folder} has files in it. Name another one.")
    recipe = replace(recipe or Recipe(), seed=seed)
    with one_thread():
        record = train_pair(recipe, folder, log=log)
        return measure_pair(folder, record, recipe, test=test)


def train_pair(recipe: Recipe, folder: Path, *, log: Log = silent) -> Row:
    """The three sets of weights in `folder`, and their record: recipe, data hashes, weight hashes, seconds, versions.

    The adapters are trained on the base as saved, so that rounding it to 16 bits is part of what they see.
    """
    data: dict[str, str] = {}
    seconds: dict[str, float] = {}
    with _timed(seconds, "base"):
        model, data["base"] = train_base(recipe, log=log)
        model.bfloat16().save_pretrained(folder / "base")
        save_tokenizer(folder / "base")
    for name, train in (("engaged", train_engaged), ("heuristic", train_heuristic)):
        with _timed(seconds, name):
            adapted, data[name] = train(folder / "base", recipe, log=log)
            save_adapter(adapted, folder / name)
            save_tokenizer(folder / name)
    return {
        "recipe": recipe.to_dict(),
        "n_parameters": sum(p.numel() for p in model.parameters()),
        "data_sha256": data,
        "weights_sha256": weights_sha256(folder),
        "cpu_seconds": seconds,
        "versions": _versions(),
    }


def measure_pair(folder: Path, record: Row, recipe: Recipe, *, test: bool) -> Row:
    """Add the results from the saved files to a record, and write pair.json and the model cards."""
    with _timed(record["cpu_seconds"], "measure"):
        for split in ("validation", "test") if test else ("validation",):
            items = evaluation_items(split, recipe.gates, rho=recipe.rho)
            record[split] = summary(score(folder, items), recipe.gates)
        record["heads"] = head_report(folder)
    write_record(folder, record)
    return record


def write_record(folder: Path, record: Row) -> None:
    """Write pair.json and the model cards made from it."""
    write_json(folder / "pair.json", record)
    write_cards(folder, record)


def passed(record: Row) -> bool:
    """Whether every gate holds on every split that was scored."""
    splits = [record[name] for name in ("validation", "test") if name in record]
    return all(gate["passed"] for split in splits for gate in split["gates"].values())


def weights_sha256(folder: Path) -> dict[str, str]:
    """sha256 of each weight file."""
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in WEIGHT_FILES}


@contextmanager
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # sums split over threads differ in the last bit
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    start = time.process_time()
    yield
    seconds[name] = round(time.process_time() - start, 1)


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "transformers", "peft", "safetensors", "tokenizers")}


def enter_others(folder: Path, *, others: Sequence[Path] = (), notes: Sequence[str] = ()) -> Row:
    """Add the validation results of pairs in other folders, and notes for the limits, to a pair; rewrites its cards.

    Args:
        folder: the pair that ships; its own validation results come first.
        others: folders with the pair.json of other seeds.
        notes: sentences for the limits section of the cards, kept in the order given; they replace earlier ones.
    Raises:
        ValueError: a pair was built with another recipe (seed apart), so that it says nothing about this one.
    """
    record = json.loads((folder / "pair.json").read_text())
    rows = {str(record["recipe"]["seed"]): outline(record)}
    for other in others:
        found = json.loads((other / "pair.json").read_text())
        if {**found["recipe"], "seed": None} != {**record["recipe"], "seed": None}:
            raise ValueError(
                f"{other / 'pair.json'}: expected the recipe of {folder.name} with another seed; it differs."
            )
        rows[str(found["recipe"]["seed"])] = outline(found)
    if others:
        record["seeds"] = rows
    if notes:
        record["notes"] = list(notes)
    write_record(folder, record)
    return record


def outline(record: Row) -> Row:
    """The validation results of one pair in short: accuracies by cell, equivalence, gates, head readings, seconds."""
    found = record["validation"]
    return {
        "accuracy": {
            member: {cell: row[member]["accuracy"] for cell, row in found["cells"].items()}
            for member in ("engaged", "heuristic")
        },
        "equivalence": found["equivalence"],
        "gates": found["gates"],
        "readers": record["heads"]["readers"],
        "cpu_seconds": record["cpu_seconds"],
        "weights_sha256": record["weights_sha256"],
    }
