"""An analysis of another package, installed from a folder: section, command, table, figure and claim."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from study.analyses import registry
from study.cli import main
from study.config import parse_study, resolved_yaml
from study.run.runner import run_study
from study.schema import COLUMNS, TABLES, read_table

PACKAGE = """
from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from study.analyses.base import Analysis, Step, Work
from study.ledger import Above, Claim, Control, Measured
from study.options import STRICT, option
from study.schema import Column, tidy


@dataclass(frozen=True, config=STRICT)
class LengthOptions:
    longest: Annotated[int, Field(ge=1)] = option(500, "Longest prompt that counts as short.")


def run(context):
    from study.analyses.items import examples_of

    lengths = [len(" ".join(m.content for m in example.messages)) for example in examples_of(context.study)]
    (context.folder / "lengths.txt").write_text(" ".join(map(str, lengths)))


def tables(context):
    lengths = [int(word) for word in (context.folder / "lengths.txt").read_text().split()]
    short = sum(n <= context.section.longest for n in lengths)
    from interp.stats import wilson

    one = wilson(short, len(lengths))
    row = {"member": "engaged", "metric": "short", "value": one.value, "lo": one.lo, "hi": one.hi, "n": one.n,
           "longest": context.section.longest, "interval": "Wilson", "control": "none", "unit": "prompts"}
    return {"prompt_length": tidy([row], analysis="prompt_length", seed=context.study.seed)}


def figures(tables, **size):
    if "prompt_length" in tables:
        from study.figures import forest

        table = tables["prompt_length"].assign(cell="all prompts", control_value=0.0, member="engaged")
        yield "prompt_length", forest(table, **size)


def claims(tables, smallest):
    if "prompt_length" not in tables:
        return [Claim("Prompts are short", "behaviour", "prompt_length", why="not run", key="prompt_length/short")]
    row = tables["prompt_length"].iloc[0]
    estimate = Measured(row["value"], row["lo"], row["hi"], int(row["n"]))
    return [Claim("Prompts are short", "behaviour", "prompt_length", Above(0.1), estimate,
                  (Control.of("counted", True),), key="prompt_length/short")]


