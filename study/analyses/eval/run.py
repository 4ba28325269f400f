"""Evaluate a checkpoint or both members of a pair on the same items, into a folder that can be resumed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from interp import stats
from interp.checkpoint import Checkpoint, CheckpointPair
from interp.evaluate import Batches, Decoding, evaluate, plan_batches
from interp.evaluate.decoding import batch_tokens
from interp.io.frames import write_frame
from interp.io.items import PLAN
from interp.model import Model
from interp.progress import Progress, showing, track
from interp.prompt import Example, render
from interp.remedy import remedy
from interp.tasks.protocol import EvaluatedTask, Task, hook, labels_of, load_evaluated_task, max_new_tokens
from interp.template import clock_of, is_plain
from study.analyses.eval.faithfulness import counterfactual_answers, faithfulness_rows, read_counterfactuals
from study.analyses.eval.options import MODES, EvalOptions
from study.analyses.eval.store import (
    answers_frame,
    answers_in,
    answers_store,
    batches_of,
    identity_of,
    prompts_sha256,
    put_batch,
    read_answers,
    write_answers,
)
from study.analyses.eval.tables import eval_tables
from study.members import Loading, models_of, weights_of
from study.rows import Row

if TYPE_CHECKING:
    import pandas as pd


FILES = {"eval": "table.csv", "pair": "pair.csv"}
"""Table -> its file in a folder of `diptych eval`."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What an evaluation gives.

    Attributes:
        tables: `eval` and, of a pair, `pair`; see `study.analyses.eval.tables`.
        answers: member -> one row per answer, of all prompt modes (see `answers_frame`).
    """

    tables: dict[str, pd.DataFrame]
    answers: dict[str, pd.DataFrame]


def run_eval(
    what: Checkpoint | CheckpointPair,
    task_path: str,
    examples: Sequence[Example],
    *,
    out: Path,
    options: EvalOptions | None = None,
    loading: Loading | None = None,
    progress: bool = True,
    seed: int = 0,
    reply_seed: int = 0,
    provenance: Mapping[str, object] | None = None,
) -> Evaluation:
    """Answers of every member, and the tables made of them: `out/<member>/`, `out/table.csv`, `out/pair.csv`.

    Members of one base share its weights; all members answer the same items. Run again with the same arguments, it
    continues where it stopped. In several prompt modes, answers are in `out/<member>/<mode>/`.

    Args:
        task_path: import path of the task that reads and scores the replies.
        seed: seed of the bootstraps behind the intervals.
        reply_seed: seed of sampled replies.
        provenance: kept in each manifest next to versions and checkpoints (e.g. the seed and file of the items).
    Raises:
        ValueError: as `interp.load` and `interp.evaluate.evaluate`; a folder of another evaluation; before anything is
            loaded: items without the group that others have, or without labels where only labels are scored.
    """
    options = options or EvalOptions()
    members = answer_members(
        what,
        task_path,
        examples,
        out=out,
        options=options,
        loading=loading,
        progress=progress,
        reply_seed=reply_seed,
        provenance=provenance,
    )
    names = {member: _names(_checkpoint(what, member), out / member) for member in members}
    evaluation = tables_of(out, names, task_path, examples, seed=seed, modes=options.modes)
    for name, table in evaluation.tables.items():
        write_frame(out / FILES[name], table)
    return evaluation


def _names(checkpoint: Checkpoint, root: Path) -> dict[str, str]:
    """Columns model, adapter and weights of a member."""
    names = checkpoint.shared
    adapter = "/".join(filter(None, (names["adapter"], checkpoint.subfolder)))
    weights = identity_of(min(root.glob(f"**/{PLAN}")).parent)["weights"]
    return {"model": str(names["base"]), "adapter": adapter or "none", "weights": str(weights)[:12]}


def answer_members(
    what: Checkpoint | CheckpointPair,
    task_path: str,
    examples: Sequence[Example],
    *,
    out: Path,
    options: EvalOptions | None = None,
    loading: Loading | None = None,
    progress: bool = True,
    reply_seed: int = 0,
    provenance: Mapping[str, object] | None = None,
) -> tuple[str, ...]:
    """Every member's answers on disk, in `out/<member>/`; returns the members. Arguments as in `run_eval`."""
    task = load_evaluated_task(task_path)
    options, members = options or EvalOptions(), []
    decoding, modes = options.decoding(reply_seed), options.modes
    _check_items(task, task_path, examples, decoding)
    for roles, model in models_of(what, dict(loading or {})):
        check_modes_differ(model, examples, modes)
        for role in roles:
            with model.member(role):
                origins = _provenance(what, role) | dict(provenance or {})
                for root, asked, how in _runs(out / role, examples, decoding, modes):
                    run_member(model, role, task, task_path, asked, root, how, progress, origins)
            members.append(role)
    return tuple(members)


