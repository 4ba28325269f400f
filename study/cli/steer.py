"""`diptych steer`: fit directions on a cache, show them, take others out of them, export them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from study.cli.common import (
    checkpoint_options,
    load_options,
    one_thread,
    read_labels,
    resolve_checkpoints,
    user_errors_as_messages,
    where_option,
)
from study.cli.lazy import LazyGroup

if TYPE_CHECKING:
    from steering import Directions

NONE = "none"
DOSE = {
    "dose": ("study.cli.steer_dose:dose", "Dose curves of a direction with its controls."),
    "pair": ("study.cli.steer_dose:pair", "The directions of two checkpoints: agreement, and transfer."),
    "figures": ("study.cli.steer_dose:figures", "Draw the figures of a dose study again."),
}


@click.group(cls=LazyGroup, members=DOSE)
def steer() -> None:
    """Steering directions: difference of means, orthogonalized, with doses and their controls."""


@steer.command(context_settings={"show_default": True})
@click.argument("cache", type=click.Path(path_type=Path))
@click.option("--toward", required=True, help="Class that +alpha moves toward; several, joined by '+', make one side.")
@click.option("--away", required=True, help="Class that it moves away from.")
@click.option("--target", default="label", help="Column of the cache's examples: the class.")
@click.option("--labels", "labels_file", type=click.Path(path_type=Path),
              help="CSV, JSONL or Parquet with `id` and the --target column: the model's own answers.")  # fmt: skip
@click.option("--sites", default="resid_post.*", help="As for `cache`: 'resid_post.20', 'resid_post.8:24:4'.")
@click.option("--positions", help="Position rule of the cache; may be left out where it has one.")
@click.option("--balance", type=click.Choice(["none", "classes", "strata"]), default="none", help="Of the means.")
@click.option("--strata", default="auto", help="Column to balance over; 'labels:NAME' is a column of --labels.")
@click.option("--groups", default="auto", help="Column of the independent unit, or 'none'.")
@click.option("--fit-on", help="Examples to fit on, e.g. 'split=train'; the others check the sign.")
@where_option
@click.option("--weighting", type=click.Choice(["harmonic", "uniform"]), default="harmonic", help="Of strata.")
@click.option("--orthogonal-to", "against", multiple=True, type=click.Path(path_type=Path),
              help="Directions file to take out at each site; may be given again.")  # fmt: skip
@click.option("--from-probes", type=click.Path(path_type=Path), help="A sweep's folder: its weights, not the means.")
@click.option("--probe-kind", default="logistic", help="Of the probes, with --from-probes.")
@click.option("--sign-check/--no-sign-check", default=True, help="Leave out every site that held-out rows contradict.")
@click.option("--seed", default=0, help="Of the random halves of the groups.")
@click.option("--name", default="", help="What tables call the direction.")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="NAME.safetensors; NAME.json is written next to it."
)
@user_errors_as_messages
def fit(cache: Path, out: Path, against: tuple[Path, ...], **options: Any) -> None:
    """Fit a direction at every chosen site of CACHE and write them to --out.

    A file that holds a direction of other options, data or labels is not written over.
    """
    from interp.cache import ActivationCache
    from interp.io import writer_lock
    from interp.io.digest import safe_name
    from steering import Directions, orthogonalize
    from steering.store import refuse_other

    one_thread()
    if out.suffix != ".safetensors":
        raise ValueError(f"--out {out}: expected a name ending in .safetensors.")
    with writer_lock(out.parent, name=safe_name(out.stem)), ActivationCache.open(cache) as opened:
        identity = _made_from(opened, against, options)
        refuse_other(out, identity)
        directions = _fitted(opened, options)
        if against:
            files = [Directions.load(path) for path in against]
            rest = {site: orthogonalize(one, [file[site] for file in files]) for site, one in directions.items()}
            directions = Directions(rest, directions.refused)
        directions.save(out, identity=identity)
    _show(directions)
    click.echo(f"\nwritten to {out} and {out.with_suffix('.json').name}: {len(directions)} directions")


def _made_from(cache: Any, against: tuple[Path, ...], options: Mapping[str, Any]) -> dict[str, Any]:
    """What a fit follows from: the cache with its examples, every option, and the bytes of every file named."""
    from interp.loading.files import file_sha256

    probes = options["from_probes"]
    named = {"labels_file": options["labels_file"], "from_probes": probes and probes / "directions.safetensors"}
    files = {key: file_sha256(path) if path and path.is_file() else None for key, path in named.items()}
    texts = {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}
    return {**texts, **files, "cache": cache.plan_id, "examples": cache.examples_digest,
            "orthogonal_to": [file_sha256(path) for path in against if path.is_file()]}  # fmt: skip


@steer.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--site", help="All statistics of one site instead of the table.")
@user_errors_as_messages
def show(path: Path, site: str | None) -> None:
    """Statistics of the directions in a file, a row per site."""
    from steering import Direction, Directions

    directions = Directions.load(path)
    if site is not None or len(directions) == 1:
        click.echo(Direction.load(path, site).report())
        return
    _show(directions)


@steer.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--format", "kind", required=True, type=click.Choice(["gguf", "hf-weights"]),
              help="gguf: control vector to add. hf-weights: model folder with the direction ablated.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="File or folder; default: next to PATH, under its name.")
@click.option("--sites", default="", help="Which directions of PATH; gguf takes all of them, hf-weights one.")
@click.option("--alpha", default=1.0, show_default=True, help="Dose that is written (gguf).")
@click.option("--unit", type=click.Choice(["raw", "delta", "resid", "sd"]), default="raw", show_default=True)
@click.option("--model-hint", help="Architecture named in the file (gguf); default: that of the checkpoint's config.")
@checkpoint_options
@load_options
@user_errors_as_messages
def export(path: Path, kind: str, out: Path | None, sites: str, **options: Any) -> None:
    """Write directions for other programs; the checkpoint is the one they were fitted on unless one is named."""
    from steering import Directions

    directions = Directions.load(path)
    if sites:
        from interp.site import match_sites

        directions = Directions(
            {directions[one].site: directions[one] for one in match_sites(sites, list(map(str, directions)))}
        )
    (_gguf if kind == "gguf" else _hf_weights)(directions, path, out, options)


def _gguf(directions: Directions, path: Path, out: Path | None, options: Mapping[str, Any]) -> None:
    from steering import export_gguf

    out = out or path.with_suffix(".gguf")
    hint = options["model_hint"] or next(iter(directions.values())).provenance.get("model_type")
    if not hint:
        raise ValueError("--model-hint: the directions do not say which architecture they are for; name it, as qwen2.")
    export_gguf(directions, out, model_hint=str(hint), alpha=options["alpha"], unit=options["unit"])
    click.echo(
        f"{out}: control vector of {len(directions)} layers for {hint}, {options['alpha']:g} {options['unit']} each"
    )
    click.echo(f"llama-cli -m MODEL.gguf --control-vector-scaled {out.name} SCALE adds SCALE times that, everywhere")


def _hf_weights(directions: Directions, path: Path, out: Path | None, options: Mapping[str, Any]) -> None:
    from interp.checkpoint import Checkpoint, CheckpointPair
    from interp.loading import load
    from steering import export_hf
    from steering.export import source_checkpoint

    if len(directions) != 1:
        raise ValueError(
            f"{path} holds {len(directions)} directions; choose one with --sites, e.g. {next(iter(directions))}."
        )
    direction = next(iter(directions.values()))
    if any(options[key] for key in ("base", "checkpoint_file", "pair")):
        named, loading = resolve_checkpoints(options)
        if isinstance(named, CheckpointPair):
            raise click.UsageError("--pair names two checkpoints; name the one to export with --checkpoint or --base.")
        checkpoint = named
    else:
        checkpoint = Checkpoint.from_mapping(source_checkpoint(direction), str(path))
        _, loading = resolve_checkpoints({**options, "base": checkpoint.base})
    loading["merge"] = checkpoint.adapter is not None
    out = out or path.with_name(path.stem + "-ablated")
    done = export_hf(load(checkpoint, **loading), direction, out)
    click.echo(f"{out}: {checkpoint.name} without {direction.label!r}: {len(done.tensors)} tensors projected")
    click.echo(f"left along it on a probe prompt: {done.leftover:.1e} of the residual norm"
               + ("; the unembedding now has weights of its own" if done.untied else ""))  # fmt: skip


def _fitted(cache: Any, options: Mapping[str, Any]) -> Directions:
    from steering import Directions, confirmed, difference_of_means, direction_along, read_probe_vector

    table = None if options["labels_file"] is None else read_labels(options["labels_file"])
    sides = {"toward": _classes(options["toward"]), "away_from": _classes(options["away"])}
    shared: dict[str, Any] = sides | {
        "target": options["target"] if table is None else _joined(cache, table, options["target"]),
        "position": options["positions"], "groups": None if options["groups"] == NONE else options["groups"],
        "fit_on": options["fit_on"], "seed": options["seed"], "name": options["name"],
        "where": options["where"],
    }  # fmt: skip
    sites = _sites(cache, options["sites"])
    if options["from_probes"]:
        where = dict(kind=options["probe_kind"], position=options["positions"])
        vectors = {site: read_probe_vector(options["from_probes"], site=site, **where) for site in sites}
        along = [direction_along(cache, vec, site=site, **shared) for site, vec in vectors.items()]
        directions = Directions({one.site: one for one in along})
        return confirmed(directions) if options["sign_check"] else directions
    how = {key: options[key] for key in ("balance", "strata", "weighting")}
    if how["strata"].startswith("labels:"):
        if table is None:
            raise ValueError(f"--strata {how['strata']}: give the file that has this column with --labels.")
        how["strata"] = _joined(cache, table, how["strata"].removeprefix("labels:"))
    return difference_of_means(cache, site=sites, check_sign=options["sign_check"], **shared, **how)


def _classes(text: str) -> list[str]:
    return [part.strip() for part in text.split("+") if part.strip()]


def _sites(cache: Any, patterns: str) -> list[str]:
    from interp.site import by_depth, match_sites

    return sorted(match_sites(patterns, cache.sites), key=by_depth)


def _joined(cache: Any, table: Any, column: str) -> list[Any]:
    """The column's value of every example of the cache, by id; None for those that are not in the table."""
    if column not in table.columns:
        raise ValueError(f"--labels: no column {column!r}; the file has {', '.join(map(str, table.columns))}.")
    values = dict(zip(table["id"], table[column], strict=True))
    return [values.get(str(one)) for one in cache.examples["id"]]


def _show(directions: Directions) -> None:
    from study.text import aligned

    first = next(iter(directions.values()))
    click.echo(f"{first.label}: +alpha moves toward {first.toward!r}, away from {first.away_from!r}; "
               f"{first.stats.n_toward} and {first.stats.n_away} rows, {first.stats.n_groups} groups")  # fmt: skip
    lines = [["site", "delta", "resid", "delta/resid", "d'", "halves", "agreement", "held-out gap"]]
    for site, one in directions.items():
        s = one.stats
        numbers = (s.delta_norm, s.resid_norm, s.delta_norm / s.resid_norm, s.d_prime, s.split_half_cosine,
                   s.pair_agreement, s.held_out_gap)  # fmt: skip
        lines.append([str(site), *(f"{x:.3g}" if x == x else "-" for x in numbers)])
    lines += [[str(site), "refused", *["-"] * 6] for site in directions.refused]
    click.echo(aligned(lines))
    for site, why in directions.refused.items():
        click.echo(f"{site} refused: {why}.")
    for one in directions.values():
        if one.removed is not None:
            click.echo(f"{one.site}: {one.removed.report()}")
