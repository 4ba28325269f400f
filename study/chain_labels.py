"""Labels of the sentences of chains of thought, made with a model: `diptych cot`, from options."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from interp.progress import track
from interp.remedy import remedy
from study.option_types import Count
from study.options import STRICT, option
from study.rows import Row

if TYPE_CHECKING:
    from interp.checkpoint import Checkpoint, CheckpointPair
    from interp.model import Model
    from interp.prompt import Example
    from study.members import Loading


@dataclass(frozen=True, config=STRICT, kw_only=True)
class LabelOptions:
    """Which labels of which chains.

    Attributes:
        label: tracking, the answer so far; importance, by attention that is blind to a sentence; resampling, by
            rollouts without it; context, nearby tokens.
        n: rollouts per cut, or context questions per chain.
        parse: import path of a task whose `parse` reads the answer of a rollout.
    """

    data: str = option(help="Chains of thought as JSON lines {question, cot, answer, [id, problem, sentences]}.")
    label: Literal["tracking", "importance", "resampling", "context"] = option(
        help="Kind of label: the answer so far (tracking), effect of hiding a sentence from attention (importance) or "
        "of resampling it (resampling), nearby tokens (context)."
    )
    out: Path = option(help="Output folder; it gets one file of labels per member.")
    limit: Count | None = option(None, "Use only the first N problems.")
    depth: float = option(0.75, "Depth of the logit lens, as a share of the layers (tracking).")
    top: float = option(0.3, "Share of a problem's sentences that are labelled anchors.")
    n: Annotated[int, Field(ge=2)] = option(20, "Number of rollouts per cut, or of context questions per chain.")
    temperature: Annotated[float, Field(gt=0)] = option(0.6, "Sampling temperature of a rollout.")
    max_new_tokens: Count = option(256, "Longest rollout, in tokens.")
    parse: str | None = option(None, "Task whose parse() extracts the answer of a rollout; default: interp.tasks.cot.")
    seed: int = option(0, "Seed of rollouts and context questions.")


def label_members(
    what: Checkpoint | CheckpointPair, loading: Loading, options: LabelOptions
) -> Iterator[tuple[Path, int]]:
    """(file, how many labels) of every member, in `options.out`; a killed run continues.

    Raises:
        ValueError: as `labels_of`.
    """
    from interp.tasks.cot.chains import examples as read
    from study.members import models_of

    examples = read(options.data, limit=options.limit)
    for roles, model in models_of(what, loading):
        for role in roles:
            path = options.out / f"{role}-{options.label}.jsonl"
            with model.member(role):
                yield path, len(labels_of(model, examples, options, path))


KIND = "labels of sentences"
BY_EXAMPLE = ("importance", "resampling")
"""Labels of one chain that depend on no other chain and take long."""


def labels_of(model: Model, examples: list[Example], options: LabelOptions, path: Path) -> list[Row]:
    """The labels of one member, written to `path`; what earlier runs of the same job have made is taken from the store
    next to it.

    Raises:
        ValueError: labels of another job, or of an earlier version.
    """
    from interp.io import ItemStore, write_json_lines
    from interp.io.items import is_store

    root, kind = path.with_suffix(""), options.label
    if path.exists() and not is_store(root):
        choose = remedy("Choose another {out}.")
        raise ValueError(f"{path}: exists, and no file says how it was made. {choose}")
    parts = {e.id: [e] for e in examples} if kind in BY_EXAMPLE else {"all": examples}
    with ItemStore.writing(root, KIND, _identity(model, examples, options)) as store:
        todo = {key: part for key, part in parts.items() if key not in store}
        n, n_done = len(examples), len(examples) - sum(map(len, todo.values()))
        with track(f"{kind} {path.stem}", n, unit="chains", done=n_done) as bar:
            for key, part in todo.items():
                how = _seeded(options, key) if kind in BY_EXAMPLE else options
                with bar.step(len(part)):
                    store.put_json(key, MAKERS[kind](model, part, how))
        rows = [row for key in parts for row in store.get_json(key)]
        write_json_lines(path, rows)
    return rows


def _seeded(options: LabelOptions, key: str) -> LabelOptions:
    """The options with a seed of the example's own, so that its draws do not depend on the others that are asked."""
    seed = int(hashlib.sha256(f"{options.seed}/{key}".encode()).hexdigest()[:8], 16)
    return replace(options, seed=seed)


_OF_KIND = {
    "tracking": ("depth",),
    "importance": ("temperature", "seed", "top"),
    "context": ("n", "seed"),
    "resampling": ("n", "temperature", "seed", "max_new_tokens", "parse", "top"),
}


