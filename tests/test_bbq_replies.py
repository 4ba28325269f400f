"""BBQ: how replies are read, orders of the options, and splits that share no story."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from interp.tasks import bbq

# --- replies --------------------------------------------------------------------------------------------------------

ITEM_OPTIONS = ("The man", "The woman", "Can't be determined")


@pytest.fixture(scope="module")
def item(bbq_folder: Path):
    from dataclasses import replace

    example = bbq.examples(bbq_folder / "Religion.jsonl", limit=1)[0]
    return replace(example, metadata={**example.metadata, **{f"ans{i}": o for i, o in enumerate(ITEM_OPTIONS)}})


@pytest.mark.parametrize(
    ("text", "label", "rule"),
    [
        ("C", "C", "letter"),
        (" C.", "C", "letter"),
        ("(c)", "C", "letter"),
        ("**B**", "B", "letter"),
        ("b) The woman", "B", "letter"),
        ("B. A woman", "B", "letter"),
        ("Answer: B", "B", "only_letter"),
        ("The answer is (A).", "A", "only_letter"),
        ("I pick C", "C", "only_letter"),
        ("A or B", None, "unparsed"),
        ("B or C", None, "unparsed"),
        ("A, B", None, "unparsed"),
        ("A/C", None, "unparsed"),
        ("A man", None, "unparsed"),
        ("A\n", "A", "letter"),
        ("The man", "A", "option_text"),
        ("can't be determined.", "C", "option_text"),
        ("The old man", None, "unparsed"),
        ("Can", None, "unparsed"),
        ("Because", None, "unparsed"),
        ("A's", None, "unparsed"),
        ("D", None, "unparsed"),
        ("", None, "unparsed"),
    ],
)
def test_replies_are_read_as_the_table_of_units_says(text: str, label: str | None, rule: str, item) -> None:
    assert bbq.read(item, text) == (label, rule)
    assert bbq.parse(text) == (label if rule != "option_text" else None)
    assert bbq.score(item, text)["correct"] == float(label == item.label)


def test_the_task_conforms(bbq_folder: Path) -> None:
    from interp.tasks.conformance import check_task

    some = bbq.examples(bbq_folder, limit=40) + bbq.examples(
        bbq_folder, categories=["Religion"], permute="cyclic", limit=5
    )
    assert [f for f in check_task(bbq, some) if not f.ok] == []


# --- orders of the options and splits -------------------------------------------------------------------------------


def test_cyclic_orders_put_every_option_on_every_letter_and_keep_its_role(bbq_folder: Path) -> None:
    plain = bbq.examples(bbq_folder, categories=["Religion"])
    turned = bbq.examples(bbq_folder, categories=["Religion"], permute="cyclic")
    assert len(turned) == 3 * len(plain)
    assert [e.content for e in turned[::3]] == [e.content for e in plain]
    for k, example in enumerate(plain[:80]):
        shown = [e.metadata for e in turned[3 * k : 3 * k + 3]]
        for role in ("gold", "unknown", "stereo"):
            assert {m[f"ans{m[role]}"] for m in shown} == {example.metadata[f"ans{example.metadata[role]}"]}
            assert {m[role] for m in shown} == {0, 1, 2}
    shuffled = bbq.examples(bbq_folder, categories=["Religion"], permute="seeded", seed=4)
    orders = [e.metadata["order"] for e in shuffled]
    assert len(set(orders)) == 6
    assert all(len(set(orders[i : i + 4])) == 1 for i in range(0, len(orders), 4))
    assert orders != [e.metadata["order"] for e in bbq.examples(bbq_folder, categories=["Religion"], permute="seeded")]


def test_averaging_over_cyclic_orders_removes_a_preference_for_a_letter(bbq_folder: Path) -> None:
    items = bbq.examples(bbq_folder, categories=["Religion"], permute="cyclic")
    rows = []
    for e in items:  # believes the unknown option a little, likes the letter A a lot
        p = np.array([0.6, 0.2, 0.2])
        p[e.metadata["unknown"]] += 0.05
        p = p / p.sum()
        rows.append({"member": "m", "sample": 0, "id": e.id, "label": "ABC"[int(p.argmax())], "gold": e.label}
                    | {f"p.{x}": v for x, v in zip("ABC", p, strict=True)} | {"group.story": e.groups["story"]}
                    | {k: v for k, v in e.metadata.items() if k != "gold"})  # fmt: skip
    frame = pd.DataFrame(rows)
    found = {(r["cell"], r["metric"]): r["value"] for r in bbq.report(frame)}
    assert found["Religion/ambig", "accuracy_parsed"] == 1.0
    assert found["all", "share_A"] == 1.0
    assert found["all", "same_answer_in_every_order"] == 0.0
    one_order = frame[frame["order"] == "012"].assign(id=lambda f: f["id"].str[:-2])
    biased = {(r["cell"], r["metric"]): r["value"] for r in bbq.report(one_order)}
    assert biased["Religion/ambig", "accuracy_parsed"] < 0.5


def test_a_split_shares_no_story_no_question_and_no_quad_and_is_stratified(bbq_items: list) -> None:
    sides = bbq.split_by_story(bbq_items, seed=3)
    again = bbq.split_by_story(bbq_items, seed=3)
    assert {k: [e.id for e in v] for k, v in sides.items()} == {k: [e.id for e in v] for k, v in again.items()}
    assert {e.id for e in bbq.split_by_story(bbq_items, seed=4)["test"]} != {e.id for e in sides["test"]}
    for key in ("story", "quad", "template"):
        seen = [{e.groups[key] for e in part} for part in sides.values()]
        assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
    questions = [{e.metadata["question"].lower() for e in part} for part in sides.values()]
    assert not (questions[0] & questions[1] or questions[0] & questions[2] or questions[1] & questions[2])
    total = sum(map(len, sides.values()))
    for category in {e.groups["category"] for e in bbq_items}:
        n = {k: sum(e.groups["category"] == category for e in part) for k, part in sides.items()}
        assert abs(n["train"] / sum(n.values()) - 0.6) < 0.12
    assert abs(len(sides["train"]) / total - 0.6) < 0.05
    quads = pd.Series([e.groups["template"] for part in sides.values() for e in part]).value_counts() / 4
    assert quads.max() == 16
    whole = bbq.split_by_story(bbq_items, seed=3, sides={"a": 1, "b": 1}, max_quads_per_template=None)
    assert sum(map(len, whole.values())) == len(bbq_items)
    with pytest.raises(ValueError, match="max_quads_per_template"):
        bbq.split_by_story(bbq_items, seed=0, max_quads_per_template=0)
    with pytest.raises(ValueError, match="positive shares"):
        bbq.split_by_story(bbq_items, seed=0, sides={"a": 0.0})
