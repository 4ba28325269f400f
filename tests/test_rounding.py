"""Answers carry their margin over the runner-up, and those that hang on rounding are counted and said."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from interp.evaluate import Decoding, evaluate
from interp.evaluate.run import ROUNDING, is_within_rounding, margin_of
from interp.model import Model
from interp.prompt import render
from study.analyses.eval.member import member_rows
from tests import steer_task
from tests.tiny import tiny, tiny_tokenizer


def test_a_margin_is_the_gap_to_the_runner_up() -> None:
    assert margin_of({"a": -1.0, "b": -3.5, "c": -2.25}) == pytest.approx(1.25)
    assert margin_of({"a": -1.0}) is None
    assert is_within_rounding(0.2, torch.bfloat16) and not is_within_rounding(0.2, torch.float16)
    assert is_within_rounding(None, torch.float32) is None
    assert ROUNDING[torch.float32] < ROUNDING[torch.float16] < ROUNDING[torch.bfloat16]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_answers_carry_their_margin_in_the_models_own_dtype(dtype: torch.dtype) -> None:
    tokenizer = tiny_tokenizer()
    model = Model.wrap(tiny("qwen2", vocab_size=len(tokenizer), dtype=dtype), tokenizer)
    examples = steer_task.examples()[:12]
    answers = [
        a for _, batch in evaluate(model, steer_task, examples, decoding=Decoding(generate=False)) for a in batch
    ]
    for answer in answers:
        example = next(e for e in examples if e.id == answer.example_id)
        assert answer.margin is not None
        ratio = answer.p["yes"] / answer.p["no"]
        assert answer.margin == pytest.approx(abs(float(torch.tensor(ratio, dtype=torch.float64).log())), abs=1e-6)
        assert answer.within_rounding == (answer.margin < ROUNDING[dtype])
        assert render(example, tokenizer).sha256 == answer.prompt_sha256


def frame(close: list[bool | None]) -> pd.DataFrame:
    n = len(close)
    return pd.DataFrame({
        "member": "m", "id": [f"i{k}" for k in range(n)], "cell": "all", "gold": ["x", "y"] * (n // 2), "label": "x",
        "text": None, "score.correct": [1.0, 0.0] * (n // 2), "finished": True, "n_new_tokens": 0,
        "within_rounding": close,
    })  # fmt: skip


def test_items_within_rounding_are_counted_and_said() -> None:
    rows = pd.DataFrame(member_rows(frame([True, False, None, True, False, False])))
    (row,) = rows[rows["metric"] == "within_rounding"].to_dict("records")
    assert (row["value"], row["n"]) == (pytest.approx(2 / 5), 5)
    assert "2 of 5 answers depend on a margin that is within rounding" in row["note"] and row["lo"] < 0.4 < row["hi"]
    none = pd.DataFrame(member_rows(frame([False] * 6)))
    assert "within_rounding" not in set(none["metric"])
    assert "within_rounding" not in set(
        pd.DataFrame(member_rows(frame([True] * 6).drop(columns="within_rounding")))["metric"]
    )
