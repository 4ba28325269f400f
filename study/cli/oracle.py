"""`diptych oracle`: ask about activations, test an oracle's wiring, compare two members, train an oracle."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from study.cli.common import (
    more_task_options,
    one_thread,
    oracle_load_options,
    oracle_loading,
    read_data,
    user_errors_as_messages,
)
from study.embedded import EMBEDDED

if TYPE_CHECKING:
    from interp.oracle import Features, Oracle
    from interp.prompt import Example

_TRAINING = "study.cli.oracle_train"
TAXONOMY = "taxonomy8"


class OracleGroup(click.Group):
    """Members of this file, and those of the training file where it is installed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *(["train", "build"] if importlib.util.find_spec(_TRAINING) else [])]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        found = super().get_command(ctx, cmd_name)
        if found is not None or not importlib.util.find_spec(_TRAINING):
            return found
        return getattr(importlib.import_module(_TRAINING), cmd_name, None)


@click.group(cls=OracleGroup)
def oracle() -> None:
    """Read activations in words, every answer beside the activations that could have produced it by accident."""


def _oracle_options(command: Any) -> Any:
    for option in reversed(
        [
            click.option("--model", required=True, help="Id or folder of the oracle's base, or 'embedded'."),
            click.option("--adapter", help="Id or folder of the oracle's adapter."),
            click.option("--subfolder", help="Folder of the adapter inside its repository."),
            click.option("--revision", help="Commit, tag or branch of the base."),
            click.option("--adapter-revision", help="Commit, tag or branch of the adapter."),
            click.option("--prior", help="Id or folder of a reader trained on zeroed activations, the floor."),
            oracle_load_options,
        ]
    ):
        command = option(command)
    return command


def _reading_options(command: Any) -> Any:
    for option in reversed(
        [
            click.option("--positions", help="Position rule of the cache; may be left out where it has one."),
            click.option("--layer", "layers", multiple=True, help="Block or percent; default: the oracle's own."),
            click.option("--per", default="token", show_default=True, help="A reading per token, example or run."),
            click.option("--group", help="Column that names the problem; default: the example."),
            click.option("--limit", type=click.IntRange(min=1), help="At most this many readings."),
            click.option("--question", required=True, help="May hold {choices}."),
            click.option("--choices", help="'taxonomy8', or answers separated by commas."),
            click.option("--targets", help="Column of the examples that holds the right choice."),
            click.option("--partners", type=click.IntRange(min=1),
                         help="Partners of the matched shuffle; default: 99 for free answers, each tested by itself, 8 "
                              "for choices, where the gap over all readings is tested."),
            click.option("--seed", default=0, show_default=True),
            click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of tables and figures."),
        ]
    ):  # fmt: skip
        command = option(command)
    return command


@oracle.command()
@_oracle_options
@click.option("--acts", required=True, type=click.Path(path_type=Path, exists=True), help="Activation cache.")
@_reading_options
@click.option("--controls", default="shuffled,zero", show_default=True,
              help="shuffled, zero, mean, gaussian, no_adapter, prior.")  # fmt: skip
@click.option("--max-new-tokens", type=click.IntRange(min=1), help="Length of a free answer.")
@click.option("--no-selftest", is_flag=True, help="Do not test the wiring of an oracle that was never tested.")
@user_errors_as_messages
def ask(acts: Path, out: Path, **options: Any) -> None:
    """Ask one question of every reading of a cache; free text, or a choice with --choices.

    A folder holds one question: another is refused, and the same one is shown, not asked again.
    """
    from study.analyses.oracle.run import finish, printed, reading_store

    one_thread()
    _check(acts, options)
    reader = _load(options)
    feats = _features(reader, acts, options)
    targets = _targets(acts, feats, options) if options["choices"] else None
    with reading_store(out, reader, [feats], _asked("ask", options, targets)) as store:
        known = printed(store)
        if known is not None:
            click.echo(f"{out} is finished; nothing was asked again.\n\n{known}")
            return
        tested = _tested(reader, options)
        with reader.keeping(store):
            text = (_choose if options["choices"] else _answer)(reader, feats, out, options, targets, tested)
        click.echo(finish(store, text))


