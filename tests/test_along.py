"""Scores of probes along replies: pooling, the choice on DEV and its null, decodable-at, confounds."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from probes.along import (
    POOLS,
    SELECTED,
    Axis,
    Curve,
    Traces,
    confound_scores,
    control_areas,
    curves,
    over_confounds,
    pooled,
)
from probes.decodable import decodable_at, later_by
from probes.held_out import held_out_probes, reply_confounds, token_scores
from probes.null import exchange, null_labels
from probes.result import RawDirection
from probes.splits import Split, group_split

AT = (0.0, 0.25, 0.5, 0.75, 1.0)


def replies(
    labels: np.ndarray, rng: np.random.Generator, *, n_looks: int = 1, starts: float = 0.5, effect: float = 3.0
) -> list[np.ndarray]:
    """Noise of 5 to 12 tokens, to which the label is added after a share of the tokens."""
    out = []
    for label in labels:
        n = int(rng.integers(5, 13))
        scores = rng.normal(size=(n_looks, n + 1))
        scores[:, max(0, 1 + int(np.ceil(starts * n))) :] += effect * label  # not the token at that share
        out.append(scores)
    return out


def traces(
    n: int = 60, *, seed: int = 0, n_perm: int = 39, crossed: bool = True, starts: float = 0.5, effect: float = 3.0
) -> Traces:
    """Replies of groups of two; labels vary between groups."""
    rng, groups = np.random.default_rng(seed), np.repeat(np.arange(n // 2), 2)
    labels = np.repeat(rng.permutation(np.arange(n // 2) % 2), 2)
    split = group_split(labels, groups=groups, n_folds=3, test_share="crossed" if crossed else 0.4, seed=seed)
    null = null_labels(labels, exchange(labels, split, scheme="auto", unit=None), n=n_perm, seed=seed)
    scores = replies(labels, rng, n_looks=len(split.looks()), starts=starts, effect=effect)
    return Traces(scores, labels, split, null)


def test_pooled_scores_are_those_of_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    scores, counts = rng.normal(size=(2, 9)), [0, 1, 3, 8]
    for pool, of in (("max", max), ("mean", lambda read: sum(read) / len(read)), ("last", lambda read: read[-1])):
        made = pooled(scores, counts, pool)
        for look in range(2):
            plain = [of(scores[look, 1 : 1 + k].tolist()) if k else scores[look, 0] for k in counts]
            np.testing.assert_allclose(made[look], plain, rtol=1e-12)
    with pytest.raises(ValueError, match="middle"):
        pooled(scores, counts, "middle")


def plain_auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    pairs = [(a > b) + (a == b) / 2 for a in scores[labels == 1] for b in scores[labels == 0]]
    return sum(pairs) / len(pairs)


@pytest.mark.parametrize("crossed", [True, False])
def test_pooling_and_curve_of_every_label_are_those_of_a_plain_loop(crossed: bool) -> None:
    given, axis = traces(n=36, n_perm=19, crossed=crossed), Axis("fraction", AT)
    made = curves(given, axis)[SELECTED]
    for j, labels in enumerate(given.everything):
        won, n_pairs, chosen = np.zeros(len(AT)), 0, []
        for i, part in enumerate(given.split.looks()):
            last = {pool: np.array([pooled(s, [s.shape[1] - 1], pool)[i, 0] for s in given.scores]) for pool in POOLS}
            best = max(POOLS, key=lambda pool: plain_auroc(last[pool][part.is_dev], labels[part.is_dev]))
            chosen.append(best)
            test = np.flatnonzero(part.is_test)
            n = int(labels[test].sum()) * int((1 - labels[test]).sum())
            for p, share in enumerate(AT):
                at = np.array([
                    pooled(s, [int(np.ceil(share * (s.shape[1] - 1)))], best)[i, 0] for s in given.scores
                ])  # fmt: skip
                won[p] += plain_auroc(at[test], labels[test]) * n
            n_pairs += n
        np.testing.assert_allclose(made.areas[j], won / n_pairs, rtol=1e-12)
        if j == 0:
            assert made.chosen == tuple(chosen)


def test_a_label_that_is_written_in_the_middle_is_decodable_from_there() -> None:
    curve = curves(traces(n=120, n_perm=99), Axis("fraction", AT), pools=["last"])["last"]
    at = decodable_at(curve)
    assert at.value == 0.75 and at.lo <= 0.75 <= at.hi and at.hi <= 1
    assert (curve.null.p_max[3:] <= 0.05).all() and curve.null.p_max[0] > 0.05
    words = curves(traces(n=120, n_perm=99), Axis("tokens", (0, 4, 8, 16)), pools=["last"])["last"]
    assert decodable_at(words).value == 8


def test_noise_is_decodable_nowhere_and_a_member_that_is_so_is_not_compared() -> None:
    noise = curves(traces(seed=3, effect=0.0), Axis("fraction", AT), pools=["last"])["last"]
    early = curves(traces(seed=3, starts=-0.2), Axis("fraction", AT), pools=["last"])["last"]
    late = curves(traces(seed=3, starts=0.6), Axis("fraction", AT), pools=["last"])["last"]
    assert not decodable_at(noise).is_reached
    assert np.isnan(later_by(noise, early).value)
    later = later_by(late, early)
    assert later.value == decodable_at(late).value - decodable_at(early).value > 0 and later.lo > 0
    assert later_by(early, late).value == -later.value
    with pytest.raises(ValueError, match="null"):
        decodable_at(curves(traces(n_perm=0), Axis("fraction", AT), pools=["last"])["last"])


def excess(seed: int, *, n_perm: int = 39, n: int = 40) -> bool:
    """Whether scores that know nothing of the label exceed the level anywhere."""
    given = traces(n=n, seed=seed, n_perm=n_perm, effect=0.0)
    curve = curves(given, Axis("fraction", AT))[SELECTED]
    assert curve.null is not None
    return bool((curve.areas[0] > curve.null.max_hi).any())


def test_scores_without_the_label_exceed_the_level_as_rarely_as_it_says() -> None:
    assert sum(excess(seed) for seed in range(24)) <= 4  # 5 % of 24 is 1.2; 5 or more have p = 0.006


@pytest.mark.long
def test_a_label_shuffled_probe_stays_inside_the_null_at_every_place() -> None:
    assert np.mean([excess(seed, n_perm=199, n=60) for seed in range(200)]) <= 0.07


def structured(seed: int, *, n_groups: int, is_within: bool, effect: float) -> Traces:
    """Replies of groups of 1 to 8 that share part of their score (intraclass correlation 0.3); the label is written in
    the middle, between groups or within them."""
    rng = np.random.default_rng([seed, n_groups])
    groups = np.repeat(np.arange(n_groups), rng.integers(1, 9, n_groups))
    of_group = rng.permutation(np.arange(n_groups) % 2)
    labels = rng.permutation(np.arange(len(groups)) % 2) if is_within else of_group[groups]
    split = group_split(labels, groups=groups, n_folds=3, test_share="crossed", seed=seed)
    null = null_labels(labels, exchange(labels, split, scheme="auto", unit=None), n=199, seed=seed)
    shared, n_looks = rng.normal(size=n_groups), len(split.looks())
    own = replies(labels, rng, n_looks=1, effect=effect / np.sqrt(0.7))
    scores = [np.repeat(np.sqrt(0.7) * one + np.sqrt(0.3) * shared[g], n_looks, axis=0)
              for one, g in zip(own, groups, strict=True)]  # fmt: skip
    return Traces(scores, labels, split, null)


@pytest.mark.long
@pytest.mark.parametrize("is_within", [False, True])
@pytest.mark.parametrize("n_groups", [8, 10, 20])
def test_few_unequal_groups_keep_the_coverage_of_decodable_at_and_the_level(n_groups: int, is_within: bool) -> None:
    """The truth is the first place at which the AUROC of endless data, Phi(effect / sqrt(2)), exceeds the level of the
    study; none where no place does."""
    covered, reached = [], []
    for seed in range(60):
        for effect in (2.0, 0.0):
            given = structured(seed, n_groups=n_groups, is_within=is_within, effect=effect)
            at = decodable_at(curves(given, Axis("fraction", AT), pools=["last"])["last"])
            if effect:
                truth = 0.75 if norm.cdf(effect / np.sqrt(2)) > at.level else np.inf
                covered.append(at.lo <= truth <= at.hi)
            else:
                reached.append(at.is_reached)
    assert np.mean(covered) >= 0.9  # 0.95 less two standard errors of 60 studies
    assert sum(reached) <= 8  # 5 % of 60 is 3; 9 or more have p = 0.003


def test_a_planted_length_is_caught_by_the_default_confounds() -> None:
    """Positives write more, and every token adds a little to the score: the label itself is nowhere."""
    rng, n = np.random.default_rng(1), 120
    labels = rng.permutation(np.arange(n) % 2)
    lengths = 10 + 6 * labels + rng.integers(0, 8, size=n)
    scores = [np.concatenate([[0.0], 0.1 * np.arange(k)])[None] + 0.2 * rng.normal(size=(1, k + 1)) for k in lengths]
    split = Split(np.where(np.arange(n) < n // 2, np.arange(n) % 2, -1), np.arange(n), 2)
    null = null_labels(labels, exchange(labels, split, scheme="within", unit=None), n=99, seed=0)
    given = Traces(scores, labels, split, null)
    matrix, names = reply_confounds(given.lengths, {"first_token": ["a"] * n})
    assert names == ("length",)
    axis = Axis("fraction", AT)
    plain, left = (curves(given, axis, pools=["last"], confounds=c)["last"] for c in (None, matrix))
    assert plain.estimates[-1].lo > 0.6 and decodable_at(plain).is_reached
    assert not decodable_at(left).is_reached
    alone, over = over_confounds(plain, confound_scores(matrix, labels, split))
    assert alone.value > 0.8 and over[-1].lo < 0.02


def test_confounds_of_replies_merge_rare_words_and_leave_out_what_is_the_same_everywhere() -> None:
    matrix, names = reply_confounds(
        np.full(14, 5), {"source": ["a"] * 6 + ["b"] * 6 + ["c", None], "first_token": [1] * 14}
    )
    assert names == ("source",) and matrix.shape == (14, 2)
    assert matrix.sum(axis=0).tolist() == [6, 2]  # b, and c with the missing one as "other"
    assert reply_confounds(np.full(14, 5), {})[0].shape == (14, 0)


def test_scores_of_tokens_are_a_plain_product() -> None:
    rng = np.random.default_rng(0)
    feats = rng.normal(size=(7, 16)).astype(np.float32)
    import torch

    unit = torch.nn.functional.normalize(torch.randn(16, generator=torch.Generator().manual_seed(0)), dim=0)
    direction = RawDirection(unit, norm=3.5, bias=-0.25, mean=0.0, std=1.0)
    plain = [sum(float(f) * float(u) * 3.5 for f, u in zip(row, unit, strict=True)) - 0.25 for row in feats]
    np.testing.assert_allclose(token_scores(feats, [direction, direction])[1], plain, rtol=0, atol=1e-6)


def test_held_out_probes_are_those_of_the_looks_and_controls_know_nothing() -> None:
    from probes import SweepConfig, sweep

    rng, groups = np.random.default_rng(0), np.repeat(np.arange(30), 3)
    labels = groups % 2
    feats = {"resid_post.0": rng.normal(size=(90, 6)) + 2 * labels[:, None]}
    result = sweep(feats, target=labels, groups=groups, kinds=["ridge"], config=SweepConfig(n_perm=19, n_seeds=1))
    cell = result.pick()
    made = held_out_probes(result, cell, feats, n_controls=19, seed=0)
    tested = result.tested(cell)
    given = []
    for i, (probe, part) in enumerate(zip(made, result.split.looks(), strict=True)):
        own = token_scores(feats["resid_post.0"], [probe.direction])[0]
        np.testing.assert_allclose(own[part.is_test], tested[part.is_test], atol=1e-5)  # scores of the sweep: float32
        given.append(token_scores(feats["resid_post.0"], probe.controls))
        assert i < result.split.n_folds
    scores = [np.repeat(np.stack([g[0, k] for g in given])[:, None], 2, axis=1) for k in range(90)]
    look = result.split.fold_of
    controls = [np.repeat(given[look[k]][:, k][:, None], 2, axis=1) for k in range(90)]
    null = null_labels(labels, exchange(labels, result.split, scheme="auto", unit=None), n=19, seed=0)
    along = Traces(scores, labels, result.split, null, controls)
    curve: Curve = curves(along, Axis("tokens", (0, 1)), pools=["last"])["last"]
    areas = control_areas(along, curve)
    assert areas.shape == (19, 2) and abs(areas.mean() - 0.5) < 0.2  # 19 directions of 6 dimensions, 30 groups


def test_replies_without_a_class_or_a_test_set_are_refused() -> None:
    given = traces(n=36)
    axis = Axis("fraction", AT)
    with pytest.raises(ValueError, match="both classes"):
        curves(Traces(given.scores, np.ones_like(given.labels), given.split, given.null), axis)
    with pytest.raises(ValueError, match="TEST"):
        part = Split(given.split.fold_of, given.split.group, 3)
        curves(Traces(given.scores, given.labels, part, given.null), axis)
    for name, at in (("fraction", (0.5, 1.5)), ("tokens", (4, 2)), ("fraction", ())):
        with pytest.raises(ValueError, match=name):
            Axis(name, at)


def test_a_reply_is_cut_at_a_token_and_asked_for_its_label_unless_it_has_come_to_it() -> None:
    from interp.replies import ReplyPrompt
    from study.analyses.along.forced import cut_text

    text, words = "ask: ", ["step ", "1 ", "[SIG=DECIDE] ", "yes"]
    offsets, at = [(0, 5)], 5
    for word in words:
        offsets.append((at, at + len(word)))
        at += len(word)
    reply = ReplyPrompt("a", text + "".join(words), tuple(range(5)), tuple(offsets), {"answer": (5, at)}, n_before=1,
                        decisions=(("label", 5 + len("step 1 [SIG=DECIDE]")),))  # fmt: skip
    cut = [cut_text(reply, n, "[SIG=DECIDE]") for n in range(5)]
    asked = "step 1 [SIG=DECIDE]"
    assert cut == ["[SIG=DECIDE]", "step [SIG=DECIDE]", asked, asked, asked]


def test_scores_of_forced_answers_are_worked_by_hand() -> None:
    from study.analyses.along.forced import Forced

    logp = np.log(np.array([[[0.5, 0.2, 0.1], [0.1, 0.1, 0.6]]]))
    forced = Forced(logp, ("a", "b", "c"))
    np.testing.assert_allclose(forced.scores("a"), [[np.log(0.5 / 0.3), np.log(0.1 / 0.7)]])
    np.testing.assert_allclose(forced.mass, [[0.8, 0.8]])
    np.testing.assert_allclose(forced.share_of(["c"]), [[0.125, 0.75]])
    assert np.isnan(forced.share_of([None])).all()
