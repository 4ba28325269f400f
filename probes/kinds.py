"""Kinds of linear probes in one table: how each is fitted and what its scores mean. You can pass a function instead.

Your own kind is one function, used wherever a kind is named:

    def nearest_centroid(feats, labels, weights, C):   # labels 0/1 [label, example] -> coef, intercept
        ...

    probes.sweep(cache, kinds=["ridge", nearest_centroid], ...)
    diptych probes sweep CACHE --kinds ridge,my_probes:nearest_centroid ...
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from interp.import_path import function_for, imported

if TYPE_CHECKING:
    from jaxtyping import Float, Shaped
    from torch import Tensor

    from probes.layer import Scored
    from probes.splits import Split

_ARGUMENTS = ("feats", "labels", "weights", "C")


@dataclass(frozen=True)
class Kind:
    """One kind of linear probe.

    Attributes:
        name:   name in tables, options and file names.
        help:   one line for readers of tables and of `--help`.
        fit:    (feats [example, d_feature], labels 0/1 [label, example], weights [example], C) -> a probe for each
                label, as `Linear` or as (coef [label, d_feature], intercept [label]); the function or its import path
                `module:function`. A sweep gives float32 features, centred over all rows, and weights of 1.
        scaled: divide features by their standard deviation over DEV rows before the fit (no labels are used).
        loss:   loss by which C is chosen, out of fold. "log": scores are logits; "squared": scores are near -1 and 1;
                "rescaled": scores of any unit, squared error after the least-squares line from score to label.
        has_penalty: C changes the fit. Without it there is one fit, and the column C is empty.
        is_costly: every label needs an iterative fit. A single number of permutations or split seeds applies only to
                the other kinds, and at most 4 control labels are fitted.
        pipeline: import path of a function that scores all folds, Cs and labels at once, if that is faster or more
                exact than `fit` fold by fold; see `probes.layer.ridge_pipeline`.
        fit_classes: import path of a fit of several classes at once, for `Probe`; None: one against the rest.
    """

    name: str
    help: str = ""
    fit: Callable[..., Any] | str | None = None
    scaled: bool = True
    loss: Literal["log", "squared", "rescaled"] = "rescaled"
    has_penalty: bool = True
    is_costly: bool = False
    pipeline: str | None = None
    fit_classes: str | None = None

    @property
    def is_logit(self) -> bool:
        """sigmoid(score) is a probability of the label, so calibration of the scores themselves is reported."""
        return self.loss == "log"

    @property
    def function(self) -> Callable[..., Any] | None:
        """`fit`; imported first if it is an import path."""
        return imported(self.fit) if isinstance(self.fit, str) else self.fit


KindLike: TypeAlias = "str | Kind | Callable[..., Any]"
"""A name of `KINDS`, an import path `module:function`, a `Kind`, or a function as `Kind.fit`."""

KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "logistic",
            "L2-penalised logistic regression, to a certified optimum",
            loss="log",
            is_costly=True,
            pipeline="probes.layer:logistic_pipeline",
        ),
        Kind(
            "ridge",
            "least squares on labels -1 and 1, exact leave-fold-out",
            "probes.layer:fit_ridge",
            loss="squared",
            pipeline="probes.layer:ridge_pipeline",
        ),
        Kind(
            "massmean",
            "difference of class means of the raw features",
            "probes.layer:fit_mass_mean",
            scaled=False,
            has_penalty=False,
            fit_classes="probes.layer:fit_nearest_mean",
        ),
        Kind(
            "massmean-iid",
            "class means corrected for the covariance inside classes (regularised LDA)",
            "probes.layer:fit_lda",
            loss="log",
        ),
    )
}
"""The kinds of the library, in the order in which figures and claims prefer them."""

_CARRIED = ("logistic", "massmean")
SHUFFLED, SURFACE, RANDOM = "shuffled", "surface", "random"
CONTROLS: Mapping[str, str] = {
    SHUFFLED: "activations of the middle site, given to other rows",
    SURFACE: "features that need no model",
    "embed": "token embedding, before any layer",
}
"""Sites that are swept only for comparison -> their content; rows of kind `RANDOM` are random directions."""
MADE = (SHUFFLED, SURFACE)
"""Controls that no cache holds."""


def kind_of(kind: KindLike) -> Kind:
    """The kind that a name, an import path or a function stands for.

    A function is named by its import path if it can be imported from there, so that a stored sweep can be applied to
    another checkpoint; a function that cannot be imported (from a notebook, a closure) is named by its own name.

    Raises:
        ValueError: an unknown name, or a path that does not lead to a function(feats, labels, weights, C).

    Example:
        >>> kind_of("ridge").loss
        'squared'
    """
    if isinstance(kind, Kind):
        return kind
    if isinstance(kind, str):
        if kind in KINDS:
            return KINDS[kind]
        if ":" not in kind:
            raise ValueError(f"kind {kind!r}: expected one of {kinds_help()}.")
        value = imported(kind)
        return replace(value, name=kind) if isinstance(value, Kind) else _of_function(value, kind)
    return _of_function(kind, _name_of(kind))


def kinds_of(kinds: Iterable[KindLike]) -> dict[str, Kind]:
    """name -> kind, in the order given.

    Raises:
        ValueError: as `kind_of`; no kind; two kinds with one name.
    """
    listed = [kind_of(kind) for kind in kinds]
    names = [kind.name for kind in listed]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"kinds: expected one or more, each with a name of its own; got {', '.join(names) or 'none'}.")
    return dict(zip(names, listed, strict=True))


def checked_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names and import paths of kinds, as they are. Raises as `kinds_of`."""
    kinds_of(names)
    return names


