"""How a number is written: as many decimals as its interval supports, true minus, counts where nothing varied."""

from __future__ import annotations

import math
from decimal import Decimal

from study.figures.mpl import Record

MINUS = "\N{MINUS SIGN}"


def decimals(half_width: float) -> int:
    """Decimals that an interval of this half-width supports.

        clamp(-floor(log10 w) + [k <= 2], 0, 4)      k = first significant digit of w

    Args:
        half_width: w > 0, in the unit of the value. It is rounded to 12 significant digits first, so that
            (0.924 - 0.900) / 2 counts as 0.012.
    Raises:
        ValueError: w is not a positive finite number.
    """
    if not (math.isfinite(half_width) and half_width > 0):
        raise ValueError(f"half-width of an interval must be positive and finite, got {half_width!r}.")
    w = Decimal(f"{half_width:.11e}")
    first_digit = w.as_tuple().digits[0]
    return min(max(-w.adjusted() + (first_digit <= 2), 0), 4)


def fixed(value: float, places: int, *, signed: bool = False) -> str:
    """`value` with a fixed number of decimals, U+2212 for minus, `+` on a difference; a value that rounds to 0 has no
    sign."""
    text = f"{abs(value):.{places}f}"
    if not any(digit in text for digit in "123456789"):
        return text
    return (MINUS if value < 0 else "+" if signed else "") + text


def short(value: float) -> str:
    """A reference value in place, without its leading zero: 0.5 -> `.50`, -0.05 -> `−.05`, 1.0 -> `1.00`."""
    return fixed(value, 2).replace("0.", ".", 1) if abs(value) < 0.995 else fixed(value, 2)


def format_value(value: float, lo: float, hi: float, *, n: int | None = None, signed: bool = False) -> str:
    """The value alone, with the decimals of its interval; a count (`36/36`) where the interval has no width."""
    _check_interval(value, lo, hi)
    if hi > lo:
        return _within(value, lo, hi, signed=signed)
    count = _count(value, n)
    if count is None:
        return fixed(value, 4, signed=signed)
    return f"{fixed(count, 0, signed=signed)}/{n}"


def format_estimate(value: float, lo: float, hi: float, *, n: int | None = None, signed: bool = False) -> str:
    """`0.70 [0.61, 0.78]`; with an interval of no width `36/36 (≥ 0.92)`; `2.1e-05 [1.0e-05, 3.4e-05]` where four
    decimals would show an interval without width, and as many decimals as it takes for values of .001 and above.

    The bound is the exact one-sided 95 % limit of a proportion, 0.05^(1/n) below n of n and 1 − 0.05^(1/n)
    above 0 of n. It is left out for differences, which are no proportions.

    Args:
        value, lo, hi: estimate and interval in one unit.
        n: items; needed to write a count, which is done where hi = lo and value·n is a whole number.
        signed: the number is a difference and carries an explicit sign.
    Raises:
        ValueError: not finite, or lo > hi.
    Source: Clopper & Pearson 1934 for the bound at 0 and n; worked by hand in tests/test_figure_numbers.py.
    """
    text = format_value(value, lo, hi, n=n, signed=signed)
    if hi > lo:
        return f"{text} [{_within(lo, lo, hi, signed=signed)}, {_within(hi, lo, hi, signed=signed)}]"
    count = _count(value, n)
    if count is None:
        places = 4
        return f"{text} [{fixed(lo, places, signed=signed)}, {fixed(hi, places, signed=signed)}]"
    if signed or n is None or count not in (0, n):
        return text
    bound = 0.05 ** (1 / n)
    return f"{text} (≥ {bound:.2f})" if count == n else f"{text} (≤ {1 - bound:.2f})"


def plural(word: str) -> str:
    """`procedures` of `procedure`; a word in the plural stays."""
    if word.endswith("s"):
        return word
    return f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"


def format_p(p: float, *, permutations: int | None = None) -> str:
    """A p value with two significant digits, `< 0.001` below that.

    Args:
        p: in [0, 1].
        permutations: draws P of a permutation test, whose p = (1 + #{null ≥ observed}) / (P + 1) cannot fall
            below 1 / (P + 1).
    Raises:
        ValueError: outside [0, 1], or a permutation p below its floor.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"p must lie in [0, 1], got {p!r}.")
    if permutations is not None and p < (1 - 1e-9) / (permutations + 1):
        raise ValueError(
            f"p = {p!r} from {permutations} permutations: the smallest possible is 1/{permutations + 1}. "
            "Count the observed order too: (1 + #{null >= observed}) / (P + 1)."
        )
    if p < 0.001:
        return "< 0.001"
    rounded = Decimal(f"{p:.1e}")
    return f"{rounded:.{1 - rounded.adjusted()}f}"


def estimate_of(row: Record, *, signed: bool = False) -> str:
    """`format_estimate` of a row of a table, from its `value`, `lo`, `hi` and `n`."""
    return format_estimate(row.value, row.lo, row.hi, n=int(row.n), signed=signed)


def p_equals(p: float, *, permutations: int | None = None) -> str:
    """`p = 0.012` or `p < 0.001`."""
    text = format_p(p, permutations=permutations)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def tick_text(x: float) -> str:
    """A number beside an axis, three digits, without leading zero and with a true minus."""
    text = f"{abs(x):.3g}"
    return (MINUS if x < 0 else "") + (text[1:] if text.startswith("0.") else text)


def _within(x: float, lo: float, hi: float, *, signed: bool) -> str:
    """One of the three numbers of an estimate, with as many digits as its interval supports and needs."""
    places = decimals((hi - lo) / 2)
    if fixed(lo, places) != fixed(hi, places) or x == 0:
        return fixed(x, places, signed=signed)
    if max(abs(lo), abs(hi)) >= 1e-3:
        return fixed(x, 1 - math.floor(math.log10((hi - lo) / 2)), signed=signed)
    return (MINUS if x < 0 else "+" if signed else "") + f"{abs(x):.1e}"


def _count(value: float, n: int | None) -> int | None:
    if n is None or abs(value * n - round(value * n)) > 1e-6:
        return None
    return round(value * n)


def _check_interval(value: float, lo: float, hi: float) -> None:
    if not all(map(math.isfinite, (value, lo, hi))) or lo > hi:
        raise ValueError(f"an estimate needs finite value, lo <= hi; got value={value!r}, lo={lo!r}, hi={hi!r}.")
