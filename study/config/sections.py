"""The sections of a study file. Defaults live here and nowhere else; every value is checked before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from interp.checkpoint import Checkpoint, CheckpointPair
from interp.label_mass import MIN_MASS
from study.analyses.along.options import AlongOptions
from study.analyses.cache.options import CacheOptions
from study.analyses.eval.options import EvalOptions
from study.analyses.heads.options import HeadsOptions
from study.analyses.oracle.options import OracleOptions
from study.analyses.probes.options import ProbesOptions
from study.analyses.steering.options import SteeringOptions
from study.load_options import LoadOptions
from study.option_types import Count, Share
from study.options import STRICT
from study.task_options import TaskOptions

Aspect = str | Mapping[str, str | int | float | bool | None]
Effect = Annotated[float, Field(gt=0)]


@dataclass(frozen=True, config=STRICT)
class FiguresSection:
    """Figures from the tables: `formats` among pdf, svg, png; width by `style`."""

    formats: tuple[Literal["pdf", "svg", "png"], ...] = ("pdf", "svg", "png")
    style: Literal["paper", "notebook"] = "paper"


@dataclass(frozen=True, config=STRICT)
class KnownTruthSection:
    """What was planted in the pair, compared with what the run claims. The embedded pair has this section by itself.

    Attributes:
        path: import path `module:NAME` of a sequence of `study.known_truth.Truth`.
    """

    path: str


@dataclass(frozen=True, config=STRICT)
class ReportSection:
    """The report page of the run."""

    title: str | None = None


@dataclass(frozen=True, config=STRICT)
class SmallestEffects:
    """Smallest effect of interest of each kind of claim, measured from its null. An effect that is shown to be smaller
    is not supported; one that may be smaller is at most qualified.

    Attributes:
        accuracy: difference of accuracies, accuracy above chance, share that an oracle may be below a linear probe.
        auroc: AUROC above 0.5.
        auroc_loss: largest loss of AUROC at which a transferred probe counts as good as one fitted on the target.
        logits: effect of a head on the log-odds of the answer.
        margin_slope: logits per unit of alpha, of a direction.
        rate_slope: rate (commit bias, coverage, accuracy) per unit of alpha.
        nats: control gap of an oracle, per answer token.
    """

    accuracy: Effect = 0.05
    auroc: Effect = 0.05
    auroc_loss: Effect = 0.05
    logits: Effect = 0.1
    margin_slope: Effect = 0.1
    rate_slope: Effect = 0.05
    nats: Effect = 0.05


@dataclass(frozen=True, config=STRICT)
class Published:
    """A number from a published source. Ours is printed next to it only if both measure the same thing.

    Each of `model`, `prompt`, `decoding`, `data` and `metric` says whether they match: `same`, if the author of the
    study has checked it; a mapping of keys of this study to the value that the source used, e.g. {eval.temperature:
    0.1}, which is compared with the study as it was run (paths by their last part); or a sentence that says what
    differs. Blank: the source does not state it, or it was not checked, so the two are not comparable.

    Attributes:
        name: what the number is, in words.
        value: as published.
        source: where it was published.
        leaves_out: what the source does not state (n, definition, positions), to make clear what is compared.
        table, where: our table, and column -> value of the one corresponding row; none if there is no such row.
        n: items behind the published number, if stated.
        before: for a published change, the value before the change; our row is then a difference.
        model, prompt, decoding, data, metric: `same`, {key: value that the source used}, or what differs.
        not_comparable: why ours is a different quantity; nothing else is then compared.
    """

    name: str
    value: float
    source: str = ""
    leaves_out: str = ""
    table: str | None = None
    where: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    n: Count | None = None
    before: float | None = None
    model: Aspect = ""
    prompt: Aspect = ""
    decoding: Aspect = ""
    data: Aspect = ""
    metric: Aspect = ""
    not_comparable: str = ""


@dataclass(frozen=True, config=STRICT)
class Study:
    """Everything that defines a run. A step runs if its section is given (the section may be empty).

    Attributes:
        name: name of the study; letters, digits and _ . + -.
        pair: `embedded`, a file, or the pair itself; or
        checkpoint: a single checkpoint.
        seed: seed of splits, resamples and nulls, and of items if `task.seed` is not given.
        claim_margin: largest difference in accuracy that still counts as equal.
        min_label_mass: smallest label mass at which the report makes claims about answers taken from label
            probabilities (0: always; below 0.5 a claim is qualified at best).
        smallest_effects: smallest effect of interest for each kind of claim.
        added: sections of analyses from other packages, by name.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$")]
    task: TaskOptions
    pair: CheckpointPair | None = None
    checkpoint: Checkpoint | None = None
    is_embedded: bool = False
    seed: int = 0
    claim_margin: Annotated[float, Field(gt=0, lt=1)] = 0.05
    min_label_mass: Share = MIN_MASS
    smallest_effects: SmallestEffects = field(default_factory=SmallestEffects)
    load: LoadOptions = field(default_factory=LoadOptions)
    eval: EvalOptions | None = None
    cache: CacheOptions | None = None
    probes: ProbesOptions | None = None
    along: AlongOptions | None = None
    heads: HeadsOptions | None = None
    steering: SteeringOptions | None = None
    oracle: OracleOptions | None = None
    known_truth: KnownTruthSection | None = None
    figures: FiguresSection | None = field(default_factory=FiguresSection)
    report: ReportSection | None = field(default_factory=ReportSection)
    published: tuple[Published, ...] = ()
    added: Mapping[str, Any] = field(default_factory=dict)

    def section(self, name: str) -> Any:
        """The section of that name, of another package's analysis too; None where the study has none."""
        return self.added.get(name, getattr(self, name, None))

    @property
    def what(self) -> CheckpointPair | Checkpoint:
        """The pair, or the single checkpoint."""
        return self.pair or self.single

    @property
    def single(self) -> Checkpoint:
        """The single checkpoint of a study without a pair."""
        assert self.checkpoint is not None, "parse_study refuses a study without pair and checkpoint"
        return self.checkpoint

    @property
    def members(self) -> dict[str, Checkpoint]:
        """Role -> checkpoint."""
        return self.pair.members if self.pair else {self.single.name: self.single}


SECTIONS = ("eval", "cache", "probes", "along", "heads", "steering", "oracle", "known_truth", "figures", "report")
"""Sections that are steps, in the order in which they run where they are free to."""