def _check_items(task: Task, task_path: str, examples: Sequence[Example], decoding: Decoding) -> None:
    """What would only fail, or be silently wrong, once every reply is there."""
    unlabelled = [e.id for e in examples if not labels_of(task, e)] if not decoding.generate else []
    if unlabelled:
        raise ValueError(
            f"scoring labels alone: task {task_path!r} names no labels for {_named(unlabelled, examples)}. "
            "Let the model generate, or give the task a function labels(example)."
        )
    names = dict.fromkeys(name for e in examples for name in e.groups)
    unit = named if (named := hook(task, "GROUP")) in names else next(iter(names), None)
    missing = [e.id for e in examples if unit not in e.groups] if unit is not None else []
    if missing:
        raise ValueError(
            f"groups: {unit!r} is the unit of every interval, so every item needs one; it is missing on "
            f"{_named(missing, examples)}. Give it to all items or to none."
        )


def _named(ids: Sequence[str], examples: Sequence[Example]) -> str:
    return f"{len(ids)} of {len(examples)} items ({', '.join(ids[:5])}{', ...' if len(ids) > 5 else ''})"


def _runs(
    root: Path, examples: Sequence[Example], decoding: Decoding, modes: Sequence[str]
) -> list[tuple[Path, Sequence[Example], Decoding]]:
    if not modes:
        return [(root, examples, decoding)]
    return [(root / mode, in_mode(examples, mode), replace(decoding, thinking=MODES[mode])) for mode in modes]


def in_mode(examples: Sequence[Example], mode: str) -> list[Example]:
    """The examples with their mode in the metadata, where the task and the tables see it."""
    return [replace(e, metadata={**e.metadata, "mode": mode}) for e in examples]


def check_modes_differ(model: Model, examples: Sequence[Example], modes: Sequence[str]) -> None:
    """Every item must be another prompt in every mode, or the comparison of the modes would be of nothing.

    Raises:
        ValueError: two modes give an item the same token ids.
    """
    for example in examples:
        hashes = {mode: render(example, model.tokenizer, thinking=MODES[mode]).sha256 for mode in modes}
        if len(set(hashes.values())) < len(hashes):
            what = f"example {example.id!r}: the chat template gives the same prompt for {' and '.join(modes)}"
            raise ValueError(
                f"{what} ({next(iter(hashes.values()))[:12]}). This model has one mode; {remedy('leave out {modes}')}."
            )


def answers_of(
    out: Path, members: Sequence[str], task_path: str, examples: Sequence[Example], *, modes: Sequence[str] = ()
) -> tuple[dict[str, pd.DataFrame], list[Row]]:
    """(member -> one row per answer, rows of `eval` of changed replies) of answers on disk; no model is loaded.

    Replies are read and scored by the task as it is now, not as it was when they were written; `answers.parquet` is
    written again.
    """
    import pandas as pd

    task = load_evaluated_task(task_path)
    answers: dict[str, pd.DataFrame] = {}
    changed: list[Row] = []
    for member in members:
        parts = []
        for root, asked, _ in _runs(out / member, examples, Decoding(), modes):
            frame = answers_frame(read_answers(root), asked, member, task=task)
            # the column "mode" cuts the tables, so metadata of that name must not pass for it
            parts.append(frame if modes else frame.rename(columns={"mode": "meta.mode"}))
            write_answers(root, parts[-1])
            rows = faithfulness_rows(parts[-1], read_counterfactuals(root), task)
            changed += [row | {"mode": root.name if modes else ""} for row in rows]
        answers[member] = pd.concat(parts, ignore_index=True) if modes else parts[0]
    return answers, changed


