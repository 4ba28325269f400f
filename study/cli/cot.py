"""`diptych cot`: labels of the sentences of chains of thought, made with a model and audited at once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from study.cli.common import checkpoint_options, load_options, resolve_checkpoints, user_errors_as_messages

if TYPE_CHECKING:
    from interp.model import Model
    from interp.prompt import Example

Row = dict[str, Any]


@click.command()
@checkpoint_options
@load_options
@click.option("--data", required=True, help="JSON lines {question, cot, answer, [id, problem, sentences]}.")
@click.option("--label", "kind", required=True, type=click.Choice(["tracking", "importance", "resampling", "context"]),
              help="Answer so far; attention blind to a sentence; rollouts without it; nearby tokens.")  # fmt: skip
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder: one file of labels per member.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first N problems.")
@click.option("--depth", type=float, default=0.75, show_default=True, help="Of tracking: share of the layers.")
@click.option(
    "--top", type=float, default=0.3, show_default=True, help="Share of a problem's sentences called anchors."
)
@click.option("--n", type=click.IntRange(min=2), default=20, show_default=True,
              help="Rollouts per cut, or context questions per chain.")  # fmt: skip
@click.option("--temperature", type=click.FloatRange(min=0, min_open=True), default=0.6, show_default=True)
@click.option("--max-new-tokens", type=click.IntRange(min=1), default=256, show_default=True, help="Of a rollout.")
@click.option("--parse", help="Task whose parse() reads a rollout's answer; default: interp.tasks.cot.")
@click.option("--seed", type=int, default=0, show_default=True)
@user_errors_as_messages
def cot(kind: str, data: str, out: Path, limit: int | None, **options: Any) -> None:
    """Label every sentence of every chain with a model, into OUT/<member>-<label>.jsonl, and audit the labels.

    Every line has the label and the number that it was made from, next to its control. Exits with 1 where an audit
    fails; the labels are written all the same. Run again after a kill, it continues; labels of other options, data or
    weights are not written over.
    """
    from interp.tasks.cot import audit, read_items
    from interp.tasks.cot.chains import examples as read
    from study.cli.audit import report
    from study.members import models_of

    checkpoints, loading = resolve_checkpoints(options)
    examples, failed = read(data, limit=limit), False
    for roles, model in models_of(checkpoints, loading):
        for role in roles:
            path = out / f"{role}-{kind}.jsonl"
            with model.member(role):
                rows = labels_of(model, kind, examples, options, path)
            click.echo(f"{path}: {len(rows)} labels")
            findings = audit(read_items(path))
            report(findings, None)
            failed |= any(finding.status == "fail" for finding in findings)
    if failed:
        raise click.exceptions.Exit(1)


KIND = "labels of sentences"
BY_EXAMPLE = ("importance", "resampling")
"""Labels of one chain that depend on no other chain and take long."""


def labels_of(model: Model, kind: str, examples: list[Example], options: dict[str, Any], path: Path) -> list[Row]:
    """The labels of one member, written to `path`; what earlier runs of the same job have made is taken from the store
    next to it.

    Raises:
        ValueError: labels of another job, or of an earlier version.
    """
    from interp.io import ItemStore, write_json_lines
    from interp.io.items import is_store

    root = path.with_suffix("")
    if path.exists() and not is_store(root):
        raise ValueError(f"{path}: exists, and nothing says what it was made from. Choose another --out.")
    parts = {e.id: [e] for e in examples} if kind in BY_EXAMPLE else {"all": examples}
    with ItemStore.writing(root, KIND, _identity(model, kind, examples, options)) as store:
        for key, part in parts.items():
            if key not in store:
                store.put_json(key, MAKERS[kind](model, part, _seeded(options, key) if kind in BY_EXAMPLE else options))
        rows = [row for key in parts for row in store.get_json(key)]
        write_json_lines(path, rows)
    return rows


def _seeded(options: dict[str, Any], key: str) -> dict[str, Any]:
    """The options with a seed of the example's own, so that its draws do not depend on the others that are asked."""
    seed = int(hashlib.sha256(f"{options['seed']}/{key}".encode()).hexdigest()[:8], 16)
    return {**options, "seed": seed}


_OF_KIND = {"tracking": ("depth",), "importance": ("temperature", "seed", "top"), "context": ("n", "seed"),
            "resampling": ("n", "temperature", "seed", "max_new_tokens", "parse", "top")}  # fmt: skip


def _identity(model: Model, kind: str, examples: list[Example], options: dict[str, Any]) -> dict[str, Any]:
    """Everything that changes a label."""
    from interp.template import clock_of
    from study.members import weights_of
    from study.run.digest import sha256_of

    date = clock_of(model.tokenizer)
    return {"label": kind, "chains": sha256_of([asdict(e) for e in examples]), "weights": weights_of(model),
            "dtype": str(model.dtype).removeprefix("torch."), **{key: options[key] for key in _OF_KIND[kind]},
            **({"template_date": date} if date else {})}  # fmt: skip


def tracking(model: Model, examples: list[Example], options: dict[str, Any]) -> list[Row]:
    """Tier of the answer at the end of every sentence."""
    from interp.chains import track_answers

    rows = [asdict(row) for row in track_answers(model, examples, depth=options["depth"])]
    return _lines(model, examples, [{"label": row["tier"]} | row for row in rows], "answer", "p_answer")


def importance(model: Model, examples: list[Example], options: dict[str, Any]) -> list[Row]:
    """Anchor or other within each problem, by suppressed attention."""
    from interp.chains import suppression_importance

    effects = suppression_importance(model, examples, temperature=options["temperature"], seed=options["seed"])
    rows = _tiered([asdict(row) for row in effects], "importance", options["top"])
    return _lines(model, examples, rows, "importance", "importance")


def resampling(model: Model, examples: list[Example], options: dict[str, Any]) -> list[Row]:
    """Anchor or other within each problem, by rollouts."""
    from interp.chains import resampling_importance
    from interp.tasks.protocol import load_task

    task: Any = load_task(options["parse"] or "interp.tasks.cot")
    settings = {key: options[key] for key in ("n", "temperature", "seed", "max_new_tokens")}
    effects = resampling_importance(model, examples, parse=task.parse, **settings)
    return _lines(model, examples, _tiered([row.row() for row in effects], "kl", options["top"]), "importance", "kl")


def context(model: Model, examples: list[Example], options: dict[str, Any]) -> list[Row]:
    """Neighbouring tokens of random runs."""
    from interp.prompt import render
    from interp.tasks.cot import context_items

    rows: list[Row] = []
    for example in examples:
        prompt = render(example, model.tokenizer)
        for item in context_items(example, prompt, model.tokenizer, n=options["n"], seed=options["seed"]):
            rows.append({"label": item.target, "task": item.item.task} | asdict(item))
    return rows


MAKERS: dict[str, Callable[..., list[Row]]] = {
    "tracking": tracking, "importance": importance, "resampling": resampling, "context": context,
}  # fmt: skip


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
