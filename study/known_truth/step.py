"""Step known_truth: what was planted in the pair, and whether the claims of this run say so."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from study.analyses.base import Context, Step, Work
from study.analyses.registry import analyses, paths

if TYPE_CHECKING:
    import pandas as pd

    from study.config import Study
    from study.config.sections import SmallestEffects
    from study.known_truth.declared import Truth
    from study.ledger import Claim
    from study.ledger_rows import Tables


def run(context: Context) -> None:
    """Nothing is left in the folder: the table follows from the other tables."""


def tables(context: Context) -> Mapping[str, pd.DataFrame]:
    """`known_truth`: one row for each truth that the section names."""
    from study.known_truth.compare import compare
    from study.known_truth.show import TABLE, truth_table
    from study.schema import read_tables

    study = context.study
    truths = truths_of(context.section.path)
    found = {name: table for name, table in read_tables(context.root).items() if name != TABLE}
    claims = claims_on(truths, found, study.smallest_effects, study.min_label_mass)
    return {TABLE: truth_table(compare(truths, claims), seed=study.seed, data_sha256=context.data_sha256)}


def claims_on(
    truths: Sequence[Truth], tables: Tables, smallest: SmallestEffects, min_label_mass: float
) -> tuple[Claim, ...]:
    """The claims of the report as they are there, and those that are made of controls and of single rows, corrected
    together with them as if the report claimed them too."""
    from study.known_truth.compare import claims_of_rows
    from study.report.claims import claims, correct

    ledger = claims(tables, smallest=smallest, min_label_mass=min_label_mass)
    makers = [one.placebos for one in analyses().values() if one.placebos is not None]
    more = [claim for make in makers for claim in make(tables, smallest)] + claims_of_rows(truths, tables)
    return (*ledger, *correct([*ledger, *more])[len(ledger) :])


def truths_of(path: str) -> Sequence[Truth]:
    """The truths that an import path `module:NAME` names.

    Raises:
        ValueError: no such module or name; something else than truths.
    """
    from study.known_truth.declared import Truth

    module, _, name = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"known_truth.path {path!r}: expected module:NAME of a sequence of truths; {error}.") from None
    if not isinstance(found, Sequence) or not all(isinstance(one, Truth) for one in found):
        raise ValueError(
            f"known_truth.path {path!r}: expected a sequence of study.known_truth.Truth, got {found!r:.80}."
        )
    return found


def check(study: Study) -> None:
    """The truths can be imported."""
    truths_of(study.section("known_truth").path)


def plan(_: Study) -> Work:
    """Some seconds; nothing is computed."""
    return Work(note="read from the tables of the others")


def code(study: Study) -> list[str]:
    """Every analysis with its claims, and the truths."""
    return [*paths(), study.section("known_truth").path]


STEP = Step(
    "known_truth",
    run,
    tables,
    after=True,
    plan=plan,
    check=check,
    code=code,
    sections=("smallest_effects", "min_label_mass"),
)
