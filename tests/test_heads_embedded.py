"""The embedded pair: the planted head is found, the model card's own measurement is met, backups are not overlooked."""

from __future__ import annotations

import json
from pathlib import Path
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


@pytest.mark.slow
def test_in_its_own_replies_the_planted_head_is_first_at_the_step_lookup_and_the_heuristic_member_is_not_tested(
    tmp_path: Path,
) -> None:
    """The witness is the builder's own measurement with plain hooks, on gold replies to other documents."""
    from interp.tasks import procedural
    from study.analyses.heads.claims import heads as claims
    from study.analyses.heads.options import HeadsOptions
    from study.analyses.heads.run import run_heads
    from study.analyses.heads.tables import tables_of_heads
    from study.config.sections import SmallestEffects
    from study.embedded.heads import head_means, measure
    from study.embedded.replies import load_member

    options = HeadsOptions(kinds=("mean", "patch"), named=("L1.H0",), at=("step_lookup",))
    twins = procedural.twin_examples(16, seed=5, rendering="log")
    members = run_heads(
        embedded_pair(), "interp.tasks.procedural", twins, out=tmp_path, options=options, progress=False
    )
    tables = tables_of_heads(tmp_path, members, options)
    rows = tables["heads"]
    here = rows[(rows["member"] == "engaged") & rows["metric"].isin(["abl_logit", "cma"])]
    assert set(here["decision_site"]) == {"step_lookup"} and set(here["n_reached"]) == set(here["n_asked"]) == {32}
    for kind, pairs in (("mean", "all"), ("patch", "flip")):
        one = here[(here["kind"] == kind) & (here["pairs"] == pairs)].set_index("head")
        assert one["value"].abs().idxmax() == "L1.H0"
        assert one.loc["L1.H0", "p_adjusted"] < 0.05 and one.loc["L1.H0", "lo"] > 5
    assert one.loc["L1.H0", "keep_difference_lo"] > 10, "twins that keep the answer do not move it"

    model, _ = load_member(weights_folder(), "engaged")
    merged = model.merge_and_unload().eval()
    documents = training_documents(Random(SEED), N_DOCUMENTS, rho=0.5, split="validation", p_shuffled=1.0)
    ids, sites = collate(documents, vocabulary()).ids, find_sites(documents, "step_lookup")
    means = head_means(merged, ids, sites)
    cut = measure(merged, ids, sites, ablated=[(1, 0)], means=means)
    drop = measure(merged, ids, sites)["logit_diff"] - cut["logit_diff"]
    mean = here[(here["kind"] == "mean") & (here["head"] == "L1.H0")].iloc[0]
    assert mean["lo"] - 2 < drop < mean["hi"] + 2, "other procedures, the same order of logits"

    ledger = {claim.key: claim for claim in claims(tables, SmallestEffects())}
    assert ledger["heads/necessary/L1.H0/step_lookup/engaged"].verdict == "supported"
    assert ledger["heads/carries/L1.H0/step_lookup/engaged"].verdict == "supported"
    other = ledger["heads/necessary/L1.H0/step_lookup/heuristic"]
    assert (other.verdict, other.why) == ("not tested", "the heuristic member never reaches the step lookup")
    assert other.text == "L1.H0 is necessary at the step lookup of the heuristic member"
    assert rows[rows["member"] == "heuristic"]["value"].isna().all() and "heads_difference" not in tables
