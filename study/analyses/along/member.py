"""The curves of one member: its scored replies, compared after each part of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from interp.stats import Estimate, Sampling
from probes.along import SELECTED, TOKENS, Axis, Curve, Traces, confound_scores, control_areas, curves, over_confounds
from probes.decodable import DecodableAt, decodable_at
from probes.null import exchange, null_labels
from probes.splits import Split
from study.analyses.along.forced import Forced
from study.analyses.along.inputs import Labelled, Probe, confounds_of
from study.analyses.along.read import TokenScores, spans_of, texts_of

if TYPE_CHECKING:
    from interp.prompt import Example
    from interp.replies import ReplyPrompt
    from study.analyses.along.options import AlongOptions
    from study.analyses.cache.replies import Replies
    from study.rows import Row

DECISIONS = ("prompt", "first", "last")
"""Places of the axis "decision": the last token of the prompt, the first and the last decision of a reply."""
PROBE, RESIDUAL, FORCED = "probe", "residual", "forced"


@dataclass(frozen=True, eq=False)
class Read:
    """The scored replies of one member, in one order.

    Attributes:
        read_by: member whose activations they are.
        prompts, examples, answers, scores: of each scored reply.
        looks: look that shows each.
        forced: log-probabilities of the labels where each is cut; None where none was asked.
    """

    member: str
    read_by: str
    probe: Probe
    replies: Replies
    labelled: Labelled
    prompts: Sequence[ReplyPrompt]
    scores: Sequence[TokenScores]
    looks: np.ndarray
    forced: Forced | None = None

    @property
    def examples(self) -> list[Example]:
        return [self.replies.examples[k] for k in self.labelled.at]

    @property
    def answers(self) -> list[Row]:
        return [self.replies.answers[k] for k in self.labelled.at]

    @property
    def keys(self) -> list[tuple[str, int]]:
        """Item and sample of each reply."""
        return [(str(answer["example_id"]), int(answer["sample"])) for answer in self.answers]

    @property
    def decisions(self) -> list[tuple[int, ...] | None]:
        """Tokens read at the first and the last decision of each reply, after the 0 of the prompt; None without one."""
        places = [sorted(spans_of(prompt)) for prompt in self.prompts]
        return [(0, at[0] + 1, at[-1] + 1) if at else None for at in places]


@dataclass(frozen=True, eq=False)
class AxisCurves:
    """All curves of one member on one axis.

    Attributes:
        by_role:   "probe": scores as they are; "residual": without the confounds -> pooling -> curve.
        main:      name of the pooling that is reported: "selected", or the only one.
        controls:  AUROC under the probes of shuffled labels [control, place], pooled like the main curve.
        confounds: names of those that vary.  alone: AUROC of them alone; None without any.
        over:      AUROC of the probe minus that, at each place.
        crossings: role -> decodable-at of the main curve; on the axis "decision", or without a null, none.
        tested:    place among the scored replies of each tested one.
    """

    axis: Axis
    by_role: Mapping[str, Mapping[str, Curve]]
    main: str
    controls: np.ndarray
    confounds: tuple[str, ...]
    alone: Estimate | None
    over: Sequence[Estimate]
    crossings: Mapping[str, DecodableAt]
    tested: np.ndarray
    scheme: str

    @property
    def curve(self) -> Curve:
        """The reported curve of the scores as they are."""
        return self.by_role[PROBE][self.main]


def longest_of(reads: Sequence[Read]) -> int:
    """Number of tokens of the longest reply of all members."""
    return max(one.looks.shape[1] - 1 for read in reads for one in read.scores)


def curves_of(read: Read, options: AlongOptions, *, longest: int, seed: int) -> dict[str, AxisCurves]:
    """Curves along shares of the reply, along tokens, and at decisions where the task names them.

    Args:
        longest: number of tokens up to which replies are read, the same for members that are compared.

    Raises:
        ValueError: as `probes.along.curves`.
    """
    everyone = np.arange(len(read.scores))
    n_places = int(np.searchsorted(TOKENS, longest)) + 1
    out = {
        "fraction": _on_axis(read, Axis("fraction", options.fractions), everyone, options, seed),
        "tokens": _on_axis(read, Axis("tokens", TOKENS[:n_places]), everyone, options, seed),
    }
    decided = [(k, at) for k, at in enumerate(read.decisions) if at is not None]
    rows = np.array([k for k, _ in decided], dtype=int)
    if _can_compare(read, rows):
        axis = Axis("decision", (0.0, 1.0, 2.0), tuple(at for _, at in decided))
        out["decision"] = _on_axis(read, axis, rows, options, seed)
    return out


def forced_curve(read: Read, options: AlongOptions, *, seed: int) -> tuple[Curve, DecodableAt | None]:
    """AUROC of the forced answers for the target, on the replies and with the null of the probe's curve."""
    assert read.forced is not None
    split, labels = read.labelled.split, read.labelled.labels
    everyone, sampling = np.arange(len(labels)), Sampling(seed=seed, n_resamples=options.boot)
    null, _ = _null(read, split, labels, everyone, options, seed)
    values, n_looks = read.forced.scores(read.probe.cell.target), len(split.looks())
    # a column in front for token -1; then a column for each place
    scores = [np.tile(np.concatenate([[0.0], row]), (n_looks, 1)) for row in values]
    places = tuple(range(1, values.shape[1] + 1))
    axis = Axis("fraction", options.fractions, tuple(places for _ in scores))
    curve = curves(Traces(scores, labels, split, null), axis, pools=["last"], sampling=sampling)["last"]
    return curve, None if curve.null is None else decodable_at(curve, sampling=sampling)


