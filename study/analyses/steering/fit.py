"""Directions fitted on a cache, from options: `diptych steer fit` and what Python takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.remedy import remedy
from study.analyses.steering.options import FitOptions

if TYPE_CHECKING:
    import pandas as pd

    from interp.cache import ActivationCache
    from steering import Directions

NONE = "none"


def fit_directions(cache: ActivationCache, options: FitOptions) -> Directions:
    """A direction at every chosen site of the cache, without what is taken out of it.

    Raises:
        ValueError: a class, column, site or file that is not there; as `steering.difference_of_means`.
    """
    from steering import Directions, orthogonalize

    directions = _fitted(cache, options)
    if not options.orthogonal_to:
        return directions
    files = [Directions.load(path) for path in options.orthogonal_to]
    rest = {site: orthogonalize(one, [file[site] for file in files]) for site, one in directions.items()}
    return Directions(rest, directions.refused)


def identity_of(cache: ActivationCache, options: FitOptions) -> dict[str, object]:
    """What a fit follows from: the cache with its examples, every option, and the bytes of every file named."""
    from interp.loading.files import file_sha256

    probes = options.from_probes
    named = {"labels_file": options.labels_file, "from_probes": probes and probes / "directions.safetensors"}
    files = {key: file_sha256(path) if path and path.is_file() else None for key, path in named.items()}
    taken_out = [file_sha256(path) for path in options.orthogonal_to if path.is_file()]
    texts = asdict(options) | {"where": list(options.where), "orthogonal_to": taken_out}
    return {**texts, **files, "cache": cache.plan_id, "examples": cache.examples_digest}


def _fitted(cache: ActivationCache, options: FitOptions) -> Directions:
    from steering import Directions, confirmed, difference_of_means, direction_along, read_probe_vector

    table = None if options.labels_file is None else read_labels(options.labels_file)
    shared: dict[str, Any] = {
        "toward": _classes(options.toward),
        "away_from": _classes(options.away),
        "target": options.target if table is None else _joined(cache, table, options.target),
        "position": options.positions,
        "groups": None if options.groups == NONE else options.groups,
        "fit_on": options.fit_on,
        "seed": options.seed,
        "name": options.name,
        "where": options.where,
    }
    sites = _sites(cache, options.sites)
    if options.from_probes:
        vectors = {
            site: read_probe_vector(options.from_probes, site=site, kind=options.probe_kind, position=options.positions)
            for site in sites
        }
        along = [direction_along(cache, vec, site=site, **shared) for site, vec in vectors.items()]
        directions = Directions({one.site: one for one in along})
        return confirmed(directions) if options.sign_check else directions
    strata: str | list[object] = options.strata
    if options.strata.startswith("labels:"):
        if table is None:
            named = remedy(f"{{strata:{strata}}}: give the file that has this column with {{labels_file}}.")
            raise ValueError(named)
        strata = _joined(cache, table, options.strata.removeprefix("labels:"))
    how = {"balance": options.balance, "strata": strata, "weighting": options.weighting}
    return difference_of_means(cache, site=sites, check_sign=options.sign_check, **shared, **how)


def _classes(text: str) -> list[str]:
    return [part.strip() for part in text.split("+") if part.strip()]


def _sites(cache: ActivationCache, patterns: str) -> list[str]:
    from interp.site import by_depth, match_sites

    return sorted(match_sites(patterns, cache.sites), key=by_depth)


def _joined(cache: ActivationCache, table: pd.DataFrame, column: str) -> list[object]:
    """The column's value of every example of the cache, by id; None for those that are not in the table."""
    if column not in table.columns:
        raise ValueError(f"{_labels()}: no column {column!r}; the file has {', '.join(map(str, table.columns))}.")
    values = dict(zip(table["id"], table[column], strict=True))
    return [values.get(str(one)) for one in cache.examples["id"]]


def read_labels(path: Path) -> pd.DataFrame:
    """The table of a file with a column `id`; `stance` is added where the columns of a bias task's answers allow it."""
    import numpy as np

    from interp.io.read import read_frame

    table = read_frame(path, ("id",), "Write it again.")
    if table["id"].duplicated().any():
        raise ValueError(f"{_labels()} {path}: expected a column 'id' that names each example once.")
    if "stance" not in table.columns and {"score.committed", "score.biased"} <= set(table.columns):
        committed, biased = (table[f"score.{name}"].to_numpy(float) for name in ("committed", "biased"))
        conditions = [committed == 0, (committed == 1) & (biased == 1), (committed == 1) & (biased == 0)]
        table["stance"] = np.select(conditions, ["unknown", "stereo", "anti"], default="")
        table["stance"] = table["stance"].replace("", None)
    return table.assign(id=table["id"].astype(str))


def _labels() -> str:
    """The option that names a file of labels, of `steer fit` and of `steer dose`."""
    return remedy("{labels_file}", "{labels}")


def classes_of(path: Path, column: str) -> dict[str, str]:
    """Example id -> class, of a file that `steer fit --labels` reads."""
    table = read_labels(path)
    if missing := {"id", column} - set(table.columns):
        raise ValueError(
            f"{_labels()} {path}: no column {', '.join(sorted(missing))}; it has {', '.join(table.columns)}."
        )
    kept = table.dropna(subset=[column])
    return dict(zip(kept["id"].astype(str), kept[column].astype(str), strict=True))


def directions_text(directions: Directions) -> str:
    """Statistics of directions, a row per site, then what was refused and what was taken out."""
    from study.text import aligned

    first = next(iter(directions.values()))
    said = [
        f"{first.label}: +alpha moves toward {first.toward!r}, away from {first.away_from!r}; "
        f"{first.stats.n_toward} and {first.stats.n_away} rows, {first.stats.n_groups} groups"
    ]
    lines = [["site", "delta", "resid", "delta/resid", "d'", "halves", "agreement", "held-out gap"]]
    for site, one in directions.items():
        s = one.stats
        ratio = s.delta_norm / s.resid_norm
        checks = (s.d_prime, s.split_half_cosine, s.pair_agreement, s.held_out_gap)
        lines.append([str(site), *_numbers((s.delta_norm, s.resid_norm, ratio, *checks))])
    lines += [[str(site), "refused", *["-"] * 6] for site in directions.refused]
    said += [aligned(lines), *(f"{site} refused: {why}." for site, why in directions.refused.items())]
    removed = [(one.site, one.removed) for one in directions.values() if one.removed is not None]
    return "\n".join([*said, *(f"{site}: {taken.report()}" for site, taken in removed)])


def _numbers(values: Sequence[float]) -> list[str]:
    return [f"{x:.3g}" if x == x else "-" for x in values]
