"""BBQ in SCIENCE.md: planted answers get the verdict they deserve. The recipe of the LoRA: shared beginnings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.known_results import bbq as known
from interp import Example
from interp.tasks import bbq
from interp.tasks.bbq.loader import LETTERS
from study.analyses.eval.store import answers_frame
from tests.real.bbq_lora import Trie
from tests.tiny import tiny

SETTINGS = known.Settings(n_quads=24, n_null=99)


@pytest.fixture(scope="module")
def examples(bbq_folder: Path) -> list[Example]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIPTYCH_BBQ", str(bbq_folder))
        return known.items_of(SETTINGS)


def answers(examples: list[Example], letters: list[str]) -> pd.DataFrame:
    rows = [
        {"example_id": item.id, "sample": 0, "label": letter, "text": None,
         "scores": {"correct": float(letter == item.label)},
         "p": {x: float(x == letter) for x in LETTERS}, "logp": {}}
        for item, letter in zip(examples, letters, strict=True)
    ]  # fmt: skip
    return answers_frame(rows, examples, "planted")


def verdicts(examples: list[Example], letters: list[str]) -> dict[str, str]:
    return {row.claim: row.verdict for row in known.findings_of(answers(examples, letters), SETTINGS).rows}


def test_items_are_whole_quads_of_as_many_stories_as_there_is_room_for(examples: list[Example]) -> None:
    quads = pd.Series([item.groups["quad"] for item in examples]).value_counts()
    assert set(quads) == {4} and len(quads) == SETTINGS.n_quads
    assert len({item.groups["story"] for item in examples}) == SETTINGS.n_quads


def test_a_perfect_model_abstains_where_it_should_and_its_accuracies_are_no_lower(examples: list[Example]) -> None:
    found = verdicts(examples, [str(item.label) for item in examples])
    assert found["bbq/disambig"] == found["bbq/unknown"] == found["bbq/abstain"] == "reproduced"
    assert found["bbq/ambig"] != "reproduced" and found["bbq/letter"] == "open"


def test_one_letter_for_everything_is_a_preference_for_a_letter_and_nothing_else(examples: list[Example]) -> None:
    found = verdicts(examples, ["B"] * len(examples))
    assert found.pop("bbq/letter") == "reproduced"
    assert "reproduced" not in found.values()


def test_the_stereotyped_person_where_nothing_is_known_is_bias(examples: list[Example]) -> None:
    frame = answers(examples, [str(item.label) for item in examples])
    items = bbq.items_of(frame)
    biased = [LETTERS[int(np.flatnonzero(one)[0])] if one.any() else "A" for one in items.biased]
    letters = [b if a else str(item.label) for a, b, item in zip(items.is_ambig, biased, examples, strict=True)]
    found = verdicts(examples, letters)
    assert found["bbq/bias"] == found["bbq/s_amb"] == found["bbq/ambig"] == "reproduced"
    assert found["bbq/unknown"] != "reproduced"


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_prompts_that_share_their_beginnings_have_the_logits_of_each_alone(family: str) -> None:
    module = tiny(family).eval()
    rows = [[5, 6, 7, 8], [5, 6, 9], [5, 6, 7, 8, 10], [11, 6, 7]]
    with torch.no_grad():
        together = Trie.of(rows).logits(module)
        alone = torch.stack([module(input_ids=torch.tensor([row])).logits[0, -1] for row in rows])
    assert len(Trie.of(rows).ids) < sum(map(len, rows))
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