def _can_compare(read: Read, rows: np.ndarray) -> bool:
    """Whether replies with a decision are of both classes, held out and in two groups."""
    split = _part(read.labelled.split, rows)
    tested = split.is_tested
    return len(np.unique(read.labelled.labels[rows][tested])) == 2 and len(np.unique(split.group[tested])) > 1


def _part(split: Split, rows: np.ndarray) -> Split:
    return Split(split.fold_of[rows], split.group[rows], split.n_folds, split.reason, split.is_crossed)


def _on_axis(read: Read, axis: Axis, rows: np.ndarray, options: AlongOptions, seed: int) -> AxisCurves:
    sampling = Sampling(seed=seed, n_resamples=options.boot)
    split, labels = _part(read.labelled.split, rows), read.labelled.labels[rows]
    null, scheme = _null(read, split, labels, rows, options, seed)
    scores = [read.scores[k] for k in rows]
    traces = Traces([one.looks for one in scores], labels, split, null, [one.controls for one in scores])
    by_role = {PROBE: curves(traces, axis, pools=options.pool, sampling=sampling)}
    main = SELECTED if len(options.pool) > 1 else next(iter(options.pool))
    matrix, names = confounds_of(
        options, [read.examples[k] for k in rows], traces.lengths, [texts_of(read.prompts[k])[1] for k in rows]
    )
    alone, over = None, []
    if names:
        by_role[RESIDUAL] = curves(traces, axis, pools=options.pool, confounds=matrix, sampling=sampling)
        alone, over = over_confounds(by_role[PROBE][main], confound_scores(matrix, labels, split))
    crossings = {}
    if axis.name != "decision":
        mains = {role: one[main] for role, one in by_role.items() if one[main].null is not None}
        crossings = {role: decodable_at(curve, sampling=sampling) for role, curve in mains.items()}
    controls = control_areas(traces, by_role[PROBE][main])
    tested = rows[split.is_tested]
    return AxisCurves(axis, by_role, main, controls, names, alone, over, crossings, tested, scheme)


def _null(
    read: Read, split: Split, labels: np.ndarray, rows: np.ndarray, options: AlongOptions, seed: int
) -> tuple[np.ndarray, str]:
    """Permuted labels of the replies; several replies to one item move together."""
    if not options.perm:
        return np.empty((0, len(labels)), dtype=int), ""
    items = [read.keys[k][0] for k in rows]
    unit = np.unique(items, return_inverse=True)[1].reshape(-1) if len(set(items)) < len(items) else None
    one = exchange(labels, split, scheme="auto", unit=unit)
    return null_labels(labels, one, n=options.perm, seed=seed + 1), one.scheme
