"""The probability that labels hold where they are read stands in every table, with a note where it is little."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from interp.heads import LogitDiff, TokenPair, Zero, head_sweep
from interp.label_mass import LOW_MASS, mass_note
from interp.model import Model
from interp.stats import Sampling
from study.analyses.eval.member import member_rows
from study.schema import with_mass_note
from tests.tiny import tiny


def test_the_mass_of_a_head_sweep_is_that_of_the_softmax_over_the_whole_vocabulary() -> None:
    model, rng = Model.wrap(tiny("qwen2")), torch.Generator().manual_seed(0)
    rows = torch.randint(3, 128, (4, 9), generator=rng).tolist()
    pairs = [TokenPair(None, tuple(ids), 5 + i, 60 + i, options=(90, 91), id=f"p{i}") for i, ids in enumerate(rows)]
    effects = head_sweep(model, pairs, kind=Zero(), heads=["L1.H1"], sampling=Sampling(n_resamples=50))
    logits = [model([list(pair.exp_ids)]).logits[0, -1].double().softmax(-1) for pair in pairs]
    want = sum(float(p[list(pair.options)].sum()) for p, pair in zip(logits, pairs, strict=True)) / len(pairs)
    assert effects.label_mass == pytest.approx(want, rel=1e-5)
    assert effects.table()["label_mass"].unique() == pytest.approx([want], rel=1e-5)
    bare = head_sweep(
        model, pairs, kind=Zero(), heads=["L1.H1"], metrics=(LogitDiff(),), sampling=Sampling(n_resamples=50)
    )
    assert bare.label_mass != bare.label_mass, "not measured without the unembedding"


def test_rows_of_little_mass_are_noted_with_the_remedy() -> None:
    assert mass_note(None) == mass_note(float("nan")) == mass_note(LOW_MASS) == ""
    assert "0.06" in mass_note(0.06) and "slot 'own'" in mass_note(0.06)
    rows = with_mass_note(pd.DataFrame({"note": ["", "refused", ""], "label_mass": [0.06, 0.06, 0.9]}))
    assert rows["note"].tolist() == [mass_note(0.06), f"refused; {mass_note(0.06)}", ""]
    assert with_mass_note(rows[["note"]]).equals(rows[["note"]])


def test_a_table_of_letters_has_the_mean_mass_of_each_cell() -> None:
    frame = pd.DataFrame({
        "member": "m", "id": [f"i{k}" for k in range(8)], "cell": ["a", "b"] * 4, "gold": ["x", "y"] * 4,
        "label": ["x"] * 8, "text": None, "score.correct": [1.0, 0.0] * 4, "label_mass": [0.9, 0.1] * 4,
        "finished": True, "n_new_tokens": 0,
    })  # fmt: skip
    rows = pd.DataFrame(member_rows(frame))
    mass = rows.groupby("cell")["label_mass"].first()
    assert mass.to_dict() == pytest.approx({"a": 0.9, "b": 0.1, "all": 0.5})
    assert rows.loc[rows["cell"] == "b", "note"].str.contains("0.10").all()
    assert not rows.loc[rows["cell"] != "b", "note"].str.contains("labels hold").any()
