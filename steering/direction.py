"""A steering direction with its scales, statistics and provenance, saved and loaded together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jaxtyping import Float
from torch import Tensor, nn

from interp.io.read import checked
from interp.model import Model
from interp.site import Site, as_site, check_site
from steering.residue import Residue
from steering.store import read_vectors, write_vectors

if TYPE_CHECKING:
    import pandas as pd

Unit = Literal["raw", "delta", "resid", "sd"]
UNITS: tuple[Unit, ...] = ("raw", "delta", "resid", "sd")
NAN = float("nan")


@dataclass(frozen=True)
class DirectionStats:
    """Statistics of a direction from its fitting rows; NaN if not known. Norms are in activation units.

    Attributes:
        delta_norm:  ‖Δ‖, length of the class-mean difference.
        resid_norm:  mean ‖resid‖ of the fitted rows, without token 0 (an attention sink) and padding.
        sd_within:   within-class standard deviation along the unit vector, pooled over the two classes.
        d_prime:     delta_norm / sd_within.
        split_half_cosine: cosine of the differences of means of two halves of the groups, mean over random halvings.
        pair_agreement: mean cosine of the differences of strata (or of groups that hold both classes) with Δ.
        proj_toward, proj_away: mean projection of each class on the unit vector.
        held_out_gap: mean projection of held-out rows, class toward minus class away; its sign was checked.
        n_toward, n_away, n_groups, n_held_out: rows and groups.
        n_strata, n_strata_skipped: strata with both classes, and those with only one, which were left out.
    """

    delta_norm: float = NAN
    resid_norm: float = NAN
    sd_within: float = NAN
    d_prime: float = NAN
    split_half_cosine: float = NAN
    pair_agreement: float = NAN
    proj_toward: float = NAN
    proj_away: float = NAN
    resid_norm_toward: float = NAN
    resid_norm_away: float = NAN
    held_out_gap: float = NAN
    n_toward: int = 0
    n_away: int = 0
    n_groups: int = 0
    n_held_out: int = 0
    n_strata: int = 0
    n_strata_skipped: int = 0


@dataclass(frozen=True, eq=False)
class Direction:
    """A vector in the residual stream at one site, pointing from class `away_from` to class `toward`.

    Attributes:
        vec:        [d_model] float32 on the CPU, the raw difference; `unit` has length 1.
        site:       where it was fitted and is added.
        stats:      lengths, spread, agreement, counts; see `DirectionStats`.
        position:   the rule by which rows were read, e.g. "last".
        provenance: checkpoint, digests of weights, adapter, prompts and rows, split, balance, seed, decoded tokens.
        means:      [2, d_model], class means (toward, away) weighted as in `vec`, if known; targets of the clamping and
                    affine operators.
        removed:    what `orthogonalize` removed, if it was used.
    Raises:
        ValueError: a vector that is not finite or has length 0, other than one axis, or no class names.

    Example:
        >>> one = Direction(torch.tensor([0.0, 2.0]), Site("resid_post", 3), toward="formal", away_from="casual")
        >>> one.label, one.unit.tolist(), one.scale("raw")
        ('casual → formal', [0.0, 1.0], 1.0)
    """

    vec: Float[Tensor, "d_model"]
    site: Site
    toward: str
    away_from: str
    stats: DirectionStats = field(default_factory=DirectionStats)
    position: str = ""
    provenance: Mapping[str, object] = field(default_factory=dict)
    name: str = ""
    means: Float[Tensor, "2 d_model"] | None = None
    removed: Residue | None = None

    def __post_init__(self) -> None:
        vec = self.vec.detach().float().cpu()
        where = f"direction {self.label!r} at {self.site}"
        if vec.ndim != 1:
            raise ValueError(f"{where}: expected a vector [d_model], got shape {tuple(vec.shape)}.")
        if not 0 < float(vec.norm()) < float("inf"):
            raise ValueError(f"{where}: expected a finite vector other than zero, its length is {float(vec.norm())}.")
        if not self.toward or not self.away_from or self.toward == self.away_from:
            raise ValueError(
                f"{where}: expected two class names, so that the sign of alpha has a meaning; got "
                f"toward={self.toward!r}, away_from={self.away_from!r}."
            )
        object.__setattr__(self, "vec", vec)
        if self.means is not None:
            object.__setattr__(self, "means", self.means.detach().float().cpu())

    @property
    def label(self) -> str:
        """Name in tables: its name, else "away_from → toward"."""
        return self.name or f"{self.away_from} → {self.toward}"

    @property
    def d_model(self) -> int:
        return len(self.vec)

    @property
    def unit(self) -> Float[Tensor, "d_model"]:
        """The vector at length 1, float32 (normalised in float64)."""
        wide = self.vec.double()
        return (wide / wide.norm()).float()

    def scale(self, unit: Unit) -> float:
        """Length added at alpha = 1: the applied vector is alpha · scale(unit) · self.unit.

            raw 1 · delta ‖Δ‖ · resid mean ‖resid‖ · sd within-class spread along the vector

        Raises:
            ValueError: an unknown unit, or a length that this direction does not have.
        """
        if unit not in UNITS:
            raise ValueError(f"unit: expected one of {', '.join(UNITS)}, got {unit!r}.")
        lengths = {
            "raw": 1.0,
            "delta": self.stats.delta_norm,
            "resid": self.stats.resid_norm,
            "sd": self.stats.sd_within,
        }
        if not lengths[unit] > 0:
            available = [name for name, length in lengths.items() if length > 0]
            raise ValueError(f"unit {unit!r}: its scale is not known for direction {self.label!r}; known: {available}.")
        return lengths[unit]

    def equivalents(self, alpha: float, unit: Unit) -> dict[str, float]:
        """The strength `alpha` of `unit`, in all four units; NaN for a unit whose scale is not known."""
        length, s = alpha * self.scale(unit), self.stats
        lengths = {"raw": 1.0, "delta": s.delta_norm, "resid": s.resid_norm, "sd": s.sd_within}
        return {name: length / one if one > 0 else NAN for name, one in lengths.items()}

    def class_projections(self) -> dict[str, float]:
        """proj_toward and proj_away: the class means along `unit`; NaN if the means are not known."""
        if self.means is None:
            return {"proj_toward": NAN, "proj_away": NAN}
        toward, away = (self.means.double() @ self.unit.double()).tolist()
        return {"proj_toward": toward, "proj_away": away}

    def reversed(self) -> Direction:
        """The same axis with the two classes exchanged."""
        s = self.stats
        swapped = replace(
            s,
            proj_toward=-s.proj_away,
            proj_away=-s.proj_toward,
            n_toward=s.n_away,
            n_away=s.n_toward,
            resid_norm_toward=s.resid_norm_away,
            resid_norm_away=s.resid_norm_toward,
        )
        name = f"{self.name} reversed" if self.name else ""
        means = None if self.means is None else self.means.flip(0)
        turned = replace(self, vec=-self.vec, toward=self.away_from, away_from=self.toward, stats=swapped, name=name)
        return replace(turned, means=means)

    def check_acts_on(self, model: Model | nn.Module) -> str | None:
        """None if `model` is the checkpoint this was fitted on; else a sentence to print with every result.

        Raises:
            ValueError: a model of another width, or without the site.
        """
        model = Model.wrap(model)
        if model.d_model != self.d_model:
            raise ValueError(
                f"direction {self.label!r} has {self.d_model} components, {model.name} a residual stream of "
                f"{model.d_model}. A direction acts on the model it was fitted on, or on a sibling of the same base."
            )
        check_site(self.site, model.layout)
        return _kinship(self, model)

    def report(self) -> str:
        """The direction in words: classes, site, lengths, spread, agreement, counts, and what was removed."""
        return _report(self)

    def save(self, path: str | Path) -> Path:
        """Write `path` (safetensors) and a JSON file next to it with everything else; returns the path."""
        return Directions({self.site: self}).save(path)

    @classmethod
    def load(cls, path: str | Path, site: str | Site | None = None) -> Direction:
        """The direction in a file; `site` selects one of several.

        Raises:
            ValueError: no such file, a JSON file that is missing or belongs to other vectors, several sites and none
                selected, or an unknown site.
        """
        directions = Directions.load(path)
        if site is None and len(directions) != 1:
            raise ValueError(
                f"{path} has {len(directions)} directions; select one with site=: {', '.join(map(str, directions))}."
            )
        return directions[next(iter(directions)) if site is None else site]

    def __repr__(self) -> str:
        length = float(self.vec.norm())
        return f"Direction({self.label!r}, {self.site}, {self.position or 'no position'}, length {length:.4g})"


class Directions(Mapping[Site, Direction]):
    """One direction per site, in the order given; `[...]` takes a Site or its string.

    Attributes:
        refused: site -> why it has no direction (`steering.difference.confirmed`).
    """

    def __init__(self, by_site: Mapping[Site, Direction], refused: Mapping[Site, str] | None = None) -> None:
        for site, one in by_site.items():
            if one.site != site:
                raise ValueError(f"directions: the entry {site} is a direction of {one.site}.")
        self._by_site, self.refused = dict(by_site), dict(refused or {})

    def __getitem__(self, site: Site | str) -> Direction:
        key = as_site(site)
        if key in self.refused:
            raise ValueError(f"no direction at {key}: {self.refused[key]}.")
        if key not in self._by_site:
            raise ValueError(f"no direction at {key}; sites: {', '.join(map(str, self._by_site))}.")
        return self._by_site[key]

    def __contains__(self, site: object) -> bool:
        return (Site.parse(site) if isinstance(site, str) else site) in self._by_site

    def __iter__(self) -> Iterator[Site]:
        return iter(self._by_site)

    def __len__(self) -> int:
        return len(self._by_site)

    def table(self) -> pd.DataFrame:
        """One row per site: site, layer, name, classes, position, every statistic; sites without a direction last, with
        the reason in `refused`."""
        import pandas as pd

        rows = [
            {
                "site": str(d.site),
                "layer": d.site.layer,
                "name": d.label,
                "toward": d.toward,
                "away_from": d.away_from,
                "position": d.position,
                **vars(d.stats),
                "refused": "",
            }
            for d in self.values()
        ]
        lost = [{"site": str(site), "layer": site.layer, "refused": why} for site, why in self.refused.items()]
        return pd.DataFrame([*rows, *lost])

    def save(self, path: str | Path, *, identity: Mapping[str, Any] | None = None) -> Path:
        """Write every direction into `path` (safetensors) and its JSON file; returns the path.

        Args:
            identity: what they were made from, stored in the JSON file.
        """
        vectors, infos = {}, {}
        for site, one in self.items():
            vectors[str(site)] = one.vec
            if one.means is not None:
                vectors[f"{site}|means"] = one.means
            infos[str(site)] = _info(one)
        refused = {str(site): why for site, why in self.refused.items()}
        return write_vectors(path, vectors, infos, refused, identity=identity)

    @classmethod
    def load(cls, path: str | Path) -> Directions:
        """Everything in a file. Raises as `Direction.load`."""
        vectors, infos, refused = read_vectors(path)
        directions = {}
        for text, info in infos.items():
            site = Site.parse(text)
            directions[site] = _direction(site, vectors[text], vectors.get(f"{text}|means"), info)
        return cls(directions, {Site.parse(text): why for text, why in refused.items()})


_WORDS = ("toward", "away_from", "position", "name")


def _info(one: Direction) -> dict[str, Any]:
    words = {key: getattr(one, key) for key in _WORDS}
    removed = one.removed and one.removed.as_dict()
    return words | {"stats": vars(one.stats), "provenance": dict(one.provenance), "removed": removed}


def _direction(site: Site, vec: Tensor, means: Tensor | None, info: Mapping[str, Any]) -> Direction:
    names = {f.name for f in fields(DirectionStats)}
    values = {k: NAN if v is None else v for k, v in info["stats"].items() if k in names}
    stats = checked(DirectionStats, values, f"direction at {site}, stats")
    removed = Residue.from_dict(vec, info["removed"]) if info["removed"] else None
    words = {key: info[key] for key in _WORDS}
    return Direction(vec, site, stats=stats, provenance=info["provenance"], means=means, removed=removed, **words)


def _kinship(direction: Direction, model: Model) -> str | None:
    origin: Any = direction.provenance.get("model") or {}
    name = str(direction.provenance.get("checkpoint") or "another checkpoint")
    if model.fingerprint is None or not origin:
        missing = "the direction does not name any weights" if not origin else f"{model.name} carries no fingerprint"
        return f"Whether direction {direction.label!r} was fitted on this checkpoint cannot be checked: {missing}."
    role = model.adapters.active
    active = model.fingerprint if model.fingerprint.merged else model.fingerprint.select(role)
    here = sorted(active.adapters.values())
    there = [origin["adapter_sha256"]] if origin.get("adapter_sha256") else []
    what = f"direction {direction.label!r} was fitted on {name} and acts on {model.name}"
    if active.weights_sha256 != origin.get("weights_sha256"):
        return f"The {what}, which has different base weights; residual streams may not be comparable."
    if here != there:
        return f"The {what}{f' with adapter {role!r}' if role else ''}, a sibling on the same base weights."
    return None


def _report(direction: Direction) -> str:
    """Classes, site, lengths, agreement, counts and origin, for a terminal; unknown numbers are marked as unknown."""
    s, origin = direction.stats, direction.provenance
    lines = [
        f"{direction.label}: +alpha moves toward {direction.toward!r}, away from {direction.away_from!r}",
        f"  read at      {direction.site}, position {direction.position or 'not known'}",
        f"  rows         {s.n_toward} toward, {s.n_away} away, {s.n_groups} groups; {s.n_held_out} held out",
        f"  lengths      delta {_number(s.delta_norm)}, resid {_number(s.resid_norm)}, sd {_number(s.sd_within)}",
        f"  separation   d' {_number(s.d_prime)}; held-out gap {_number(s.held_out_gap)}",
        f"  agreement    split halves {_number(s.split_half_cosine)}, pairs or strata {_number(s.pair_agreement)}",
    ]
    if s.n_strata or s.n_strata_skipped:
        lines.append(f"  strata       {s.n_strata} with both classes, {s.n_strata_skipped} with one were left out")
    if origin.get("checkpoint"):
        lines.append(f"  fitted on    {origin['checkpoint']}")
    if direction.removed is not None:
        lines.append("  " + direction.removed.report().replace("\n", "\n  "))
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:.4g}" if value == value else "not known"
