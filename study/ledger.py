"""The claims ledger: what is claimed, from which estimate, which controls it passed, and the verdict of one rule.

    not tested      there is no estimate, or a test of the null that the claim needs was not run
    contradicted    the interval lies wholly on the other side of the claim, and no test of the null failed
    not supported   no effect is shown: the interval includes none, a test of the null failed or is undecided, the
                    corrected p of the whole report is above 5 %, or the whole interval is below the smallest effect
                    of interest
    qualified       an effect is shown, but a control of its interpretation failed, is undecided or was not run, or the
                    interval reaches below the smallest effect of interest
    supported       an effect of interest is shown and every control passed
    not testable    the claim would be "not supported", and at this n an effect of the smallest size of interest is
                    shown in fewer than 80 % of studies (of equivalence: it is shown at its margin in fewer than 80 % of
                    studies whose members are equal). Not where the whole interval is below or above the smallest effect
                    of interest (on the other side of the claim it is below), nor where it shows a slope that controls
                    of equal norm have too: that n has shown something.

What an n can show (`Reach`) is a property of the design: n, groups, how many claims are corrected for, and a spread.
The estimate itself never enters; a spread that was estimated from the same data is named as such.

Controls are of two sorts. A control of the *null* asks whether there is any effect at all (a permutation null, random
directions, a matched shuffle). A control of the *interpretation* asks whether the effect is what the claim says it is
(norm-matched heads, the same-answer control, a bag of words). Pure functions of values: no table is read here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from interp.stats import rejects
from study.figures.numbers import fixed, format_estimate, format_p, plural
from study.reach import Design, Reach

Verdict = Literal["supported", "qualified", "contradicted", "not supported", "not testable", "not tested"]
Evidence = Literal["behaviour", "decodable", "reads", "necessary", "sufficient", "transfers"]
Outcome = Literal["passed", "failed", "undecided", "not run"]
Sort = Literal["null", "interpretation"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
"""In the order in which a page shows them."""
SEVERITY: tuple[Verdict, ...] = (
    "supported", "qualified", "not testable", "not supported", "contradicted", "not tested",
)  # fmt: skip
"""Best to worst: a claim about several cells has the worst verdict of theirs."""
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Control:
    """What could have produced the number by accident, and whether it did.

    Attributes:
        name:    the control in words.
        outcome: passed or failed: its own interval or p says so; undecided: its interval includes both; not run: there
            is no such interval or p. Missing evidence never passes.
        detail:  its numbers.
        sort:    null: without it there is no effect; interpretation: without it the effect may be another one.
    """

    name: str
    outcome: Outcome
    detail: str = ""
    sort: Sort = "interpretation"

    @classmethod
    def of(cls, name: str, passed: bool | None, detail: str = "", *, sort: Sort = "interpretation") -> Control:
        """Passed or failed; not run where `passed` is None."""
        return cls(name, "not run" if passed is None else "passed" if passed else "failed", detail, sort)

    @classmethod
    def at_least(
        cls,
        name: str,
        interval: tuple[float, float] | None,
        bound: float = 0.0,
        detail: str = "",
        *,
        sort: Sort = "interpretation",
    ) -> Control:
        """Passed where the whole interval is above `bound`, failed where all of it is below, else undecided.

        Args:
            interval: 95 % interval of the quantity that is compared, e.g. of the paired difference from a control; None
                where there is none.
        """
        if interval is None:
            return cls(name, "not run", detail, sort)
        lo, hi = interval
        return cls(name, "passed" if lo > bound else "failed" if hi < bound else "undecided", detail, sort)

    @classmethod
    def within(
        cls, name: str, interval: tuple[float, float] | None, bounds: tuple[float, float], detail: str = ""
    ) -> Control:
        """Passed where the whole interval lies inside `bounds`, failed where it lies outside, else undecided."""
        if interval is None:
            return cls(name, "not run", detail)
        (lo, hi), (low, high) = interval, bounds
        outside = hi < low or lo > high
        return cls(name, "failed" if outside else "passed" if low <= lo and hi <= high else "undecided", detail)


@dataclass(frozen=True)
class Above:
    """The claim that a quantity is above `null`; a difference carries a sign when it is written."""

    null: float = 0.0


@dataclass(frozen=True)
class Below:
    """The claim that a quantity is below `null`."""

    null: float = 0.0


@dataclass(frozen=True)
class Within:
    """The claim that a quantity is as good as zero: inside ±margin."""

    margin: float


@dataclass(frozen=True)
class Measured:
    """The estimate that a claim rests on: value, 95 % interval, n and groups, with the words around it.

    Attributes:
        label_mass: share of the probability that the labels hold where they are read; None where nothing was read so.
    """

    value: float
    lo: float
    hi: float
    n: int
    n_groups: int | None = None
    name: str = ""
    unit: str = ""
    signed: bool = False
    items: str = "items"
    groups: str = "groups"
    label_mass: float | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self.shown}" if self.name else self.shown

    @property
    def shown(self) -> str:
        """Value, interval and unit, without the name."""
        text = format_estimate(self.value, self.lo, self.hi, n=self.n, signed=self.signed)
        return f"{text} {self.unit}".strip()

    @property
    def size(self) -> str:
        """`253 items, 41 procedures`."""
        grouped = self.n_groups is not None and self.n_groups != self.n
        return f"{self.n:,} {self.items}" + (f", {self.n_groups:,} {plural(self.groups)}" if grouped else "")


@dataclass(frozen=True)
class Corrected:
    """p of a claim after correction over every claim of the report, by family-wise error and by false discoveries.

    Attributes:
        holm: step-down over questions and the claims in each; P(any false rejection) <= alpha.
        fdr:  hierarchical Benjamini-Hochberg; what the verdict uses.
        n_claims, n_questions: how many were corrected for.
    """

    holm: float
    fdr: float
    n_claims: int
    n_questions: int


@dataclass(frozen=True)
class Claim:
    """One row of the ledger.

    Attributes:
        text:     the claim, as a sentence without its full stop.
        evidence: the kind of evidence that was run for it; weakest to strongest in `Evidence`.
        analysis: the block of the report that shows it, and the question that it is corrected within.
        asserts:  what the interval is compared with.
        measured: the estimate, or None.
        controls: those that this evidence needs, run or not.
        why:      why there is no estimate.
        smallest: smallest effect of interest, in the unit of the estimate, counted from the null.
        tests:    p of every test of the null that the claim needs, in addition to its interval.
        key:      what is claimed, whatever the numbers turn out to be: by it a claim is registered before the run.
        corrected: over the whole report; None before `correct`.
        design:   how it is tested, from which `reach` follows, or what it can show; None where that is not known.
        member:   member that the claim is about, if it is about one.
        about:    the claim with `{member}` where the member stands; claims that share it are of several members.
    """

    text: str
    evidence: Evidence
    analysis: str
    asserts: Above | Below | Within = Above()
    measured: Measured | None = None
    controls: tuple[Control, ...] = ()
    why: str = ""
    smallest: float = 0.0
    tests: tuple[float, ...] = ()
    key: str = ""
    corrected: Corrected | None = None
    design: Design | Reach | None = None
    member: str = ""
    about: str = ""

    def of(self, member: str) -> Claim:
        """The claim of one member, from a text that says `{member}` where the member stands.

        Example:
            >>> Claim("Tone is decodable in {member}", "decodable", "probes").of("engaged").text
            'Tone is decodable in the engaged member'
        """
        text = self.text.replace("{member}", member_words((member,)))
        return replace(self, text=text, member=member, about=self.text)

    @property
    def reach(self) -> Reach | None:
        """What its n can show; None without an estimate or a design."""
        if self.measured is None:
            return None
        return self.design.reach() if isinstance(self.design, Design) else self.design

    @property
    def p(self) -> float | None:
        """p of the claim: the largest of its tests and of its interval, because it needs all of them; None without
        an estimate."""
        return None if self.measured is None else max((*self.tests, interval_p(self.measured, self.asserts)))

    @property
    def checks(self) -> tuple[Control, ...]:
        """Every control that the verdict counts: those of the evidence, the smallest effect, the correction."""
        if self.measured is None:
            return self.controls
        return (
            *self.controls,
            *_of_interest(self.measured, self.asserts, self.smallest),
            *_report_wide(self.corrected),
        )

    @property
    def verdict(self) -> Verdict:
        """The verdict of the rule of this module."""
        found = judge(self.measured, self.asserts, self.checks)
        if found != "not supported" or self.measured is None or self.is_small or self.design is None:
            return found
        by_interval = isinstance(self.design, Design) and self.design.is_interval
        if self._is_of_interest or (by_interval and judge(self.measured, self.asserts, ()) != found):
            return found  # the n was large enough; what failed is a test that does not depend on it
        return found if self._suffices else "not testable"

    @property
    def _suffices(self) -> bool:
        """Whether its n shows the smallest effect of interest; which n would is not computed for that."""
        return self.design.suffices() if isinstance(self.design, Design) else bool(self.design and self.design.suffices)

    @property
    def _is_of_interest(self) -> bool:
        """Whether the whole interval is at or above the smallest effect of interest."""
        assert self.measured is not None
        return any(c.outcome == "passed" for c in _of_interest(self.measured, self.asserts, self.smallest))

    @property
    def is_small(self) -> bool:
        """Whether the whole interval is below the smallest effect of interest, or on the other side of the claim: an
        effect of interest is excluded."""
        if self.measured is None or isinstance(self.asserts, Within):
            return False
        return _beyond(self.measured, self.asserts)[1] < self.smallest

    @property
    def why_not_testable(self) -> str:
        """What this n can show and the n that is needed; "" where the verdict is another."""
        return (
            f"not testable {self.reach.sentence}" if self.verdict == "not testable" and self.reach is not None else ""
        )


def judge(measured: Measured | None, asserts: Above | Below | Within, controls: Sequence[Control]) -> Verdict:
    """The verdict from one estimate and its controls, ignoring what its n could have shown."""
    if measured is None:
        return "not tested"
    lo, hi = measured.lo, measured.hi
    if isinstance(asserts, Within):
        outside = lo >= asserts.margin or hi <= -asserts.margin
        holds = -asserts.margin < lo and hi < asserts.margin
    elif isinstance(asserts, Above):
        outside, holds = hi < asserts.null, lo > asserts.null
    else:
        outside, holds = lo > asserts.null, hi < asserts.null
    if outside and lo < hi and isinstance(asserts, Within):  # p and controls are of the claim that they are equal
        return "contradicted"
    null = [c.outcome for c in controls if c.sort == "null"]
    if not (holds or outside) or lo == hi or "failed" in null or "undecided" in null:
        return "not supported"
    if "not run" in null:
        return "not tested"
    if outside:
        return "contradicted"
    return "supported" if controls and all(c.outcome == "passed" for c in controls) else "qualified"


def interval_p(measured: Measured, asserts: Above | Below | Within) -> float:
    """p of a claim from its 95 % interval alone: below 0.05 exactly where the interval excludes the null.

        Above, Below:  t = t_.975 · |value - null| / half-width on the side of the null,  p = 2·P(T > t)
        Within:        the larger of the one-sided p of value <= -margin and of value >= margin (two one-sided tests)

    T has n_groups - 1 degrees of freedom (n - 1 without groups), as the interval of a mean has. Where another interval
    was made (bootstrap, Wilson) p is exact at 0.05 and an approximation elsewhere. An interval of no width is no
    evidence: p = 1.
    """
    from scipy.special import stdtr, stdtrit

    value, lo, hi = measured.value, measured.lo, measured.hi
    df = max((measured.n_groups or measured.n) - 1, 1)
    reach = float(stdtrit(df, (1 + CONFIDENCE) / 2))
    if lo == hi:
        return 1.0

    def tail(distance: float, half: float) -> float:
        if half <= 0:  # the interval ends at the value: a rate of 0 or 1
            return 1.0 if distance <= 0 else 0.0
        return float(stdtr(df, -reach * distance / half))

    if isinstance(asserts, Within):
        return max(tail(value + asserts.margin, value - lo), tail(asserts.margin - value, hi - value))
    distance = value - asserts.null
    return min(1.0, 2 * (tail(distance, value - lo) if distance > 0 else tail(-distance, hi - value)))


def _of_interest(measured: Measured, asserts: Above | Below | Within, smallest: float) -> list[Control]:
    """Whether the effect is one that matters: shown to be smaller, it is none; where both are possible, qualified."""
    if isinstance(asserts, Within) or smallest <= 0:
        return []
    lo, hi = _beyond(measured, asserts)
    if hi < 0:  # the other side of the claim
        return []
    outcome: Outcome = "passed" if lo >= smallest else "failed" if hi < smallest else "undecided"
    name = f"at least {smallest:g}, the smallest effect of interest"
    return [Control(name, outcome, "", "null" if outcome == "failed" else "interpretation")]


def _beyond(measured: Measured, asserts: Above | Below) -> tuple[float, float]:
    """The interval counted from the null, positive on the side of the claim."""
    lo, hi = measured.lo - asserts.null, measured.hi - asserts.null
    return (lo, hi) if isinstance(asserts, Above) else (-hi, -lo)


def _report_wide(corrected: Corrected | None) -> list[Control]:
    """Whether the claim survives the correction over every claim of the report."""
    if corrected is None:
        return []
    claims, questions = _counted(corrected.n_claims, "claim"), _counted(corrected.n_questions, "question")
    name = f"false discovery rate over {claims} of {questions}"
    return [Control.of(name, bool(rejects(corrected.fdr)), p_words(corrected.fdr), sort="null")]


def _counted(n: int, what: str) -> str:
    return f"{n} {what if n == 1 else plural(what)}"


def member_words(members: Sequence[str]) -> str:
    """`the engaged member`, `both members`, `both members and the base model`."""
    pair = [name for name in members if name in ("engaged", "heuristic")]
    words = ["both members"] if len(pair) == 2 else [f"the {name} member" for name in pair]
    bases = {"base": "the base model", "heuristic_base": "the base model of the heuristic member"}
    words += [bases.get(name, f"the {name} member") for name in members if name not in pair]
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def short(value: float | None) -> str:
    """A number of a control: two decimals."""
    return "" if value is None else fixed(value, 2)


def p_words(p: float) -> str:
    """`p = 0.012`, `p < 0.001`."""
    text = format_p(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"