ANALYSIS = Analysis(
    name="prompt_length", options=LengthOptions, step=Step("prompt_length", run, tables, plan=lambda study: Work()),
    title="Length of prompts", question="Are prompts short?", help="How long prompts are.",
    tables={"prompt_length": "share of short prompts"},
    columns={"longest": Column("longest prompt that counts as short, in characters", "number")},
    figures=figures, claims=claims,
    planned=lambda study, members: {"prompt_length/short": "prompts are short"},
)
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the package and its metadata, as pip leaves them; on the path of Python."""
    site = tmp_path / "site"
    (site / "prompt_length-1.0.dist-info").mkdir(parents=True)
    (site / "prompt_length_package.py").write_text(PACKAGE)
    info = site / "prompt_length-1.0.dist-info"
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: prompt-length\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[diptych.analyses]\nprompt_length = prompt_length_package:ANALYSIS\n")
    monkeypatch.syspath_prepend(str(site))
    _forget()
    yield site
    monkeypatch.undo()
    _forget()
    sys.modules.pop("prompt_length_package", None)
    COLUMNS.pop("longest", None)
    TABLES.pop("prompt_length", None)


def _forget() -> None:
    from study import doors

    registry.added.cache_clear()
    registry.analysis.cache_clear()
    doors._keys.cache_clear()


def study_of(**section: object) -> object:
    return {
        "name": "mine", "pair": "embedded", "prompt_length": section or None,
        "task": {"path": "interp.tasks.procedural", "per_cell": 2, "rendering": "log"},
    }  # fmt: skip


def test_its_section_runs_in_a_study_with_table_figure_and_claim(installed: Path, tmp_path: Path) -> None:
    study = parse_study(study_of(longest=100_000))
    done = run_study(study, tmp_path / "run", say=lambda line: None)
    assert not done.failed, done.failed
    table = read_table(tmp_path / "run", "prompt_length")
    assert table["value"].item() == 1.0 and table["longest"].item() == 100_000
    assert (tmp_path / "run" / "figures" / "prompt_length.svg").is_file()
    page = (tmp_path / "run" / "report.html").read_text()
    for words in ("Length of prompts", "Are prompts short?", "Prompts are short"):
        assert words in page
    again = run_study(study, tmp_path / "run", say=lambda line: None)
    assert again.ran == ()
    changed = run_study(parse_study(study_of(longest=1)), tmp_path / "run", say=lambda line: None)
    assert "prompt_length" in changed.ran
    assert read_table(tmp_path / "run", "prompt_length")["value"].item() == 0.0


def test_its_options_are_in_help_and_its_command_runs_it(installed: Path, tmp_path: Path) -> None:
    listed = CliRunner().invoke(main, ["--help"])
    assert "prompt_length" in listed.output and "How long prompts are." in listed.output
    shown = CliRunner().invoke(main, ["prompt_length", "--help"])
    assert "--longest" in shown.output and "Longest prompt that counts as short." in shown.output
    words = ["--pair", "embedded", "--task", "interp.tasks.procedural", "--per-cell", "2", "--longest", "3"]
    done = CliRunner().invoke(main, ["prompt_length", *words, "--out", str(tmp_path / "out"), "--quiet"])
    assert done.exit_code == 0, done.output
    assert read_table(tmp_path / "out", "prompt_length")["longest"].item() == 3
    assert CliRunner().invoke(main, ["tables", str(tmp_path / "out")]).output.count("prompt_length") == 1


def test_faults_of_its_section_are_named_as_those_of_any_other(installed: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown key 'longet'; did you mean 'longest'"):
        parse_study(study_of(longet=3))
    with pytest.raises(ValueError, match=r"prompt_length.longest: .*got 0"):
        parse_study(study_of(longest=0))


def test_it_is_registered_before_the_run_and_written_with_the_study(installed: Path, tmp_path: Path) -> None:
    from study.report.registration import planned_claims

    study = parse_study(study_of(longest=7))
    assert planned_claims(study)["prompt_length/short"] == "prompts are short"
    text = resolved_yaml(study, tmp_path)
    assert "longest: 7" in text
    import yaml

    assert parse_study(yaml.safe_load(text)) == study


def test_without_the_package_the_section_is_unknown() -> None:
    with pytest.raises(ValueError, match="unknown key 'prompt_length'"):
        parse_study(study_of(longest=7))


def test_a_package_that_cannot_be_imported_is_named(installed: Path) -> None:
    (installed / "prompt_length_package.py").write_text("import nothing_of_this_name\n")
    with pytest.raises(ValueError, match=r"'prompt_length' of package 'prompt-length' cannot be imported.*nothing_of"):
        registry.analysis("prompt_length")


def test_a_package_that_cannot_be_imported_leaves_the_other_commands_usable(installed: Path) -> None:
    (installed / "prompt_length_package.py").write_text("import nothing_of_this_name\n")
    listed = CliRunner().invoke(main, ["--help"])
    assert (
        listed.exit_code == 0 and "cannot be imported" in " ".join(listed.output.split()) and "verify" in listed.output
    )
    assert CliRunner().invoke(main, ["eval", "--help"]).exit_code == 0
    called = CliRunner().invoke(main, ["prompt_length", "--help"])
    assert called.exit_code == 1 and "Error: the analysis 'prompt_length'" in called.output


def test_a_name_that_is_taken_is_refused(installed: Path) -> None:
    points = installed / "prompt_length-1.0.dist-info" / "entry_points.txt"
    points.write_text("[diptych.analyses]\nheads = prompt_length_package:ANALYSIS\n")
    _forget()
    with pytest.raises(ValueError, match="'heads' of package 'prompt-length' has a name that is already taken"):
        registry.added()
    told = CliRunner().invoke(main, ["--help"])
    assert told.exit_code == 1 and "Error: entry point diptych.analyses" in told.output


def test_the_command_line_starts_without_loading_any_analysis() -> None:
    code = "import sys; from study.cli import main; print(any('analyses.heads' in name for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
