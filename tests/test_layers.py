"""The architecture's arrows: imports point down only, and what must stay light stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("interp", "probes", "steering", "study")

# The longest matching prefix decides. Modules of one layer may import each other unless they are siblings (layer 4).
LAYERS = {
    "interp.checkpoint": 0, "interp.site": 0, "interp.prompt": 0, "interp.positions": 0, "interp.sentences": 0,
    "interp.label_mass": 0, "interp.rounding": 0, "interp.remedy": 0, "interp.where": 0, "interp.shown": 0,
    "interp.yaml_text": 0, "interp.processes": 0, "interp.read": 0, "interp.bounds": 0,
    "interp.time_limit": 0, "interp.io": 0,
    "interp.stats": 0, "interp.show": 0, "interp.example": 0, "interp.template": 0, "interp.control_tokens": 0,
    "interp.family": 1, "interp.model": 1, "interp.adapters": 1, "interp.fingerprint": 1, "interp.loading": 1,
    "interp.passes": 1, "interp.tasks": 1, "interp.files": 1, "interp.adapter_plan": 1, "interp.attach": 1,
    "interp.rope": 1, "interp.schema": 0, "interp.tokenizer": 1, "interp.skeleton": 1, "interp.adapter_names": 1,
    "interp.hooks": 2, "interp.edits": 2, "interp.generation": 2, "interp.injection": 2, "interp.adapter_rows": 1,
    "interp.cache": 3, "interp.sweep": 3, "interp.evaluate": 3, "interp.oracle": 3, "interp.bridges": 3,
    "interp.label_scores": 3, "interp.shared_prefix": 3, "interp.chains": 3, "interp.decoding": 3,
    "interp.heads": 4, "probes": 4, "steering": 4,
    "study": 5,
    "interp": 0,
}  # fmt: skip
SIBLINGS = ("interp.heads", "probes", "steering")
MAY_WRITE = ("interp.io", "interp.cache", "study")


def modules() -> list[tuple[str, Path]]:
    found = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return [(".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"), p) for p in found]


def place(module: str) -> str:
    return max((name for name in LAYERS if module == name or module.startswith(name + ".")), key=len)


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
    return {name for name in names if name.split(".")[0] in PACKAGES}


def arrow_fault(source: str, target: str) -> str | None:
    """Why `source` may not import `target`, or None."""
    a, b = place(source), place(target)
    if source == "interp":
        return None  # the facade re-exports by name, lazily
    if a in SIBLINGS and b in SIBLINGS and a != b:
        return f"{source} and {target} are siblings; what they share belongs in interp"
    return f"{source} (layer {LAYERS[a]}) imports {target} (layer {LAYERS[b]})" if LAYERS[b] > LAYERS[a] else None


def test_no_import_points_up() -> None:
    faults = [fault for module, path in modules() for target in imports(path) if (fault := arrow_fault(module, target))]
    assert not faults, "\n".join(faults)


def test_the_check_itself_sees_an_arrow_that_points_up() -> None:
    assert arrow_fault("interp.hooks", "interp.cache.extract")
    assert arrow_fault("probes.sweep", "steering.direction")
    assert arrow_fault("interp.cache", "study.cli")
    assert arrow_fault("study.cli", "probes") is None


def test_every_module_has_a_layer_of_its_own() -> None:
    assert not [name for name, _ in modules() if place(name) == "interp" and name != "interp"]


@pytest.mark.parametrize("word", ["write_text", "write_bytes", "to_parquet", "to_csv", "save_file", "mkdir"])
def test_only_the_cache_and_the_study_write_to_disk(word: str) -> None:
    guilty = [name for name, path in modules() if word in path.read_text() and not name.startswith(MAY_WRITE)]
    assert not guilty


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
