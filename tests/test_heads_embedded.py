"""The embedded pair: the planted head is found, the model card's own measurement is met, backups are not overlooked."""

from __future__ import annotations

import json
from random import Random

import numpy as np
import pytest

from interp.heads import HeadEffects, LabelAccuracy, LogitDiff, Mean, TokenPair, head_sweep
from interp.loading import load
from interp.model import Model
from interp.stats import Sampling
from interp.tasks.procedural.documents import training_documents
from study.embedded import embedded_pair, weights_folder
from study.embedded.batches import collate
from study.embedded.heads import N_DOCUMENTS, SEED, find_sites
from study.embedded.tokenizer import vocabulary

METRICS = (LogitDiff(), LabelAccuracy())


@pytest.fixture(scope="module")
def engaged() -> Model:
    return load(embedded_pair().engaged)


@pytest.fixture(scope="module")
def card() -> dict:
    return json.loads((weights_folder() / "pair.json").read_text())["heads"]["targets"]


def site_pairs(target: str, *, limit: int | None = None) -> list[TokenPair]:
    """The positions of the model card that predict the words of `target`, teacher-forced on gold replies."""
    drawn = training_documents(Random(SEED), N_DOCUMENTS, rho=0.5, split="validation", p_shuffled=1.0)
    ids, sites = collate(drawn, vocabulary()).ids, find_sites(drawn, target)
    rows = zip(sites.rows.tolist(), sites.cols.tolist(), sites.gold.tolist(), strict=True)
    return [
        TokenPair(None, tuple(ids[row, : col + 1].tolist()), gold, None, options=tuple(sites.options.tolist()),
                  id=f"{target}-{i}", group=f"document-{row}")
        for i, (row, col, gold) in enumerate(rows)
    ][:limit]  # fmt: skip


def sweep(model: Model, target: str, *, limit: int | None = None, heads="all") -> HeadEffects:
    pairs = site_pairs(target, limit=limit)
    return head_sweep(model, pairs, kind=Mean(), heads=heads, metrics=METRICS, sampling=Sampling(n_resamples=200))


@pytest.mark.slow
@pytest.mark.parametrize("target", ["exception_lookup", "label"])
def test_drops_are_those_that_the_builder_measured_with_its_own_hooks_on_merged_weights(engaged, card, target) -> None:
    effects = sweep(engaged, target)
    want = card[target]
    assert len(effects.pairs) == want["n"]
    assert effects.whole.mean() == pytest.approx(want["logit_diff"], abs=2e-3)  # merging rounds the weights anew
    for row in want["top"]:
        index = effects.index(row["head"])
        assert effects.estimates("abl_logit").value[index] == pytest.approx(row["logit_diff_drop"], abs=2e-3)
        assert effects.estimates("abl_acc").value[index] == pytest.approx(row["accuracy_drop"], abs=1e-6)


@pytest.mark.slow
def test_the_planted_head_is_found_at_the_step_lookup_and_dominates_it(engaged) -> None:
    effects = sweep(engaged, "step_lookup", limit=48)
    share, tested = effects.estimates("abl_frac").value, effects.tested()
    planted = effects.index("L1.H0")
    assert share[planted] > 0.8
    assert np.delete(share, planted).max() < 0.5 * share[planted]
    assert tested.p[planted] < 0.05
    assert list(effects.top(1)["head"]) == ["L1.H0"]


@pytest.mark.slow
def test_single_ablations_understate_heads_that_do_the_same_work_and_the_report_does_not_call_them_unnecessary(
    engaged,
) -> None:
    """At the label L0.H0 seems to do nothing; together with L0.H2 it does more than the two of them alone."""
    from study.analyses.heads.show import READING

    heads = ["L0.H0", "L0.H2", "L0.H0+L0.H2"]
    alone, other, both = sweep(engaged, "label", heads=heads).per_example().mean(axis=0)
    assert both > 1.3 * (alone + other)
    assert "does not make it unnecessary" in READING and "ablate them together" in READING
