"""The result of a sweep: one tidy table, the scores behind it, and the directions in raw activation units."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.show import html_table, interval, p_value
from interp.stats import rejects
from probes.splits import Split

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "member", "target", "position", "site", "layer", "depth", "role", "kind", "C", "split", "cohort", "metric",
    "value", "lo", "hi", "band_lo", "band_hi", "interval", "null_mean", "null_lo", "null_hi", "null_max95", "p",
    "p_adjusted", "p_least", "n_perm", "scheme",
    "selectivity", "selectivity_lo", "selectivity_hi", "selectivity_null_hi",
    "text_difference", "text_difference_lo", "text_difference_hi", "n_seeds", "seed_sd", "seed_min", "seed_max", "n",
    "n_groups", "n_positive", "n_negative", "groups_positive", "groups_negative", "majority", "certificate",
    "selected", "bin", "p_lo", "p_hi", "p_mean", "note",
)  # fmt: skip

Key = tuple[str, str, str, str]
"""(target, position, site, kind)."""


@dataclass(frozen=True)
class RawDirection:
    """A probe in raw activation units: logit = feats · (unit · norm) + bias.

    Attributes:
        unit: [d_feature], length 1;  norm: logit per unit of activation along it.
        mean, std: mean and standard deviation of the DEV activations along `unit`: what "one standard deviation of the
            data" means for steering.
    """

    unit: Float[Tensor, "d_feature"]
    norm: float
    bias: float
    mean: float
    std: float

    def __call__(self, feats: Float[Tensor, "example d_feature"]) -> Float[Tensor, "example"]:
        return feats.to(self.unit.dtype) @ self.unit * self.norm + self.bias


@dataclass(frozen=True, eq=False)
class Look:
    """One cell as one look at TEST sees it: what was fitted and chosen without its TEST rows.

    Attributes:
        scores:    held-out scores of the look's DEV rows, scores of its DEV refit on its TEST rows [example].
        direction: that refit, in raw units.  C: chosen on the look's DEV.
    """

    scores: Float[np.ndarray, " example"]
    direction: RawDirection
    C: float


@dataclass(frozen=True)
class Selected:
    """The cell chosen on DEV for one target and kind, and its key into scores and directions.

    Attributes:
        looks: key of the cell that each look at TEST chose on its own DEV: this one where TEST is held out.
    """

    target: str
    position: str
    site: str
    kind: str
    C: float
    looks: tuple[Key, ...] = ()

    @property
    def key(self) -> Key:
        return (self.target, self.position, self.site, self.kind)


@dataclass(frozen=True, eq=False)
class SweepResult:
    """The result of a sweep; figures and reports read only `table`.

    Attributes:
        table:      one row per estimate, columns `COLUMNS`. split "oof" is out of fold on DEV, "test" is TEST, scored
            once. role "layer" is a probe of a layer, "control" a probe or direction that must be at chance or below,
            "residual" a probe without the named confounds, "base" the same probe on the base checkpoint, "calibration"
            how well sigmoid(score) is calibrated.
        scores:     key -> score of every row: out-of-fold on DEV, DEV refit on TEST [example].
        directions: key -> DEV refit in raw units.
        looks:      key -> the same for each look at TEST: one, or one per fold where TEST is crossed.
        labels:     target -> 0/1 [example].
        split:      folds and groups of the rows `ids`.
        settings:   every option, for the record.
    """

    table: pd.DataFrame
    scores: Mapping[Key, np.ndarray]
    directions: Mapping[Key, RawDirection]
    selected: tuple[Selected, ...]
    labels: Mapping[str, Int[np.ndarray, " example"]]
    ids: tuple[str, ...]
    split: Split
    settings: Mapping[str, Any] = field(default_factory=dict)
    looks: Mapping[Key, tuple[Look, ...]] = field(default_factory=dict)

    def tested(self, cell: Selected) -> Float[np.ndarray, " example"]:
        """Scores of the TEST rows of every look, at the cell that it chose [example]; NaN for rows in no TEST."""
        out = np.full(len(self.ids), np.nan)
        for i, (key, part) in enumerate(zip(cell.looks, self.split.looks(), strict=True)):
            out[part.is_test] = self.looks[key][i].scores[part.is_test]
        return out

    def pick(self, *, kind: str | None = None, target: str | None = None) -> Selected:
        """The selected cell of one kind and target; both are optional if there is only one.

        Raises:
            ValueError: no cell or several cells match; they are listed.
        """
        cells = [s for s in self.selected if kind in (None, s.kind) and target in (None, s.target)]
        if len(cells) != 1:
            raise ValueError(
                f"kind={kind!r}, target={target!r}: expected one selected cell, got {len(cells)} of "
                f"{[(s.target, s.kind) for s in self.selected]}. Name both."
            )
        return cells[0]

    @property
    def sentences(self) -> tuple[str, ...]:
        """What the sweep shows, in words: decodable, not used.

        decodable: p_adjusted <= 0.05 and AUROC above 1/2, of rows that hold two groups with each class or more

        The permutation test decides, because it has its level and the power for it. The 95 % interval is a two-sided
        one of the TEST score: required too, it would halve the power (0.61 to 0.31 for d = 1 over 20 unequal groups)
        and leave a level of 0.02. Where it reaches 0.5 the sentence says that the size is open; a claim of the report
        needs both.
        """
        return tuple(_sentence(self, cell) for cell in self.selected)

    def __repr__(self) -> str:
        return "\n".join(self.sentences)

    def _repr_html_(self) -> str:
        return _selected_html(self)

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything but the table as named arrays, for `numpy.savez`; `from_arrays` reads it back.

        Directions are `direction|target|position|site|kind`, those of looks have the look's number at the end.
        """
        out = {
            "ids": np.array(self.ids),
            "fold_of": self.split.fold_of,
            "group": self.split.group,
            "n_folds": np.array(self.split.n_folds),
            "is_crossed": np.array(self.split.is_crossed),
            "selected": np.array([[*s.key, repr(s.C)] for s in self.selected]),
        }
        out |= {f"label|{name}": values for name, values in self.labels.items()}
        out |= {"score|" + "|".join(key): values for key, values in self.scores.items()}
        out |= {"direction|" + "|".join(key): _packed(d) for key, d in self.directions.items()}
        for i, s in enumerate(self.selected):
            out[f"chosen|{i}"] = np.array(s.looks)
        for key, looks in self.looks.items():
            name = "|".join(key)
            out["look|" + name] = np.stack([look.scores for look in looks])
            out["look_C|" + name] = np.array([look.C for look in looks])
            out |= {f"direction|{name}|{i}": _packed(look.direction) for i, look in enumerate(looks)}
        return out

    @classmethod
    def from_arrays(
        cls, table: pd.DataFrame, arrays: Mapping[str, np.ndarray], settings: Mapping[str, Any]
    ) -> SweepResult:
        """The result that `arrays` and `table` were taken from."""

        def keyed(kind: str) -> dict[Any, np.ndarray]:
            return {tuple(n.split("|")[1:]): arrays[n] for n in arrays if n.startswith(kind + "|")}

        packed, costs = {key: _unpacked(values) for key, values in keyed("direction").items()}, keyed("look_C")
        looks = {
            key: tuple(Look(s, packed[*key, str(i)], float(costs[key][i])) for i, s in enumerate(scores))
            for key, scores in keyed("look").items()
        }
        split = Split(arrays["fold_of"], arrays["group"], int(arrays["n_folds"]), is_crossed=bool(arrays["is_crossed"]))
        selected = tuple(
            Selected(t, at, site, k, float(c), tuple((a, b, d, e) for a, b, d, e in arrays[f"chosen|{i}"].tolist()))
            for i, (t, at, site, k, c) in enumerate(arrays["selected"].tolist())
        )
        labels = {key[0]: values for key, values in keyed("label").items()}
        ids, directions = tuple(arrays["ids"].tolist()), {key: d for key, d in packed.items() if len(key) == 4}
        return cls(table, keyed("score"), directions, selected, labels, ids, split, dict(settings), looks)


