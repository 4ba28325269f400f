"""The architecture's arrows: imports point down only, and what must stay light stays light."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tests.import_graph import ROOT, circles, import_graph, imports, modules, without

# The longest matching prefix decides. Modules of one layer may import each other unless they are siblings (layer 4).
LAYERS = {
    "interp.checkpoint": 0, "interp.site": 0, "interp.prompt": 0, "interp.positions": 0, "interp.sentences": 0,
    "interp.position_words": 0, "interp.replies": 0, "interp.reply_positions": 0,
    "interp.label_mass": 0, "interp.remedy": 0, "interp.where": 0,
    "interp.processes": 0, "interp.progress": 0, "interp.limits": 0, "interp.import_path": 0,
    "interp.io": 0,
    "interp.stats": 0, "interp.show": 0, "interp.example": 0, "interp.template": 0,
    "interp.family": 1, "interp.model": 1, "interp.adapters": 1, "interp.loading": 1,
    "interp.passes": 1, "interp.tasks": 1,
    "interp.rope": 1, "interp.memory": 1,
    "interp.hooks": 2, "interp.edits": 2, "interp.injection": 2,
    "interp.cache": 3, "interp.sweep": 3, "interp.evaluate": 3, "interp.oracle": 3, "interp.bridges": 3,
    "interp.chains": 3,
    "interp.heads": 4, "probes": 4, "steering": 4,
    "study": 5,
    "interp": 0,
}  # fmt: skip
UPWARD: list[str] = []
"""Imports that point up and are still to be turned round; a fault that is gone must leave this list."""
SIBLINGS = ("interp.heads", "probes", "steering")
MAY_WRITE = {
    "interp.io.files": {"mkdir", "open", "os.link", "os.rename", "os.replace"},
    "interp.io.items": {"mkdir"},
    "interp.io.lock": {"mkdir"},
    "interp.cache.store": {"mkdir", "open", "os.rename"},  # a shard is streamed to disk: it may be larger than memory
    "interp.cache.manifest": {"mkdir", "os.symlink"},  # a view links to the shards of its cache
    "interp.adapters.attach": {"open", "shutil.copyfile"},  # a temporary folder in the form that PEFT reads
    "steering.export": {"save_pretrained"},  # transformers writes its own folder of model and tokenizer
    "study.embedded.adapters": {"save_pretrained"},
    "study.embedded.build": {"save_pretrained"},
    "study.embedded.tokenizer": {"save_pretrained"},
    "study.run.folder": {"mkdir", "os.rename"},  # folders of steps are set aside and taken back whole
    "study.run.runner": {"mkdir"},
}
"""Everything that writes without `interp.io.write_file`, `replace` or `ItemStore`, by module, and why it may."""


def place(module: str) -> str:
    return max((name for name in LAYERS if module == name or module.startswith(name + ".")), key=len)


def arrow_fault(source: str, target: str) -> str | None:
    """Why `source` may not import `target`, or None."""
    a, b = place(source), place(target)
    if source == "interp":
        return None  # the facade re-exports by name, lazily
    if a in SIBLINGS and b in SIBLINGS and a != b:
        return f"{source} and {target} are siblings; what they share belongs in interp"
    return f"{source} (layer {LAYERS[a]}) imports {target} (layer {LAYERS[b]})" if LAYERS[b] > LAYERS[a] else None


def test_no_import_points_up() -> None:
    graph = import_graph().items()
    faults = [fault for module, targets in graph for name in targets if (fault := arrow_fault(module, name))]
    assert faults == UPWARD, "\n".join(faults)


def test_the_check_itself_sees_an_arrow_that_points_up() -> None:
    assert arrow_fault("interp.hooks", "interp.cache.extract")
    assert arrow_fault("probes.run", "steering.direction")
    assert arrow_fault("interp.cache", "study.cli")
    assert arrow_fault("study.cli", "probes") is None


def test_every_module_has_a_layer_of_its_own() -> None:
    assert not [name for name in modules() if place(name) == "interp" and name != "interp"]


@pytest.mark.parametrize(
    "text",
    [
        "import interp.hooks",
        "import interp.hooks as hooks",
        "from interp import hooks",
        "from interp.hooks import record",
        "def f():\n    from interp.hooks import record",
        "if TYPE_CHECKING:\n    from interp.hooks import record",
        "importlib.import_module('interp.hooks')",
        "importlib.import_module('interp.hooks', package=None)",
        "import_module('interp.hooks').record",
        "__import__('interp.hooks')",
        "LAZY = {'record': 'interp.hooks'}\nimportlib.import_module(LAZY[name])",
        "group({'record': 'interp.hooks:record'})",
    ],
)
def test_an_import_is_seen_wherever_it_stands_and_however_it_is_written(text: str) -> None:
    assert imports(text, modules()) == {"interp.hooks"}


def test_a_name_in_a_text_is_no_import() -> None:
    assert not imports("'see interp.hooks'; 'interp.hooks'; import_module('torch'); import torch", modules())


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    rings = circles(import_graph())
    assert not rings, [sorted(ring) for ring in rings]


def test_a_circle_is_found_through_any_number_of_modules() -> None:
    chain = {"a": frozenset("b"), "b": frozenset("c"), "c": frozenset("a"), "d": frozenset("a"), "e": frozenset("x")}
    assert circles(chain) == [frozenset("abc")]
    assert circles(without(chain, {("c", "a")})) == []


# Functions longer than they should be, docstring included, and files: name -> lines that it may have at most.
LONG_FUNCTIONS = {
    "probes.code_length.mdl": 66,
    "probes.run.sweep": 96,
}
LONG_FILES: dict[str, int] = {}


def function_lengths() -> dict[str, int]:
    """Lines of every function of the library from `def` to its last line; of functions of one name the longest."""
    lengths: dict[str, int] = {}
    for module, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                name = f"{module}.{node.name}"
                lengths[name] = max(lengths.get(name, 0), node.end_lineno - node.lineno + 1)
    return lengths


def check_lengths(lengths: dict[str, int], limit: int, allowed: dict[str, int]) -> None:
    long = {name: n for name, n in lengths.items() if n > limit}
    assert not {name: n for name, n in long.items() if n > allowed.get(name, limit)}
    assert not allowed.keys() - long.keys(), f"at most {limit} lines by now: take them out of the table"


def test_no_function_has_more_than_60_lines() -> None:
    check_lengths(function_lengths(), 60, LONG_FUNCTIONS)


def test_no_file_of_the_library_or_its_tests_has_more_than_400_lines() -> None:
    files = modules() | {f"tests.{path.stem}": path for path in (ROOT / "tests").rglob("*.py")}
    check_lengths({name: path.read_text().count("\n") for name, path in files.items()}, 400, LONG_FILES)


METHODS = {"write_text", "write_bytes", "save_pretrained", "save_file", "mkdir", "makedirs", "symlink_to", "touch"}
FUNCTIONS = {
    *(f"os.{name}" for name in ("rename", "replace", "link", "symlink")), "torch.save", "np.save",
    *(f"shutil.{name}" for name in ("copy", "copy2", "copyfile", "copytree", "move")),
}  # fmt: skip


def writes(text: str) -> set[str]:
    """Calls in a module that write to disk: methods by name, functions with their module, open() in a writing mode."""
    out: set[str] = set()
    for call in (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        method = name.rpartition(".")[2]
        if method in METHODS or (method in ("to_csv", "to_parquet") and "." in name and call.args):
            out.add(method)
        if name in FUNCTIONS:
            out.add(name)
        given = [
            value.value for value in (*call.args, *(k.value for k in call.keywords)) if isinstance(value, ast.Constant)
        ]
        modes = [value for value in given if isinstance(value, str) and set(value) <= set("rwaxbt+")]
        if method == "open" and any(set(mode) & set("wax+") for mode in modes):
            out.add("open")
    return out


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("path.write_text('x')", "write_text"),
        ("open(path, 'wb')", "open"),
        ("path.open(mode='a')", "open"),
        ("table.to_csv(path)", "to_csv"),
        ("os.replace(a, b)", "os.replace"),
        ("torch.save(x, path)", "torch.save"),
    ],
)
def test_a_write_is_seen(text: str, call: str) -> None:
    assert writes(text) == {call}


def test_text_of_a_table_and_reading_are_no_writes() -> None:
    assert not writes("table.to_csv(index=False); open(path); open(path, 'rb'); text.replace('a', 'b'); replace(a, b)")


def test_only_the_files_of_interp_io_are_written_except_where_the_table_says_why() -> None:
    found = {name: calls for name, path in modules().items() if (calls := writes(path.read_text()))}
    assert found == MAY_WRITE


HEAVY = ("transformers", "peft", "sklearn", "matplotlib", "transformer_lens", "nnsight")


def _imported_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.split()}


def test_importing_interp_loads_no_heavy_library() -> None:
    assert not _imported_after("import interp; interp.Site; interp.Last").intersection(HEAVY)


def test_the_command_line_answers_help_without_torch() -> None:
    code = "from study.cli import main; main(['--help'], standalone_mode=False)"
    assert not _imported_after(code).intersection({*HEAVY, "torch", "pandas", "numpy"})
