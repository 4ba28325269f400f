"""Digest of the code that a function runs: its own source and that of everything it reaches by name, without comments.

What is reached is read off the syntax tree, definition by definition: a function brings in the functions, classes and
constants that it names, whether they are imported at the top of its file, inside it, or named by an import path in a
text ("probes.layer:fit_ridge"); a class brings in its special methods, and those of its other methods whose name is
used anywhere in what was reached. Annotations, docstrings and what stands under TYPE_CHECKING are not code. So a
statistic belongs to the tables that are made with it, and not to the model outputs that these tables read.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

_PACKAGES = ("interp", "probes", "steering", "study")
_ROOT = Path(__file__).resolve().parents[2]
_LENGTH = 12
_IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+:[A-Za-z_]\w*")
_NOT_CODE = {"annotation", "returns", "type_comment", "type_params", "ctx", "kind"}
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign | ast.AugAssign
Place = tuple[str, str]  # (module, name of a definition; "" is the whole module)


def code_of(*functions: Callable[..., object] | str | None) -> str:
    """Digest of everything that these functions run; "" where none is given.

    Args:
        functions: functions, methods, classes or modules of this package or of a task; a string is "module:name" or
            "module".
    """
    places = {_place(one) for one in functions if one is not None}
    return _digest(tuple(sorted(places))) if places else ""


def _place(one: Callable[..., object] | str) -> Place:
    if isinstance(one, str):
        module, _, name = one.partition(":")
        return module, name
    return one.__module__, one.__qualname__


@cache
def _digest(roots: tuple[Place, ...]) -> str:
    lines = sorted(_Walk(roots).lines())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:_LENGTH]


class _Walk:
    """The definitions that are reached from some places, and the methods among them."""

    def __init__(self, roots: Iterable[Place]) -> None:
        self.own = frozenset((*_PACKAGES, *(module.split(".")[0] for module, _ in roots)))
        self.found: dict[Place, Definition | None] = {}
        self.attributes = {name.rpartition(".")[2] for _, name in roots if "." in name}
        self.methods: dict[str, list[tuple[Place, ast.AST]]] = {}
        self.taken: set[int] = set()
        self.open: list[Place] = [(module, name.partition(".")[0]) for module, name in roots]
        while self.open:
            self._take(*self.open.pop())

    def lines(self) -> Iterator[str]:
        """One line per definition that is reached, and per file that a reached module reads as a resource."""
        for (module, name), node in self.found.items():
            if node is not None:
                text = _canonical(node, self.taken) if isinstance(node, ast.ClassDef) else _text(node)
                yield f"{module}:{name} {text}"
        for module in {module for module, _ in self.found}:
            source = _source(module)
            if source is not None and source.reads_resources:
                for path in sorted(source.path.parent.iterdir()):
                    if path.is_file() and path.suffix != ".py":
                        yield f"{module}/{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}"

    def _take(self, module: str, name: str) -> None:
        if (module, name) in self.found or module.split(".")[0] not in self.own:
            return
        self.found[module, name] = None
        source = _source(module)
        if source is None:
            return
        if not name:
            self.open += [(module, other) for other in (*source.definitions, *source.imports)]
        elif name in source.definitions:
            self.found[module, name] = source.definitions[name]
            self._enter(module, source.definitions[name])
        elif (place := source.resolve(name)) is not None:
            self.open.append(place)

    def _enter(self, module: str, node: ast.AST) -> None:
        if not isinstance(node, ast.ClassDef):
            self._uses(module, node)
            return
        for part in (*node.bases, *node.keywords, *node.decorator_list):
            self._uses(module, part)
        for part in node.body:
            if not isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
                self._uses(module, part)
            elif part.name.startswith("__") or part.name in self.attributes:
                self._method(module, part)
            else:
                self.methods.setdefault(part.name, []).append(((module, node.name), part))

    def _method(self, module: str, node: ast.AST) -> None:
        if id(node) not in self.taken:
            self.taken.add(id(node))
            self._uses(module, node)

    def _uses(self, module: str, node: ast.AST) -> None:
        """Enter what a piece of code names."""
        attributes, places = _names(module, node, self.own)
        for name in attributes:
            self._attribute(name)
        self.open += places

    def _attribute(self, name: str) -> None:
        """A name after a dot: every method of that name may be meant."""
        if name not in self.attributes:
            self.attributes.add(name)
            for (module, _), method in self.methods.pop(name, []):
                self._method(module, method)


@cache
def _names(module: str, node: ast.AST, own: frozenset[str]) -> tuple[frozenset[str], frozenset[Place]]:
    """What a piece of code names: attributes of anything; definitions of its module and what its own imports bring.

    Args:
        own: packages whose code counts.
    """
    source = _source(module)
    assert source is not None, module
    nodes = list(_code_nodes(node))
    inner = dict(_imported(module, source.is_package, nodes))
    attributes: set[str] = set()
    places: set[Place] = set()
    of_modules: set[int] = set()
    for part in nodes:
        if isinstance(part, ast.Attribute):
            attributes.add(part.attr)
            place = _module_of(part.value, inner, source, own)
            if place is not None:
                of_modules.add(id(part.value))
                places.add((place, part.attr))
        elif isinstance(part, ast.Constant) and isinstance(part.value, str) and _IMPORT_PATH.fullmatch(part.value):
            module_named, _, name = part.value.partition(":")
            places.add((module_named, name))
        elif isinstance(part, ast.Name) and id(part) not in of_modules:
            place = inner.get(part.id)
            places.add(place if place is not None else (module, part.id))
    return frozenset(attributes), frozenset(places)


def _module_of(node: ast.AST, inner: Mapping[str, Place], source: _Source, own: frozenset[str]) -> str | None:
    """The module that a name before a dot stands for, so that only what is taken from it is reached."""
    place = (inner.get(node.id) or source.imports.get(node.id)) if isinstance(node, ast.Name) else None
    if place is None or not place[1]:
        return place[0] if place else None
    package = _source(place[0]) if place[0].split(".")[0] in own else None
    found = package.resolve(place[1]) if package is not None and place[1] not in package.definitions else None
    return found[0] if found is not None and not found[1] else None


class _Source:
    """One file: its definitions and imports by name."""

    def __init__(self, module: str, path: Path) -> None:
        self.module, self.path, self.is_package = module, path, path.name == "__init__.py"
        tree = ast.parse(path.read_text(encoding="utf-8"))
        self.reads_resources = "importlib.resources" in path.read_text(encoding="utf-8")
        self.definitions: dict[str, Definition] = {}
        for node in _statements(tree.body):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                self.definitions[node.name] = node
            elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names = (n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name))
                self.definitions |= dict.fromkeys(names, node)
        top = [n for n in _statements(tree.body) if isinstance(n, ast.Import | ast.ImportFrom)]
        self.imports = dict(_imported(module, self.is_package, top))
        self.lazy = self._lazy_exports()

    def resolve(self, name: str) -> Place | None:
        """Where a name that the module does not define comes from: an import, a lazy export, or a submodule."""
        if name in self.imports:
            return self.imports[name]
        if name in self.lazy:
            held = self.lazy[name]
            return (held if held.split(".")[0] in _PACKAGES else f"{self.module}.{held}"), name
        inside = f"{self.module}.{name}"
        return (inside, "") if self.is_package and _path(inside) is not None else None

    def _lazy_exports(self) -> dict[str, str]:
        """Names that a package loads on first use, from its table `_EXPORTS`."""
        node = self.definitions.get("_EXPORTS")
        if not isinstance(node, ast.Assign | ast.AnnAssign) or not isinstance(node.value, ast.Dict):
            return {}
        return {str(k): str(v) for k, v in ast.literal_eval(node.value).items()}


@cache
def _source(module: str) -> _Source | None:
    path = _path(module)
    return None if path is None else _Source(module, path)


@cache
def _path(module: str) -> Path | None:
    """File of a module: of this package beside this file, of others where Python finds it."""
    if module.split(".")[0] in _PACKAGES:
        inside = _ROOT.joinpath(*module.split("."))
        return next((p for p in (inside.with_suffix(".py"), inside / "__init__.py") if p.is_file()), None)
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):
        return None
    found = Path(spec.origin) if spec is not None and spec.origin else None
    return found if found is not None and found.suffix == ".py" and found.is_file() else None


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements of a module, those inside `if` and `try` too, without what only type checkers read."""
    for node in body:
        if isinstance(node, ast.If):
            is_typing = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
            yield from _statements(node.orelse if is_typing else [*node.body, *node.orelse])
        elif isinstance(node, ast.Try):
            yield from _statements([*node.body, *(s for h in node.handlers for s in h.body), *node.orelse])
        else:
            yield node


