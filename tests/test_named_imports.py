"""Every name of the library that a page or a benchmark imports is there; neither is run by the other tests."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

from tests.import_graph import PACKAGES

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
PAGES = sorted(path for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")] if path.name != "CHANGELOG.md")
FILES = [path for path in PAGES if BLOCK.search(path.read_text())] + sorted(ROOT.glob("benchmarks/*.py"))


def sources(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return [text] if path.suffix == ".py" else BLOCK.findall(text)


def absent(source: str) -> list[str]:
    """What a source imports of the library and the library does not have."""
    lost = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            wanted = [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            wanted = [(node.module or "", alias.name) for alias in node.names]
        else:
            continue
        lost += [f"{module}:{name}" for module, name in wanted if _is_ours(module) and not _has(module, name)]
    return lost


def _is_ours(module: str) -> bool:
    return module.split(".")[0] in PACKAGES


def _has(module: str, name: str) -> bool:
    try:
        owner = importlib.import_module(module)
        if name and not hasattr(owner, name):
            importlib.import_module(f"{module}.{name}")
    except ModuleNotFoundError:
        return False
    return True


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_page_or_benchmark_imports_only_what_exists(path: Path) -> None:
    assert [name for source in sources(path) for name in absent(source)] == []


def test_a_name_or_module_that_is_gone_is_found() -> None:
    assert absent("from interp.stats import wilson, no_such_name") == ["interp.stats:no_such_name"]
    assert absent("def f():\n    import interp.no_such_module") == ["interp.no_such_module:"]
    assert absent("from probes import sweep\nfrom study.analyses import eval\nimport torch") == []
