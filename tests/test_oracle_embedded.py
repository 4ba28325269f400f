"""The embedded oracle reads: gaps, floors, wirings and the oracle that never looked, from the shipped files."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from interp.loading.files import ADAPTER_WEIGHTS
from interp.oracle.encode import Encoder
from interp.oracle.spec import OracleSpec
from interp.oracle.validate import NO_GAP, Validator
from study.embedded import weights_folder
from study.embedded.batches import prompt_words
from study.embedded.oracle import (
    ORACLE,
    PRIOR,
    RECORD,
    SPEC,
    TRAINING,
    OracleRecipe,
    build_oracle,
    embedded_oracle,
    measure_again,
    weights_sha256,
)
from study.embedded.oracle_gates import (
    ABOVE_FLOOR,
    CLASSES,
    WRONG,
    Bench,
    control_scores,
    held_out_items,
    open_oracles,
    task_rows,
    wiring_scores,
)
from study.embedded.oracle_items import SENTENCE_KINDS, STEP_KINDS, oracle_items, sentence_ends, step_ends


@pytest.fixture(scope="module")
def model():
    return open_oracles(weights_folder())


@pytest.fixture(scope="module")
def bench(model) -> Bench:
    return Bench.of(model, held_out_items(60))


@pytest.fixture(scope="module")
def rows(model, bench: Bench):
    scores = control_scores(model, bench)
    return {task: task_rows(bench, scores, task) for task in ("taxonomy", "sentence", "previous", "next")}


def test_every_task_has_a_control_gap_whose_interval_excludes_zero(rows) -> None:
    for task, row in rows.items():
        assert row["gap shuffled"].lo > 0, task
        assert row["accuracy real"].value >= row["accuracy shuffled"].value


def test_classes_are_read_far_above_the_prior_only_oracle(rows) -> None:
    for task in CLASSES:
        above = rows[task]["accuracy real"].value - rows[task]["accuracy prior real"].value
        assert above >= ABOVE_FLOOR, task
        assert rows[task]["accuracy real"].lo > rows[task]["accuracy prior real"].hi


def test_the_oracle_that_was_trained_on_zeros_shows_no_gap(rows) -> None:
    """The detector works both ways; measured per task on more items in oracle.json."""
    gaps = [row["prior gap"].value for row in rows.values()]
    assert abs(sum(gaps) / len(gaps)) <= NO_GAP
    record = json.loads((weights_folder() / RECORD).read_text())
    assert all(abs(row["prior gap"]["value"]) <= NO_GAP for row in record["tasks"].values())


def test_each_of_the_seven_wrong_wirings_is_worse_than_the_declared_one(model, bench: Bench) -> None:
    worse = wiring_scores(model, bench)
    assert list(worse) == list(WRONG)
    assert len(WRONG) == 7
    for name, cost in worse.items():
        assert cost.lo > 0, name


def test_answers_of_the_prompt_alone_are_named(model) -> None:
    items = held_out_items(40)
    validator = Validator(model, SPEC, items, Encoder(SPEC, model.tokenizer))
    with model.adapters.use(PRIOR):
        blind = validator(0).findings()
    with model.adapters.use(ORACLE):
        seeing = validator(0).findings()
    assert {f.name for f in blind} == {f"{t}/ignores activations" for t in ("taxonomy", "sentence", "previous", "next")}
    assert sum(f.status == "fail" for f in blind) >= 3  # small samples: one of four may exceed it by chance
    assert all(f.status == "ok" for f in seeing)


def test_the_record_is_of_the_shipped_weights_and_all_of_its_gates_hold() -> None:
    record = json.loads((weights_folder() / RECORD).read_text())
    assert record["weights_sha256"] == weights_sha256(weights_folder())
    assert len(record["gates"]) == 4 + 4 + 2 + 7
    assert all(gate["passed"] for gate in record["gates"].values())
    size = sum(f.stat().st_size for n in (ORACLE, PRIOR) for f in (weights_folder() / n).iterdir())
    assert size <= 1_000_000
    assert OracleSpec.infer(embedded_oracle().adapter or "").layers == SPEC.layers


def test_the_declared_wiring_ranks_first_in_the_self_test(model) -> None:
    from interp.oracle.reader import Oracle
    from interp.oracle.wiring import context_items, selftest
    from interp.tasks.procedural.task import examples

    texts = examples(per_cell=6, seed=7, split="validation", rendering="log")[:40]
    oracle = Oracle(model, adapter=ORACLE, spec=SPEC)
    result = selftest(oracle, context_items(model, texts, layer=2), layer=2)
    assert result.passed, str(result)


def test_kinds_of_steps_and_sentences_by_hand() -> None:
    message = (
        "Procedure: 1 anyone issue form . step 2 needs step 1 . if storm then step 2 waived . Scenario: storm absent . "
        "form first issued by investigator . radio stayed quiet . mood proud and tidy . Question: is this compliant ?"
    )
    kinds = [kind for _, kind in sentence_ends(message.split())]
    assert kinds == ["step", "needs", "if", "absent", "by", "stayed", "mood"]
    assert all(message.split()[at] == "." for at, _ in sentence_ends(message.split()))
    reply = (
        "[SIG=STEP] 1 anyone issue form [SIG=FIND] form first issued investigator [SIG=CHECK] start first after anyone "
        "investigator fit [SIG=OK] [SIG=STEP] 2 waived [SIG=OK] [SIG=STEP] 3 anyone show badge [SIG=FIND] badge none "
        "[SIG=VIOLATION] [SIG=DECIDE] noncompliant"
    )
    assert [kind for _, kind in step_ends(reply.split())] == ["fit", "none"]  # waived is no class
    assert step_ends(reply.split(), offset=3)[0][0] == 3 + reply.split().index("[SIG=OK]")
    assert prompt_words("a b")[2:4] == ["a", "b"]


def test_training_items_are_balanced_by_repeats_and_held_out_items_without() -> None:
    train = oracle_items(60, seed="t", repeat=True)
    for task, kinds in (("taxonomy", STEP_KINDS), ("sentence", SENTENCE_KINDS)):
        counts = Counter(i.answer for i in train if i.task == task)
        assert set(counts) <= set(kinds)
        assert len(set(counts.values())) == 1
    held = [i for i in oracle_items(60, seed="t", split="validation") if i.task == "taxonomy"]
    assert len(set(held)) == len(held)
    assert not {i.problem for i in train} & {i.problem for i in held}


@pytest.mark.slowest
@pytest.mark.long
def test_the_build_is_one_call_and_gives_the_same_bytes_again(tmp_path: Path) -> None:
    short = replace(TRAINING, max_steps=6, save_every=3)
    recipe = OracleRecipe(documents=160, prior_steps=3, held_out=20, training=short, measured=40)
    records = [build_oracle(tmp_path / name, recipe=recipe) for name in ("a", "b")]
    assert records[0]["weights_sha256"] == records[1]["weights_sha256"]
    assert records[0]["weights_sha256"][ORACLE] != records[0]["weights_sha256"][PRIOR]
    assert not all(gate["passed"] for gate in records[0]["gates"].values())  # six steps teach nothing
    with pytest.raises(ValueError, match="expected a new or empty folder"):
        build_oracle(tmp_path / "a", recipe=recipe)
    before = (tmp_path / "a" / RECORD).read_bytes()
    (tmp_path / "a" / RECORD).write_text(json.dumps(json.loads(before) | {"gates": {}}))
    assert measure_again(tmp_path / "a") == json.loads(before)
    assert (tmp_path / "a" / RECORD).read_bytes() == before
    shutil.copy(tmp_path / "a" / PRIOR / ADAPTER_WEIGHTS, tmp_path / "a" / ORACLE)
    with pytest.raises(ValueError, match=r"expected the adapters of oracle.json"):
        measure_again(tmp_path / "a")
    assert torch.get_num_threads() >= 1
