"""An option has one default: on the command line, in a study file and in Python; and every key of a study is read."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import click
import pytest

from interp.cache.request import Request
from interp.evaluate import Decoding
from interp.loading import LoadOptions as Held
from interp.loading import load
from interp.oracle import Oracle, collect
from probes import SweepConfig, sweep
from steering import difference_of_means
from study.analyses.along.options import AlongOptions
from study.analyses.cache.options import CacheOptions
from study.analyses.eval.options import EvalOptions
from study.analyses.heads.options import HeadsOptions
from study.analyses.heads.run import run_heads
from study.analyses.oracle.options import OracleOptions, OracleQuestion
from study.analyses.probes.options import ProbesOptions
from study.analyses.steering.options import CurveOptions, DoseOptions, FitOptions, SteeringOptions
from study.cli import main
from study.cli.common import OPTIONS
from study.config.sections import (
    FiguresSection,
    ReportSection,
    Study,
)
from study.load_options import LoadOptions
from study.options import default_of, param_of, shown_fields
from study.task_options import TaskOptions

SECTION_NAMES = ("eval", "cache", "probes", "along", "heads", "steering", "oracle", "figures", "report")
ROOT = Path(__file__).resolve().parent.parent
ABSENT = object()


def commands(group: Any = main, path: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        one = group.get_command(context, name)
        yield from (
            commands(one, f"{path} {name}".strip())
            if isinstance(one, click.Group)
            else [(f"{path} {name}".strip(), one)]
        )


COMMANDS = dict(commands())


def of_command(name: str) -> dict[str, Any]:
    """Option -> default; required options and arguments have none."""
    options = [p for p in COMMANDS[name].params if isinstance(p, click.Option) and not p.required]
    return {str(p.name): p.to_info_dict()["default"] for p in options}


def of_fields(kind: Any) -> dict[str, Any]:
    out = {}
    for f in dataclasses.fields(kind):
        if f.default is not dataclasses.MISSING:
            out[f.name] = f.default
        elif f.default_factory is not dataclasses.MISSING:
            out[f.name] = f.default_factory()
    return out


def of_function(function: Any) -> dict[str, Any]:
    found = inspect.signature(function).parameters
    return {name: p.default for name, p in found.items() if p.default is not inspect.Parameter.empty}


def plain(value: Any) -> Any:
    """One form of what means the same: nothing, every site or position, words separated by commas, numbers."""
    if value is None or value == "" or (isinstance(value, tuple | list | Mapping) and not value):
        return None
    if value in ("all", "*"):
        return "*"
    if isinstance(value, str) and "," in value:
        value = tuple(value.split(","))
    if isinstance(value, tuple | list):
        return tuple(plain(v) for v in value)
    try:
        return value if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return value


# command -> (its section, what Python takes, other names of an option: command line -> section, Python)
WALK: dict[str, tuple[Any, dict[str, Any], dict[str, str]]] = {
    "eval run": (EvalOptions, of_fields(Decoding), {"samples": "n_samples"}),
    "cache extract": (CacheOptions, of_fields(Request), {}),
    "cache plan": (CacheOptions, of_fields(Request), {}),
    "probes sweep": (ProbesOptions, of_function(sweep) | of_fields(SweepConfig),
                     {"cs": "Cs", "perm": "n_perm", "split_seeds": "n_seeds", "boot": "n_boot"}),
    "heads sweep": (HeadsOptions, of_function(run_heads), {}),
    "steer dose": (SteeringOptions, of_fields(DoseOptions), {}),
    "steer pair": (SteeringOptions, of_fields(DoseOptions), {}),
    "steer fit": (SteeringOptions, of_function(difference_of_means), {"positions": "position", "sites": "site",
                                                                      "sign_check": "check_sign"}),
    "oracle ask": (OracleOptions, of_function(collect) | of_fields(OracleQuestion),
                   {"layers": "layers", "group": "groups", "partners": "n_partners"}),
    "oracle compare": (OracleOptions, of_fields(OracleQuestion), {"group": "groups", "partners": "n_partners"}),
}  # fmt: skip
EXPLAINED = {
    # None on the command line is "as the model, the task or the oracle says", which Python spells out
    ("cache extract", "shard_bytes"): "passed on where given",
    ("cache plan", "shard_bytes"): "passed on where given",
    ("eval run", "seed"): "None is 0 for sampling, and no seed for a task that takes none",
    ("steer dose", "seed"): "None is 0 for controls, and no seed for a task that takes none",
    ("steer pair", "seed"): "None is 0 for controls, and no seed for a task that takes none",
    ("probes sweep", "name"): "of the cache's folder",
    ("steer fit", "sites"): "resid_post.* is what None means in Python",
    ("oracle ask", "layers"): "None is the oracle's own, which `collect` does not know",
    ("oracle ask", "partners"): "None is 8 for choices, 99 for free answers: `Oracle.choose`, `Oracle.ask`",
    ("oracle compare", "partners"): "None is 8, as `Oracle.choose` has it",
    ("oracle ask", "positions"): "None is the one rule of a cache; without a cache the rule is `last`",
    ("oracle compare", "positions"): "as `oracle ask`",
    ("oracle ask", "per"): "a study reads tokens where a question labels sentences, else examples",
}  # fmt: skip


@pytest.mark.parametrize("command", WALK)
def test_an_option_has_the_same_default_on_the_command_line_in_a_study_and_in_python(command: str) -> None:
    section, python, renamed = WALK[command]
    written, compared = of_fields(section), 0
    for option, default in of_command(command).items():
        name = renamed.get(option, option)
        places = [given[key] for given in (written, python) for key in {name, option} if key in given]
        if name != option and name in {**written, **python}:
            places = [given[name] for given in (written, python) if name in given]
        compared += len(places)
        if (command, option) not in EXPLAINED:
            different = [value for value in places if plain(value) != plain(default)]
            assert not different, f"{command} --{option}: {default!r}, elsewhere {different}"
    assert compared >= 5
    for name in {*written, *python} & {*written}:  # what a command does not have
        if name in python and name not in of_command(command) and (command, name) not in EXPLAINED:
            assert plain(written[name]) == plain(python[name]), name


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_every_command_is_a_field_of_its_options_classes(command: str) -> None:
    """So its default in Python, and in a study file whose section the class is, is that of the command line."""
    one = COMMANDS[command]
    classes = getattr(one.callback, OPTIONS)
    declared = {param_of(field): field for kind in reversed(classes) for field in shown_fields(kind)}
    params = {str(p.name): p for p in one.params}
    assert params.keys() == declared.keys()
    context = click.Context(one)
    for name, field in declared.items():
        default, param = default_of(field), params[name]
        assert param.required == (default is dataclasses.MISSING), name
        if not param.required:
            given = param.get_default(context)
            given = None if repr(given) == "Sentinel.UNSET" else param.type_cast_value(context, given)
            nothing = given in (None, ()) or (given is False and default is None)
            assert default in (None, (), {}, "") if nothing else given == default, (name, given, default)
            assert type(given) is type(default) or nothing, name


@pytest.mark.parametrize("name", [*SECTION_NAMES, "task", "load"])
def test_a_section_of_a_study_file_is_what_the_command_of_its_analysis_takes(name: str) -> None:
    command = {"eval": "eval run", "cache": "cache extract", "probes": "probes sweep",
               "along": "probes along", "heads": "heads sweep",
               "task": "eval run", "load": "heads sweep"}.get(name)  # fmt: skip
    hint = get_type_hints(Study)[name]
    section: Any = next(kind for kind in (hint, *get_args(hint)) if dataclasses.is_dataclass(kind))
    if command is not None:
        assert section in getattr(COMMANDS[command].callback, OPTIONS)
    elif name == "steering":
        assert issubclass(section, CurveOptions) and issubclass(DoseOptions, CurveOptions)


def test_an_explained_difference_is_one() -> None:
    for command, option in EXPLAINED:
        assert option in of_command(command), (command, option)


def test_how_weights_are_held_has_one_default_at_every_door() -> None:
    python, study, settings = of_function(load), of_fields(LoadOptions), of_fields(Held)
    assert {name: python[name] for name in study} == study == {name: settings[name] for name in study}
    for command in COMMANDS:
        given = of_command(command)
        for name in study if command != "oracle train" else ():  # None is what its recipe says
            option = "load_dtype" if name == "dtype" else name
            if option in given and "load_dtype" in given:
                assert plain(given[option]) == plain(study[name]), (command, option)


def test_partners_of_an_oracle_are_as_many_at_every_door() -> None:
    from interp.oracle.evidence import GAP_PARTNERS, PARTNERS

    assert of_fields(OracleOptions)["n_partners"] == GAP_PARTNERS
    assert of_function(Oracle.choose)["n_partners"] == of_function(Oracle.score)["n_partners"] == GAP_PARTNERS
    assert of_function(Oracle.ask)["n_partners"] == PARTNERS
    assert of_command("oracle ask")["partners"] is None and of_command("oracle compare")["partners"] is None


ONE_DEFAULT = {
    "n_resamples": {2000}, "n_boot": {2000}, "boot": {2000}, "confidence": {0.95}, "seed": {0, None},
    "target_delimiter": {" "}, "delimiter": {" "}, "margin": {0.05}, "min_items": {50}, "min_groups": {10},
    "n_folds": {5}, "test_share": {"auto"}, "n_complement": {5}, "template": {"own"}, "control_tokens": {"text"},
    "split_seeds": {5}, "n_seeds": {5}, "slot": {"own", "auto"},
}  # fmt: skip
"""Names that mean the same wherever they are an argument or a field, and their default. A seed of None is one that the
task does not take; a head is read after the member's own reply, a dose curve where the task says."""
OTHER_MEANING = {
    ("steering/select.py", "margin"), ("interp/evaluate/run.py", "margin"), 
    ("study/analyses/oracle/claims.py", "margin"),
    ("steering/select.py", "seed"), ("probes/splits.py", "test_share"),
    ("study/analyses/steering/options.py", "test_share"),
    ("interp/tasks/bbq/splits.py", "test_share"),
}  # fmt: skip
"""Not that: a column without a value yet, a share of another kind of split (`steering.test_share` holds items out of a
fit, `row_split` is there to show a leak)."""


