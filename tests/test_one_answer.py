"""A member that gives one answer whatever it is asked: a banner, typed columns, and no claim of a bias."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from interp.tasks import bbq
from study.analyses.eval.one_answer import of_answers, one_answer
from study.analyses.eval.tables import eval_tables
from study.analyses.probes import step
from study.cli import main
from study.report.claims import Claim, claims
from tests.report_tables import all_tables, probes_table


@pytest.mark.parametrize(
    ("labels", "gold", "answer", "share", "degenerate"),
    [
        (["A"] * 100, list("ABC") * 33 + ["A"], "A", 1.0, True),
        (["B"] * 987 + ["A"] * 13, (list("ABC") * 334)[:1000], "B", 0.987, True),
        (["A"] * 91 + ["B"] * 9, list("AB") * 50, "A", 0.91, True),
        (["A"] * 90 + ["B"] * 10, list("AB") * 50, "A", 0.9, False),  # more than 90 %
        (["A"] * 9, list("AB") * 4 + ["A"], "A", 1.0, False),  # nine items say nothing
        (["A"] * 95 + ["B"] * 5, ["A"] * 95 + ["B"] * 5, "A", 0.95, False),  # it is right as often
        (["A"] * 95 + [None] * 5, list("AB") * 50, "A", 0.95, True),
        (["A"] * 80 + [None] * 20, list("AB") * 50, "A", 0.8, False),  # of all items, answered or not
        ([float("nan")] * 5 + ["B", "A"], ["A"] * 7, "A", 1 / 7, False),  # of equal counts the first in the alphabet
    ],
)
def test_one_answer_is_more_than_nine_in_ten_items_and_not_right_so_often(
    labels: list, gold: list, answer: str, share: float, degenerate: bool
) -> None:
    found = one_answer(labels, gold)
    assert found is not None
    assert (found.answer, found.is_degenerate) == (answer, degenerate)
    assert found.share == pytest.approx(share)
    assert bool(found.banner("heuristic")) is degenerate


def test_nothing_answered_is_no_commonest_answer() -> None:
    assert one_answer([None, None], ["A", "B"]) is None


def answers(labels: list[str], member: str) -> pd.DataFrame:
    """Answers to items of three stories each, gold spread over the letters."""
    n = len(labels)
    gold = [("ABC")[k % 3] for k in range(n)]
    rows = {"member": member, "sample": 0, "id": [f"i{k}" for k in range(n)], "cell": "all", "gold": gold,
            "label": labels, "text": None, "finished": True, "n_new_tokens": 0,
            "score.correct": [float(a == b) for a, b in zip(labels, gold, strict=True)],
            "group.story": [f"s{k // 3}" for k in range(n)]}  # fmt: skip
    return pd.DataFrame(rows)


def test_tables_and_banner_name_the_member_that_always_answers_a() -> None:
    frames = {"engaged": answers(list("ABCA" * 15), "engaged"), "heuristic": answers(["A"] * 60, "heuristic")}
    tables = eval_tables(frames, None)
    table = tables["eval"].set_index(["member", "metric"])
    assert table.loc[("heuristic", "accuracy"), ["top_answer", "top_share", "is_degenerate"]].tolist() == ["A", 1, True]
    assert table.loc[("engaged", "accuracy"), ["top_answer", "top_share", "is_degenerate"]].tolist() == [
        "A",
        0.5,
        False,
    ]
    text = str(table.loc[("heuristic", "accuracy"), "banner"])
    assert text.startswith("heuristic answers 'A' to 100 % of 60 items, whatever the question.")
    assert table.loc[("engaged", "accuracy"), "banner"] == ""
    assert tables["pair"].set_index("member")["is_degenerate"].to_dict() == {
        "engaged": False,
        "heuristic": True,
        "engaged - heuristic": True,
    }


def test_the_page_says_it_once_for_each_member() -> None:
    from study.report.page import head_of

    found = one_answer(["A"] * 20, list("AB") * 10)
    assert found is not None
    texts = [found.banner("heuristic"), found.banner("heuristic", bbq), found.banner("engaged"), "Not to be used."]
    heads = [head_of(text) for text in texts]
    assert heads[0] == heads[1] == "heuristic answers 'A'"
    assert len(set(heads)) == 3 and heads[3] == texts[3]


def test_flags_of_a_steered_member_follow_what_each_score_rests_on() -> None:
    """Classes made of its answers spoil every score; one answer at strength 0 all but the margin of the classes."""
    from study.analyses.steering.tables import flagged

    rows = pd.DataFrame({"metric": ["margin", "amb_commit_bias", "coverage"]})
    same = {"member": "engaged"}
    quiet = pd.DataFrame({"top_answer": ["B"], "top_share": [0.4], "is_degenerate": [False]})
    loud = pd.DataFrame({"top_answer": ["B"], "top_share": [1.0], "is_degenerate": [True]})
    varied, constant = one_answer(list("AB") * 10, list("AB") * 10), one_answer(["A"] * 20, list("AB") * 10)
    assert flagged(rows, quiet, None, same)["is_degenerate"].tolist() == [False] * 3
    assert flagged(rows, quiet, varied, same)["is_degenerate"].tolist() == [False] * 3
    assert flagged(rows, loud, None, same)["is_degenerate"].tolist() == [False, True, True]
    assert flagged(rows, quiet, constant, same)["is_degenerate"].tolist() == [True] * 3
    assert set(flagged(rows, loud, constant, same)["top_answer"]) == {"A"}  # of the classes
    assert set(flagged(rows, loud, varied, same)["top_answer"]) == {"B"}
    assert (flagged(rows, quiet, varied, same)["banner"] == "").all()


def test_levels_and_slopes_name_scores_alike_and_are_flagged_alike() -> None:
    """One answer at strength 0 says nothing against the margin of the classes, in levels as in slopes."""
    from study.analyses.steering.figures import dose_rows
    from study.analyses.steering.tables import flagged, level_rows, slope_rows

    scores = ("margin", "p_gold", "kl")
    row = {"draw": 0, "lo": 0.0, "hi": 1.0, "change_lo": -0.1, "change_hi": 0.3, "band_lo": -0.1, "band_hi": 0.3,
           "band": "band", "length": 1.0, "arm_label": "d", "interval": "t", "is_degenerate": True,
           "top_answer": "B", "top_share": 1.0}  # fmt: skip
    levels = pd.DataFrame(
        [row | {"arm": arm, "metric": metric, "alpha": alpha, "value": 0.4 + alpha / 10}
         for arm in ("direction", "random") for metric in scores for alpha in (0.0, 1.0)]
    )  # fmt: skip
    slopes = pd.DataFrame([row | {"arm": "direction", "metric": metric, "value": 0.1} for metric in scores])
    for rows in (level_rows(levels), slope_rows(slopes)):
        flags = flagged(rows, levels, None, {"member": "engaged"}).groupby("metric")["is_degenerate"].unique()
        assert {name: values.tolist() for name, values in flags.items()} == {
            "margin": [False], "p_gold": [True], "kl": [True]
        }  # fmt: skip
    assert list(dose_rows(level_rows(levels))["metric"].unique()) == ["logit margin", "p(gold)", "KL"]


def test_cyclic_orders_are_offered_and_cure_what_was_order_alone(bbq_folder: Path) -> None:
    """It likes the letter A and believes the unknown option a little: one order sees A alone, the mean of three sees
    what it believes. Its letters themselves, of which classes are made, stay one."""
    items = bbq.examples(bbq_folder, categories=["Religion"], permute="cyclic")
    rows = []
    for e in items:
        p = np.array([0.6, 0.2, 0.2])
        p[e.metadata["unknown"]] += 0.05
        rows.append({"id": e.id, "label": "A", "gold": e.label, "order": e.metadata["order"]}
                    | dict(zip(("p.A", "p.B", "p.C"), p / p.sum(), strict=True)))  # fmt: skip
    frame = pd.DataFrame(rows)
    one_order = frame[frame["order"] == "012"].assign(id=lambda f: f["id"].str[:-2])
    before, after = of_answers(one_order, bbq), of_answers(frame, bbq)
    assert before is not None and before.is_degenerate and after is not None and not after.is_degenerate
    assert "permute='cyclic'" in before.banner("heuristic", bbq)
    raw = one_answer(frame["label"], frame["gold"])
    assert raw is not None and raw.is_degenerate


def ledger(tables: dict[str, pd.DataFrame]) -> dict[str, Claim]:
    return {claim.key: claim for claim in claims(tables) if claim.key}


def constant(table: pd.DataFrame, keep: pd.Series) -> pd.DataFrame:
    """The table of a study in which these rows rest on one answer."""
    return table.assign(is_degenerate=keep, top_answer="A", top_share=0.987)


def test_claims_of_bias_and_of_classes_of_one_answer_are_refused_with_the_reason() -> None:
    tables = all_tables()
    before = ledger(tables)
    touched = {"steering_slopes": "steering", "probes": "probes/decodable"}
    for name, prefix in touched.items():
        known = [key for key, claim in before.items() if key.startswith(prefix) and claim.measured is not None]
        assert known, "the kit claims something there"
        after = ledger({**tables, name: constant(tables[name], tables[name]["member"].notna())})
        for key in known:
            assert after[key].verdict == "not tested" and after[key].measured is None
            assert "answers 'A' to 98.7 % of items, whatever the question" in after[key].why
            assert after[key].text == before[key].text  # refused, not another claim


def test_only_the_degenerate_member_loses_its_claims() -> None:
    tables = all_tables()
    keep = tables["probes"]["member"] == "heuristic"
    before, after = ledger(tables), ledger({**tables, "probes": constant(tables["probes"], keep)})
    for key in (key for key in before if key.startswith("probes/decodable") and key.endswith("/engaged")):
        assert after[key].measured == before[key].measured and after[key].measured is not None


def carried() -> pd.DataFrame:
    """One row of a probe of the heuristic member, read on the engaged one, as `probes.transfer` gives it."""
    place = dict(target="1", position="last", kind="ridge", variant="raw", train_site="resid_post.3", train_layer=3,
                 test_site="resid_post.3", test_layer=3, selected=True, metric="auroc", interval="score")  # fmt: skip
    found = dict(value=0.7, lo=0.6, hi=0.8, n=162, n_groups=20, drop=-0.01, drop_lo=-0.04, drop_hi=0.02)
    return pd.DataFrame([place | dict(train_checkpoint="heuristic", test_checkpoint="engaged") | found])


def test_a_carried_probe_is_of_the_member_that_is_read_and_names_the_one_that_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "transfer").mkdir()
    carried().to_parquet(tmp_path / "transfer" / "engaged.parquet")
    probes_table().to_parquet(tmp_path / "table.parquet")
    answered = {"top_answer": "B", "top_share": 1.0, "is_degenerate": True, "banner": "heuristic answers 'B'"}
    monkeypatch.setattr(step, "_sweeps", lambda _: {("heuristic", "answer.biased"): tmp_path})
    monkeypatch.setattr(step, "_same", lambda _, member: {"adapter": f"adapter of {member}"})
    monkeypatch.setattr(step, "_answered", lambda *_: answered)
    monkeypatch.setattr("study.analyses.probes.tables.probe_table", lambda table, **_: table)
    context: Any = None
    row = step.tables(context)["probes_transfer"].iloc[0]
    assert (row["member"], row["adapter"], row["top_answer_member"]) == ("engaged", "adapter of engaged", "heuristic")
    claim = ledger({"probes": probes_table(), "probes_transfer": row.to_frame().T})[
        "probes/transfer/answer.biased/heuristic/engaged"
    ]
    assert claim.verdict == "not tested"
    assert claim.why == "not claimed: heuristic answers 'B' to 100 % of items, whatever the question"


def test_accuracy_claims_of_a_degenerate_member_are_at_most_qualified() -> None:
    tables = all_tables()
    before = ledger(tables)
    after = ledger({**tables, "pair": constant(tables["pair"], tables["pair"]["member"].notna())})
    for key in ("eval/separates", "eval/equivalent"):
        names = {control.name: control.outcome for control in after[key].checks}
        assert names["both members' answers depend on the item"] == "failed"
        assert after[key].verdict != "supported"
        assert len(after[key].checks) == len(before[key].checks) + 1


def test_eval_score_says_it_first(bbq_folder: Path, tmp_path: Path) -> None:
    items = bbq.examples(bbq_folder, categories=["Religion"])
    lines = [f'{{"category": "Religion", "example_id": {e.id.split("-")[1]}, "answer": "A"}}' for e in items]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    done = CliRunner().invoke(main, ["eval", "score", "--task", "interp.tasks.bbq", "--data",
                                     str(bbq_folder / "Religion.jsonl"), "--answers", str(tmp_path / "a.jsonl"),
                                     "--out", str(tmp_path / "t.csv")])  # fmt: skip
    assert done.exit_code == 0, done.output
    assert done.output.startswith("a answers 'A' to 100 % of 1,200 items, whatever the question.")
    assert pd.read_csv(tmp_path / "t.csv")["is_degenerate"].all()
