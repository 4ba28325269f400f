"""Oracle training from a file: which base, which chains and labels, which tasks, which recipe."""

from __future__ import annotations

import difflib
import importlib
import os
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from interp.import_path import function_for
from interp.io.read import checked
from interp.io.yaml_text import read_yaml
from interp.oracle.items import Mixture, TrainItem, mix
from interp.oracle.recipe import Recipe
from interp.oracle.spec import OracleSpec
from study.embedded import EMBEDDED

if TYPE_CHECKING:
    from interp.model import Model
    from interp.oracle.cot_items import SentenceId
    from interp.oracle.train import Log, Trained

VALUED = ("importance", "answer")  # labels that are numbers
TASKS = ("context", "taxonomy", *VALUED, "summary")


@dataclass(frozen=True)
class TrainingFile:
    """One training run, as its YAML file says it.

    Attributes:
        base: id or folder of the model, or "embedded"; `revision` its commit.
        corpus: JSON lines `{question, cot, answer, [id, problem]}`.
        labels: JSON lines `{id, sentence, task, label | value}`; `sentence` is the index of the sentence record.
        items: import path `module:function` of a function(tokenizer, spec, n_layers) that gives items of one's own.
        summaries: import path of a function(chain) that returns a summary of it, or nothing.
        tasks: task -> how many items at most; context needs a number, the others take None for all.
        spec: fields of `OracleSpec`.
        recipe: fields of `Recipe`.
        validation: share of the problems held out; `block` as for `interp.oracle.items.mix`.
        thinking: thinking switch of the chat template for the texts that are read.
        accept: audits that may fail, each with the reason.
        load: options of `interp.load` (dtype, device, device_map, quantization).
    """

    base: str
    revision: str | None = None
    corpus: str | None = None
    labels: str | None = None
    items: str | None = None
    summaries: str | None = None
    tasks: Mapping[str, int | None] = field(default_factory=dict)
    spec: Mapping[str, object] = field(default_factory=dict)
    recipe: Mapping[str, object] = field(default_factory=dict)
    validation: float | int = 0.05
    block: int | None = None
    thinking: bool | None = None
    accept: Mapping[str, str] = field(default_factory=dict)
    load: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.corpus is None) == (self.items is None):
            got = "neither" if self.corpus is None else "both"
            raise ValueError(f"training file: expected either corpus or items, got {got}. Give exactly one.")
        _known("tasks", self.tasks, TASKS)
        _known("spec", self.spec, [f.name for f in fields(OracleSpec)])
        Recipe.of(self.recipe)
        needs = [task for task in self.tasks if task in ("taxonomy", *VALUED)]
        if needs and self.labels is None:
            raise ValueError(f"training file: tasks {', '.join(needs)} need labels; give the file as `labels`.")
        if "summary" in self.tasks and self.summaries is None:
            raise ValueError("training file: the summary task needs `summaries`, the import path of your function.")
        if self.corpus is not None and not self.tasks:
            raise ValueError(f"training file: a corpus needs tasks; known: {', '.join(TASKS)}.")
        if self.tasks.get("context", 1) is None:
            raise ValueError("training file, tasks.context: expected how many items to draw, got nothing.")

    @classmethod
    def read(cls, path: str | Path) -> TrainingFile:
        """The run in a YAML file.

        Raises:
            ValueError: YAML that does not parse, an unknown key (the nearest known one is named), a missing one.
        """
        content, _ = read_yaml(Path(path))
        if not isinstance(content, dict) or "base" not in content:
            raise ValueError(f"{path}: expected a mapping with at least `base`; got {type(content).__name__}.")
        _known(str(path), content, [f.name for f in fields(cls)])
        return checked(cls, content, str(path))

    @property
    def oracle_spec(self) -> OracleSpec:
        """The wiring, with the base's name where the file gives none."""
        return checked(OracleSpec, {"base_model": self.base, **self.spec}, "training file, spec")


def train_from_file(source: TrainingFile, out: Path, *, resume: bool = False, log: Log | None = None) -> Trained:
    """Load the base, build and audit the items, train into `out`."""
    from interp.oracle.train import train_oracle

    model, mixture = prepare(source)
    recipe = Recipe.of(source.recipe)
    return train_oracle(
        model, mixture, source.oracle_spec, recipe, out=out, resume=resume, accept=source.accept, log=log
    )


