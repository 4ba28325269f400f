"""A direction in words, for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from steering.direction import Direction


def report_text(direction: Direction) -> str:
    """Classes, site, lengths, agreement, counts and origin; a number that is not known is called so."""
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
