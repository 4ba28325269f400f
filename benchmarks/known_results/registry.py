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


EXPERIMENTS: dict[str, Experiment] = {}
"""By name, in the order of SCIENCE.md."""
