"""Every control of the report is what a reader without the skill reaches: constant readers and a reader of the tone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from interp import stats
from interp.prompt import Example
from interp.tasks import procedural
from interp.tasks.procedural.reporting import report
from study.analyses.eval.store import answers_frame

NO_SKILL = ("consistency", "flip_sensitivity", "flip_when_gold_flips", "surface_congruent", "surface_incongruent",
            "surface_reliance", "d_prime", "order_swap_flipping", "order_swap_keeping")  # fmt: skip


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return procedural.examples(per_cell=12, seed=3, rendering="log")


def answered(examples: list[Example], read, *, samples: int = 1) -> pd.DataFrame:
    answers = []
    for example in examples:
        for sample in range(samples):
            text = read(example)
            answers.append(
                {"example_id": example.id, "sample": sample, "text": text, "label": procedural.parse(text), "p": {},
                 "scores": procedural.score(example, text), "n_new_tokens": 1, "n_prompt_tokens": 1, "finished": True}
            )  # fmt: skip
    return answers_frame(answers, examples, "m")


def rows(frame: pd.DataFrame) -> dict[str, dict]:
    return {row["metric"]: row for row in report(frame, seed=1)}


def test_no_constant_reader_is_above_a_control_and_the_better_one_reaches_it(examples: list[Example]) -> None:
    readers = [rows(answered(examples, lambda e, label=label: label)) for label in ("compliant", "noncompliant")]
    for metric in NO_SKILL:
        values = [r[metric]["value"] for r in readers]
        controls = {r[metric]["control"] for r in readers}
        assert len(controls) == 1, metric
        control = controls.pop()
        if metric == "consistency":
            assert max(values) <= control + 1e-12  # two coins reach 0.25, which may be more
        else:
            assert max(values) == pytest.approx(control), metric
    for r in readers:
        assert r["surface_reliance"]["value"] == 0.0
        assert r["surface_reliance"]["lo"] < 0 < r["surface_reliance"]["hi"]
        for metric in ("logit_gold", "logit_surface"):
            assert r[metric]["lo"] < r[metric]["control"] < r[metric]["hi"], metric
        assert r["criterion"]["control"] is None
        assert "chance" not in r["order_swap_keeping"]["note"]
    assert readers[0]["order_swap_keeping"]["control"] == 1.0  # the swap that keeps the label has compliant items only


def test_a_reader_of_the_tone_is_found_out(examples: list[Example]) -> None:
    found = rows(answered(examples, lambda e: e.metadata["surface_label"] or "compliant"))
    assert (found["surface_congruent"]["value"], found["surface_incongruent"]["value"]) == (1.0, 0.0)
    assert found["surface_reliance"]["value"] == 1.0
    assert found["surface_reliance"]["lo"] > 0
    assert found["order_swap_flipping"]["value"] == found["order_swap_flipping"]["control"] == 0.5
    assert found["logit_surface"]["lo"] > 0


def test_a_perfect_reader_is_above_every_control_that_can_be_beaten(examples: list[Example]) -> None:
    found = rows(answered(examples, lambda e: str(e.label)))
    for metric in ("consistency", "flip_sensitivity", "d_prime", "order_swap_flipping"):
        assert found[metric]["lo"] > found[metric]["control"], metric
    assert found["surface_reliance"]["value"] == 0.0


def test_pairs_are_an_original_and_what_was_edited_from_it(examples: list[Example]) -> None:
    frame = answered(examples, lambda e: str(e.label))
    n = rows(frame)["consistency"]["n"]
    parents = {name: row.parent for name, row in procedural.PERTURBATIONS.items() if name != "baseline_compliant"}
    assert n == 12 * sum(parent == "compliant" for parent in parents.values())
    own = frame.replace({"cell": {"step_reorder_invalid": "mine", "ord_swap_rebind": "also_mine"}})
    assert rows(own)["consistency"]["n"] == n  # of unknown cells, those whose parent_id is the original


def test_several_samples_are_one_unit_in_every_row(examples: list[Example]) -> None:
    kept = [e for i, e in enumerate(examples) if i % 2]

    def read(e: Example) -> str:
        return "compliant" if len(e.content) % 3 else "noncompliant"

    once, thrice = rows(answered(kept, read)), rows(answered(kept, read, samples=3))
    for metric in set(once) - {"d_prime", "criterion", "logit_gold", "logit_surface"}:
        assert thrice[metric]["n"] == 3 * once[metric]["n"]
        width = [r[metric]["hi"] - r[metric]["lo"] for r in (once, thrice)]
        # independent replies would give 0.58; Wilson's effective n is capped at the number of replies, which binds
        # where the items of a procedure are opposed to each other, so the width may shrink a little
        assert width[1] > 0.62 * width[0], metric


def test_unparsed_replies_count_as_not_said_and_are_noted(examples: list[Example]) -> None:
    found = rows(answered(examples, lambda e: "noncompliant" if e.label == "noncompliant" else "?"))
    assert found["d_prime"]["n"] == len(examples)
    assert found["d_prime"]["value"] > 3
    n = sum(e.label == "compliant" for e in examples)
    assert found["d_prime"]["note"] == f"{n} unparsed, counted as not noncompliant"


def test_a_contrast_of_rates_keeps_the_groups_of_its_parts_together() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 4)
    lean = rng.random(60)[groups]  # groups differ, but alike in both parts: the difference is better known than each
    event, first = rng.random(240) < 0.1 + 0.8 * (lean > 0.5), np.tile([True, True, False, False], 60)
    parts = [(first, 1.0), (~first, -1.0)]
    got = stats.rate_contrast(event, parts, groups=groups)
    assert got.value == pytest.approx(event[first].mean() - event[~first].mean())
    rates = [stats.rate_on(event, mask, groups=groups) for mask, _ in parts]
    apart = stats.square_and_add(*rates)
    assert got.hi - got.lo < 0.7 * (apart.hi - apart.lo)
    certain = stats.rate_contrast(first, parts, groups=groups)
    assert (certain.value, certain.hi) == (1.0, 1.0)
    assert certain.lo < 1.0
    with pytest.raises(ValueError, match="part 1 has no examples"):
        stats.rate_contrast(event, [(first, 1.0), (first & ~first, -1.0)], groups=groups)