def defaults_in_source() -> Iterator[tuple[str, str, Any]]:
    """(file, name, default) of every argument and annotated field that has one of the names."""
    for package in ("interp", "probes", "steering", "study"):
        for path in sorted((ROOT / package).rglob("*.py")):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            for node in ast.walk(ast.parse(path.read_text())):
                found: list[tuple[str, ast.expr]] = []
                if isinstance(node, ast.FunctionDef):
                    late = node.args.args[len(node.args.args) - len(node.args.defaults) :]
                    found = [(a.arg, d) for a, d in zip(late, node.args.defaults, strict=True)]
                    found += [(a.arg, d) for a, d in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True) if d]
                elif isinstance(node, ast.ClassDef):
                    fields = [s for s in node.body if isinstance(s, ast.AnnAssign)]
                    found = [(s.target.id, s.value) for s in fields if isinstance(s.target, ast.Name) and s.value]
                for name, value in found:
                    if name in ONE_DEFAULT:
                        yield path.relative_to(ROOT).as_posix(), name, _value(module, value)


def _value(module: str, node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        value = eval(ast.unparse(node), vars(importlib.import_module(module)))
        return value.default if isinstance(value, dataclasses.Field) else value


def test_a_name_that_means_the_same_has_the_same_default_in_the_whole_library() -> None:
    found = list(defaults_in_source())
    assert len(found) > 100
    known = [one for one in found if one[2] is not None and one[2] is not ... and one[:2] not in OTHER_MEANING]
    assert not [one for one in known if one[2] not in ONE_DEFAULT[one[1]]]
    texts = {
        file: file.read_text() for name in ("interp", "probes", "steering") for file in (ROOT / name).rglob("*.py")
    }
    literal = [
        file for file, text in texts.items() if "n_resamples: int = 2000" in text or "n_boot: int = 2000" in text
    ]
    assert not literal, "the number stands once, in interp.stats.estimate"


# --- every key is read ----------------------------------------------------------------------------------------------

READERS = {
    EvalOptions: ("study/analyses/eval/options.py", "study/analyses/eval/step.py", "study/analyses/items.py"),
    CacheOptions: ("study/analyses/cache/options.py", "study/analyses/cache/step.py", "study/analyses/items.py"),
    ProbesOptions: ("study/analyses/probes/step.py", "study/analyses/probes/run.py",
                    "study/analyses/probes/options.py"),
    AlongOptions: ("study/analyses/along/step.py", "study/analyses/along/run.py", "study/analyses/along/inputs.py",
                   "study/analyses/along/member.py", "study/analyses/along/tables.py"),
    HeadsOptions: ("study/analyses/heads/step.py", "study/analyses/heads/run.py", "study/analyses/heads/pairs.py"),
    SteeringOptions: ("study/analyses/steering/step.py", "study/analyses/steering/job.py",
                      "study/analyses/steering/tables.py"),
    OracleOptions: ("study/analyses/oracle/step.py",),
    OracleQuestion: ("study/analyses/oracle/step.py",),
    FiguresSection: ("study/report/draw.py",),
    ReportSection: ("study/report/page.py", "study/report/run_folder.py"),
    TaskOptions: ("study/task_options.py",),
    LoadOptions: ("interp/loading/load.py",),
    FitOptions: ("study/analyses/steering/fit.py",),
    Study: ("study/analyses/eval/step.py", "study/analyses/cache/step.py", "study/report/step.py",
            "study/report/page.py", "study/analyses/items.py", "study/analyses/heads/step.py", "study/run/runner.py",
            "study/run/planner.py",
            "study/run/steps.py", "study/analyses/base.py", "study/run/state.py", "study/config/sections.py"),
}  # fmt: skip
"""The files that do what a section asks for. Identities and digests read every key by `asdict`: that does not count."""


@pytest.mark.parametrize(("section", "key"), [(s, f.name) for s in READERS for f in dataclasses.fields(s)])
def test_every_key_of_a_study_is_named_by_the_code_that_does_what_it_asks(section: Any, key: str) -> None:
    if section is Study and key in SECTION_NAMES:
        return  # its own keys are
    words: set[str] = set()
    for file in READERS[section]:
        for node in ast.walk(ast.parse((ROOT / file).read_text())):
            words |= {node.attr} if isinstance(node, ast.Attribute) else set()
            words |= {node.value} if isinstance(node, ast.Constant) and isinstance(node.value, str) else set()
            words |= {node.arg} if isinstance(node, ast.arg) else set()
    assert key in words, f"{section.__name__}.{key}: nothing reads it"
