"""Every example in a docstring of the library gives what it prints; the functions of notebooks have one."""

from __future__ import annotations

import doctest
import importlib
import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from interp.cache import ActivationCache, extract
from interp.model import Model
from interp.prompt import Example
from tests.import_graph import modules
from tests.tiny import tiny, tiny_tokenizer

EXAMPLES = sorted(name for name, path in modules().items() if ">>>" in path.read_text())
SHOWN = (
    "interp.checkpoint:Checkpoint", "interp.example:Example", "interp.positions:parse_positions",
    "interp.prompt:render", "interp.site:Site.parse", "interp.site:match_sites", "interp.where:kept",
    *(f"interp.stats:{name}" for name in ("Sampling", "auroc", "cluster_mean", "compare_paired", "holm", "mean_test",
                                          "paired_difference", "random_effects", "ratio_of_means", "simultaneous_band",
                                          "tost_rates", "verify", "weighted_kappa", "wilson", "wilson_clustered")),
    "interp.hooks:record", "interp.hooks:edit", "interp.heads:head_sweep", "interp.oracle:Oracle.ask",
    "interp.cache:extract", "interp.cache:ActivationCache.read", "interp.io.items:ItemStore",
    "interp.evaluate.run:evaluate", "interp.tasks.conformance:check_task", "interp.tasks.protocol:load_task",
    "interp.tasks.records:read_examples", "interp.tasks.records:spread",
    "probes.across:transfer", "probes.compare:cosines", "probes.kinds:kind_of", "probes.run:sweep",
    "probes.splits:group_split", "probes.watch:monitor",
    "steering.difference:difference_of_means", "steering.direction:Direction",
    "steering.operators:resolve_positions", "steering.operators:steer", "steering.orthogonal:orthogonalize",
)  # fmt: skip
"""What a notebook user calls first."""


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What examples may take for granted: a tiny model, its tokenizer, a cache of 24 items, a sweep of probes."""
    from probes import SweepConfig, sweep

    tokenizer = tiny_tokenizer()
    model = Model.wrap(tiny("qwen2", vocab_size=len(tokenizer)), tokenizer)
    items = [
        Example(f"i{k}", text=f"the quick {k} {word}", label=label, groups={"story": f"s{k}"})
        for k in range(12)
        for word, label in (("fox", "yes"), ("dog", "no"))
        for k in [k if label == "yes" else k + 12]
    ]
    extract(model, items, out=tmp_path_factory.mktemp("cache") / "c", sites="resid_post.*", progress=False)
    cache = ActivationCache.open(tmp_path_factory.getbasetemp() / "cache0" / "c")
    rng, groups = np.random.default_rng(0), np.repeat(np.arange(24), 4)
    feats = rng.normal(size=(96, 8)) + 2 * (groups % 2)[:, None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        swept = sweep({"resid_post.0": feats}, target=groups % 2, groups=groups, kinds=["massmean"],
                      config=SweepConfig(n_perm=19, n_boot=100, n_seeds=1))  # fmt: skip
    return {"cache": cache, "feats": feats, "model": model, "np": np, "swept": swept, "tokenizer": tokenizer,
            "torch": torch}  # fmt: skip


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_give_what_they_print(name: str, names: dict[str, Any]) -> None:
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for example in found_in(module, names):
            runner.run(example)
    assert runner.summarize(verbose=False).attempted and not runner.failures


def found_in(module: ModuleType, names: dict[str, Any]) -> Iterator[doctest.DocTest]:
    """The examples of a module; doctest itself passes by functions under a decorator (context managers)."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    yield from finder.find(module, extraglobs=names)
    for name, value in vars(module).items():
        inner = getattr(value, "__wrapped__", None)
        if inner is not None and getattr(value, "__module__", "") == module.__name__:
            yield from finder.find(inner, name, module=module, globs=vars(module) | names)


@pytest.mark.parametrize("path", SHOWN)
def test_what_a_notebook_calls_has_an_example(path: str) -> None:
    module, _, name = path.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    assert ">>>" in (found.__doc__ or "")
