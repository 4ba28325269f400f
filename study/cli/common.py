"""Options that several commands share, and errors in the user's own words instead of a traceback."""

from __future__ import annotations

import functools
import inspect
import os
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from interp.checkpoint import Checkpoint, CheckpointPair
    from interp.prompt import Example

EMBEDDED = "embedded"
_CHECKPOINT = ("base", "adapter", "revision", "adapter_revision", "subfolder", "tokenizer")
_LOADING = ("dtype", "device", "device_map", "quantization", "attn_implementation", "merge",
            "control_tokens", "template_date", "allow_closed_turn")  # fmt: skip


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


def load_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say how weights are held; `interp.load` documents them."""
    for option in reversed(
        [
            click.option(
                "--load-dtype", default="auto", show_default=True, help="bf16 on CUDA, fp32 on CPU by default."
            ),
            click.option("--device", default="auto", show_default=True, help="cpu, cuda, cuda:1, ..."),
            click.option("--device-map", help="'auto' spreads a model over several GPUs."),
            click.option("--quantization", help="4bit or 8bit (bitsandbytes)."),
            click.option("--attn-implementation", help="eager, sdpa, ..."),
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
                "--allow-closed-turn", is_flag=True, help="Accept a chat template that opens no assistant turn."
            ),
        ]
    ):
        command = option(command)
    return command


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


def task_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say which items of which task; one that the task does not take is an error."""
    for option in reversed(
        [
            click.option("--task", required=True, help="Import path of a task, e.g. interp.tasks.procedural."),
            click.option("--data", help="The task's data; a task that generates its items needs none."),
            click.option("--limit", type=click.IntRange(min=1), help="Use only the first N items."),
            click.option("--per-cell", type=click.IntRange(min=1), help="Items per cell of a generated grid."),
            click.option("--seed", type=int, help="Of generated items and of sampled replies."),
            click.option("--split", help="Whose items: train, validation, test."),
            click.option("--rendering", help="Of generated items: plain, or log for the embedded pair."),
        ]
    ):
        command = option(command)
    return command


_TASK = ("per_cell", "seed", "split", "rendering")


def read_data(options: Mapping[str, Any], *, shared: Collection[str] = ()) -> list[Example]:
    """The examples of --data, read by --task where one is given, cut to --limit.

    Args:
        shared: options that mean something without the task too, so that one which does not take them is no error.
    Raises:
        ValueError: an option that the task does not take; a rendering that the embedded pair cannot read.
    """
    from interp.tasks.protocol import load_task
    from interp.tasks.records import read_examples

    if not options["task"]:
        chosen = {"split": options["split"]} if options.get("split") else {}
        return read_examples(options["data"], limit=options["limit"], **chosen)
    task = load_task(options["task"])
    wanted = {key: options[key] for key in _TASK if options.get(key) is not None}
    known = inspect.signature(task.examples).parameters
    wanted = {key: value for key, value in wanted.items() if key in known or key not in shared}
    if options.get("pair") == EMBEDDED and "rendering" in known and not options["data"]:
        if wanted.get("rendering", "log") != "log":
            raise ValueError(
                f"--rendering {wanted['rendering']}: the embedded pair knows only the words of the log rendering. Omit "
                "--rendering, or name a model of your own with --pair, --base or --checkpoint."
            )
        wanted.setdefault("rendering", "log")  # the only one that the embedded pair reads
    strange = [f"--{key.replace('_', '-')}" for key in wanted if key not in known]
    if strange:
        raise ValueError(f"{options['task']} does not take {', '.join(strange)}; it takes {', '.join(known)}.")
    return list(task.examples(options["data"], **wanted))[: options["limit"]]


def fail_in_users_words(command: Callable[..., Any]) -> Callable[..., Any]:
    """Print what a user can mend as one message and exit with 1; DIPTYCH_TRACEBACK=1 shows where it came from."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            with plain_warnings():
                return command(*args, **kwargs)
        except Exception as error:
            if os.environ.get("DIPTYCH_TRACEBACK") or not isinstance(error, user_errors()):
                raise
            raise click.ClickException(f"{error}{_extra(error)}") from error

    return run


EXTRAS = {"matplotlib": "report", "jinja2": "report", "datasets": "datasets", "transformer_lens": "bridges",
          "nnsight": "bridges"}  # fmt: skip
"""Optional packages and the extra of ours that brings them."""


def _extra(error: Exception) -> str:
    name = (error.name or "").split(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    return f": pip install 'diptych[{EXTRAS[name]}]'" if name in EXTRAS else ""


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Each warning once and in one line, without the place in our code; nothing of transformers' own chatter."""
    seen: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        text = str(message)
        if text not in seen and not issubclass(category, FutureWarning | DeprecationWarning):
            seen.add(text)
            click.echo(f"note: {text}", err=True)

    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def listed(text: str) -> list[str]:
    """Words of an option that takes several, separated by commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def one_thread() -> None:
    """One torch thread in this process: two that contend for a core are up to ten times slower than one."""
    import torch

    torch.set_num_threads(1)


def user_errors() -> tuple[type[Exception], ...]:
    """Errors whose text is meant for the user."""
    from interp.cache.errors import CacheError

    return (ValueError, OSError, ImportError, CacheError)
