"""`diptych probes`: sweep a cache, read its probes on another one, draw what was found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from interp.io.paths import portable
from probes.kinds import kinds_help, kinds_of
from study.cli.common import fail_in_users_words, listed, one_thread, where_option
from study.cli.lazy import LazyGroup

if TYPE_CHECKING:
    from interp.cache import ActivationCache
    from probes.result import SweepResult

NONE = "none"
MEMBERS = {
    "transfer": ("study.cli.probes_transfer:transfer", "Probes of one sweep read on another checkpoint."),
    "compare": ("study.cli.probes_transfer:compare", "Two sweeps of the same rows by their scores alone."),
    "mdl": ("study.cli.probes_check:mdl", "Bits that it takes to send the labels, given the activations."),
    "erase": ("study.cli.probes_check:erase", "Erase the label from one site, and probe again."),
    "recall": ("study.cli.probes_check:recall", "Share of positives found at a bounded false-positive rate."),
}
"""Commands of this group that live in files of their own."""


class _TestShare(click.ParamType):
    """ "auto", "crossed", or the share of groups that is held out."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        if value in ("auto", "crossed"):
            return value
        try:
            share = float(value)
        except ValueError:
            self.fail(f"expected auto, crossed or a share from 0 to 0.9, got {value!r}.", param, ctx)
        if not 0 <= share <= 0.9:
            self.fail(f"expected a share from 0 to 0.9, got {value}.", param, ctx)
        return share


TEST_SHARE = _TestShare()


