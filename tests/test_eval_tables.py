"""Tables of an evaluation: intervals, controls, and a pair compared on the same items."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from study.analyses.eval.compare import compare_frames
from study.analyses.eval.show import headline
from study.analyses.eval.tables import dumbbell_rows, member_table, pair_table, write_tables
from tests.eval_kit import TASK, frame, grouped


def test_notes_on_label_noise_reach_the_terminal_and_the_figure(tmp_path: Path) -> None:
    from interp.tasks import procedural

    made = procedural.examples(per_cell=2, seed=1, cells=["prerequisite_omission", "step_reorder_invalid"])
    marked = [replace(e, groups={**e.groups, "institution": "FDA"}) for e in made]
    assert procedural.notes(marked) == {}  # the engine gave these labels
    marked = [replace(e, metadata={**e.metadata, "verdicts": None}) for e in marked]
    notes = procedural.notes(marked)
    assert list(notes) == ["prerequisite_omission"]
    assert "65.2%" in notes["prerequisite_omission"]
    frames = {m: grouped([1, 0] * 20, m, per_group=1) for m in ("engaged", "heuristic")}
    write_tables(frames, TASK, tmp_path, notes={"all": notes["prerequisite_omission"]})
    assert "65.2%" in headline(tmp_path, is_pair=True)
    pairs = pd.read_csv(tmp_path / "pair.csv", keep_default_na=False).to_dict("records")
    assert all("65.2%" in r["note"] for r in dumbbell_rows(pairs))


def test_accuracy_per_cell_has_wilsons_interval_and_its_control() -> None:
    answers = frame("engaged", [1, 1, 1, 0, 1, 1, 1, 0, 1])
    rows = {(r["cell"], r["metric"]): r for r in member_table(answers.drop(columns="group.procedure"))}
    whole = rows["all", "accuracy"]
    assert (whole["value"], whole["n"]) == (pytest.approx(7 / 9), 9)
    z, p, n = 1.959964, 7 / 9, 9
    centre = (p + z * z / 2 / n) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / 4 / n / n) / (1 + z * z / n)
    assert (whole["lo"], whole["hi"]) == (
        pytest.approx(centre - half, abs=1e-5),
        pytest.approx(centre + half, abs=1e-5),
    )
    assert whole["control"] == pytest.approx(5 / 9)  # always answering "compliant"
    assert rows["c0", "accuracy"]["value"] == pytest.approx(2 / 3)
    assert rows["all", "unparsed"]["value"] == pytest.approx(2 / 9)
    assert whole["interval"] == "Wilson"
    grouped = {(r["cell"], r["metric"]): r for r in member_table(answers)}["all", "accuracy"]
    assert (grouped["value"], grouped["n"], grouped["n_groups"]) == (pytest.approx(7 / 9), 9, 5)
    assert grouped["interval"] == "Wilson at the effective n by procedure"


def test_samples_of_one_item_are_one_unit() -> None:
    once = frame("engaged", [1, 0, 1, 1, 0, 1]).drop(columns="group.procedure")
    thrice = pd.concat([once.assign(sample=k) for k in range(3)], ignore_index=True)
    one, three = (
        next(r for r in member_table(f) if r["metric"] == "accuracy" and r["cell"] == "all") for f in (once, thrice)
    )
    assert three["n_groups"] == 6
    assert three["hi"] - three["lo"] > 0.95 * (one["hi"] - one["lo"])  # copies of an answer are no evidence


def test_a_pair_is_compared_on_the_same_items_with_holm_over_cells() -> None:
    a, b = [1] * 24, [1, 0, 1] * 8
    rows = {r["cell"]: r for r in pair_table(frame("engaged", a), frame("heuristic", b))}
    assert rows["c1"]["diff"] == pytest.approx(1.0)
    assert (rows["c1"]["only_engaged"], rows["c1"]["only_heuristic"]) == (8, 0)
    assert rows["c1"]["p_mcnemar"] == pytest.approx(2 / 2**8)
    assert rows["c1"]["p_holm"] == pytest.approx(3 * 2 / 2**8)
    assert rows["c0"]["diff"] == 0
    with pytest.raises(ValueError, match="different items"):
        pair_table(frame("engaged", a), frame("heuristic", b[:-1]))


def test_significance_of_a_pair_counts_groups_not_items() -> None:
    a, b = [1] * 40, [0] * 40
    (row,) = pair_table(grouped(a, "engaged", per_group=10), grouped(b, "heuristic", per_group=10))
    assert row["p_mcnemar"] == pytest.approx(2 / 2**40)  # forty items ...
    assert (row["n"], row["n_groups"]) == (40, 4)
    assert row["p_groups"] == row["p_holm"] == pytest.approx(2 / 2**4)  # ... of four procedures
    assert "4 units by procedure" in row["note"]
    assert "0.12" in row["note"]
    (many,) = pair_table(grouped(a, "engaged", per_group=4), grouped(b, "heuristic", per_group=4))
    assert many["p_holm"] == pytest.approx(2 / 2**10)
    assert many["note"] == ""


def test_significance_between_two_runs_counts_groups_not_items() -> None:
    (row,) = compare_frames(grouped([0] * 40, "m", per_group=10), grouped([1] * 40, "m", per_group=10), None).to_dict(
        "records"
    )
    assert (row["diff"], row["n"], row["n_groups"]) == (1, 40, 4)
    assert row["p"] == row["p_holm"] == pytest.approx(2 / 2**4)
    assert "4 units by procedure" in row["note"]


def test_two_runs_are_compared_by_all_samples_of_an_item_and_each_item_is_one() -> None:
    first, later = [0, 1, 0, 0, 1, 0, 0] * 4, [1, 1, 0, 1, 1, 0, 1] * 4
    once = compare_frames(grouped(first, "m", per_group=2), grouped(later, "m", per_group=2), None).iloc[0]
    thrice = [grouped([x for x in right for _ in range(3)], "m", per_group=2, samples=3) for right in (first, later)]
    more = compare_frames(*thrice, None).iloc[0]
    for name in ("before", "after", "diff", "lo", "hi", "n", "n_groups", "p"):
        assert more[name] == pytest.approx(once[name]), name
    assert more["note"].startswith("3 replies per item; more often right after 12, before 0")
    turned = thrice[1].copy()
    turned.loc[turned["sample"] > 0, "score.correct"] = 0.0  # only sample 0 was right
    assert compare_frames(thrice[0], turned, None).iloc[0]["diff"] < 0
    assert compare_frames(thrice[0], turned.sample(frac=1, random_state=0), None).iloc[0]["diff"] < 0
    with pytest.raises(ValueError, match="3 and 2 samples.*samples="):
        compare_frames(thrice[0], thrice[1][thrice[1]["sample"] < 2], None)


def test_several_samples_of_an_item_are_one_unit_of_the_pair() -> None:
    a, b = [1, 0, 1, 1, 1, 0, 1], [0, 0, 1, 0, 0, 0, 0]
    thrice = {m: grouped([x for x in right for _ in range(3)], m, per_group=1, samples=3)
              for m, right in (("engaged", a), ("heuristic", b))}  # fmt: skip
    (once,) = pair_table(grouped(a, "engaged", per_group=1), grouped(b, "heuristic", per_group=1))
    (more,) = pair_table(thrice["engaged"], thrice["heuristic"])
    for name in ("n", "n_groups", "diff", "only_engaged", "only_heuristic", "p_mcnemar", "p_groups", "p_holm"):
        assert more[name] == pytest.approx(once[name]), name
    fewer = thrice["heuristic"][thrice["heuristic"]["sample"] < 2]
    with pytest.raises(ValueError, match="different samples.*'g0', sample 2.*samples="):
        pair_table(thrice["engaged"], fewer)


def test_both_tables_hold_accuracy_against_one_constant_reader() -> None:
    engaged, heuristic = frame("engaged", [1] * 9), frame("heuristic", [0] * 9)
    for f in (engaged, heuristic):
        f["cell"] = f["gold"]  # cells of one label each
    table = {r["cell"]: r["control"] for r in member_table(engaged) if r["metric"] == "accuracy"}
    assert table == {"compliant": 1.0, "noncompliant": 0.0, "all": pytest.approx(5 / 9)}
    pairs = pair_table(engaged, heuristic)
    assert {r["cell"]: r["majority"] for r in pairs} == {"compliant": 1.0, "noncompliant": 0.0}
    assert [r["chance"] for r in dumbbell_rows(pairs)] == [pytest.approx(5 / 9)] * 4


def test_the_terminal_says_what_few_groups_cannot_show(tmp_path: Path) -> None:
    frames = {m: grouped(right, m, per_group=10) for m, right in (("engaged", [1] * 40), ("heuristic", [0] * 40))}
    write_tables(frames, TASK, tmp_path)
    shown = headline(tmp_path, is_pair=True)
    assert "0.12" in shown.splitlines()[1]  # Holm p, of groups
    assert "note: 4 units by procedure: p_groups cannot be below 0.12" in shown
    pairs = pd.read_csv(tmp_path / "pair.csv", keep_default_na=False).to_dict("records")
    assert all("4 units" in r["note"] and "noisy" in r["note"] for r in dumbbell_rows(pairs, notes={"all": "noisy"}))


def test_a_pair_table_names_the_interval_that_was_computed() -> None:
    right, wrong = [1] * 12, [1, 0] * 6
    alone = [frame(m, r).drop(columns="group.procedure") for m, r in (("engaged", right), ("heuristic", wrong))]
    for entry in pair_table(*alone):
        assert (entry["interval"], entry["diff_interval"]) == ("Wilson", "Newcombe, paired")
    shared = [f.assign(**{"group.procedure": ["a", "b"] * 6}) for f in alone]
    for entry in pair_table(*shared):
        assert entry["interval"] == "Wilson at the effective n by procedure"
        assert entry["diff_interval"] == "Newcombe at the effective n by procedure"
