"""`diptych probes`: sweep a cache, read its probes on another one, draw what was found."""

from __future__ import annotations

import os
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from study.cli.common import fail_in_users_words, one_thread

if TYPE_CHECKING:
    from interp.cache import ActivationCache
    from probes.result import SweepResult

KINDS = ("logistic", "ridge", "massmean", "massmean-iid")
NONE = "none"


@click.group()
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
@click.option("--control", help="Column of the unit that control labels are drawn for (entity); not the groups.")
@click.option(
    "--confounds", default="", help="Columns whose linear prediction is taken out, reported beside the probe."
)
@click.option("--surface", default="", help="Columns that can be read without the model, probed by themselves.")
@click.option("--cohort", help="Column; TEST is repeated for each of its values.")
@click.option("--positions", default="last", help="Positions of the cache, separated by commas.")
@click.option("--sites", default="*", help="Patterns of sites, separated by commas: 'resid_post.*, z.1?'.")
@click.option("--kinds", default="logistic,ridge,massmean", help=f"Of probes: {', '.join(KINDS)}.")
@click.option("--cs", default="0.0001,0.001,0.01,0.1,1", help="Inverse penalties to choose from on DEV.")
@click.option("--folds", "n_folds", type=click.IntRange(min=2), default=5, help="Folds of DEV.")
@click.option("--test-share", type=click.FloatRange(0, 0.9), default=0.25, help="Share of rows for TEST.")
@click.option("--perm", type=click.IntRange(min=0), default=999, help="Permutations of the null (closed forms).")
@click.option("--logistic-perm", type=click.IntRange(min=0), default=0, help="Of logistic: folds x Cs fits for each.")
@click.option("--boot", "n_boot", type=click.IntRange(min=100), default=2000, help="Resamples of an interval.")
@click.option("--balanced", is_flag=True, help="Weigh classes equally in logistic probes.")
@click.option("--seed", default=0, help="Of splits, permutations and resamples.")
@click.option("--name", help="What tables call the checkpoint; default: the name of the cache's folder.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, help="Processes that sites are spread over.")
@click.option("--device", default="cpu", help="Where probes are fitted: cpu, cuda, ...")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the sweep.")
@fail_in_users_words
def sweep(cache: Path, out: Path, jobs: int, device: str, **options: Any) -> None:
    """Every layer, position and kind of probe over CACHE: table, scores and directions into --out.

    Layer and C are chosen on DEV, TEST is scored once. A sweep that is there already is shown, not run again.
    """
    from interp.cache import ActivationCache
    from study.probes_store import finished, read_sweep, write_sweep

    one_thread()
    with ActivationCache.open(cache) as opened:
        options["name"] = options["name"] or cache.resolve().name
        identity = {"cache": opened.plan_id, **options}
        if finished(out, identity):
            click.echo(f"{out} is finished; nothing was run again.\n")
        else:
            result = _sweep(opened, jobs, device, **options)
            out.mkdir(parents=True, exist_ok=True)
            write_sweep(result, out, identity, cache=os.path.relpath(cache, out), packages=_packages())
    _show(read_sweep(out), out)


@probes.command(context_settings={"show_default": True})
@click.argument("folder", metavar="SWEEP", type=click.Path(path_type=Path))
@click.argument("cache", type=click.Path(path_type=Path))
@click.option("--all-layers", is_flag=True, help="Every train layer at every test layer, in all four directions.")
@click.option(
    "--align", type=click.Choice(["none", "ridge"]), default="none", help="Map between widths, with its control."
)
@click.option("--kinds", help="Kinds of probes to read; default: logistic and massmean where swept.")
@click.option("--boot", "n_boot", type=click.IntRange(min=100), default=2000, help="Resamples of an interval.")
@click.option("--name", help="What tables call the checkpoint of CACHE; default: its folder's name.")
@fail_in_users_words
def transfer(folder: Path, cache: Path, all_layers: bool, align: str, **options: Any) -> None:
    """Probes of SWEEP read on CACHE (the same examples, another checkpoint), beside both ceilings.

    Writes SWEEP/transfer/NAME.csv. Undefined between widths: then --align ridge, or `probes compare`.
    """
    from interp.cache import ActivationCache
    from study.probes_store import read_settings, read_sweep, write_table

    one_thread()
    settings, result = read_settings(folder), read_sweep(folder)
    swept = {key[3] for key in result.directions}
    kinds = _listed(options["kinds"] or "") or [k for k in ("logistic", "massmean") if k in swept] or sorted(swept)
    how: dict[str, Any] = dict(kinds=kinds, n_boot=options["n_boot"], align=align)
    with ActivationCache.open(cache) as other:
        name = options["name"] or cache.resolve().name
        if all_layers:
            table = _four_blocks(result, folder / settings["cache"], settings["identity"]["cache"], other, name, how)
        else:
            table = _transfer(result, other, checkpoint=name, **how)
    write_table(table, folder, f"transfer/{_file_name(name)}")
    click.echo(_transfer_lines(table))
    click.echo(f"\ntable  {folder / 'transfer' / _file_name(name)}.csv")


@probes.command()
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@click.option("--kind", default="ridge", show_default=True, help="Of probe.")
@click.option("--target", help="Where several were swept.")
@fail_in_users_words
def compare(first: Path, second: Path, kind: str, target: str | None) -> None:
    """Two sweeps of the same rows by their scores alone: widths and depths may differ."""
    from probes import compare_scores
    from study.probes_store import read_sweep

    table = compare_scores(read_sweep(first), read_sweep(second), kind=kind, target=target)
    click.echo(table.T.to_string(header=False))


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
    import pandas as pd

    from study.figures import save
    from study.probe_figures import figures_of
    from study.probes_store import read_sweep

    paths = _sweeps(folders)
    results = [read_sweep(path) for path in paths]
    transfers = [pd.read_parquet(path) for folder in paths for path in sorted(folder.glob("transfer/*.parquet"))]
    out = out or paths[0] / "figures"
    n_drawn = 0
    for name, drawn in figures_of(results, transfers):
        if isinstance(drawn, str):
            click.echo(f"note: {name} was not drawn: {drawn}", err=True)
            continue
        n_drawn += 1
        click.echo(save(drawn, out / name)["png"])
    if not n_drawn:
        raise ValueError(f"none of the figures of {', '.join(map(str, paths))} could be drawn; the notes say why.")


def _sweep(cache: ActivationCache, jobs: int, device: str, **options: Any) -> SweepResult:
    """Run the sweep that the options name."""
    from probes import SweepConfig, surface_features, unite_groups
    from probes import sweep as run

    examples = cache.examples
    _check_columns(examples, options)
    named = {key: _listed(options[key]) for key in ("positions", "kinds", "confounds", "surface")}
    groups = None if options["groups"] == NONE else examples[options["groups"]].to_numpy()
    if groups is not None and options["unite"]:
        groups = unite_groups(groups.tolist(), examples[options["unite"]].tolist())
    columns = {key: examples[key].to_numpy() for key in named["surface"]}
    n_perm = {kind: options["logistic_perm"] if kind == "logistic" else options["perm"] for kind in named["kinds"]}
    return run(
        cache,
        target=options["target"],
        groups=groups,
        i_know=options["independent_because"],
        positive=_label(examples[options["target"]], options["positive"]),
        positions=named["positions"],
        sites=sites_of(cache, options["sites"]),
        control=options["control"],
        confounds=named["confounds"],
        cohort=options["cohort"],
        surface=surface_features(columns=columns) if columns else None,
        checkpoint=options["name"],
        config=SweepConfig(
            kinds=tuple(named["kinds"]),
            Cs=tuple(sorted(float(c) for c in _listed(options["cs"]))),
            n_perm=n_perm,
            **{key: options[key] for key in ("n_folds", "test_share", "n_boot", "balanced", "seed")},
        ),
        jobs=jobs,
        device=device,
    )


def _check_columns(examples: Any, options: Mapping[str, Any]) -> None:
    """Every named column exists, before anything is read."""
    asked = [
        ("target", options["target"]),
        *((f"{k}", options[k]) for k in ("unite", "control", "cohort") if options[k]),
    ]
    asked += [(key, name) for key in ("confounds", "surface") for name in _listed(options[key])]
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
    unknown = [kind for kind in _listed(options["kinds"]) if kind not in KINDS]
    if unknown:
        raise ValueError(f"--kinds: {', '.join(unknown)} unknown; expected some of {', '.join(KINDS)}.")
    if options["control"] and options["control"] == options["groups"]:
        raise ValueError(
            f"--control {options['control']} is the split group: control labels of groups that are never in training "
            "cannot be learnt, so selectivity would always look good. Name a finer or crossing column."
        )


def sites_of(cache: ActivationCache, patterns: str) -> list[str]:
    """Sites of the cache that match; the embedding stays as a control."""
    known = _in_order(cache)
    chosen = [site for site in known if any(fnmatchcase(site, pattern) for pattern in _listed(patterns))]
    if not chosen:
        raise ValueError(f"--sites {patterns!r} matches nothing; the cache holds {', '.join(known)}.")
    return chosen


def _in_order(cache: ActivationCache) -> tuple[str, ...]:
    from probes.source import open_source

    return open_source(cache).sites


def _label(column: Any, positive: str | None) -> object:
    """The label that --positive spells."""
    if positive is None:
        return None
    values = {str(value): value for value in column.dropna().unique().tolist()}
    if positive not in values:
        raise ValueError(f"--positive {positive}: not a label. Labels: {', '.join(sorted(values))}.")
    return values[positive]


def _four_blocks(
    result: SweepResult, path: Path, plan_id: str, other: ActivationCache, name: str, how: Mapping[str, Any]
) -> Any:
    """A -> A, A -> B, B -> A and B -> B over all layers; B's probes are fitted here, on the rows and splits of A's."""
    import pandas as pd

    from interp.cache import ActivationCache
    from probes.transfer import refit

    if not path.exists():
        raise ValueError(
            f"--all-layers reads the cache that was swept too, and it is not at {os.path.normpath(path)} any more. "
            "Put it back, or leave --all-layers out."
        )
    with ActivationCache.open(path) as own:
        if own.plan_id != plan_id:
            raise ValueError(f"{path} is not the cache that was swept (plan {own.plan_id}, swept {plan_id}).")
        own_name = str(result.table["checkpoint"].iloc[0])
        options = dict(how, mode="all-layers")
        if name == own_name:
            raise ValueError(f"both checkpoints are called {name!r}: name the one of CACHE with --name.")
        there = refit(result, other, kinds=how["kinds"], checkpoint=name)
        sides = ((result, own, own_name), (result, other, name), (there, own, own_name), (there, other, name))
        parts = [_transfer(probe, cache, checkpoint=called, **options) for probe, cache, called in sides]
    return pd.concat(parts, ignore_index=True)


def _transfer(result: SweepResult, cache: ActivationCache, **options: Any) -> Any:
    from probes import transfer as run

    return run(result, cache, **options)


def _transfer_lines(table: Any) -> str:
    """The best cells by raw AUROC, beside their ceilings, for a terminal."""
    from study.evals.show import aligned, interval

    rows = table[(table["metric"] == "auroc") & table["variant"].isin(["raw", "aligned", "aligned-shuffled"])]
    head = ["trained on", "site", "read on", "site", "kind", "how", "AUROC [95 %]", "minus own probe's [95 %]"]
    lines = [head]
    for row in rows.sort_values("value", ascending=False).head(12).to_dict("records"):
        lines.append(
            [row["train_checkpoint"], row["train_site"], row["test_checkpoint"], row["test_site"], row["kind"],
             row["variant"], interval(row["value"], row["lo"], row["hi"]),
             interval(row["drop"], row["drop_lo"], row["drop_hi"], signed=True)]
        )  # fmt: skip
    return aligned(lines)


def _show(result: SweepResult, out: Path) -> None:
    click.echo("\n".join(result.sentences))
    click.echo(f"\ntable       {out / 'table.csv'} (and parquet): {len(result.table)} estimates")
    click.echo(f"directions  {out / 'directions.safetensors'}: unit vectors in raw units, with bias and spread")


def _sweeps(folders: tuple[str, ...]) -> list[Path]:
    """The sweeps among the arguments; a pattern that no shell has expanded is expanded here."""
    from study.probes_store import is_sweep

    found: list[Path] = []
    for text in folders:
        found += sorted(Path().glob(text)) if any(c in text for c in "*?[") else [Path(text)]
    swept = [path for path in found if is_sweep(path)]
    if not swept:
        raise ValueError(
            f"{', '.join(folders)}: no finished sweep there. Run `diptych probes sweep CACHE --out FOLDER`."
        )
    return swept


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in name)


def _packages() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("numpy", "scipy", "torch", "diptych")}