def prepare(source: TrainingFile) -> tuple[Model, Mixture]:
    """The base, on this process's GPU where several were started, and the items of the file."""
    from interp.checkpoint import Checkpoint
    from interp.loading import load
    from study.embedded import weights_folder

    base = str(weights_folder() / "base") if source.base == EMBEDDED else source.base
    options = dict(source.load)
    if "LOCAL_RANK" in os.environ and not options.keys() & {"device", "device_map"} and torch.cuda.is_available():
        options["device"] = f"cuda:{os.environ['LOCAL_RANK']}"
    model = load(Checkpoint("base", base, revision=source.revision), **options)
    seed = Recipe.of(source.recipe).seed
    return model, mix(items_of(source, model), validation=source.validation, seed=seed, block=source.block)


def items_of(source: TrainingFile, model: Model) -> list[TrainItem]:
    """The items of a file: its own function's, or every task's from corpus and labels.

    Raises:
        ValueError: as the readers and builders; a label file without the task that is asked for.
    """
    from interp.oracle import cot_items as build
    from interp.tasks.cot import chain_examples

    if source.items is not None:
        make = function_for(_imported(source.items), source.items, "tokenizer", "spec", "n_layers")
        items = list(make(model.tokenizer, source.oracle_spec, model.n_layers))
        if not all(isinstance(item, TrainItem) for item in items):
            raise ValueError(f"{source.items!r}: expected a function that returns TrainItems, got {items[:1]!r:.80}.")
        return items
    assert source.corpus is not None, "the file was checked"
    chains = build.chains_of(chain_examples(source.corpus), model.tokenizer, thinking=source.thinking)
    layers = build.layer_choices(source.oracle_spec, model.n_layers)
    labels = read_labels(source.labels) if source.labels else {}
    seed, out = Recipe.of(source.recipe).seed, []
    for task, n in source.tasks.items():
        if task == "context":
            out += build.context_prediction(chains, model.tokenizer, n=n or 0, layers=layers, seed=seed)
        elif task == "summary":
            summarise = function_for(_imported(source.summaries or ""), source.summaries or "", "chain")
            out += build.summary(chains, summarise, layers=layers, seed=seed)[:n]
        elif task not in labels:
            raise ValueError(f"{source.labels}: no label of task {task!r}; it has {', '.join(labels) or 'none'}.")
        else:
            makers: dict[str, Callable[..., list[TrainItem]]] = {
                "taxonomy": build.taxonomy,
                "importance": build.importance,
                "answer": build.answer_tracking,
            }
            out += makers[task](chains, labels[task], layers=layers, n=n, seed=seed)
    return out


def read_labels(path: str | Path) -> dict[str, dict[SentenceId, str | float]]:
    """Labels by task and sentence record: `{id, sentence, task, label}`, or `value` for importance and answer;
    rows whose `status` is not "ok" are left out. `diptych cot` writes such rows.

    Raises:
        ValueError: a row without id, sentence or task, a sentence labelled twice, or the wrong of label and value.
    """
    from interp.tasks.records import read_rows

    out: dict[str, dict[SentenceId, str | float]] = {}
    unbuilt: Counter[str] = Counter()
    for where, row in read_rows(path):
        task, name, index = row.get("task"), row.get("id"), row.get("sentence")
        if not isinstance(task, str) or name is None or not isinstance(index, int):
            raise ValueError(f"{where}: expected id, sentence (a number) and task; got {sorted(row)}.")
        if row.get("status", "ok") != "ok":
            unbuilt[str(row["status"])] += 1  # the labeller says that it has none
            continue
        field = "value" if task in VALUED else "label"
        if field not in row:
            raise ValueError(f"{where}, task {task!r}: expected field {field!r}; got {sorted(row)}.")
        key = (str(name), index)
        if key in out.setdefault(task, {}):
            raise ValueError(f"{where}: sentence {index} of {name!r} has a label of task {task!r} already.")
        out[task][key] = float(row[field]) if task in VALUED else str(row[field])
    if unbuilt:
        told = ", ".join(f"{n} {status}" for status, n in unbuilt.most_common(5))
        warnings.warn(f"{path}: {unbuilt.total()} rows have no label and are left out: {told}.", stacklevel=2)
    return out


def _imported(path: str) -> Callable[..., Mapping[str, object]]:
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ValueError(f"{path!r}: expected the import path 'module:function' of a function ({error}).") from None


def _known(where: str, mapping: Mapping[str, object], names: Collection[str]) -> None:
    for key in mapping:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{where}: unknown key {key!r}; keys: {', '.join(names)}.{hint}")