def kinds_help() -> str:
    """The names that an option accepts.

    Example:
        >>> kinds_help()
        'logistic, ridge, massmean, massmean-iid, or the import path module:function of a fit'
    """
    return f"{', '.join(KINDS)}, or the import path module:function of a fit"


def label_of(name: str) -> str:
    """Name of a kind in figures; for an import path, the name of the function."""
    return name.rpartition(":")[2]


def in_order(names: Iterable[str]) -> list[str]:
    """Names of kinds in the order of the table, followed by other kinds in the order given.

    Example:
        >>> in_order(["my:centroid", "massmean", "ridge"])
        ['ridge', 'massmean', 'my:centroid']
    """
    return sorted(dict.fromkeys(names), key=rank)


def rank(name: str) -> int:
    """Index of a kind in the table: of several kinds, the one with the lowest index is shown and claimed. Kinds passed
    in come last."""
    return list(KINDS).index(name) if name in KINDS else len(KINDS)


def carried(swept: Iterable[str]) -> list[str]:
    """The kinds whose probes are applied to another checkpoint by default: logistic and massmean, or all."""
    names = in_order(swept)
    return [name for name in names if name in _CARRIED] or names


def permutations_of(kinds: Iterable[KindLike], *, n: int, costly: int) -> dict[str, int]:
    """Permutations of the null by kind: `n`, and `costly` of kinds that need an iterative fit for each."""
    return {name: costly if kind.is_costly else n for name, kind in kinds_of(kinds).items()}


def score_labels(
    kind: KindLike,
    feats: Float[Tensor, "example d_feature"],
    labels: Shaped[Tensor, "label example"],
    split: Split,
    *,
    Cs: Sequence[float],  # noqa: N803
    balanced: bool = False,
    tol: float = 1e-3,
) -> Scored:
    """Out-of-fold and TEST scores of every label with one kind of probe.

    C: the smallest whose mean out-of-fold loss (see `Kind.loss`) is within one standard error of the best. logistic
    scales features on each training fold; the other kinds that scale do so on all DEV rows (labels are not used), for
    ridge because only a common scale has exact leave-group-out for every label at once.

    Args:
        labels: 0/1, row 0 the real one.
        balanced: weight classes equally (logistic only).
        tol: see `probes.solver.solve` (logistic only).
    Raises:
        ValueError: unknown kind, NaN, a training fold with one class.
    Source: selection rule, Hastie, Tibshirani & Friedman, *Elements of Statistical Learning* §7.10.
    """
    from probes.layer import by_folds

    one, labels = kind_of(kind), labels.to(feats.device)
    if one.pipeline:
        return imported(one.pipeline)(feats, labels, split, Cs=Cs, balanced=balanced, tol=tol)
    assert one.function is not None, f"{one.name}: a kind has a fit or a pipeline"
    costs = Cs if one.has_penalty else (float("nan"),)
    return by_folds(one.function, feats, labels, split, Cs=costs, scaled=one.scaled, loss=one.loss)


def _of_function(function: object, name: str) -> Kind:
    fit = function_for(function, name, *_ARGUMENTS)
    return Kind(name, (fit.__doc__ or "").strip().partition("\n")[0], fit)


def _name_of(fit: Callable[..., Any]) -> str:
    name, module = getattr(fit, "__qualname__", type(fit).__name__), getattr(fit, "__module__", None)
    is_importable = module != "__main__" and getattr(sys.modules.get(module or ""), name, None) is fit
    return f"{module}:{name}" if is_importable else getattr(fit, "__name__", name)
