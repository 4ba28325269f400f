"""Tables of an evaluation: intervals, controls, and a pair compared on the same items."""

from __future__ import annotations

import math
from dataclasses import replace

import pandas as pd
import pytest

from study.analyses.eval.compare import compare_frames
from study.analyses.eval.figures import with_pooled_control
from study.analyses.eval.member import Row, member_rows
from study.analyses.eval.pair import pair_rows
from study.analyses.eval.show import headline
from study.analyses.eval.tables import eval_tables
from study.figures import dumbbell
from tests.eval_kit import TASK, frame, grouped


def differences(rows: list[Row]) -> dict[str, Row]:
    """Cell -> engaged minus heuristic."""
    return {row["cell"]: row for row in rows if row.get("is_difference")}


def test_notes_on_label_noise_reach_the_terminal_and_the_figure() -> None:
    from interp.tasks import procedural

    made = procedural.examples(per_cell=2, seed=1, cells=["prerequisite_omission", "step_reorder_invalid"])
    marked = [replace(e, groups={**e.groups, "institution": "FDA"}) for e in made]
    assert procedural.notes(marked) == {}  # the engine gave these labels
    marked = [replace(e, metadata={**e.metadata, "verdicts": None}) for e in marked]
    notes = procedural.notes(marked)
    assert list(notes) == ["prerequisite_omission"]
    assert "65.2%" in notes["prerequisite_omission"]
    frames = {m: grouped([1, 0] * 20, m, per_group=1) for m in ("engaged", "heuristic")}
    tables = eval_tables(frames, TASK, notes={"all": notes["prerequisite_omission"]})
    assert "65.2%" in headline(tables)
    caption = dumbbell(tables["pair"]).caption
    assert "† FDA" in caption and "65.2%" in caption


def test_accuracy_per_cell_has_wilsons_interval_and_its_control() -> None:
    answers = frame("engaged", [1, 1, 1, 0, 1, 1, 1, 0, 1])
    rows = {(r["cell"], r["metric"]): r for r in member_rows(answers.drop(columns="group.procedure"))}
    whole = rows["all", "accuracy"]
    assert (whole["value"], whole["n"]) == (pytest.approx(7 / 9), 9)
    z, p, n = 1.959964, 7 / 9, 9
    centre = (p + z * z / 2 / n) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / 4 / n / n) / (1 + z * z / n)
    assert (whole["lo"], whole["hi"]) == (
        pytest.approx(centre - half, abs=1e-5),
        pytest.approx(centre + half, abs=1e-5),
    )
    assert whole["control_value"] == pytest.approx(5 / 9)  # always answering "compliant"
    assert rows["c0", "accuracy"]["value"] == pytest.approx(2 / 3)
    assert rows["all", "unparsed"]["value"] == pytest.approx(2 / 9)
    assert whole["interval"] == "Wilson"
    grouped = {(r["cell"], r["metric"]): r for r in member_rows(answers)}["all", "accuracy"]
    assert (grouped["value"], grouped["n"], grouped["n_groups"]) == (pytest.approx(7 / 9), 9, 5)
    assert grouped["interval"] == "Wilson at the effective n by procedure"


def test_samples_of_one_item_are_one_unit() -> None:
    once = frame("engaged", [1, 0, 1, 1, 0, 1]).drop(columns="group.procedure")
    thrice = pd.concat([once.assign(sample=k) for k in range(3)], ignore_index=True)
    one, three = (
        next(r for r in member_rows(f) if r["metric"] == "accuracy" and r["cell"] == "all") for f in (once, thrice)
    )
    assert three["n_groups"] == 6
    assert three["hi"] - three["lo"] > 0.95 * (one["hi"] - one["lo"])  # copies of an answer are no evidence


def test_a_pair_is_compared_on_the_same_items_with_holm_over_cells() -> None:
    a, b = [1] * 24, [1, 0, 1] * 8
    rows = differences(pair_rows(frame("engaged", a), frame("heuristic", b)))
    assert rows["c1"]["value"] == pytest.approx(1.0)
    assert (rows["c1"]["only_engaged"], rows["c1"]["only_heuristic"]) == (8, 0)
    assert rows["c1"]["p_items"] == pytest.approx(2 / 2**8)
    assert rows["c1"]["p_adjusted"] == pytest.approx(3 * 2 / 2**8)
    assert rows["c0"]["value"] == 0
    with pytest.raises(ValueError, match="different items"):
        pair_rows(frame("engaged", a), frame("heuristic", b[:-1]))


def test_significance_of_a_pair_counts_groups_not_items() -> None:
    a, b = [1] * 40, [0] * 40
    row = differences(pair_rows(grouped(a, "engaged", per_group=10), grouped(b, "heuristic", per_group=10)))["all"]
    assert row["p_items"] == pytest.approx(2 / 2**40)  # forty items ...
    assert (row["n"], row["n_groups"]) == (40, 4)
    assert row["p"] == row["p_adjusted"] == pytest.approx(2 / 2**4)  # ... of four procedures
    assert "4 units by procedure" in row["note"]
    assert "0.12" in row["note"]
    many = differences(pair_rows(grouped(a, "engaged", per_group=4), grouped(b, "heuristic", per_group=4)))["all"]
    assert many["p_adjusted"] == pytest.approx(2 / 2**10)
    assert many["note"] == ""


