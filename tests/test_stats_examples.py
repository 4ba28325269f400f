"""Every example in a docstring of interp.stats gives what it prints."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import interp.stats

MODULES = [m.name for m in pkgutil.iter_modules(interp.stats.__path__, "interp.stats.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_print(name: str):
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.failed == 0


def test_some_example_is_run():
    assert sum(doctest.testmod(importlib.import_module(name)).attempted for name in MODULES) >= 2