class _Permutations(click.IntRange):
    """0, or enough for a p of 0.05."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        n = super().convert(value, param, ctx)
        if 0 < n < 19:
            self.fail(f"expected 0 for no null, else 19 or more: {n} give no p of 0.05.", param, ctx)
        return n


PERMUTATIONS = _Permutations(min=0)


@click.group(cls=LazyGroup, members=MEMBERS)
def probes() -> None:
    """Linear probes per layer, each number beside its null and its controls."""


@probes.command(context_settings={"show_default": True})
@click.argument("cache", type=click.Path(path_type=Path))
@click.option("--target", required=True, help="Column of the cache's examples: the label.")
@click.option(
    "--positive", help="Which label counts as 1; default: the larger, or each in turn where there are several."
)
@click.option("--groups", required=True, help="Column of the independent unit, or 'none' with --independent-because.")
@click.option("--independent-because", default="", help="Why rows are independent, for --groups none.")
@click.option("--unite", help="Column (such as text_sha256) whose equal values join two groups into one.")
@click.option("--unit", default="auto", help="Column of what moves together inside a group (twins, scenarios); "
              "auto: the finest group of the examples inside --groups; none.")  # fmt: skip
@click.option("--control", help="Column of the unit that control labels are drawn for (entity); not the groups.")
@click.option(
    "--confounds", default="", help="Columns whose linear prediction is taken out, reported beside the probe."
)
@click.option("--surface", default="", help="Columns that can be read without the model, probed by themselves.")
@click.option(
    "--base", type=click.Path(path_type=Path), help="Cache of the base checkpoint on the same data: a control."
)
@where_option
@click.option("--cohort", help="Column; TEST is repeated for each of its values.")
@click.option("--positions", default="*", help="Positions of the cache, by commas; *: all with a row per example.")
@click.option("--sites", default="*", help="As for `cache`: 'resid_post.*, resid_post.8:24:4, z.1?'.")
@click.option("--kinds", default="logistic,ridge,massmean", help=f"Of probes: {kinds_help()}.")
@click.option("--cs", default="0.0001,0.001,0.01,0.1,1", help="Inverse penalties to choose from on DEV.")
@click.option("--folds", "n_folds", type=click.IntRange(min=2), default=5, help="Folds of DEV, at most.")
@click.option("--test-share", type=TEST_SHARE, default="auto", help="Share of groups held out as TEST, 0 for none; "
              "crossed: every fold is TEST once; auto: crossed below 80 groups, else 0.25.")  # fmt: skip
@click.option("--perm", type=PERMUTATIONS, default=999, help="Permutations of the null (closed forms).")
@click.option("--logistic-perm", type=PERMUTATIONS, default=0, help="Of logistic: folds x Cs fits for each.")
@click.option("--scheme", type=click.Choice(["auto", "group", "unit", "between", "within"]), default="auto",
              help="What changes places under the null.")  # fmt: skip
@click.option("--split-seeds", "n_seeds", type=click.IntRange(min=1), default=5, help="Seeds of the split over which "
              "the spread of AUROC is given (closed forms).")  # fmt: skip
@click.option("--boot", "n_boot", type=click.IntRange(min=100), default=2000, help="Resamples of an interval.")
@click.option("--balanced", is_flag=True, help="Weigh classes equally in logistic probes.")
@click.option("--seed", default=0, help="Of splits, permutations and resamples.")
@click.option("--name", help="What tables call the checkpoint; default: the name of the cache's folder.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, help="Processes that sites are spread over.")
@click.option("--device", default="cpu", help="Where probes are fitted: cpu, cuda, ...")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the sweep.")
@fail_in_users_words
def sweep(cache: Path, out: Path, base: Path | None, jobs: int, device: str, **options: Any) -> None:
    """Every layer, position and kind of probe over CACHE: table, scores and directions into --out.

    Layer and C are chosen on DEV, TEST is scored once. A cached sweep is shown, not run again.
    """
    from interp.cache import ActivationCache
    from study.analyses.probes.store import is_finished, read_sweep, sweep_store, write_sweep

    one_thread()
    with ExitStack() as stack:
        opened = stack.enter_context(ActivationCache.open(cache))
        below = None if base is None else stack.enter_context(ActivationCache.open(base))
        options |= {"name": options["name"] or cache.resolve().name, "where": list(options["where"])}
        identity = {
            "cache": opened.plan_id,
            "examples": opened.examples_digest,
            **{k: v for k, v in options.items() if v or k != "where"},
        } | ({} if below is None else {"base": below.plan_id})
        notes = {"cache": portable(cache, out), "packages": _packages()}
        store = stack.enter_context(sweep_store(out, identity, **notes))
        if is_finished(store):
            click.echo(f"{out} is finished; nothing was run again.\n")
        else:
            write_sweep(store, _sweep(opened, below, jobs, device, **options))
    _show(read_sweep(out), out)


@probes.command()
@click.argument("folders", metavar="SWEEP...", nargs=-1, required=True)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder of the figures; default: SWEEP/figures of the first."
)
@fail_in_users_words
def figures(folders: tuple[str, ...], out: Path | None) -> None:
    """Draw every SWEEP (one per checkpoint) into shared figures: by layer, selectivity, transfer.

    Checkpoints not named engaged, heuristic or base take these looks in order. What is no sweep is left out.
    """
    from study.analyses.probes.figures import cosine_figures
    from study.analyses.probes.figures import figures as drawn_figures
    from study.analyses.probes.store import read_sweep
    from study.analyses.probes.tables import tables_of
    from study.figures import save

    paths = _sweeps(folders)
    results = [read_sweep(path) for path in paths]
    out = out or paths[0] / "figures"
    n_drawn = 0
    for stem, drawn in (*drawn_figures(tables_of(paths), explain=True), *cosine_figures(results)):
        name = stem.removeprefix("probes-")
        if isinstance(drawn, str):
            click.echo(f"note: {name} was not drawn: {drawn}", err=True)
            continue
        n_drawn += 1
        click.echo(save(drawn, out / name)["png"])
    if not n_drawn:
        raise ValueError(f"none of the figures of {', '.join(map(str, paths))} could be drawn; the notes say why.")


def _sweep(cache: ActivationCache, base: ActivationCache | None, jobs: int, device: str, **options: Any) -> SweepResult:
    """Run the sweep that the options name."""
    from interp.where import kept
    from probes import SweepConfig, surface_features, sweep_design, unite_groups
    from probes import sweep as run
    from probes.design import positive_of
    from probes.kinds import permutations_of

    examples = cache.examples
    keep = kept(examples, options["where"], n=len(examples), option="--where")
    examples = examples[keep]
    _check_columns(examples, options)
    named = {key: listed(options[key]) for key in ("kinds", "confounds", "surface")}
    groups = None if options["groups"] == NONE else examples[options["groups"]].to_numpy()
    if groups is not None and options["unite"]:
        groups = unite_groups(groups.tolist(), examples[options["unite"]].tolist())
    unit = unit_of(examples, cache.group_columns, groups, options["unit"])
    config = SweepConfig(
        kinds=tuple(named["kinds"]),
        Cs=tuple(sorted(float(c) for c in listed(options["cs"]))),
        n_perm=permutations_of(named["kinds"], n=options["perm"], costly=options["logistic_perm"]),
        **{key: options[key] for key in ("n_folds", "test_share", "n_boot", "balanced", "seed", "scheme", "n_seeds")},
    )
    labels, positive = positive_of(examples[options["target"]].to_numpy(), options["positive"], option="--positive")
    design = sweep_design(
        labels, groups=groups, i_know=options["independent_because"], positive=positive,
        unit=None if unit is None else examples[unit].to_numpy(), config=config,
    )  # fmt: skip
    click.echo("\n".join((*design.sentences, "")), err=True)
    columns = {key: examples[key].to_numpy() for key in named["surface"]}
    return run(
        cache,
        keep=keep,
        target=options["target"] if positive is None else labels,
        groups=groups,
        i_know=options["independent_because"],
        unit=unit,
        positive=positive,
        positions=options["positions"],
        sites=sites_of(cache, options["sites"]),
        control=options["control"],
        confounds=named["confounds"],
        cohort=options["cohort"],
        surface=surface_features(columns=columns) if columns else None,
        base=base,
        checkpoint=options["name"],
        config=config,
        jobs=jobs,
        device=device,
    )


def _check_columns(examples: Any, options: Mapping[str, Any]) -> None:
    """Every named column exists, before anything is read."""
    asked = [
        ("target", options["target"]),
        *((f"{k}", options[k]) for k in ("unite", "control", "cohort") if options[k]),
    ]
    asked += [(key, name) for key in ("confounds", "surface") for name in listed(options[key])]
    if options["groups"] != NONE:
        asked.append(("groups", options["groups"]))
    elif not options["independent_because"].strip():
        raise ValueError(
            "--groups none says that rows are independent: say why with --independent-because, e.g. 'each row is "
            "another patient'. Rows of one template in train and test give accuracy without signal."
        )
    for option, name in asked:
        if name not in examples.columns:
            raise ValueError(
                f"--{option} {name}: no such column of the cache's examples. Columns: {', '.join(examples.columns)}."
            )
    try:
        kinds_of(listed(options["kinds"]))
    except ValueError as error:
        raise ValueError(f"--kinds: {error}") from None
    if options["control"] and options["control"] == options["groups"]:
        raise ValueError(
            f"--control {options['control']} is the split group: control labels of groups that are never in training "
            "cannot be learnt, so selectivity would always look good. Name a finer or crossing column."
        )


def unit_of(examples: Any, candidates: Sequence[str], groups: Any, named: str) -> str | None:
    """The column of the unit: as named, of "auto" the finest of the candidates inside the groups, of "none" no column.

    Raises:
        ValueError: no such column.
    """
    from interp.remedy import remedy
    from probes.null import nested_unit

    if named == "auto":
        return None if groups is None else nested_unit({name: examples[name].to_numpy() for name in candidates}, groups)
    if named != NONE and named not in examples.columns:
        raise ValueError(
            f"{remedy('{unit}')} {named}: no such column of the examples. Columns: {', '.join(examples.columns)}."
        )
    return None if named == NONE else named


def sites_of(cache: ActivationCache, patterns: str) -> list[str]:
    """Sites of the cache that match; the embedding stays as a control."""
    from interp.site import match_sites
    from probes.source import open_source

    return match_sites(patterns, open_source(cache).sites)


def _show(result: SweepResult, out: Path) -> None:
    click.echo("\n".join(result.sentences))
    click.echo(f"\ntable       {out / 'table.csv'} (and parquet): {len(result.table)} estimates")
    click.echo(f"directions  {out / 'directions.safetensors'}: unit vectors in raw units, with bias and spread")


def _sweeps(folders: tuple[str, ...]) -> list[Path]:
    """The sweeps among the arguments; a pattern that no shell has expanded is expanded here."""
    from study.analyses.probes.store import is_sweep

    found: list[Path] = []
    for text in folders:
        found += sorted(Path().glob(text)) if any(c in text for c in "*?[") else [Path(text)]
    swept = [path for path in found if is_sweep(path)]
    if not swept:
        raise ValueError(
            f"{', '.join(folders)}: no finished sweep there. Run `diptych probes sweep CACHE --out FOLDER`."
        )
    return swept


def _packages() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("numpy", "scipy", "torch", "diptych")}
