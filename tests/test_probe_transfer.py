"""Transfer between checkpoints: what is shared transfers, what is not does not, and undefined transfer is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probes import SweepConfig, compare_scores, sweep, transfer

N_GROUPS, SIZE, D = 80, 5, 20
CONFIG = SweepConfig(kinds=("logistic",), Cs=(1e-2, 1e-1), n_perm=0)


@pytest.fixture(scope="module")
def pair():
    """A and B carry the label along one shared direction at layer 1; B's is shifted and spread, layer 0 is noise."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(N_GROUPS), SIZE)
    labels = (rng.random(N_GROUPS) < 0.5)[groups].astype(int)
    unit = rng.normal(size=D)
    unit /= np.linalg.norm(unit)

    def member(gain: float, shift: float, d: int = D) -> dict[str, np.ndarray]:
        signal = rng.normal(size=(len(labels), d))
        along = unit if d == D else rng.normal(size=d) / np.sqrt(d)
        signal += 3 * np.outer(labels - 0.5, along)
        return {
            "resid_post.0": rng.normal(size=(len(labels), d)).astype(np.float32),
            "resid_post.1": (gain * signal + shift * along).astype(np.float32),
        }

    ids = [f"row-{i}" for i in range(len(labels))]
    a, b, wide = member(1, 0), member(3, 40), member(1, 0, d=31)
    result = sweep(a, target=labels, groups=groups, ids=ids, config=CONFIG, checkpoint="A")
    return result, a, b, wide, labels, groups, ids


def cell(table, variant: str, metric: str, site: str = "resid_post.1") -> float:
    rows = table[(table.variant == variant) & (table.metric == metric) & (table.test_site == site)]
    return rows[(rows.train_site == site) & ~rows.selected].iloc[0]


def test_a_shared_direction_transfers_and_a_shift_is_repaired_without_labels(pair) -> None:
    result, _, b, _, _, _, ids = pair
    table = transfer(result, b, ids=ids, checkpoint="B")
    assert cell(table, "raw", "auroc").lo > 0.7
    assert cell(table, "raw", "accuracy").value < 0.7  # B's shift puts every row on one side
    assert cell(table, "recenter", "accuracy").value > 0.8
    assert cell(table, "bias", "accuracy").value > 0.8
    for variant in ("recenter", "bias"):
        assert cell(table, variant, "auroc").value == pytest.approx(cell(table, "raw", "auroc").value, abs=1e-9)
    assert cell(table, "A->A", "auroc").value > 0.8 and cell(table, "B->B", "auroc").value > 0.8
    raw = cell(table, "raw", "auroc")
    assert raw["drop"] == pytest.approx(raw.value - cell(table, "B->B", "auroc").value) and raw.drop_lo <= raw.drop_hi
    assert cell(table, "raw", "auroc", "resid_post.0").hi < 0.8
    assert set(table.test_checkpoint) == {"B"} and set(table.train_checkpoint) == {"A"}


def test_transfer_to_itself_is_the_ceiling(pair) -> None:
    result, a, _, _, _, _, ids = pair
    table = transfer(result, a, ids=ids)
    assert cell(table, "raw", "auroc").value == pytest.approx(cell(table, "A->A", "auroc").value, abs=1e-6)
    assert cell(table, "B->B", "auroc").value == pytest.approx(cell(table, "A->A", "auroc").value, abs=1e-6)


def test_rows_are_joined_by_id_and_all_layers_are_crossed(pair) -> None:
    result, _, b, _, labels, _, ids = pair
    order = np.random.default_rng(3).permutation(len(labels))
    mixed = {site: values[order] for site, values in b.items()}
    table = transfer(result, b, ids=ids, mode="all-layers")
    shuffled = transfer(result, mixed, ids=[ids[i] for i in order], mode="all-layers")
    np.testing.assert_allclose(table.value, shuffled.value, atol=1e-6)
    assert len(table[(table.variant == "raw") & (table.metric == "auroc") & ~table.selected]) == 4
    chosen = table[table.selected & (table.metric == "auroc")].set_index("variant")
    assert set(chosen.train_site) == set(chosen.test_site) == {"resid_post.1"}  # the deepest is not what was asked for
    with pytest.raises(ValueError, match="400 of 400 rows of A are not in B, first 'row-0'"):
        transfer(result, b, ids=[f"other-{i}" for i in range(400)])


def test_other_widths_are_refused_and_alignment_comes_with_its_control(pair) -> None:
    result, _, _, wide, labels, groups, ids = pair
    with pytest.raises(ValueError, match="A's probe has 20 features and B's activations 31.*compare_scores"):
        transfer(result, wide, ids=ids)
    table = transfer(result, wide, ids=ids, align="ridge")
    assert cell(table, "aligned", "auroc").lo > 0.7
    chance = cell(table, "aligned-shuffled", "auroc")
    assert chance.lo < 0.6 and chance.value < cell(table, "aligned", "auroc").value - 0.1
    other = sweep(wide, target=labels, groups=groups, ids=ids, config=CONFIG, checkpoint="W")
    scores = compare_scores(result, other, kind="logistic")
    assert scores.split.tolist() == ["oof", "test"] and (scores.spearman > 0.3).all()
    assert (scores.lo <= scores.auroc_difference).all() and (scores.depth_a == 0.75).all()
    fewer = sweep(wide, target=labels, groups=groups, config=SweepConfig(**{**vars(CONFIG), "seed": 5}), ids=ids)
    with pytest.raises(ValueError, match="same rows and splits"):
        compare_scores(result, fewer, kind="logistic")


def test_transfer_says_what_is_missing(pair) -> None:
    result, a, b, _, labels, groups, ids = pair
    with pytest.raises(ValueError, match="no probe of A"):
        transfer(result, {"resid_post.7": b["resid_post.0"]}, ids=ids)
    config = SweepConfig(**{**vars(CONFIG), "test_share": 0.0})
    without = sweep(a, target=labels, groups=groups, ids=ids, config=config)
    with pytest.raises(ValueError, match="no TEST rows"):
        transfer(without, b, ids=ids)
    with pytest.raises(ValueError, match="expected one selected cell, got 0"):
        result.pick(kind="ridge")
    assert torch.is_tensor(result.directions[result.pick().key].unit)