def _identity(model: Model, examples: list[Example], options: LabelOptions) -> dict[str, object]:
    """Everything that changes a label."""
    from interp.template import clock_of
    from study.members import weights_of
    from study.run.digest import sha256_of

    date = clock_of(model.tokenizer)
    return {
        "label": options.label,
        "chains": sha256_of([asdict(e) for e in examples]),
        "weights": weights_of(model),
        "dtype": str(model.dtype).removeprefix("torch."),
        **{key: getattr(options, key) for key in _OF_KIND[options.label]},
        **({"template_date": date} if date else {}),
    }


def tracking(model: Model, examples: list[Example], options: LabelOptions) -> list[Row]:
    """Tier of the answer at the end of every sentence."""
    from interp.chains import track_answers

    rows = [asdict(row) for row in track_answers(model, examples, depth=options.depth)]
    return _lines(model, examples, [{"label": row["tier"]} | row for row in rows], "answer", "p_answer")


def importance(model: Model, examples: list[Example], options: LabelOptions) -> list[Row]:
    """Anchor or other within each problem, by suppressed attention."""
    from interp.chains import suppression_importance

    effects = suppression_importance(model, examples, temperature=options.temperature, seed=options.seed)
    rows = _tiered([asdict(row) for row in effects], "importance", options.top)
    return _lines(model, examples, rows, "importance", "importance")


def resampling(model: Model, examples: list[Example], options: LabelOptions) -> list[Row]:
    """Anchor or other within each problem, by rollouts."""
    from interp.chains import resampling_importance
    from interp.tasks.protocol import load_evaluated_task

    task = load_evaluated_task(options.parse or "interp.tasks.cot")
    settings = {key: getattr(options, key) for key in ("n", "temperature", "seed", "max_new_tokens")}
    effects = resampling_importance(model, examples, parse=task.parse, **settings)
    return _lines(model, examples, _tiered([row.row() for row in effects], "kl", options.top), "importance", "kl")


def context(model: Model, examples: list[Example], options: LabelOptions) -> list[Row]:
    """Neighbouring tokens of random runs."""
    from interp.prompt import render
    from interp.tasks.cot import context_items

    rows: list[Row] = []
    for example in examples:
        prompt = render(example, model.tokenizer)
        for item in context_items(example, prompt, model.tokenizer, n=options.n, seed=options.seed):
            rows.append({"label": item.target, "task": item.item.task} | asdict(item))
    return rows


MAKERS: dict[str, Callable[[Model, list[Example], LabelOptions], list[Row]]] = {
    "tracking": tracking,
    "importance": importance,
    "resampling": resampling,
    "context": context,
}


def _tiered(rows: list[Row], number: str, top: float) -> list[Row]:
    """The rows with a tier within their example; null with its reason where there is no number."""
    from interp.tasks.cot import percentile_tiers

    out: list[Row] = []
    for name in dict.fromkeys(row["example_id"] for row in rows):
        own = [row for row in rows if row["example_id"] == name]
        numbers = [row[number] for row in own if row.get(number) is not None]
        tiers = iter(percentile_tiers(numbers, top=top)) if len(numbers) > 1 else None
        for row in own:
            built = tiers is not None and row.get(number) is not None
            status = row.get("status", "ok") if built or row.get("status", "ok") != "ok" else "one sentence only"
            out.append({**row, "label": next(tiers) if built and tiers else None, "status": status})
    return out


def _lines(model: Model, examples: list[Example], rows: list[Row], task: str, number: str) -> list[Row]:
    """The rows with what their readers need: `id`, `task` and `value` (column `number`) for an oracle's recipe and its
    questions, hash of the tokens up to the boundary and the text that ends there for an audit."""
    from interp.prompt import render
    from interp.tasks.cot import chain_sentences

    by_id, chains = {e.id: e for e in examples}, {}
    for example in examples:
        prompt = render(example, model.tokenizer)
        chains[example.id] = prompt, chain_sentences(example, prompt)
    out = []
    for row in rows:
        prompt, sentences = chains[row["example_id"]]
        sentence = sentences[row["sentence"]]
        ids = ",".join(map(str, prompt.ids[: sentence.token_end]))
        named = {"id": row["example_id"], "task": task, "value": row.get(number)}
        place = {"context": hashlib.sha256(ids.encode()).hexdigest()[:24], "text": sentence.text}
        end = prompt.offsets[sentence.boundary][1]
        is_split = by_id[row["example_id"]].metadata["split_by"] == "punctuation"  # else no stop is to be expected
        out.append({**row, **named, **place, "boundary": prompt.text[max(0, end - 60) : end] if is_split else None})
    return out