def _packed(d: RawDirection) -> np.ndarray:
    return torch.cat([d.unit, torch.tensor([d.norm, d.bias, d.mean, d.std], dtype=d.unit.dtype)]).numpy()


def _unpacked(values: np.ndarray) -> RawDirection:
    vector = torch.from_numpy(np.asarray(values))
    return RawDirection(vector[:-4], *vector[-4:].tolist())


def _sentence(result: SweepResult, cell: Selected) -> str:
    t = result.table
    rows = t[
        (t.target == cell.target)
        & (t.kind == cell.kind)
        & (t.metric == "auroc")
        & t.selected
        & t.role.isin(["layer", "control"])
    ]
    by_split: dict[str, Any] = {row["split"]: row for row in rows[rows.cohort == "all"].to_dict("records")}
    row = by_split.get("test", by_split["oof"])
    p = row["p_adjusted"]
    counts = [(int(row[f"n_{side}"]), int(row[f"groups_{side}"])) for side in ("positive", "negative")]
    is_found = rejects(p) and row["value"] > 0.5 and min(g for _, g in counts) > 1
    word = "is linearly decodable" if is_found else "is not shown to be linearly decodable"
    where = "out of fold (development)"
    if "test" in by_split:
        where = "on TEST (every group once)" if result.split.is_crossed else "on TEST"
    sizes = " and ".join(
        f"{n} {name} rows in {g}" for name, (n, g) in zip(("positive", "negative"), counts, strict=True)
    )
    tested = _tested(row, p)
    if is_found and not row["lo"] > 0.5:
        tested += "; the interval includes 0.5: the score is above chance, but by how much is not known"
    return (
        f"{cell.target!r} {word} at {cell.site} ({cell.position}, {cell.kind}): AUROC {row['value']:.3f} "
        f"[{row['lo']:.3f}, {row['hi']:.3f}] {where}, {sizes} of {int(row['n_groups'])} groups; {tested}."
    )


