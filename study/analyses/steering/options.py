"""Options of dose curves: the section `steering` of a study file, `diptych steer dose`, and what Python takes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from study.option_types import Count, Layer, Names, Quiet, Verified, Where
from study.options import STRICT, option
from study.task_options import WHERE

Unit = Literal["raw", "delta", "resid", "sd"]
_HOLDOUT = Annotated[float, Field(gt=0, lt=1)]


@dataclass(frozen=True, config=STRICT, kw_only=True)
class CurveOptions:
    """How a dose curve is computed: options of both a study file and `diptych steer dose`.

    Attributes:
        alphas: strengths in `unit`; 0 is among them.
        unit: raw, delta, resid or sd (`steering.Direction.scale`).
        positions: tokens that are steered: last, all, generated, prompt, or a rule of `interp.positions`.
        n_random, n_shuffled: control directions; the smallest p is 1/(1 + the fewer of them), none below 19.
        shuffled_length: "equal", all at the direction's norm; "own", each at its own (`steering.arms.shuffled_arms`).
        at, slot: see `study.analyses.steering.items.dose_items`.
        verify: share of rows recomputed; never less than 2 % for the first item.
        min_items, min_groups: fewest per class of the direction and in the curve.
    """

    alphas: str = option("-0.3:0.3:13", "Strengths: from:to:count, or a list of numbers.")
    unit: Unit = option("resid", "Unit of the strength: what alpha = 1 adds.")
    positions: str = option("last", "Tokens that are steered: last, all, at:5, ...")
    at: Names = option(
        (), "Decision sites of the task where the response is read, e.g. step_lookup,label; default: the label's."
    )
    slot: str = option(
        "auto", "Text before the label: own (the model's own reply), or a text that is forced on every item."
    )
    n_random: Annotated[int, Field(ge=0)] = option(
        59, "Number of random directions of equal norm; the smallest p is 1/(1 + n)."
    )
    n_complement: Annotated[int, Field(ge=0)] = option(5, "Number of random directions orthogonal to all named ones.")
    n_shuffled: Annotated[int, Field(ge=0)] = option(
        59, "Number of directions fitted to shuffled labels; requires the cache."
    )
    shuffled_length: Literal["equal", "own"] = option(
        "equal", "Norm of shuffled directions: equal to that of the direction, or their own."
    )
    verify: Verified = option(0.0, "Share of rows that are recomputed with ordinary hooked passes.")
    min_items: Count = option(50, "Smallest number of examples allowed per class.", flag="--min-class")
    min_groups: Count = option(10, "Smallest number of independent groups allowed.")
    boot: Annotated[int, Field(ge=1)] = option(2000, "Number of resamples for an interval.")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class DoseOptions(CurveOptions):
    """How the directions of a file are steered, on the command line and in Python.

    Attributes:
        layers: layers of the directions that are steered, one at a time; None: all layers in the file.
        baseline: see `study.analyses.steering.items.dose_items`.
        cache: folder that the direction was fitted on; with it come label-shuffled controls.
        labels, strata: example id -> class or stratum, if the direction was fitted on classes from a file.
        neutral: texts for perplexity; None takes plain English sentences where the tokenizer knows their words, empty
            leaves it out.
        seed: seed of the controls and the resamples.
    """

    layers: tuple[int, ...] | None = option(None, "Layers of the direction file to steer, e.g. 12,14; default: all.")
    baseline: str | None = option(None, "Instruction to compare steering with; '' for none.", flag="--prompt-baseline")
    cache: Path | None = option(None, "Cache on which the direction was fitted.", is_command=False)
    labels: Mapping[str, str] | None = option(None, "Example id -> class.", is_command=False)
    strata: Mapping[str, str] | None = option(None, "Example id -> stratum.", is_command=False)
    neutral: Names | None = option(None, "Texts for perplexity.", is_command=False)
    seed: int = option(0, "Seed of the controls and the resamples.", is_command=False)


@dataclass(frozen=True, config=STRICT, kw_only=True)
class SteeringOptions(CurveOptions):
    """Dose curves of a difference of means, per member; see `diptych steer fit` and `diptych steer dose`.

    Attributes:
        toward, away_from: classes of `target` between which the direction points; +alpha moves toward the first.
        target: column of the cached examples; `answer`, `answer.<score>` and `answer.side` as of the probes.
        where: conditions; only rows that meet them have a class, as for the probes.
        groups: column of the independent unit; whole groups are held out of the fit, and steered.
        orthogonal_to: further (toward, away_from) pairs; the direction is made orthogonal to their directions, each of
            which is also an arm.
        layers: layers to steer, one at a time: block indices, or percentages of a member's depth such as 50%; default:
            every layer of the cache.
        position: rule of the cache that the direction is fitted at; `positions` are the tokens that are steered.
        limit: steer at most this many held-out items.
    """

    groups: str = option(help="Column of the independent unit.")
    toward: str = option(help="Class that +alpha moves toward.")
    away_from: str = option(help="Class that +alpha moves away from.")
    target: str = option("label", "Column of the cached examples that holds the class.")
    where: Where = option({}, "Only rows that meet these conditions have a class.")
    orthogonal_to: tuple[tuple[str, str], ...] = option(
        (), "Further (toward, away_from) pairs of classes; the direction is made orthogonal to theirs."
    )
    layers: Annotated[tuple[Layer, ...], Field(min_length=1)] | None = option(
        None, "Block indices or percentages of depth."
    )
    position: str | None = option(None, "Position rule of the cache.")
    balance: Literal["none", "classes", "strata"] = option("none", "How the class means are balanced.")
    test_share: _HOLDOUT = option(0.4, "Share of the groups that is held out of the fit and then steered.")
    n_random: Annotated[int, Field(ge=19)] = option(59, "Number of random directions of equal norm.")
    boot: Annotated[int, Field(ge=100)] = option(2000, "Number of resamples for an interval.")
    limit: Count | None = option(None, "Steer at most N held-out items.")
    members: Names = option(("engaged", "heuristic"), "Members to steer.")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class FitOptions:
    """Which classes a direction leads between, and on which rows and sites of a cache it is fitted.

    Attributes:
        toward, away: classes of `target`; several, joined by "+", make one side.
        labels_file: table with `id` and `target`, in place of the cache's own column.
        orthogonal_to: files of directions that are taken out at each site.
        from_probes: folder of a sweep, whose weights are taken in place of the means.
    """

    toward: str = option(help="Class that +alpha moves toward; join several by '+' to make one side.")
    away: str = option(help="Class that +alpha moves away from.")
    target: str = option("label", "Column of the cache's examples that holds the class.")
    labels_file: Path | None = option(
        None,
        "CSV, JSONL or Parquet file with `id` and the --target column, e.g. the model's own answers.",
        flag="--labels",
    )
    sites: str = option("resid_post.*", "Sites, written as for `cache`: 'resid_post.20', 'resid_post.8:24:4'.")
    positions: str | None = option(None, "Position rule of the cache; may be omitted if the cache has only one.")
    balance: Literal["none", "classes", "strata"] = option("none", "How the class means are balanced.")
    strata: str = option("auto", "Column to balance over; 'labels:NAME' is a column of --labels.")
    groups: str = option("auto", "Column of the independent unit, or 'none'.")
    fit_on: str | None = option(None, "Examples to fit on, e.g. 'split=train'; the others check the sign.")
    where: Where = option({}, WHERE)
    weighting: Literal["harmonic", "uniform"] = option("harmonic", "Weights of the strata.")
    orthogonal_to: tuple[Path, ...] = option(
        (), "File of directions to orthogonalize against at each site; can be repeated.", is_repeated=True
    )
    from_probes: Path | None = option(
        None, "Folder of a probe sweep; use the weights of its probes instead of differences of means."
    )
    probe_kind: str = option("logistic", "Kind of probe, with --from-probes.")
    sign_check: bool = option(True, "Leave out every site where held-out rows contradict the sign.")
    seed: int = option(0, "Seed of the random halves of the groups.")
    name: str = option("", "Name of the direction in tables.")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class FitFiles:
    """What is read and written."""

    cache: Path = option(is_argument=True)
    out: Path = option(help="File to write, NAME.safetensors; NAME.json is written next to it.")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class ShowOptions:
    """Which directions."""

    path: Path = option(is_argument=True)
    site: str | None = option(None, "Show all statistics of one site instead of the table.")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class ExportOptions:
    """Which directions, and what is written."""

    path: Path = option(is_argument=True)
    format: Literal["gguf", "hf-weights"] = option(
        help="gguf: a control vector to add; hf-weights: a model folder with the direction ablated."
    )
    out: Path | None = option(None, "File or folder to write; default: next to PATH, with the same name.")
    sites: str = option("", "Sites of PATH whose directions are written; gguf takes any number, hf-weights one.")
    alpha: float = option(1.0, "Strength that is written (gguf).")
    unit: Unit = option("raw", "Unit of the strength: what alpha = 1 adds (gguf).")
    model_hint: str | None = option(
        None, "Architecture named in the file (gguf); default: that in the checkpoint's config."
    )


@dataclass(frozen=True, config=STRICT, kw_only=True)
class StudyFiles(Quiet):
    """What every dose study writes, and the texts of its perplexity."""

    neutral: Path | None = option(None, "Texts for perplexity, one per line; default: plain English.")
    out: Path = option(help="Folder for the results.")

    def texts(self) -> tuple[str, ...] | None:
        """Lines of `neutral`; None where no file is named."""
        if self.neutral is None:
            return None
        return tuple(filter(str.strip, self.neutral.read_text(encoding="utf-8").splitlines()))


@dataclass(frozen=True, config=STRICT, kw_only=True)
class DoseFiles(StudyFiles):
    """What is steered, and what it was fitted on."""

    direction: Path = option(help="File of directions written by `steer fit`.")
    orthogonal_to: tuple[Path, ...] = option(
        (), "File of a direction to orthogonalize against; can be repeated.", is_repeated=True
    )
    cache: Path | None = option(None, "Cache on which the direction was fitted; adds label-shuffled controls.")
    labels: Path | None = option(None, "File of classes that was passed to `steer fit --labels`, if any.")
    target: str = option("label", "Column of the class, as in `steer fit`.")
    strata: str = option("", "labels:COLUMN, if `steer fit` balanced over a column of that file.")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class PairFiles(StudyFiles):
    """Directions of both members, and what they were fitted on."""

    engaged: Path = option(help="Direction file fitted on the engaged member.")
    heuristic: Path = option(help="Direction file fitted on the heuristic member.")
    engaged_cache: Path | None = option(None, "Cache of the engaged member; adds label-shuffled controls.")
    heuristic_cache: Path | None = option(None, "Cache of the heuristic member; adds label-shuffled controls.")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class DrawnFolder:
    """A dose study on disk."""

    folder: Path = option(is_argument=True)
