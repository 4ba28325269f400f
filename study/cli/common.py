"""Options that several commands share, and errors in the user's own words instead of a traceback."""

from __future__ import annotations

import functools
import inspect
import os
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from interp.limits import refusal
from study.analyses.registry import added
from study.embedded import EMBEDDED
from study.run.process import (
    Terminated,
    plain_warnings,
    terminable,
    user_errors,
    words,
)
from study.run.process import (
    one_thread as one_thread,
)

if TYPE_CHECKING:
    from interp.checkpoint import Checkpoint, CheckpointPair
    from interp.prompt import Example


_CHECKPOINT = ("base", "adapter", "revision", "adapter_revision", "subfolder", "tokenizer")
_LOADING = ("dtype", "device", "device_map", "quantization", "attn_implementation", "merge",
            "control_tokens", "template_date", "allow_closed_turn", "template")  # fmt: skip


def checkpoint_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that name a checkpoint or a pair."""
    for option in reversed(
        [
            click.option("--base", help="Hugging Face id or folder of the base model."),
            click.option("--adapter", help="Hugging Face id or folder of a PEFT adapter on it."),
            click.option("--revision", help="Commit, tag or branch of the base."),
            click.option("--adapter-revision", help="Commit, tag or branch of the adapter."),
            click.option("--subfolder", help="Folder of the adapter inside its repository."),
            click.option("--tokenizer", help="Id or folder of the tokenizer, where the adapter's or base's is not it."),
            click.option("--name", help="What tables and figures call the checkpoint."),
            click.option("--checkpoint", "checkpoint_file", help="YAML file of one checkpoint, in place of --base."),
            click.option("--pair", help="YAML file of a pair, or 'embedded' for the one that comes with the package."),
        ]
    ):
        command = option(command)
    return command


_DEVICE_MAP = click.option("--device-map", help="'auto' spreads a model over several GPUs.")
_QUANTIZATION = click.option("--quantization", help="4bit or 8bit (bitsandbytes).")
_ATTENTION = click.option("--attn-implementation", help="eager, sdpa, ...")


def load_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say how weights are held; `interp.load` documents them."""
    for option in reversed(
        [
            click.option(
                "--load-dtype", default="auto", show_default=True, help="bf16 on CUDA, fp32 on CPU by default."
            ),
            click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ..."),
            _DEVICE_MAP,
            _QUANTIZATION,
            _ATTENTION,
            click.option("--merge", is_flag=True, help="Add the adapter into the weights (other rounding)."),
            click.option(
                "--control-tokens",
                type=click.Choice(["text", "refuse"]),
                default="text",
                show_default=True,
                help="Special tokens written out in a message: kept as text, or an error.",
            ),
            click.option(
                "--template-date",
                help="Date (YYYY-MM-DD) given to a chat template that reads the clock; "
                "default: today's, the same for the whole run.",
            ),
            click.option(
                "--template",
                type=click.Choice(["own", "plain"]),
                default="own",
                show_default=True,
                help="plain: every chat as plain text, for base models without a chat template.",
            ),
            click.option(
                "--allow-closed-turn", is_flag=True, help="Accept a chat template that opens no assistant turn."
            ),
        ]
    ):
        command = option(command)
    return command


def oracle_load_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Those of `load_options` that mean something for a model whose oracle adapter must stay apart from its base."""
    for option in reversed(
        [
            click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ..."),
            click.option("--load-dtype", default="auto", show_default=True, help="bf16 on CUDA, fp32 on CPU."),
            _DEVICE_MAP,
            _QUANTIZATION,
            _ATTENTION,
        ]
    ):
        command = option(command)
    return command


def oracle_loading(options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `interp.load` from the options of `oracle_load_options`."""
    keys = ("dtype", "device", "device_map", "quantization", "attn_implementation")
    return {key: options["load_dtype" if key == "dtype" else key] for key in keys}


def resolve_checkpoints(options: Mapping[str, Any]) -> tuple[Checkpoint | CheckpointPair, dict[str, Any]]:
    """The checkpoint or pair that the options name, and how to load it.

    Raises:
        click.UsageError: none of --base, --checkpoint and --pair, or more than one.
    """
    from interp.checkpoint import Checkpoint, CheckpointPair

    given = [key for key in ("base", "checkpoint_file", "pair") if options[key]]
    if len(given) != 1:
        raise click.UsageError("give exactly one of --base, --checkpoint and --pair.")
    if given != ["base"]:
        stray = [key for key in (*_CHECKPOINT[1:], "name") if options[key]]
        stray += ["merge"] if options["pair"] and options["merge"] else []
        if stray:
            named = ", ".join(f"--{key.replace('_', '-')}" for key in stray)
            raise click.UsageError(f"{named}: only with --base; write it into the file of --{given[0].split('_')[0]}.")
    loading = {key: options["load_dtype" if key == "dtype" else key] for key in _LOADING}
    if options["pair"]:
        loading.pop("merge")
        if options["pair"] == EMBEDDED:
            from study.embedded import embedded_pair

            return embedded_pair(), loading
        return CheckpointPair.from_yaml(options["pair"]), loading
    if options["checkpoint_file"]:
        return Checkpoint.from_yaml(options["checkpoint_file"]), loading
    fields = {key: options[key] for key in _CHECKPOINT if options[key]}
    name = options["name"] or Path(options["adapter"] or options["base"]).name
    return Checkpoint(name=name, **fields), loading


