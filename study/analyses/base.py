"""What an analysis is: options, a step that does the work, tables, figures and claims. One folder for each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study.folders import STEPS

if TYPE_CHECKING:
    import pandas as pd

    from study.analyses.shapes import Fault, Layouts
    from study.config.sections import SmallestEffects, Study
    from study.figures import Drawn
    from study.ledger import Claim
    from study.reach import Design
    from study.schema import Column


@dataclass(frozen=True)
class Work:
    """What a step is going to do, for `study plan`.

    Attributes:
        items, tokens: totals over all members; repeated forward passes are counted each time.
        bytes: that it will leave on disk.
        row_tokens: tokens of the rows of a sweep, in passes through the whole model (`study.analyses.estimate`).
        tokens_written: tokens that models generate, at most.
        n_parameters: size of the largest model it runs; 0 if it runs none.
        note: what is not in the numbers.
    """

    items: int = 0
    tokens: int = 0
    tokens_written: int = 0
    bytes: int = 0
    n_parameters: int = 0
    row_tokens: int = 0
    note: str = ""


@dataclass(frozen=True)
class Context:
    """Where a step works.

    Attributes:
        root: the run folder.
        name: name of the step.
        study: the resolved configuration.
        provenance: member -> {base, adapter, weights}, as `run.json` names them.
        progress: whether bars are drawn.
        reads: the other steps that this one reads; their folders may be opened, no others.
    """

    root: Path
    name: str
    study: Study
    provenance: Mapping[str, Mapping[str, str]]
    data_sha256: str = ""
    progress: bool = False
    reads: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """The step's own folder."""
        return self.root / STEPS / self.name

    def of(self, name: str) -> Path:
        """The folder of another step."""
        return self.root / STEPS / name

    @property
    def section(self) -> Any:
        """The step's own section."""
        return self.study.section(self.name)

    def made_by(self, member: str) -> dict[str, str]:
        """Columns model, adapter and weights of a member; blank if the row belongs to no single member."""
        known = dict(self.provenance.get(member, {}))
        return {"model": known.pop("base"), **known} if known else {}


Tables = Mapping[str, "pd.DataFrame"]


@dataclass(frozen=True)
class Step:
    """One step of a study.

    Attributes:
        name: name of the step and of its section.
        run: does the work into `context.folder`; called again after a kill, it continues. The code that it reaches is
            part of the step's key.
        tables: the tidy tables of what lies in the folder, statistics and all; loads no model. The code that it reaches
            is part of the tables' key alone.
        needs: steps that must be done before; a study without one of them is refused.
        reads: further steps that it reads, or a function of the study that says which.
        after: it runs when all other steps have ended, on what tables there are; with `reads` also on how they ended.
        sections: other sections of the study that change its work.
        table_sections: sections that change only its tables, which are made again of the work on disk.
        plan: what it is going to do.
        check: raises ValueError for what can be known to be wrong before anything runs.
        fits: what its section names and a member does not have, by the layers and heads of every member; see
            `study.analyses.shapes`.
        files: further files whose bytes change its output, by the word of the section that names them.
        outputs: files outside its folder and `tables/` that it made, relative to the run folder.
        uses_models: whether checkpoints are loaded (they are checked first).
        items: what is asked of models, of a step that asks; its digest is part of the step's key.
        code: what its work calls and no reader of the code can see: functions that the study or another package names,
            as "module:name" or themselves.
    """

    name: str
    run: Callable[[Context], Sequence[str] | None]
    tables: Callable[[Context], Tables] | None = None
    needs: tuple[str, ...] = ()
    reads: tuple[str, ...] | Callable[[Study], tuple[str, ...]] = ()
    after: bool = False
    sections: tuple[str, ...] = ("task", "load", "seed")
    table_sections: tuple[str, ...] = ()
    plan: Callable[[Study], Work] | None = None
    check: Callable[[Study], None] | None = None
    fits: Callable[[Study, Layouts], Iterable[Fault]] | None = None
    files: Callable[[Study], Mapping[str, Sequence[Path]]] | None = None
    outputs: Callable[[Context], Sequence[Path]] | None = None
    uses_models: bool = False
    items: Callable[[Study], Sequence[object]] | None = None
    code: Callable[[Study], Sequence[Callable[..., object] | str]] | None = None

    def inputs(self, study: Study) -> tuple[str, ...]:
        """Steps that must have ended before: those that it needs, and those that it reads of this study."""
        return (*self.needs, *(self.reads(study) if callable(self.reads) else self.reads))


Named = tuple[str, "Drawn | str"]
"""Stem of a figure's files, and the figure or why it was not drawn."""


@dataclass(frozen=True)
class ShownTable:
    """A small table in the block of an analysis.

    Attributes:
        caption: one sentence, with the counts that matter.
        columns: heads; the first column names its rows.
        rows:    text, as many as there are columns.
        verdict: the column that is drawn as marks ("found", "missed", ...); "" for none.
        fold:    the table is folded under these words; "" for a table that is seen at once.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    verdict: str = ""
    fold: str = ""


@dataclass(frozen=True)
class Analysis:
    """All that study files, the command line, tables, figures and the report need to know of one analysis.

    A package outside this one adds an analysis by the entry point `diptych.analyses`, whose object is an `Analysis`:

        [project.entry-points."diptych.analyses"]
        lens = "my_package.lens:ANALYSIS"

    Its options are then a section of study files and `diptych lens` on the command line; its tables, figures and claims
    stand in every run folder and report.

    Attributes:
        name: its section of a study file, its folder in a run, `analysis` of its tables, the first word of its figures.
        options: a frozen options class (`study.options`).
        step: does the work and makes the tables.
        title, question: heading of its block in the report, and the question that the block answers; no block without.
        help: one line, for the list of commands.
        tables, columns: those that `study.schema` does not have: name -> what it holds; name -> `study.schema.Column`.
        figures: draws from the tables of a run; `width` as of `study.figures`, None for the width of each figure.
        claims: rows of the ledger, from the tables of a run and the smallest effects of interest.
        placebos: the same claims made of controls (a random direction as if it were the direction), which must not come
            out as shown; compared with what is known of a planted pair.
        planned: key -> text of the claims that are named before the run; the arguments are the study and its members.
        designs: key -> `study.reach.Design` of these claims, for what `study plan` says they can show.
        shown: a table of its block, from the tables of a run; None where there is none to show.
        is_first: its block stands at the top of the report, right after what was found.
    """

    name: str
    options: type
    step: Step
    title: str = ""
    question: str = ""
    help: str = ""
    tables: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, Column] = field(default_factory=dict)
    figures: Callable[..., Iterator[Named]] | None = None
    claims: Callable[[Tables, SmallestEffects], Sequence[Claim]] | None = None
    placebos: Callable[[Tables, SmallestEffects], Sequence[Claim]] | None = None
    planned: Callable[[Study, Sequence[str]], Mapping[str, str]] | None = None
    designs: Callable[[Study, Sequence[str]], Mapping[str, Design]] | None = None
    shown: Callable[[Tables], ShownTable | None] | None = None
    is_first: bool = False
