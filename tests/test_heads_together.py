"""Sets of heads changed together: against closed forms, plain loops and numbers by hand; and at every door."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from interp import stats
from interp.heads import HeadEffects, HeadId, LogitDiff, Zero, head_sweep
from interp.heads.ids import parse_unit, unit_name
from interp.heads.together import random_sets, together_table
from study.analyses.heads.claims import heads as claims
from study.analyses.heads.options import HeadsOptions
from study.analyses.heads.run import check_sets
from study.cli import main
from study.config.sections import SmallestEffects
from tests.heads_kit import margin, retrieval_model, retrieval_pairs
from tests.tiny import save_checkpoint

EVERY = [HeadId(layer, head) for layer in range(2) for head in range(4)]
BOTH = parse_unit("L1.H0+L1.H2")


def sweeps(a: float, b: float, others, units=(BOTH,)) -> tuple[HeadEffects, HeadEffects]:
    model, pairs = retrieval_model(a, b), retrieval_pairs()
    units = [*units, *others[BOTH]]
    options: dict[str, Any] = dict(kind=Zero(), metrics=(LogitDiff(),))
    return head_sweep(model, pairs, heads=units, **options), head_sweep(model, pairs, **options)


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (0.75, 0.25), (1.0, 0.0)])
def test_two_heads_that_do_the_same_work_have_the_closed_form(a: float, b: float) -> None:
    others = random_sets([BOTH], EVERY)
    assert others == {BOTH: (parse_unit("L1.H1+L1.H3"),)}, "no other two heads of the layer are outside the set"
    (row,) = together_table(*sweeps(a, b, others), others).to_dict("records")
    whole = margin(a + b)
    assert row["value"] == pytest.approx(whole, abs=1e-5)
    assert row["parts_value"] == pytest.approx(2 * whole - margin(a) - margin(b), abs=1e-5)
    assert row["parts_difference"] == pytest.approx(margin(a) + margin(b) - whole, abs=1e-5)
    assert row["control_value"] == 0.0 and row["control_difference"] == pytest.approx(whole, abs=1e-5)
    assert (row["head"], row["k"], row["metric"]) == ("L1.H0+L1.H2", 2, "abl_logit")


def test_a_set_that_has_no_random_set_has_a_blank_control() -> None:
    whole = parse_unit("L1.H0+L1.H1+L1.H2+L1.H3")
    others = random_sets([whole, BOTH], EVERY)
    assert others[whole] == ()
    joint, single = sweeps(0.75, 0.25, others, units=[whole, BOTH])
    first, second = together_table(joint, single, others).to_dict("records")
    assert first["value"] == pytest.approx(margin(1.0), abs=1e-5)
    assert first["parts_difference"] == pytest.approx(margin(0.75) + margin(0.25) - margin(1.0), abs=1e-5)
    blank = ["control_value", "control_difference", "control_difference_lo", "control_difference_hi"]
    assert all(np.isnan(first[name]) for name in blank) and not any(np.isnan(second[name]) for name in blank[:2])


def noisy(effects: HeadEffects, seed: int) -> HeadEffects:
    """The sweep with noise on every row, two pairs to a group."""
    rng = np.random.default_rng(seed)
    changed = effects.values["margin"] + rng.normal(size=effects.values["margin"].shape)
    pairs = tuple(replace(pair, group=f"g{i // 2}") for i, pair in enumerate(effects.pairs))
    return replace(effects, pairs=pairs, values={**effects.values, "margin": changed})


def test_differences_are_paired_and_clustered() -> None:
    others = random_sets([BOTH], EVERY)
    joint, single = (noisy(effects, seed) for seed, effects in enumerate(sweeps(0.5, 0.5, others)))
    (row,) = together_table(joint, single, others).to_dict("records")
    own = joint.per_example()[:, 0]
    parts = single.per_example("abl_logit")[:, [4, 6]].sum(axis=1)
    random = joint.per_example()[:, 1]
    for name, left in (("parts_difference", own - parts), ("control_difference", own - random)):
        expected = stats.cluster_means(left[:, None], groups=joint.groups)
        assert row[name] == pytest.approx(left.mean())
        assert (row[f"{name}_lo"], row[f"{name}_hi"]) == pytest.approx((expected.lo[0], expected.hi[0]))
    assert row["n"] == 24 and row["n_groups"] == 12
    with pytest.raises(ValueError, match="expected sweeps of the same pairs"):
        together_table(joint, single.subset(np.arange(24) < 12), others)


def test_random_sets_have_as_many_heads_per_layer_and_none_of_the_set() -> None:
    every = [HeadId(layer, head) for layer in range(3) for head in range(8)]
    unit = parse_unit("L0.H1+L0.H2+L2.H7")
    found = random_sets([unit], every, n_random=6, seed=3)[unit]
    assert len(set(found)) == 6 and found == random_sets([unit], every, n_random=6, seed=3)[unit]
    for one in found:
        assert [head.layer for head in one] == [0, 0, 2] and not set(one) & set(unit)
    small = random_sets([parse_unit("L0.H0+L0.H1")], [HeadId(0, 0), HeadId(0, 1), HeadId(0, 2)])
    (others,) = small.values()
    assert set(map(unit_name, others)) == {"L0.H0+L0.H2", "L0.H1+L0.H2"}, "three heads have no two others"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(named=("L0.H0+L0.H2",)), r"named=.L0\.H0\+L0\.H2.: expected one head"),
        (dict(together=("L0.H0",)), r"together=.L0\.H0.: expected heads joined by \+"),
        (dict(together=("L0.H0+L0.H1",), kinds=("patch",)), r"ablated, not patched\. Add one to kinds="),
    ],
)
def test_a_set_and_a_head_in_each_others_place_are_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        check_sets(HeadsOptions(**options))


def test_claims_need_the_random_sets_and_more_than_the_heads_one_by_one() -> None:
    row: dict[str, Any]
    row = dict(analysis="heads", member="engaged", decision_site="label", kind="mean", metric="abl_logit",
               metric_unit="logits", head="L0.H0+L0.H2", value=3.0, lo=2.0, hi=4.0, n=60, n_groups=30, p_adjusted=0.001,
               control_value=0.1, control_difference=2.9, control_difference_lo=1.9, control_difference_hi=3.9,
               parts_value=2.0, parts_difference=1.0, parts_difference_lo=0.5, parts_difference_hi=1.5, pairs="all",
               interval="t", unit="pairs")  # fmt: skip
    single = {**row, "head": "L0.H0", "named": True}

    def verdict(**changed) -> tuple[str, str]:
        tables = {"heads": pd.DataFrame([single]), "heads_together": pd.DataFrame([{**row, **changed}])}
        (one,) = [c for c in claims(tables, SmallestEffects()) if c.key.startswith("heads/together")]
        return one.key, one.verdict

    key = "heads/together/L0.H0+L0.H2/label/engaged"
    assert verdict() == (key, "supported")
    assert verdict(parts_difference_lo=-0.1) == (key, "qualified")
    assert verdict(control_difference_lo=-0.1) == (key, "qualified")
    assert verdict(p_adjusted=0.2) == (key, "not supported")


@pytest.mark.slow
def test_the_command_writes_a_row_per_set_and_continues(tmp_path: Path) -> None:
    base = save_checkpoint(tmp_path / "base", max_position_embeddings=4096)
    args = ["heads", "--base", str(base), "--name", "b5", "--task", "interp.tasks.procedural", "--n", "4", "--slot",
            "Answer:", "--quiet", "--load-dtype", "float32", "--kind", "mean", "--out", str(tmp_path / "out"),
            "--together", "L0.H1+L1.H2"]  # fmt: skip
    assert CliRunner().invoke(main, args).exit_code == 0
    table = pd.read_csv(tmp_path / "out" / "together.csv")
    assert table["head"].tolist() == ["L0.H1+L1.H2"] and table["n"].tolist() == [8]
    every = pd.read_csv(tmp_path / "out" / "table.csv")
    alone = every[(every["metric"] == "abl_logit") & every["head"].isin(["L0.H1", "L1.H2"]) & (every["pairs"] == "all")]
    assert table["parts_value"][0] == pytest.approx(alone["value"].sum(), rel=1e-6)
    stored = sorted((tmp_path / "out").rglob("together-*/*"))
    before = [path.read_bytes() for path in stored if path.is_file()]
    assert CliRunner().invoke(main, args).exit_code == 0
    assert [path.read_bytes() for path in stored if path.is_file()] == before
    wrong = CliRunner().invoke(main, [*args[:-1], "L0.H1"])
    assert wrong.exit_code == 1 and "--together L0.H1: expected heads joined by +" in wrong.output
