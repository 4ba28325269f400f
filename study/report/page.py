"""A run folder as one self-contained HTML file; the same folder gives the same bytes."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from study.figures.numbers import MINUS, fixed
from study.ledger import p_words
from study.pages.sheet import css, policy
from study.pages.text import inert, plain
from study.report.blocks import Block, blocks
from study.report.claims import Claim, Within
from study.report.findings import findings
from study.report.groups import VERDICT_MEANS, grouped, tally_of
from study.report.headline import headline
from study.report.published import Beside, beside, parse_published, printed
from study.report.registration import compare
from study.report.run_folder import MEMBERS, RunFolder, SavedFigure, read_run_folder
from study.report.run_ledger import failed_steps, ledger_of
from study.report.vector import inline

if TYPE_CHECKING:
    from jinja2 import Template

MAX_CSV = 200_000
_NARROW = 262.0
_SENTENCE = re.compile(r"\. (?=[^\Wa-z_]|n = |[^\w\s])")
"""Where the first sentence of a caption ends: not after an abbreviation, which a small letter follows."""
_ESTIMATE = re.compile(r"(\S+ \[[^\]]*\])")
"""A value with its interval, as `study.figures.numbers` writes it."""
_PANEL = re.compile(r"(?:^| )\(([A-Z])\) ")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s?[bB]\b")


@dataclass(frozen=True)
class PlacedFigure:
    """A figure with its number in the page."""

    number: int
    analysis: str
    id: str
    title: str
    caption: Markup
    svg: Markup
    is_narrow: bool
    data_uri: Markup
    csv_name: str
    n_rows: int
    columns: str


def write_report(run: Path, out: Path | None = None) -> Path:
    """Write `run/report.html` (or `out`), atomically; left alone where it has these bytes already.

    Raises:
        ValueError: the folder is no run of a study, or its published values cannot be read.
    """
    from interp.io.files import write_file

    path = out or run / "report.html"
    content = render(run).encode("utf-8")
    if not path.is_file() or path.read_bytes() != content:
        write_file(path, content)
    return path


def render(run: Path | RunFolder) -> str:
    """The report as HTML text: no network, no date, host, user or path; script allowed by its digest alone."""
    folder = run if isinstance(run, RunFolder) else read_run_folder(run)
    script = _asset("report.js")
    page = _template().render(**_content(folder), css=Markup(css()), script=Markup(script), csp=policy(script))
    return page if page.endswith("\n") else page + "\n"


def _template() -> Template:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    env = Environment(
        loader=FunctionLoader(_asset),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else inert(value),
    )
    env.filters |= {
        "attr": plain,
        "slug": _slug,
        "percent": _percent,
        "p": p_words,
        "printed": printed,
        "unbroken": _unbroken,
    }
    return env.get_template("page.html.jinja")


def _asset(name: str) -> str:
    return files("study.report").joinpath(name).read_text(encoding="utf-8")


def _content(run: RunFolder) -> dict[str, object]:
    failed = failed_steps(run)
    place, problems = _Placed(), list(run.unread)
    ledger = ledger_of(run, problems)
    found, lines = blocks(run, ledger), grouped(ledger)
    number = {id(row.claim): row.number for row in lines.rows}
    opening = place.blocks([b for b in found if b.is_first], problems)
    first = [f for f in run.figures if f.analysis == "headline"] or [f for b in found for f in b.figures][:1]
    top = list(place.each(first, problems))
    return {
        "title": _title(run),
        "name": run.state.name,
        "members": _members(run),
        "warnings": _warnings(run, ledger),
        "failures": failed,
        "found": findings(ledger, run.tables, failed=failed),
        "first_blocks": opening,
        "numbers": lambda one: [number[id(ledger[i])] for i in one.claims],
        "ledger": lines,
        "tally_of_all": tally_of(ledger),
        "verdict_means": VERDICT_MEANS,
        "headline_figure": top[0] if top else None,
        "headline": headline(run.tables),
        "published": _published(run, problems),
        "blocks": place.blocks([b for b in found if not b.is_first], problems),
        "shown": run.shown,
        "provenance": _provenance(run),
        "steps": run.state.steps,
        "problems": problems,
        "titles": {b.analysis: b.title for b in found},
        "tables": [(n, len(t)) for n, t in run.tables.items()],
        "minus": MINUS,
        "registered": compare(run.registration, run.study, ledger) if run.registration else None,
    }


class _Placed:
    """Figures in the order of the page, each with its number, once."""

    def __init__(self) -> None:
        self.known: set[str] = set()

    def each(self, figures: Sequence[SavedFigure], problems: list[str]) -> Iterator[PlacedFigure]:
        for figure in figures:
            if figure.stem in self.known:
                continue
            number = len(self.known) + 1
            try:
                placed = place_figure(figure, number)
            except ValueError as error:
                problems.append(f"figure {figure.stem}: {error}")
                continue
            self.known.add(figure.stem)
            yield placed

    def blocks(self, found: Sequence[Block], problems: list[str]) -> list[PlacedBlock]:
        """Blocks with their figures, those shown and those folded."""
        return [(b, list(self.each(b.figures, problems)), list(self.each(b.folded, problems))) for b in found]


PlacedBlock = tuple[Block, list[PlacedFigure], list[PlacedFigure]]


def place_figure(figure: SavedFigure, number: int) -> PlacedFigure:
    """A saved figure as it stands in the page: inline SVG with ids of its own, caption, and its rows as a download.

    Raises:
        ValueError: not an SVG, or one that refers to something outside.
    """
    svg = inline(figure.svg, prefix=f"f{number}-", alt=plain(figure.alt or figure.caption or figure.stem, limit=2000))
    width = float(svg.split("--w:", 1)[1].split('"', 1)[0])
    title, rest = _caption(figure)
    lines = figure.csv.splitlines()
    data = base64.b64encode(figure.csv.encode("utf-8")).decode("ascii")
    is_small = 0 < len(figure.csv) <= MAX_CSV
    return PlacedFigure(
        number,
        figure.analysis,
        f"fig-{_slug(figure.stem)}",
        title,
        rest,
        Markup(svg),
        width < _NARROW,
        Markup(f"data:text/csv;charset=utf-8;base64,{data}" if is_small else ""),
        f"{_slug(figure.stem)}.csv",
        max(0, len(lines) - 1),
        lines[0].replace(",", ", ") if lines else "",
    )


def _caption(figure: SavedFigure) -> tuple[str, Markup]:
    """(title, the rest): the first sentence, or of a figure of panels `(A) ... (B) ...` a line for each panel."""
    if figure.caption.startswith("(A) "):
        parts = _PANEL.split(figure.caption)[1:]
        lines = [
            Markup("<br><b>{}</b> {}").format(letter, inert(text.strip()))
            for letter, text in zip(parts[::2], parts[1::2], strict=True)
        ]
        return "The pair at a glance", Markup("").join(lines)
    title, _, rest = _SENTENCE.sub("\0", figure.caption, count=1).partition("\0")
    return title.rstrip(".") or figure.stem, inert(rest)


def _members(run: RunFolder) -> list[tuple[str, str, str]]:
    """(role, adapter or base, what it stands on) of every member."""
    found = []
    for role, own in run.state.checkpoints.items():
        adapter, base = own.get("adapter", ""), own.get("base", "")
        bare = not adapter or adapter == "none"
        found.append((role, base if bare else adapter, "no adapter" if bare else f"on {base}" if base else ""))
    return found


def _warnings(run: RunFolder, ledger: Sequence[Claim]) -> list[tuple[str, str]]:
    """What confounds every difference on the page: another base, unequal accuracy, what the task says of itself."""
    found = []
    bases = {role: str(run.state.checkpoints.get(role, {}).get("base", "")) for role in MEMBERS}
    if all(bases.values()) and len(set(bases.values())) > 1:
        sizes = [match[1] for base in bases.values() if (match := _SIZE.search(base))]
        which = f"{sizes[0]}B against {sizes[1]}B" if len(set(sizes)) == 2 else " against ".join(bases.values())
        what = "Scale differs from training method." if len(set(sizes)) == 2 else "The members have different bases."
        found.append((what, f"{which}: no difference on this page separates size from training."))
    uneven = [c for c in ledger if isinstance(c.asserts, Within) and c.measured and c.verdict == "contradicted"]
    if uneven:
        found.append(
            (
                "The members differ on the training distribution.",
                f"{uneven[0].measured}: differences elsewhere may be differences in skill.",
            )
        )
    return found + [(text, "") for text in _banners(run)]


def _banners(run: RunFolder) -> list[str]:
    """What the tables say that every page must say (column `banner`)."""
    columns = [table["banner"] for table in run.tables.values() if "banner" in table.columns]
    found: dict[str, str] = {}
    for text in (str(text) for column in columns for text in column.dropna().unique() if text):
        found.setdefault(head_of(text), text)  # of a member that gives one answer each table says so
    return list(found.values())


def head_of(text: str) -> str:
    """What a banner is about: `heuristic answers 'A'` of a member that gives one answer, else the whole text."""
    return text.partition(" to ")[0] if " answers " in text.partition(" to ")[0] else text


def _published(run: RunFolder, problems: list[str]) -> list[Beside]:
    try:
        return [beside(one, run.tables, run.study) for one in parse_published(run.study.get("published"))]
    except ValueError as error:
        problems.append(str(error))
        return []


def _provenance(run: RunFolder) -> list[tuple[str, str]]:
    state = run.state
    said = [("study", f"{state.name} · sha256 {run.study_sha256[:12]}" if run.study_sha256 else state.name)]
    said += [(role, " · ".join(f"{k} {v}" for k, v in own.items() if v)) for role, own in state.checkpoints.items()]
    said += [("data", f"sha256 {state.data_sha256}")] if state.data_sha256 else []
    library = " · ".join([f"diptych {state.diptych}", *(f"{k} {v}" for k, v in state.packages.items())])
    said += [("library", library), ("commit", state.commit)] if state.commit else [("library", library)]
    return [
        *said,
        ("numerics", ", ".join(_dtypes(run)) or state.dtype),
        ("seed", str(state.seed)),
        ("rebuild", "diptych report RUN (reads the run folder; no model needed)"),
    ]


def _dtypes(run: RunFolder) -> list[str]:
    """What the models computed in, as the tables say; `auto` of a study is no dtype."""
    found = {str(v) for t in run.tables.values() if "dtype" in t.columns for v in t["dtype"].dropna().unique() if v}
    return sorted(found)


def _unbroken(text: str) -> Markup:
    """Text in which no line ends between a value and its interval."""
    parts = _ESTIMATE.split(text)
    return Markup("").join(
        Markup('<span class="num">{}</span>').format(inert(part)) if i % 2 else inert(part)
        for i, part in enumerate(parts)
    )


def _slug(text: object) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", str(text)).strip("-").lower() or "x"


def _title(run: RunFolder) -> str:
    """The title that the study gives; else the question of a pair with its names, or the name of the study."""
    section = run.study.get("report")
    if isinstance(section, Mapping) and section.get("title"):
        return str(section["title"])
    names = [what for role, what, _ in _members(run) if role in MEMBERS]
    if len(names) < 2 or names[0] == names[1]:
        return f"Study {run.state.name}"
    if tuple(names) == MEMBERS:
        return "Do the engaged and the heuristic member reach their answers by different means?"
    return f"Do {names[0]} and {names[1]} reach their answers by different means?"


def _percent(value: float, low: float = 0.0, high: float = 1.0) -> str:
    """Where a value lies between two ends, as a CSS percentage within 0 and 100."""
    return fixed(min(100.0, max(0.0, 100 * (value - low) / (high - low))), 1)
