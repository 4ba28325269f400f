"""Which module of the library imports which: at the top, inside functions, under TYPE_CHECKING, and by name."""

from __future__ import annotations

import ast
import functools
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("interp", "probes", "steering", "study")
Graph = Mapping[str, frozenset[str]]


@functools.cache
def modules() -> dict[str, Path]:
    """Dotted name of every module of the library -> its file."""
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in paths}


def imports(source: str, known: Mapping[str, object]) -> frozenset[str]:
    """Modules of the library that a source text imports, wherever in it and however.

    Seen are `import`, `from ... import` (a submodule rather than its package where the name is one), literal names in
    `import_module("...")` and `__import__("...")`, lazily loaded names "module:attribute", and, in a text that calls
    `import_module` with a name from a table, every text that is the name of a module.
    """
    tree = ast.parse(source)
    return frozenset(name for name in _names(tree, known) if name.split(".")[0] in PACKAGES)


def _names(tree: ast.Module, known: Mapping[str, object]) -> Iterator[str]:
    from_table = any(_imported(node) is None for node in ast.walk(tree) if _is_import_call(node))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"line {node.lineno}: relative import; write the package's name"
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                yield submodule if submodule in known else node.module
        elif _is_import_call(node):
            name = _imported(node)
            yield from () if name is None else (name,)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            name, colon, _ = node.value.partition(":")
            if name in known and "." in name and (colon or from_table):
                yield name


def _is_import_call(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call) or not node.args:
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return name in ("import_module", "__import__")


def _imported(node: ast.AST) -> str | None:
    """Literal name in a call of `import_module`; None: computed."""
    assert isinstance(node, ast.Call)
    first = node.args[0]
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else None


@functools.cache
def import_graph() -> dict[str, frozenset[str]]:
    """Module -> modules of the library that it imports, itself left out."""
    known = modules()
    return {name: imports(path.read_text(), known) - {name} for name, path in known.items()}


def circles(graph: Graph) -> list[frozenset[str]]:
    """Sets of modules that import each other, directly or through others (strongly connected, two or more)."""
    below = {name: _reached(graph, name) for name in graph}
    rings = {frozenset(other for other in below[name] if name in below.get(other, ())) for name in graph}
    return sorted((ring for ring in rings if len(ring) > 1), key=min)


def without(graph: Graph, arrows: Collection[tuple[str, str]]) -> dict[str, frozenset[str]]:
    """The graph without these arrows (importer, imported)."""
    return {name: frozenset(t for t in targets if (name, t) not in arrows) for name, targets in graph.items()}


def _reached(graph: Graph, start: str) -> set[str]:
    seen: set[str] = set()
    todo = [start]
    while todo:
        for target in graph.get(todo.pop(), ()):
            if target not in seen:
                seen.add(target)
                todo.append(target)
    return seen