more_task_options = click.option(
    "--task-option", "more", multiple=True, metavar="KEY=VALUE",
    help="Further option of the task, e.g. categories=Age,Religion, condition=ambig, permute=cyclic, side=test, "
    "templates=FOLDER; may be given again.",
)  # fmt: skip


where_option = click.option(
    "--where", multiple=True, metavar="CONDITION",
    help="Keep only what fulfils it: COLUMN (has a value), COLUMN=A,B, COLUMN!=A, COLUMN<3 (<=, >, >=); may be given "
    "again, then all must hold.",
)  # fmt: skip


def item_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say which items of a task; one that the task does not take is an error."""
    for option in reversed(
        [
            click.option("--limit", type=click.IntRange(min=1), help="At most N items, spread over cells and groups."),
            click.option("--per-cell", type=click.IntRange(min=1), help="Items per cell of a generated grid."),
            click.option("--seed", type=int, help="Of generated items and of sampled replies."),
            click.option("--split", help="Whose items: train, validation, test."),
            click.option("--rendering", help="Of generated items: plain, or log for the embedded pair."),
            where_option,
            more_task_options,
        ]
    ):
        command = option(command)
    return command


def task_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that name a task, its data and which of its items."""
    command = item_options(command)
    for option in reversed(
        [
            click.option("--task", required=True, help="Import path of a task, e.g. interp.tasks.procedural."),
            click.option("--data", help="The task's data; a task that generates its items needs none."),
        ]
    ):
        command = option(command)
    return command


_TASK = ("per_cell", "seed", "split", "rendering")


def given_to_task(function: Callable[..., Any], more: Collection[str]) -> dict[str, Any]:
    """What `--task-option KEY=VALUE` passes to a task's function: numbers, true, null and text as in YAML; commas part
    the entries of an option that takes several.

    Raises:
        ValueError: no KEY=VALUE, or a key that is given twice.
    """
    from interp.io.yaml_text import parse_yaml

    known, found = inspect.signature(function).parameters, {}
    for word in more:
        key, sign, text = word.partition("=")
        key = key.strip().replace("-", "_")
        if not sign or not key or key in found:
            raise ValueError(f"--task-option {word!r}: expected KEY=VALUE, each key once.")
        several = key in known and "Sequence" in str(known[key].annotation)
        try:
            found[key] = listed(text) if several else parse_yaml(text, word)
        except ValueError:  # text that only looks like YAML: "[a", "x: y: z"
            found[key] = text
    return found


def read_data(options: Mapping[str, Any], *, shared: Collection[str] = ()) -> list[Example]:
    """The examples of --data, read by --task where one is given, that --where keeps; at most --limit, spread over cells
    and groups.

    Args:
        shared: options that mean something without the task too, so that one which does not take them is no error.
    Raises:
        ValueError: an option that the task does not take; a rendering that the embedded pair cannot read; no data.
    """
    from interp.tasks.protocol import load_task
    from interp.tasks.records import read_examples

    if not options["task"]:
        _refuse_task_options(options)
        chosen = {"split": options["split"]} if options.get("split") else {}
        return _chosen(read_examples(options["data"], **chosen), options)
    task = load_task(options["task"])
    known = inspect.signature(task.examples).parameters
    wanted = {key: options[key] for key in _TASK if options.get(key) is not None}
    wanted = {key: value for key, value in wanted.items() if key in known or key not in shared}
    wanted |= given_to_task(task.examples, options.get("more") or ())
    if options.get("pair") == EMBEDDED and "rendering" in known and not options["data"]:
        if wanted.get("rendering", "log") != "log":
            raise ValueError(
                f"--rendering {wanted['rendering']}: the embedded pair knows only the words of the log rendering. Omit "
                "--rendering, or name a model of your own with --pair, --base or --checkpoint."
            )
        wanted.setdefault("rendering", "log")  # the only one that the embedded pair reads
    strange = [f"--{key.replace('_', '-')}" if key in _TASK else key for key in wanted if key not in known]
    if strange:
        raise ValueError(f"{options['task']} does not take {', '.join(strange)}; it takes {', '.join(known)}.")
    return _chosen(task.examples(options["data"], **wanted), options)