def tables_of(
    out: Path,
    members: Mapping[str, Mapping[str, str]],
    task_path: str,
    examples: Sequence[Example],
    *,
    seed: int = 0,
    margin: float = stats.MARGIN,
    modes: Sequence[str] = (),
) -> Evaluation:
    """The tables of answers that are on disk, and the answers; no model is loaded.

    Args:
        members: member -> what the tables name it by (model, adapter, weights).
        margin: largest difference in accuracy that counts as equal.
    """
    task = load_evaluated_task(task_path)
    answers, changed = answers_of(out, tuple(members), task_path, examples, modes=modes)
    say = hook(task, "notes")
    notes = say(examples) if say else {}
    made_by = {member: dict(names) | _asked(out / member) for member, names in members.items()}
    tables = eval_tables(answers, task, made_by=made_by, extra=changed, seed=seed, margin=margin, notes=notes)
    return Evaluation(tables, answers)


def _asked(root: Path) -> Row:
    """Columns dtype and data_sha256 of a member's folder."""
    identity = identity_of(min(root.glob(f"**/{PLAN}")).parent)
    return {"dtype": identity["dtype"], "data_sha256": identity["items"]}


def run_member(
    model: Model,
    role: str,
    task: EvaluatedTask,
    task_path: str,
    examples: Sequence[Example],
    root: Path,
    decoding: Decoding,
    progress: bool,
    provenance: Mapping[str, object] | None = None,
) -> pd.DataFrame:
    """Answers of the adapter that is active now, from disk where they are, from the model where they are not; where the
    task has counterfactuals, what they give too."""
    decoding = _in_batches_of(root, model, decoding)
    plan = plan_batches(model, task, examples, decoding)
    limit = (decoding.max_new_tokens or max_new_tokens(task)) if decoding.generate else 0
    identity = _identity(model, task_path, examples, decoding, limit)
    with answers_store(root, identity, notes=provenance) as store:
        done = batches_of(store)
        batches = evaluate(model, task, examples, decoding=decoding, done=done, plan=plan)
        with _bar(role, plan, done, shown=progress) as bar:
            todo = [(len(batch), plan.work(k)) for k, batch in enumerate(plan.batches) if k not in done]
            for number, answers in bar.over(batches, todo):
                put_batch(store, number, answers)
        frame = answers_frame(answers_in(store), examples, role, task=task)
        with showing(progress):
            counterfactual_answers(model, task, examples, frame, store, thinking=decoding.thinking)
        write_answers(root, frame)
    return frame


def _in_batches_of(root: Path, model: Model, decoding: Decoding) -> Decoding:
    """The decoding with its token budget: as asked for, else that of the answers in `root`, else by model and memory.

    A run that continues on a machine with other memory keeps the batches that it was begun with.
    """
    if decoding.tokens_per_batch is None and (root / PLAN).is_file():
        kept = identity_of(root).get("decoding", {}).get("tokens_per_batch")
        decoding = replace(decoding, tokens_per_batch=kept) if isinstance(kept, int) else decoding
    return replace(decoding, tokens_per_batch=batch_tokens(model, decoding))


def _bar(role: str, plan: Batches, done: Collection[int], *, shown: bool) -> AbstractContextManager[Progress]:
    """Progress over the items of one member, weighed by the tokens that are read and written."""
    works = [plan.work(number) for number in range(len(plan.batches))]
    before = {"done": sum(len(plan.batches[i]) for i in done), "done_work": sum(works[i] for i in done)}
    return track(f"eval {role}", len(plan.prompts), unit="items", work=sum(works), shown=shown, **before)


def _checkpoint(what: Checkpoint | CheckpointPair, role: str) -> Checkpoint:
    return what.members[role] if isinstance(what, CheckpointPair) else what


def _provenance(what: Checkpoint | CheckpointPair, role: str) -> dict[str, object]:
    from importlib.metadata import version

    packages = ("diptych", "torch", "transformers", "tokenizers", "peft")
    return {"checkpoint": _checkpoint(what, role).shared, "versions": {name: version(name) for name in packages}}


def _identity(
    model: Model, task_path: str, examples: Sequence[Example], decoding: Decoding, new_tokens: int
) -> dict[str, object]:
    return {
        "task": task_path,
        "items": prompts_sha256(examples),
        "weights": weights_of(model),
        "dtype": str(model.dtype).removeprefix("torch."),
        "decoding": {**asdict(decoding), "max_new_tokens": new_tokens},
        **({"template_date": date} if (date := clock_of(model.tokenizer)) else {}),
        **({"template": "plain"} if is_plain(model.tokenizer) else {}),
    }
