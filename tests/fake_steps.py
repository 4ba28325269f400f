"""Made-up steps: `eval`, then `cache`; `probes` reads `cache`; `figures` after all. What they do is set by a test."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from study.analyses import registry
from study.analyses.base import Analysis, Context, Step
from study.run import steps as steps_module

Work = Callable[[Context], Any]


class Steps:
    """What each made-up step does, and which of them ran."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.work: dict[str, Work] = {}

    def run(self, context: Context) -> Any:
        self.ran.append(context.name)
        work = self.work.get(context.name)
        if work is not None:
            return work(context)
        (context.folder / "out.txt").write_text(context.name)
        return None

    def tables(self, context: Context) -> dict[str, pd.DataFrame]:
        from study.schema import tidy

        assert (context.folder / "out.txt").is_file(), "the work of the step is gone"
        row = {"member": "engaged", "metric": "accuracy", "value": 0.5, "lo": 0.4, "hi": 0.6, "n": 9}
        return {context.name: tidy([row], interval="Wilson", analysis=context.name, seed=context.study.seed)}


def install(monkeypatch: pytest.MonkeyPatch) -> Steps:
    """Put the made-up steps in the place of the real ones."""
    steps, needs, modules = Steps(), {"probes": ("cache",)}, {}
    for name in ("eval", "cache", "probes", "figures"):
        is_last = name == "figures"
        module: Any = ModuleType(f"tests.made_up_{name}")
        module.STEP = Step(
            name, steps.run, None if is_last else steps.tables, needs=needs.get(name, ()), after=is_last,
            sections=() if is_last else ("task", "load", "seed"),
        )  # fmt: skip
        module.ANALYSIS = None if is_last else Analysis(name, SimpleNamespace, module.STEP)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        modules[name] = module.__name__
    last = {name: modules.pop(name) for name in ("figures",)}
    monkeypatch.setattr(registry, "BUILT_IN", modules)
    monkeypatch.setattr(steps_module, "AFTER", last)
    registry.analysis.cache_clear()
    uncached = registry.analysis.__wrapped__  # no made-up one may be remembered
    for module in (registry, steps_module):
        monkeypatch.setattr(module, "analysis", uncached)
    return steps
