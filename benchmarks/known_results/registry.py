"""The experiments: a new one is a module with `Settings` and `run(model, settings)`, and one entry of `EXPERIMENTS`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from benchmarks.known_results.rows import Findings


@dataclass(frozen=True)
class Experiment:
    """One known result.

    Attributes:
        name: on the command line, and of its results file.
        title: of its section in SCIENCE.md.
        about: what is measured and how, in two or three sentences.
        models: checkpoints that it runs on by default: folders in `DIPTYCH_REAL`.
        dtype: in which checkpoints are loaded.
    The module `benchmarks.known_results.<name>` has a frozen dataclass `Settings` (sizes and seeds, with defaults) and
    `run(model, settings) -> Findings`.
    """

    name: str
    title: str
    about: str
    models: tuple[str, ...] = ("smollm2", "qwen")
    dtype: str = "float32"

    @property
    def module_name(self) -> str:
        return f"benchmarks.known_results.{self.name}"

    def settings(self) -> Any:
        return importlib.import_module(self.module_name).Settings()

    @property
    def run(self) -> Callable[[Any, Any], Findings]:
        return cast("Callable[[Any, Any], Findings]", importlib.import_module(self.module_name).run)


EXPERIMENTS: dict[str, Experiment] = {
    one.name: one
    for one in (
        Experiment(
            "induction",
            "Induction heads",
            "Prefix-matching score of every head on random tokens written twice: the attention from a token to the one "
            "that followed its earlier copy (`interp.heads.induction_scores`). Heads are ranked on one half of the texts "
            "and measured on the other. The best are removed together (their output replaced by its mean at each "
            "position), and so are random sets with as many heads of the same layers; `head_sweep` removes every head "
            "alone.",
        ),
    )
}
"""By name, in the order of SCIENCE.md."""