def _imported(module: str, is_package: bool, nodes: Iterable[ast.AST]) -> Iterator[tuple[str, Place]]:
    """(name, place) of everything that import statements bring in."""
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield (alias.asname or alias.name.split(".")[0]), (alias.name, "")
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: (1 if is_package else 0) - node.level or None]
                base = ".".join([*parents, *([base] if base else [])])
            for alias in node.names:
                yield (alias.asname or alias.name), (base, alias.name)


def _code_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """A node and what stands in it, without annotations."""
    yield node
    for field, value in ast.iter_fields(node):
        if field in _NOT_CODE:
            continue
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, ast.AST):
                yield from _code_nodes(part)


def _canonical(node: ast.AST, methods: Collection[int] | None = None) -> str:
    """The code of a definition as text that neither layout nor the version of Python changes.

    Args:
        methods: of a class, those that are reached; None: all.
    """
    parts = []
    for field, value in ast.iter_fields(node):
        if field in _NOT_CODE or value is None or value == []:
            continue
        many = value if isinstance(value, list) else [value]
        inner = []
        for index, part in enumerate(many):
            if field == "body" and index == 0 and _is_docstring(part):
                continue
            is_method = isinstance(node, ast.ClassDef) and isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)
            if is_method and methods is not None and id(part) not in methods:
                continue
            inner.append(_text(part) if is_method else _canonical(part) if isinstance(part, ast.AST) else repr(part))
        parts.append(f"{field}={','.join(inner)}")
    return f"{type(node).__name__}({';'.join(parts)})"


@cache
def _text(node: ast.AST) -> str:
    """The code of a function or a constant, which follows from nothing else that is reached."""
    return _canonical(node)


def _is_docstring(node: object) -> bool:
    value = node.value if isinstance(node, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)
