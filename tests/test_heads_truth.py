"""Head effects where the truth is known: a peer's own scores, closed forms, a head planted by training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from interp.heads import (
    HeadId,
    LabelAccuracy,
    LogitDiff,
    Mean,
    Patch,
    TokenPair,
    Zero,
    cumulative_ablation,
    head_sweep,
    kv_group,
)
from interp.model import Model
from interp.positions import All
from interp.stats import Sampling
from tests.heads_kit import margin, peer, planted_model, recall_pairs, retrieval_model, retrieval_pairs

TOLERANCE = 2e-5  # float32 logits of the peer's own run
LOGITS = (LogitDiff(),)


# --- the peer's own scores -----------------------------------------------------------------------------------------


def test_cma_is_the_score_of_llmsymbmech(shared) -> None:
    given = peer(shared)
    effects = head_sweep(
        given.model, given.pairs(), kind=Patch(), positions="pairs", verify=0.1, sampling=Sampling(n_resamples=50)
    )
    want = np.array([np.ravel(row["score"]) for row in given.data["cma"]])
    assert np.abs(effects.per_example("cma") - want).max() < TOLERANCE
    clean = -effects.values["clean_margin"][:, 0]  # their difference is expected minus right
    assert np.abs(clean - [row["exp_logit_diff"] for row in given.data["cma"]]).max() < TOLERANCE
    assert effects.names == [f"L{layer}.H{head}" for layer in range(3) for head in range(4)]


@pytest.mark.parametrize("positions", ["last", "all"])
def test_zero_ablation_is_that_of_plain_hooks(shared, positions: str) -> None:
    given = peer(shared)
    rows = given.data["zero_ablation"]
    pairs = [TokenPair(None, tuple(r["exp"]), r["exp_ans"], r["causal_ans"], id=str(i)) for i, r in enumerate(rows)]
    where = "pairs" if positions == "last" else All()
    effects = head_sweep(
        given.model, pairs, kind=Zero(), positions=where, metrics=LOGITS, sampling=Sampling(n_resamples=50)
    )
    exp, causal = (np.array([np.ravel(r[positions][side]) for r in rows]) for side in ("exp", "causal"))
    assert np.abs(effects.values["margin"] - (exp - causal)).max() < TOLERANCE


def test_cumulative_zero_ablation_is_that_of_llmsymbmech(shared) -> None:
    given = peer(shared)
    names = "L0.H0 L0.H3 L2.H1 L2.H3 L1.H3 L1.H2 L0.H1 L2.H2 L2.H0 L1.H1 L0.H2 L1.H0"  # of retrieval scores not kept
    ranking = [HeadId.parse(name) for name in names.split()]
    for row in given.data["cumulative_zero_ablation"]:
        pair = TokenPair(None, tuple(row["exp"]), row["ans"], (row["ans"] + 1) % 60, id="a")
        twice = [pair, replace(pair, id="b")]  # an interval needs two
        table = cumulative_ablation(given.model, twice, ranking, ks=row["n"], kind=Zero(), reading="probability",
                                    n_random=1)  # fmt: skip
        for arm, want in (("top", row["prob"]), ("lowest", row["prob_control"])):
            assert np.abs(table[table["arm"] == arm]["value"].to_numpy() - want).max() < TOLERANCE


# --- closed forms --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "first", "second"),
    [(1.0, 0.0, 1.0, 0.0), (0.75, 0.25, 0.3806765, 0.0392311), (0.5, 0.5, 0.1300823, 0.1300823)],
)
def test_two_heads_of_known_gain_show_the_shares_that_the_final_norm_leaves_them(a, b, first, second) -> None:
    """Every pair is alike, so there is no spread to make an interval of, and a share has no bounds: none is claimed."""
    effects = head_sweep(retrieval_model(a, b), retrieval_pairs(8), kind=Zero(), metrics=LOGITS, verify=0.2)
    clean = effects.values["clean_margin"]
    assert np.abs(clean - margin(a + b)).max() < 1e-6  # the library's norms round to float32
    found = effects.estimates("abl_frac")
    want = {"L1.H0": first, "L1.H2": second}
    for name, value, lo, hi in zip(effects.names, found.value, found.lo, found.hi, strict=True):
        if name in want:
            assert value == pytest.approx(want[name], abs=1e-6)
            assert np.isnan(lo) and np.isnan(hi)
        else:
            assert value == 0.0  # siblings of a kv group included, exactly
    assert want["L1.H0"] == pytest.approx(1 - margin(b) / margin(a + b), abs=1e-6)


def test_the_joint_ablation_shows_what_single_ones_understate() -> None:
    sets = ["L1.H0", "L1.H2", "L1.H0+L1.H2"]
    effects = head_sweep(retrieval_model(0.5, 0.5), retrieval_pairs(), kind=Zero(), heads=sets, metrics=LOGITS)
    alone, other, both = effects.estimates("abl_frac").value
    assert both == pytest.approx(1.0, abs=1e-6)
    assert alone + other < 0.3


def test_patching_both_retrieving_heads_flips_the_answer_wholly() -> None:
    sets = ["L1.H0", "L1.H1", "L1.H0+L1.H2"]
    effects = head_sweep(retrieval_model(0.5, 0.5), retrieval_pairs(), kind=Patch(), heads=sets)
    one, sibling, both = effects.estimates("cma_frac").value
    assert both == pytest.approx(1.0, abs=1e-6)
    assert sibling == 0.0
    assert one == pytest.approx(0.5, abs=1e-6)  # two heads of equal gain that disagree leave the margin at 0
    assert effects.estimates("flip_rate").value[2] == 1.0


def test_the_direct_effect_of_the_last_layer_is_the_total_one_and_with_a_frozen_norm_it_adds_up() -> None:
    heads = ["L1.H0", "L1.H2", "L1.H1"]
    pairs, model = retrieval_pairs(), retrieval_model(0.75, 0.25)
    total = head_sweep(model, pairs, kind=Zero(), heads=heads, metrics=LOGITS).per_example()
    direct = head_sweep(model, pairs, kind=Zero(), heads=heads, metrics=LOGITS, effect="direct").per_example()
    frozen = head_sweep(
        model, pairs, kind=Zero(), heads=heads, metrics=LOGITS, effect="direct", freeze_norm=True
    ).per_example()
    assert np.abs(direct - total).max() < 1e-6
    assert np.abs(frozen[:, 0] - 0.75 * margin(1.0)).max() < 1e-6
    assert np.abs(frozen[:, 1] - 0.25 * margin(1.0)).max() < 1e-6


def test_heads_of_one_kv_group_are_told_apart() -> None:
    layout = Model.wrap(retrieval_model(1.0, 0.0)).layout
    assert kv_group(HeadId(1, 0), layout) == (HeadId(1, 0), HeadId(1, 1))
    assert kv_group(HeadId(1, 3), layout) == (HeadId(1, 2), HeadId(1, 3))


# --- a head planted by training ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def planted() -> torch.nn.Module:
    return planted_model()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Zero(), Mean(), Patch()])
def test_a_planted_head_is_found_and_no_other(planted, kind) -> None:
    effects = head_sweep(planted, recall_pairs(128), kind=kind, metrics=(LogitDiff(), LabelAccuracy()))
    assert effects.values["clean_right"].mean() > 0.98
    share = effects.estimates("cma_frac" if effects.main == "cma" else "abl_frac").value
    where = effects.index("L1.H2")
    others = np.delete(np.arange(8), where)
    assert share[where] > 0.85  # training ends at 0.89 to 0.95, depending on how the processor rounds
    assert np.abs(share[others]).max() < 0.05
    tested = effects.tested()
    assert tested.p[where] < 0.05
    assert abs(tested.estimates.value[where]) > tested.null_max95[where]
    top = effects.top(1)
    assert list(top["head"]) == ["L1.H2"]
    assert top["n"].iloc[0] < 128  # reported on the other half
    assert effects.cliff(where).value > 0.95
