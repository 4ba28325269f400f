"""Options of a sweep of probes: the section `probes` of a study file, `diptych probes sweep`, and what Python takes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.dataclasses import dataclass

from probes.kinds import checked_names, kinds_help, permutations_of
from study.option_types import Count, Names, Where
from study.options import STRICT, option
from study.task_options import WHERE

if TYPE_CHECKING:
    from probes import SweepConfig


def _test_share(value: object) -> object:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1:
        return float(value)
    if value not in ("auto", "crossed"):
        raise ValueError(f"expected auto, crossed or a share from 0 to below 1, got {value!r}")
    return value


def _permutations(value: int) -> int:
    if 0 < value < 19:
        raise ValueError(f"expected 0 for no null, else 19 or more: {value} give no p of 0.05")
    return value


TestShare = Annotated[float | str, BeforeValidator(_test_share)]
Permutations = Annotated[int, Field(ge=0), AfterValidator(_permutations)]


@dataclass(frozen=True, config=STRICT, kw_only=True)
class HeldOut:
    """How many groups a probe is tested on."""

    test_share: TestShare = option(
        "auto",
        "Share of groups held out as TEST (0: none); crossed: every fold is TEST once; auto: crossed below 80 "
        "groups, otherwise 0.25.",
    )


@dataclass(frozen=True, config=STRICT, kw_only=True)
class ProbesOptions(HeldOut):
    """Linear probes per layer of every member's cache; see `diptych probes sweep`.

    Attributes:
        targets: columns of the cached examples, one sweep each. Beside them, where the study has eval: `answer`, what
            the member answered, `answer.<score>`, what that was worth (answer.correct, answer.biased), and, of a task
            with sides, `answer.side` (stereotype, anti_stereotype, abstain). `<column>.shuffled` is a column with its
            values permuted over the examples: a negative control that goes through the whole pipeline.
        groups: column of the independent unit; no group is in both training and test.
        control: column of the unit that control labels are drawn for.
        where: rows that are kept: column -> values, e.g. {context_condition: [ambig]}, or conditions as `--where` takes
            them, e.g. [context_condition=ambig, n_tokens<200].
        unit: column of the rows that move together inside a group under the null (twins, scenarios, samples); auto: the
            finest group of the examples inside `groups`; none.
        test_share: share of groups held out as TEST; crossed: every fold is TEST once; auto: crossed below 80 groups.
        split_seeds: seeds of the split over which the spread of AUROC is given (closed forms).
        transfer: apply one member's probes to the other, if widths allow it: at equal layers, or every layer's probe at
            every layer.
    """

    groups: str = option(help="Column of the independent unit, or 'none' with --independent-because.")
    targets: Annotated[Names, Field(min_length=1)] = option(
        ("label",), "Columns that hold the labels.", is_command=False
    )
    positive: str | None = option(
        None, "Label that counts as 1; default: the larger of two, or each in turn if there are more."
    )
    unite: str | None = option(None, "Column (such as text_sha256): groups that share a value of it are merged.")
    unit: str = option(
        "auto",
        "Column of the rows that move together inside a group (twins, scenarios); auto: the finest group of the "
        "examples inside --groups; none.",
    )
    control: str | None = option(
        None, "Column of the unit for which control labels are drawn (an entity); not the groups."
    )
    confounds: Names = option(
        (), "Confounds: columns that are regressed out of the activations, as a second probe next to the first."
    )
    surface: Names = option((), "Columns that are known without the model; they are probed on their own as a baseline.")
    where: Where = option({}, WHERE)
    cohort: str | None = option(None, "Column; TEST is scored separately for each of its values.")
    positions: str = option("*", "Positions of the cache, separated by commas; *: all that have one row per example.")
    sites: str = option("*", "Sites, written as for `cache`: 'resid_post.*, resid_post.8:24:4, z.1?'.")
    kinds: Annotated[Names, AfterValidator(checked_names)] = option(
        ("logistic", "ridge", "massmean"), f"Kinds of probes: {kinds_help()}."
    )
    cs: tuple[float, ...] = option((0.0001, 0.001, 0.01, 0.1, 1.0), "Inverse penalties C to choose from on DEV.")
    n_folds: Annotated[int, Field(ge=2)] = option(5, "Largest number of folds of DEV.", flag="--folds")
    perm: Permutations = option(999, "Number of permutations of the null, for kinds with a closed form.")
    logistic_perm: Permutations = option(0, "Number of permutations for logistic probes; each costs folds x Cs fits.")
    scheme: Literal["auto", "group", "unit", "between", "within"] = option("auto", "What is permuted under the null.")
    split_seeds: Count = option(
        5, "Number of split seeds over which the spread of AUROC is given, for kinds with a closed form."
    )
    boot: Annotated[int, Field(ge=100)] = option(2000, "Number of resamples for an interval.")
    balanced: bool = option(False, "Weight classes equally in logistic probes.")
    transfer: Literal["none", "same-layer", "all-layers"] = option(
        "same-layer", "Apply one member's probes to the other.", is_command=False
    )

    def config(self, *, seed: int) -> SweepConfig:
        """What `probes.sweep` takes."""
        from probes import SweepConfig

        return SweepConfig(
            kinds=self.kinds,
            Cs=tuple(sorted(self.cs)),
            n_perm=permutations_of(self.kinds, n=self.perm, costly=self.logistic_perm),
            n_folds=self.n_folds,
            test_share=self.test_share,  # pyright: ignore[reportArgumentType]
            n_boot=self.boot,
            balanced=self.balanced,
            seed=seed,
            scheme=self.scheme,
            n_seeds=self.split_seeds,
        )


@dataclass(frozen=True, config=STRICT, kw_only=True)
class SweepOptions:
    """What a sweep of one cache needs besides, where no study says it.

    Attributes:
        target: column of the cache's examples, in place of `ProbesOptions.targets`.
        independent_because: why rows are independent, where `groups` is none.
        base: cache of the base checkpoint on the same data, whose probes are a control.
    """

    cache: Path = option(is_argument=True)
    target: str = option(help="Column of the cache's examples that holds the label.")
    independent_because: str = option("", "Reason why rows are independent; required with --groups none.")
    base: Path | None = option(None, "Cache of the base checkpoint on the same data, as a control.")
    seed: int = option(0, "Seed of splits, permutations and resamples.")
    name: str | None = option(None, "Name of the checkpoint in tables; default: the name of the cache's folder.")
    jobs: Count = option(1, "Number of processes; each fits some of the sites.")
    device: str = option("cpu", "Device on which probes are fitted: cpu, cuda, ...")
    out: Path = option(help="Folder for the sweep.")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class SiteOptions:
    """Which sites of a cache, and whose labels."""

    cache: Path = option(is_argument=True)
    sites: str = option("resid_post.*", "Patterns of sites, separated by commas.")
    position: str = option("last", "Position of the cache.")
    target: str = option(help="Column of the cache's examples that holds the label.")
    positive: str | None = option(None, "Label that counts as 1; default: the larger of two.")
    groups: str = option(help="Column of the independent unit.")
    unit: str = option("auto", "Column of the rows that move together inside a group (twins, scenarios).")
    where: Where = option({}, WHERE)
    seed: int = option(0, "Seed of the order of groups, of splits and of resamples.")
    out: Path | None = option(None, "CSV file to write; default: print only.")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class MdlOptions:
    """How a code is made and tested."""

    cs: tuple[float, ...] = option((0.0001, 0.001, 0.01, 0.1, 1.0), "Inverse penalties C in the mixture.")
    orders: Count = option(3, "Number of random orders of the groups.")
    shuffled: Annotated[int, Field(ge=19)] = option(19, "Number of permutations of the labels.")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class EraseOptions(HeldOut):
    """What is erased, and what is held out."""

    c: float = option(1.0, "Inverse penalty C.")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class RecallOptions:
    """Which probe, and the bound on its false positives."""

    max_fpr: Annotated[float, Field(ge=0, lt=1)] = option(0.01, "Largest false-positive rate.")
    kind: str = option("ridge", f"Kind of probe: {kinds_help()}.")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class TransferOptions:
    """Which sweep is read on which cache, and how."""

    folder: Path = option(is_argument=True, metavar="SWEEP")
    cache: Path = option(is_argument=True)
    all_layers: bool = option(
        False, "Apply every layer's probe at every layer, from each member to itself and to the other."
    )
    align: Literal["none", "ridge"] = option("none", "Fit a map between models of different width, with its control.")
    kinds: Names = option((), "Kinds of probes to apply; default: logistic and massmean, if swept.")
    name: str | None = option(None, "Name of the checkpoint of CACHE in tables; default: the name of its folder.")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class FiguresOptions:
    """Which sweeps are drawn; a pattern that no shell has expanded is expanded."""

    folders: tuple[str, ...] = option(is_argument=True, metavar="SWEEP...")
    out: Path | None = option(None, "Folder for the figures; default: the folder figures of the first SWEEP.")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class CompareOptions:
    """Two sweeps of the same rows."""

    first: Path = option(is_argument=True)
    second: Path = option(is_argument=True)
    kind: str = option("ridge", "Kind of probe.")
    target: str | None = option(None, "Target to compare, if several were swept.")
