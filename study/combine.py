"""Tables of several runs as one: repeats over seeds with their spread, trained pairs as units.

Runs of the same weights are repeats: items, splits and nulls were drawn again. Their mean and spread are given, and no
interval is made narrower by them, since they share the model and often the items. Runs of different weights are
different pairs: the mean over pairs, and its interval with the pair as the unit (`interp.stats.random_effects`).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from interp import stats
from study.rows import Row

if TYPE_CHECKING:
    import pandas as pd

KEYS = (
    "member", "cell", "mode", "target", "position", "positions", "site", "head", "kind", "effect", "pairs", "half",
    "named", "arm", "toward", "alpha", "k", "draw", "split", "role", "cohort", "train_checkpoint", "test_checkpoint",
    "train_site", "test_site", "variant", "bin", "gold", "pred", "metric", "metric_unit",
)  # fmt: skip
"""Columns that say which quantity a row is of; the others are its numbers and where they come from."""
COLUMNS = ("value", "lo", "hi", "n_runs", "n_pairs", "tau", "spread", "least", "most", "half_width", "interval")


def combine(runs: Sequence[Path], name: str) -> pd.DataFrame:
    """One row for every quantity of a table that several runs have.

    Columns: the keys that the table has, and
        value, lo, hi   one pair: mean over its runs, with no interval of its own; several: mean over pairs with the
                        Hartung-Knapp interval (`interp.stats.random_effects`), runs of one pair averaged before
        n_runs, n_pairs how many runs have the row, of how many trained pairs
        tau             standard deviation of the true values between pairs
        spread          standard deviation over the runs of one pair (pooled over pairs)
        least, most     smallest and largest value of any run
        half_width      mean half-width of the runs' own intervals, to compare the spread with
    Raises:
        ValueError: fewer than two runs, a run named twice, a run without this table.
    """
    import pandas as pd

    from study.run.state import read_run
    from study.schema import read_table

    if len({path.resolve() for path in runs}) < 2 or len(set(runs)) < len(runs):
        raise ValueError("combine: expected two or more different runs.")
    parts = []
    for run in runs:
        weights = tuple(sorted(own.get("weights", "") for own in read_run(run).checkpoints.values()))
        table = read_table(run, name)
        known = table[table["value"].notna()]
        parts.append(known.assign(_pair="|".join(weights), _run=str(run)))
    whole = pd.concat(parts, ignore_index=True)
    keys = [key for key in KEYS if key in whole.columns]
    rows = []
    for values, part in whole.groupby(keys, sort=False, dropna=False):
        rows.append(dict(zip(keys, values, strict=True)) | _row(part))
    return pd.DataFrame(rows, columns=[*keys, *COLUMNS])


def _row(part: pd.DataFrame) -> Row:
    """The numbers of one quantity."""
    halves = (part["hi"] - part["lo"]).to_numpy(float) / 2
    pairs = [own for _, own in part.groupby("_pair", sort=False)]
    means = np.array([float(own["value"].mean()) for own in pairs])
    out: Row = {
        "value": float(means.mean()),
        "lo": np.nan,
        "hi": np.nan,
        "n_runs": len(part),
        "n_pairs": len(pairs),
        "tau": np.nan,
        "spread": _spread(pairs),
        "least": float(part["value"].min()),
        "most": float(part["value"].max()),
        "half_width": float(halves.mean()),
        "interval": "none: one pair; spread over its runs",
    }
    if len(pairs) < 2:
        return out
    errors = np.array([_error(own) for own in pairs])
    if not np.all(errors > 0):
        return out | {"interval": "none: a run without an interval"}
    found = stats.random_effects(means, errors)
    return out | {
        "value": found.mean.value,
        "lo": found.mean.lo,
        "hi": found.mean.hi,
        "tau": found.tau,
        "interval": f"Hartung-Knapp over {len(pairs)} pairs",
    }


def _spread(pairs: Sequence[pd.DataFrame]) -> float:
    """Standard deviation over the runs of one pair, pooled over pairs; NaN where no pair has two."""
    repeated = [own["value"].to_numpy(float) for own in pairs if len(own) > 1]
    if not repeated:
        return float("nan")
    squares = sum(float(((x - x.mean()) ** 2).sum()) for x in repeated)
    return float(np.sqrt(squares / sum(len(x) - 1 for x in repeated)))


def _error(own: pd.DataFrame) -> float:
    """Standard error of one pair's mean: that of its runs on average, which repeats do not make smaller.

    Read as of bounded numbers, which most rows are: of the others it is somewhat too large, and never 0.
    """
    estimates = [_estimate(row) for row in own.to_dict("records")]
    return float(np.sqrt(np.mean(stats.standard_errors(estimates, is_bounded=True) ** 2)))


def _estimate(row: Mapping[Hashable, Any]) -> stats.Estimate:
    n = int(row["n"])
    groups = row.get("n_groups")
    n_groups = n if groups is None or groups != groups else int(groups)
    return stats.Estimate(float(row["value"]), float(row["lo"]), float(row["hi"]), n, min(n_groups, n))


def combined_text(table: pd.DataFrame) -> str:
    """The rows as a text table: keys that vary, value with its interval or spread, how many runs and pairs."""
    from study.text import aligned, interval

    keys = [key for key in KEYS if key in table and (table[key].nunique() > 1 or key == "metric")]
    lines = [[*keys, "value [95 %, pairs as units]", "runs", "pairs", "tau", "spread", "least … most", "own ±"]]
    for row in table.to_dict("records"):
        shown = f"{row['value']:.3f}" if row["lo"] != row["lo"] else interval(row["value"], row["lo"], row["hi"])
        known = ["" if row[key] != row[key] else f"{row[key]:.3f}" for key in ("tau", "spread")]
        ends = f"{row['least']:.3f} … {row['most']:.3f}"
        named = ["" if row[key] != row[key] else f"{row[key]}" for key in keys]
        lines.append([*named, shown, str(row["n_runs"]), str(row["n_pairs"]), *known, ends, f"{row['half_width']:.3f}"])
    return aligned(lines)
