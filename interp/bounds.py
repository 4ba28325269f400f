"""The largest value of every count that a user may ask for: beyond it lies a typing error, and hours or gigabytes."""

from __future__ import annotations

ANY = 1_000_000_000
LARGEST = {
    "boot": 1_000_000, "n_boot": 1_000_000, "n_resamples": 1_000_000, "n_permutations": 1_000_000, "perm": 1_000_000,
    "logistic_perm": 100_000, "shuffled": 100_000, "orders": 1_000, "n_folds": 1_000, "split_seeds": 1_000,
    "n_seeds": 1_000, "samples": 10_000, "max_new_tokens": 1_000_000, "n_random": 10_000, "n_complement": 10_000,
    "n_shuffled": 10_000, "n_partners": 100_000, "partners": 100_000, "n": 1_000_000, "per_cell": 1_000_000,
    "studies": 1_000_000, "groups": 1_000_000, "size": 1_000_000, "jobs": 1_024, "seed": 2**63 - 1,
}  # fmt: skip
"""Name of an option -> its largest value; any other count has `ANY`."""


def refusal(name: str, value: object) -> str | None:
    """What is wrong with a count or seed, in words; None where nothing is, and for values that are no whole numbers.

    Example:
        >>> refusal("boot", 10**12)
        'expected at most 1,000,000, got 1,000,000,000,000'
    """
    if isinstance(value, float) and value.is_integer():  # `per_cell: 1e12` of a YAML file
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    if name == "seed" and value < 0:
        return f"expected 0 or more, got {value}"
    largest = LARGEST.get(name, ANY)
    return f"expected at most {largest:,}, got {_shown(value)}" if value > largest else None


def _shown(value: int) -> str:
    return f"{value:,}" if value < 10**30 else "a number of more than 30 digits"
