"""What a study can show of a claim: the smallest effect at its n, and the n for the smallest effect of interest."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import inf

from interp.stats.intervals import POWER
from interp.stats.power import Detectable, StudySize, n_needed, smallest_detectable


@dataclass(frozen=True)
class Reach:
    """What the n of a claim can show, from its design alone.

    Attributes:
        smallest_detectable: smallest effect, counted from the null in the unit of the estimate, that is shown with
            probability `power`; of equivalence, the smallest margin at which equal members are shown to be equal.
            Infinite where no effect is shown that often.
        n_needed: n at which the smallest effect of interest is shown that often; None where this n does,
            or where none does.
        n:        items, pairs or readings that the claim rests on, and `n_needed` counts.
        interest: smallest effect of interest, or the margin of equivalence.
        power:    share of studies that are to show it.
        given:    what the numbers rest on besides n: "at the spread observed".
        is_equivalence: the claim is that two things are equal; `smallest_detectable` is a margin.
    """

    smallest_detectable: float
    n_needed: int | None
    n: int
    interest: float
    power: float = POWER
    given: str = ""
    is_equivalence: bool = False

    @property
    def suffices(self) -> bool:
        """Whether the smallest effect of interest is shown with probability `power`."""
        return self.smallest_detectable <= self.interest

    @property
    def sentence(self) -> str:
        """`at n = 30, effects of 0.25 or more are shown in 80 % of studies; of interest are 0.05 or more, which takes
        n = 633 (at the spread observed)`."""
        size, share = f"{self.smallest_detectable:.2g}", f"{100 * self.power:.3g} % of studies"
        none = self.smallest_detectable == inf
        if self.is_equivalence:
            shown = f"equal members are shown to be equal within {size} in {share}"
            shown = f"equal members are shown to be equal in fewer than {share}, whatever the margin" if none else shown
            of_interest = f"the margin is {self.interest:g}"
        else:
            shown = f"effects of {size} or more are shown in {share}"
            shown = f"no effect, however large, is shown in {share}" if none else shown
            of_interest = f"of interest are {self.interest:g} or more"
        need = "" if self.suffices or self.n_needed is None else f", which takes n = {self.n_needed:,}"
        return f"at n = {self.n:,}, {shown}; {of_interest}{need}{f' ({self.given})' if self.given else ''}"


@dataclass(frozen=True)
class Design:
    """How a claim is tested: its rule, its size, and what is of interest. No estimate is part of it.

    Attributes:
        claim:    the rule, with the spread that it assumes (`interp.stats.power`).
        size:     examples and groups.
        interest: smallest effect of interest in the unit of the claim, or the margin of equivalence.
        n:        what is reported as n where `size` counts something else (groups, effective items); 0: as `size`.
        given:    what the spread is: "at the spread observed", "at a discordance of 0.1".
        unit:     of the effect, for a plan.
        is_interval: the interval alone is counted, not the further tests of the null that the claim needs (controls of
            equal norm): where the interval excludes the null and such a test failed, the n was large enough.
    """

    claim: Detectable
    size: StudySize
    interest: float
    n: int = 0
    given: str = ""
    unit: str = ""
    is_equivalence: bool = False
    is_interval: bool = False

    def smallest(self, power: float = POWER) -> float:
        """The smallest effect that is shown with this probability; computed once for a design."""
        return _smallest(self.claim, self.size, power)

    def needed(self, power: float = POWER) -> int | None:
        """The n at which the effect of interest is shown with this probability; computed once for a design."""
        found = _needed(self.claim, self.size, self.interest, power)
        return None if found is None else round(found * (self.n or self.size.n) / self.size.n)

    def suffices(self, power: float = POWER) -> bool:
        """Whether the effect of interest is shown with this probability; `needed` is not computed for that."""
        return self.smallest(power) <= self.interest

    def reach(self, power: float = POWER) -> Reach:
        """What the n can show; `n_needed` only where the n does not suffice."""
        smallest = self.smallest(power)
        needed = None if self.suffices(power) else self.needed(power)
        return Reach(smallest, needed, self.n or self.size.n, self.interest, power, self.given, self.is_equivalence)


@lru_cache(maxsize=1024)
def _smallest(claim: Detectable, size: StudySize, power: float) -> float:
    return smallest_detectable(claim, size, power=power)


@lru_cache(maxsize=1024)
def _needed(claim: Detectable, size: StudySize, effect: float, power: float) -> int | None:
    return n_needed(claim, effect, size, power=power)