def _chosen(examples: Sequence[Example], options: Mapping[str, Any]) -> list[Example]:
    from interp.tasks.records import spread
    from interp.where import examples_where

    kept = examples_where(examples, options.get("where") or (), option="--where")
    taken = spread(kept, options["limit"])
    if len(taken) < len(kept):
        door = "--n" if "n" in options else "--limit"
        warnings.warn(
            f"{len(taken)} of {len(kept)} items are taken, spread over cells and groups; {door} takes more.",
            stacklevel=2,
        )
    return taken


def _refuse_task_options(options: Mapping[str, Any]) -> None:
    if not options["data"]:
        raise ValueError("--data is missing: name a file of items, or a --task that generates them.")
    named = [f"--{key.replace('_', '-')}" for key in ("per_cell", "seed", "rendering") if options.get(key) is not None]
    if stray := [*named, *(["--task-option"] if options.get("more") else [])]:
        raise ValueError(f"{', '.join(stray)}: options of a task. Name one with --task, or leave them out.")


CONTINUES = ("eval run", "cache extract", "heads sweep", "steer dose", "oracle ask", "oracle compare", "cot",
             "study run")  # fmt: skip
"""Commands that go on where they were stopped; `oracle train` does with --resume."""


def user_errors_as_messages(command: Callable[..., Any]) -> Callable[..., Any]:
    """Print what a user can act on as one message and exit with 1; DIPTYCH_TRACEBACK=1 shows where it came from.

    Ctrl-C and SIGTERM end with what the same command will do when it is run again, and exit with 130 or 143.
    """

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        with _own_options(), errors_as_messages():
            for name, value in kwargs.items():
                if why := refusal(name, value):
                    raise ValueError(f"{_option_of(name)}: {why}.")
            return command(*args, **kwargs)

    return run


def _own_options() -> AbstractContextManager[None]:
    """Errors name the options of the command that runs."""
    from interp.remedy import entered
    from study.doors import command_door

    context = click.get_current_context(silent=True)
    return entered(command_door(context.command.params if context else ()))


def _option_of(name: str) -> str:
    """The option whose value the command gets as `name`."""
    context = click.get_current_context(silent=True)
    options = [] if context is None else [p for p in context.command.params if isinstance(p, click.Option)]
    return {option.name: option.opts[0] for option in options}.get(name, f"--{name.replace('_', '-')}")


@contextmanager
def errors_as_messages() -> Iterator[None]:
    """The one place where errors become messages; see `user_errors_as_messages`."""
    try:
        with terminable(), plain_warnings():
            yield
    except KeyboardInterrupt as error:
        if os.environ.get("DIPTYCH_TRACEBACK"):
            raise
        click.echo(f"\nStopped. {_when_run_again()}", err=True)
        raise click.exceptions.Exit(143 if isinstance(error, Terminated) else 130) from None
    except BrokenPipeError:
        raise  # click ends quietly where the reader of a pipe has gone
    except user_errors() as error:
        if os.environ.get("DIPTYCH_TRACEBACK"):
            raise
        raise click.ClickException(words(error)) from error


def _when_run_again() -> str:
    context = click.get_current_context(silent=True)
    name = "" if context is None else " ".join(context.command_path.split()[1:])
    if name == "oracle train":
        return "Run the same command again with --resume: it continues from the last checkpoint."
    if name in CONTINUES or name in added():
        return "Run the same command again: it continues where it stopped."
    return "Run the same command again."


def listed(text: str) -> list[str]:
    """Words of an option that takes several, separated by commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def read_labels(path: Path) -> Any:
    """The table of a file with a column `id`; `stance` is added where the columns of a bias task's answers allow it."""
    import numpy as np

    from interp.io.read import read_frame

    table = read_frame(path, ("id",), "Write it again.")
    if table["id"].duplicated().any():
        raise ValueError(f"--labels {path}: expected a column 'id' that names each example once.")
    if "stance" not in table.columns and {"score.committed", "score.biased"} <= set(table.columns):
        committed, biased = (table[f"score.{name}"].to_numpy(float) for name in ("committed", "biased"))
        conditions = [committed == 0, (committed == 1) & (biased == 1), (committed == 1) & (biased == 0)]
        table["stance"] = np.select(conditions, ["unknown", "stereo", "anti"], default="")
        table["stance"] = table["stance"].replace("", None)
    return table.assign(id=table["id"].astype(str))