def _choose(
    reader: Oracle, feats: Features, out: Path, options: dict[str, Any], targets: Mapping[str, str] | None, tested: Any
) -> str:
    from interp.oracle.evidence import GAP_PARTNERS
    from study.analyses.oracle.run import write_choices

    n = options["partners"] or GAP_PARTNERS
    question, choices = options["question"], _choices(options)
    chosen = reader.choose(feats, question, choices, controls=_controls(options), n_partners=n)
    return write_choices(out, chosen, feats, targets, tested)


def _answer(
    reader: Oracle, feats: Features, out: Path, options: dict[str, Any], targets: Mapping[str, str] | None, tested: Any
) -> str:
    from interp.oracle import Decoding
    from interp.oracle.controls import HEADLINE, partner_counts
    from interp.oracle.evidence import PARTNERS, FewPartnersWarning, reach
    from study.analyses.oracle.run import write_answers

    decoding = Decoding(max_new_tokens=options["max_new_tokens"] or reader.spec.max_new_tokens, seed=options["seed"])
    n, controls = options["partners"] or PARTNERS, _controls(options)
    if HEADLINE in controls:
        click.echo(reach(int(partner_counts(feats, n=n, seed=options["seed"]).min()), len(feats)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FewPartnersWarning)  # the line above says it
        answers = reader.ask(feats, options["question"], decoding=decoding, controls=controls, n_partners=n)
    return write_answers(out, answers, tested)


def _controls(options: dict[str, Any]) -> tuple[str, ...]:
    return tuple(word.strip() for word in options["controls"].split(","))


_ASKED = ("question", "controls", "partners", "seed", "max_new_tokens")


def _asked(command: str, options: dict[str, Any], targets: Mapping[str, str] | None) -> dict[str, Any]:
    """What changes an answer to the activations that are read."""
    choices = list(_choices(options)) if options["choices"] else None
    return {
        "command": command,
        "choices": choices,
        "targets": targets,
        **{k: options[k] for k in _ASKED if k in options},
    }


@oracle.command(name="selftest")
@_oracle_options
@click.option("--task", help="Import path of a task whose items are the texts; default: plain English passages.")
@click.option("--data", help="The task's data.")
@more_task_options
@click.option("--n", default=64, show_default=True, type=click.IntRange(min=16), help="Items.")
@click.option("--limit", default=32, show_default=True, type=click.IntRange(min=2), help="Texts.")
@click.option("--seed", default=0, show_default=True)
@user_errors_as_messages
def selftest_command(**options: Any) -> None:
    """Does the declared wiring fit the adapter better than every mistake that still works in part?

    The result is remembered for these weights and this spec. Exits with 1 where the test fails.
    """
    from study.analyses.oracle.load import run_selftest

    one_thread()
    result = run_selftest(_load(options), _texts(options), n=options["n"], seed=options["seed"])
    click.echo(str(result))
    if not result.passed:
        raise SystemExit(1)


@oracle.command()
@click.argument("engaged", type=click.Path(path_type=Path, exists=True))
@click.argument("heuristic", type=click.Path(path_type=Path, exists=True))
@_oracle_options
@_reading_options
@user_errors_as_messages
def compare(engaged: Path, heuristic: Path, out: Path, **options: Any) -> None:
    """The same question at the same places of two caches, with a paired test over problems."""
    from interp.oracle import compare as compare_readings
    from interp.oracle.evidence import GAP_PARTNERS
    from study.analyses.oracle.run import finish, printed, reading_store, write_comparison

    one_thread()
    if not options["choices"]:
        raise click.UsageError("--choices: a comparison weighs given answers.")
    for path in (engaged, heuristic):
        _check(path, options)
    reader = _load(options)
    pair = [_features(reader, path, options, source=path.name) for path in (engaged, heuristic)]
    names = (engaged.name, heuristic.name)
    targets = _targets(engaged, pair[0], options)
    with reading_store(out, reader, pair, {**_asked("compare", options, targets), "names": list(names)}) as store:
        known = printed(store)
        if known is not None:
            click.echo(f"{out} is finished; nothing was asked again.\n\n{known}")
            return
        with reader.keeping(store):
            got = compare_readings(
                reader, pair[0], pair[1], options["question"], _choices(options), names=names, seed=options["seed"],
                targets=targets, n_partners=options["partners"] or GAP_PARTNERS,
            )  # fmt: skip
        click.echo(finish(store, write_comparison(out, got)))


def _load(options: dict[str, Any]) -> Oracle:
    from study.analyses.oracle.load import load_oracle

    keys = ("subfolder", "revision", "adapter_revision", "prior")
    reader = load_oracle(
        options["model"], options["adapter"], **{k: options[k] for k in keys}, loading=oracle_loading(options)
    )
    reader.seed = options["seed"]
    return reader


def _tested(reader: Oracle, options: dict[str, Any]) -> dict[str, Any] | None:
    """What is known of the wiring; tested now where nothing is, unless that is declined."""
    from study.analyses.oracle.load import remembered, run_selftest

    known = remembered(reader)
    if known is None and not options["no_selftest"]:
        click.echo("note: this oracle's wiring was never tested here; testing it once.", err=True)
        run_selftest(reader, _texts({**options, "task": None, "limit": 32}), seed=options["seed"])
        known = remembered(reader)
    if known is None or not known["passed"]:
        why = "was never tested" if known is None else f"FAILED its self-test: {known['explanation']}"
        click.echo(f"note: the wiring of this oracle {why}", err=True)
    return known


def _texts(options: dict[str, Any]) -> list[Example] | None:
    """Texts of a self-test: a task's, the embedded model's own logs, or None for plain passages."""
    if options.get("task"):
        return read_data({"per_cell": None, "split": None, "rendering": None, "pair": None, **options, "seed": None})
    if options["model"] != EMBEDDED:
        return None
    from interp.tasks import procedural

    return list(procedural.examples(None, per_cell=2, seed=1, rendering="log"))[: options["limit"]]


def _features(reader: Oracle, acts: Path, options: dict[str, Any], *, source: str | None = None) -> Features:
    from interp.cache import ActivationCache
    from interp.oracle import features_from_cache

    per = options["per"]
    layers = options["layers"] or tuple(map(str, reader.spec.layers))
    feats = features_from_cache(
        cache := ActivationCache.open(acts),
        position=options["positions"] or cache.positions[0],
        layers=[int(word) if word.isdigit() else word for word in layers],
        per=int(per) if per.isdigit() else per,
        group=options["group"],
        source=source,
        n_layers=reader.model.n_layers,
    )
    return feats.select(feats.items[: options["limit"]]) if options["limit"] else feats


def _check(acts: Path, options: dict[str, Any]) -> None:
    """What can be wrong with a cache, said before any weight is loaded."""
    from interp.cache import ActivationCache

    cache = ActivationCache.open(acts)
    have = ", ".join(cache.positions)
    if options["positions"] is None and len(cache.positions) > 1:
        raise ValueError(f"--positions is missing: {acts} holds {have}; name one of these.")
    if options["positions"] is not None and options["positions"] not in cache.positions:
        raise ValueError(f"--positions {options['positions']}: {acts} holds {have}; name one of these.")
    for name in ("targets", "group"):
        if options[name] and options[name] not in cache.examples.columns:
            have = ", ".join(cache.examples.columns)
            raise ValueError(f"--{name} {options[name]}: not a column of {acts}; it has {have}.")


def _choices(options: dict[str, Any]) -> tuple[str, ...]:
    if options["choices"] == TAXONOMY:
        from interp.oracle import TAXONOMY8

        return TAXONOMY8
    return tuple(word.strip() for word in options["choices"].split(",") if word.strip())


def _targets(acts: Path, feats: Features, options: dict[str, Any]) -> dict[str, str] | None:
    """reading -> right choice, from a column of the cache's examples."""
    if not options["targets"]:
        return None
    from interp.cache import ActivationCache

    table = ActivationCache.open(acts).examples
    of = {str(i): str(t) for i, t in zip(table["id"], table[options["targets"]], strict=True)}
    return {item: of[item if item in of else item.rpartition("@")[0]] for item in feats.items}