def test_significance_between_two_runs_counts_groups_not_items() -> None:
    (row,) = compare_frames(grouped([0] * 40, "m", per_group=10), grouped([1] * 40, "m", per_group=10), None).to_dict(
        "records"
    )
    assert (row["value"], row["n"], row["n_groups"]) == (1, 40, 4)
    assert row["p"] == row["p_adjusted"] == pytest.approx(2 / 2**4)
    assert "4 units by procedure" in row["note"]


def test_two_runs_are_compared_by_all_samples_of_an_item_and_each_item_is_one() -> None:
    first, later = [0, 1, 0, 0, 1, 0, 0] * 4, [1, 1, 0, 1, 1, 0, 1] * 4
    once = compare_frames(grouped(first, "m", per_group=2), grouped(later, "m", per_group=2), None).iloc[0]
    thrice = [grouped([x for x in right for _ in range(3)], "m", per_group=2, samples=3) for right in (first, later)]
    more = compare_frames(*thrice, None).iloc[0]
    for name in ("before", "after", "value", "lo", "hi", "n", "n_groups", "p"):
        assert more[name] == pytest.approx(once[name]), name
    assert more["note"].startswith("3 replies per item; more often right after 12, before 0")
    turned = thrice[1].copy()
    turned.loc[turned["sample"] > 0, "score.correct"] = 0.0  # only sample 0 was right
    assert compare_frames(thrice[0], turned, None).iloc[0]["value"] < 0
    assert compare_frames(thrice[0], turned.sample(frac=1, random_state=0), None).iloc[0]["value"] < 0
    with pytest.raises(ValueError, match="3 and 2 samples.*samples="):
        compare_frames(thrice[0], thrice[1][thrice[1]["sample"] < 2], None)


def test_several_samples_of_an_item_are_one_unit_of_the_pair() -> None:
    a, b = [1, 0, 1, 1, 1, 0, 1], [0, 0, 1, 0, 0, 0, 0]
    thrice = {m: grouped([x for x in right for _ in range(3)], m, per_group=1, samples=3)
              for m, right in (("engaged", a), ("heuristic", b))}  # fmt: skip
    once = differences(pair_rows(grouped(a, "engaged", per_group=1), grouped(b, "heuristic", per_group=1)))["all"]
    more = differences(pair_rows(thrice["engaged"], thrice["heuristic"]))["all"]
    for name in ("n", "n_groups", "value", "only_engaged", "only_heuristic", "p_items", "p", "p_adjusted"):
        assert more[name] == pytest.approx(once[name]), name
    fewer = thrice["heuristic"][thrice["heuristic"]["sample"] < 2]
    with pytest.raises(ValueError, match="different samples.*'g0', sample 2.*samples="):
        pair_rows(thrice["engaged"], fewer)


def test_both_tables_hold_accuracy_against_one_constant_reader() -> None:
    engaged, heuristic = frame("engaged", [1] * 9), frame("heuristic", [0] * 9)
    for f in (engaged, heuristic):
        f["cell"] = f["gold"]  # cells of one label each
    table = {r["cell"]: r["control_value"] for r in member_rows(engaged) if r["metric"] == "accuracy"}
    assert table == {"compliant": 1.0, "noncompliant": 0.0, "all": pytest.approx(5 / 9)}
    rows = [r for r in pair_rows(engaged, heuristic) if r["metric"] == "accuracy"]
    assert {r["cell"]: r["control_value"] for r in rows} == {"compliant": 1.0, "noncompliant": 0.0}
    assert with_pooled_control(pd.DataFrame(rows))["control_value"].tolist() == [pytest.approx(5 / 9)] * 4


def test_the_terminal_says_what_few_groups_cannot_show() -> None:
    frames = {m: grouped(right, m, per_group=10) for m, right in (("engaged", [1] * 40), ("heuristic", [0] * 40))}
    shown = headline(eval_tables(frames, TASK))
    assert "0.12" in shown.splitlines()[1]  # Holm p, of groups
    assert "note: 4 units by procedure: p cannot be below 0.12" in shown
    pairs = eval_tables(frames, TASK, notes={"all": "noisy"})["pair"]
    assert "† noisy; 4 units by procedure" in dumbbell(pairs).caption


def test_a_pair_table_names_the_interval_that_was_computed() -> None:
    right, wrong = [1] * 12, [1, 0] * 6
    alone = [frame(m, r).drop(columns="group.procedure") for m, r in (("engaged", right), ("heuristic", wrong))]
    assert {r["interval"] for r in differences(pair_rows(*alone)).values()} == {"Newcombe, paired"}
    assert {r["interval"] for r in pair_rows(*alone) if r["metric"] == "accuracy"} == {"Wilson"}
    shared = [f.assign(**{"group.procedure": ["a", "b"] * 6}) for f in alone]
    kinds = {(r["metric"], r["interval"]) for r in pair_rows(*shared)}
    assert kinds == {
        ("accuracy", "Wilson at the effective n by procedure"),
        ("accuracy_difference", "Newcombe at the effective n by procedure"),
    }