def _tested(row: Mapping[str, Any], p: float) -> str:
    """p in words, and the spread over seeds of the split."""
    text = "no null was run, so nothing is claimed"
    if not np.isnan(p):
        text = f"p = {p:.3g} of {int(row['n_perm'])} permutations"
        if not rejects(row["p_least"]):
            text += f", and none below {row['p_least']:.2g} can be reached, so nothing is claimed"
    if row["n_seeds"] > 1:
        text += f"; {row['seed_min']:.3f} to {row['seed_max']:.3f} over {int(row['n_seeds'])} seeds of the split"
    return text


_HEAD = (
    "target", "kind", "site", "position", "OOF AUROC [95 %]", "p (max over sites)", "TEST AUROC [95 %]", "p",
    "selectivity [95 %]", "always one class", "n (groups)",
)  # fmt: skip


def _selected_html(result: SweepResult) -> str:
    """One row per target and kind, as static HTML that inherits the page's theme."""
    return html_table(_HEAD, [_cells(result, cell) for cell in result.selected], rest="result.selected")


def _cells(result: SweepResult, cell: Selected) -> list[str]:
    oof, test = (_row(result, cell, name, "auroc") for name in ("oof", "test"))
    control = _row(result, cell, "oof", "accuracy")
    last = test or oof
    return [
        cell.target,
        cell.kind,
        cell.site,
        cell.position,
        _interval(oof, ""),
        p_value(oof.get("p_adjusted", np.nan)),
        _interval(test, ""),
        p_value(test.get("p", np.nan)),
        _interval(control, "selectivity"),
        f"{control['majority']:.2f}",
        f"{int(last['n'])} ({int(last['n_groups'])})",
    ]


def _row(result: SweepResult, cell: Selected, split: str, metric: str) -> dict[str, Any]:
    t = result.table
    at = (t["target"] == cell.target) & (t["position"] == cell.position) & (t["site"] == cell.site)
    rows = t[
        at
        & (t["kind"] == cell.kind)
        & (t["split"] == split)
        & (t["metric"] == metric)
        & (t["cohort"] == "all")
        & t["role"].isin(["layer", "control"])
    ]
    return {str(name): value for name, value in rows.iloc[0].items()} if len(rows) else {}


def _interval(row: dict[str, Any], name: str) -> str:
    keys = (name, f"{name}_lo", f"{name}_hi") if name else ("value", "lo", "hi")
    return interval(*(row.get(key, np.nan) for key in keys))
