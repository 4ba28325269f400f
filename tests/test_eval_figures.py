"""Figures of evaluations from their folders: what is drawn is what the tables say; what is not drawn says why."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from interp.io.frames import write_frame
from interp.prompt import Example
from interp.tasks import esi
from interp.tasks.bbq.changes import plane
from interp.tasks.protocol import load_task
from study.analyses.eval.compare import compare_evals
from study.analyses.eval.figures import comparison_figures, decomposition, figures_of, plane_of
from study.analyses.eval.run import FILES
from study.analyses.eval.store import answers_frame, answers_store, write_answers
from study.analyses.eval.tables import eval_tables
from study.cli import main
from study.figures import forest
from study.schema import DIFFERENCE
from tests.test_rewards import quad_item


def folder(root: Path, task: str, examples: list[Example], said: dict[str, list[str | None]], **modes: Any) -> Path:
    """A finished folder of `diptych eval` in which each member said these labels."""
    chosen: Any = load_task(task)
    frames = {}
    for member, labels in said.items():
        answers = [
            {"example_id": e.id, "sample": 0, "text": None, "label": label, "scores": chosen.score(e, label or ""),
             "n_prompt_tokens": 9, "n_new_tokens": 0, "finished": True, "p": {}, "logp": {}, "rule": "labels"}
            for e, label in zip(examples, labels, strict=True)
        ]  # fmt: skip
        frames[member] = answers_frame(answers, examples, member, task=chosen)
        with answers_store(root / member, {"task": task}):
            write_answers(root / member, frames[member])
    for name, table in eval_tables(frames, chosen).items():
        write_frame(root / FILES[name], table)
    return root


def bbq_items(n: int = 40) -> list[Example]:
    out = []
    for k in range(n):
        for condition, gold in (("ambig", "C"), ("disambig", "AB"[k % 2])):
            e = quad_item(condition, gold)
            metadata = {
                **e.metadata,
                "category": ("Age", "Religion")[k % 2],
                "cell": f"{('Age', 'Religion')[k % 2]}/{condition}",
            }
            out.append(Example(f"{k}-{condition}", e.messages, gold, {"story": f"s{k // 2}"}, metadata=metadata))
    return out


def bbq_answers(items: list[Example], seed: int, weights: tuple[int, int, int]) -> list[str | None]:
    rng = random.Random(seed)
    return [rng.choices("ABC", weights)[0] if e.label == "C" else str(e.label) for e in items]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    items = bbq_items()
    said = {"engaged": bbq_answers(items, 0, (2, 2, 6)), "heuristic": bbq_answers(items, 1, (6, 2, 2))}
    return folder(tmp_path_factory.mktemp("bbq"), "interp.tasks.bbq", items, said)


def test_a_bbq_pair_has_its_dumbbell_and_its_plane(pair: Path) -> None:
    made = dict(figures_of(pair))
    assert set(made) == {"dumbbell", "plane"}
    assert not [m for m in made.values() if isinstance(m, str)], made
    table = pd.read_csv(pair / "table.csv").set_index(["member", "cell", "metric"])["value"]
    drawn = made["plane"].rows.set_index("system")  # pyright: ignore[reportAttributeAccessIssue]
    for member in ("engaged", "heuristic"):
        assert drawn.loc[member, "coverage"] == pytest.approx(table[member, "all", "coverage"])
        assert drawn.loc[member, "commit_bias"] == pytest.approx(table[member, "all", "amb_commit_bias"])
    accuracy = made["dumbbell"].rows  # pyright: ignore[reportAttributeAccessIssue]
    assert set(accuracy["cell"]) == {"Age/ambig", "Age/disambig", "Religion/ambig", "Religion/disambig"}


def test_a_cell_that_cannot_be_compared_is_drawn_without_a_difference(tmp_path: Path) -> None:
    items = bbq_items(11)[:-1]  # one of the cells has an item less
    lone = [e for e in items if e.metadata["cell"] != "Religion/disambig"] + [
        next(e for e in items if e.metadata["cell"] == "Religion/disambig")
    ]
    said = {m: bbq_answers(lone, k, (2, 2, 6)) for k, m in enumerate(("engaged", "heuristic"))}
    drawn: Any = dict(figures_of(folder(tmp_path / "r", "interp.tasks.bbq", lone, said)))["dumbbell"]
    gaps = drawn.rows[drawn.rows["member"] == DIFFERENCE].set_index("cell")["value"]
    assert gaps.isna().to_dict() == {c: c == "Religion/disambig" for c in set(drawn.rows["cell"])}
    assert "–: the pair was not measured" in drawn.caption


def test_the_covariance_of_the_plane_is_that_of_independent_stories() -> None:
    rng = np.random.default_rng(0)
    one = quad_item("ambig", "C")
    metadata = {**one.metadata, "category": "Age"}
    items = [Example(f"{k}", one.messages, "C", {"story": f"s{k}"}, metadata=metadata) for k in range(4000)]
    said = list(rng.choice(list("ABC"), 4000, p=[0.3, 0.2, 0.5]))
    answers = [
        {"example_id": e.id, "sample": 0, "label": s, "scores": {}, "p": {}} for e, s in zip(items, said, strict=True)
    ]
    found = plane(answers_frame(answers, items, "m"))
    assert found["coverage"] == pytest.approx(np.mean([s != "C" for s in said]))
    assert found["cov_xx"] == pytest.approx(0.25 / 4000, rel=0.15)  # p (1 - p) / n
    share = 0.3 / 0.5
    assert found["cov_yy"] == pytest.approx(4 * share * (1 - share) / 2000, rel=0.15)
    assert abs(found["cov_xy"]) < 0.2 * np.sqrt(found["cov_xx"] * found["cov_yy"])
    with pytest.raises(ValueError, match="no reply that names a person"):
        plane(answers_frame([{**a, "label": "C"} for a in answers], items, "m"))


def test_the_parts_of_a_change_are_drawn_and_add_up(pair: Path, tmp_path: Path) -> None:
    before, after = pair / "heuristic", pair / "engaged"
    table, _ = compare_evals(before, after)
    made = dict(comparison_figures(before, after, table))
    assert set(made) == {"changes", "decomposition", "plane"}
    rows = made["decomposition"].rows.set_index("cell")["value"]  # pyright: ignore[reportAttributeAccessIssue]
    assert rows["... from coverage"] + rows["... from commit bias"] == pytest.approx(rows["change of s_AMB"])
    assert decomposition(table).rows["control_value"].eq(0).all()
    ask = ["eval", "compare", str(before), str(after), "--figures", str(tmp_path / "f")]
    done = CliRunner().invoke(main, ask)
    assert done.exit_code == 0, done.output
    assert {p.stem for p in (tmp_path / "f").glob("*.png")} == set(made)


def esi_folder(root: Path) -> tuple[Path, list[Example]]:
    items = esi.examples(per_cell=6, seed=2)
    rng = random.Random(3)
    said = [rng.choice([str(e.label), str(e.label), "2", None]) for e in items]
    return folder(root, "interp.tasks.esi", items, {"tiny": said}), items


def test_an_esi_run_has_its_confusion_and_its_rules_and_says_not_for_clinical_use(tmp_path: Path) -> None:
    root, items = esi_folder(tmp_path)
    done = CliRunner().invoke(main, ["eval", "figures", str(root)])
    assert done.exit_code == 0, done.output
    assert {p.stem for p in (root / "figures").glob("*.png")} == {"accuracy", "rules", "esi-tiny"}
    for path in (root / "figures").glob("*.txt"):
        assert "Not for clinical use" in path.read_text(), path
    made = dict(figures_of(root))
    answers = pd.read_parquet(root / "tiny" / "answers.parquet")
    counts = made["esi-tiny"].rows  # pyright: ignore[reportAttributeAccessIssue]
    assert counts["count"].sum() == len(items)
    for gold, pred in ((1, 1), (3, 2)):
        want = ((answers["gold"].astype(int) == gold) & (answers["label"] == str(pred))).sum()
        assert counts[(counts["gold"] == gold) & (counts["pred"] == pred)]["count"].sum() == want
    unread = counts[counts["gold"].notna() & counts["pred"].isna()]["count"].sum()
    assert unread == answers["label"].isna().sum() > 0
    rules = made["rules"].rows  # pyright: ignore[reportAttributeAccessIssue]
    assert {"intubation: present", "intubation: negated", "pain: present"} <= set(rules["cell"])


ROW = {"cell": "a", "value": 0.5, "lo": 0.4, "hi": 0.6, "n": 20, "control_value": 0.5, "interval": "Wilson"}


def test_a_row_is_filled_only_where_its_interval_excludes_its_control() -> None:
    table = pd.DataFrame([ROW, {**ROW, "cell": "b", "control_value": 0.3}, {**ROW, "cell": "c", "control_value": None}])
    drawn = forest(table)
    (ax,) = drawn.figure.axes
    marks = [line for line in ax.lines if str(line.get_gid()).startswith("mark-")]
    assert [m.get_markerfacecolor() == m.get_color() for m in marks] == [False, True, True]
    assert drawn.titles["mark-0"] == "a: 0.50 [0.40, 0.60], n = 20, control 0.5"
    assert "b 0.50 [0.40, 0.60] against 0.30" in drawn.alt
    assert "no correction over rows" in drawn.caption


def test_tables_without_interval_or_with_two_rows_for_one_mark_are_refused() -> None:
    with pytest.raises(ValueError, match="lacks columns lo, hi"):
        forest(pd.DataFrame([ROW]).drop(columns=["lo", "hi"]))
    with pytest.raises(ValueError, match="repeats cell"):
        forest(pd.DataFrame([ROW, ROW]))
    with pytest.raises(ValueError, match="at most three members"):
        forest(pd.DataFrame([{**ROW, "member": m} for m in "abcd"]))


def test_what_cannot_be_drawn_says_why_and_an_empty_folder_is_refused(pair: Path, tmp_path: Path) -> None:
    frames = {name: pd.read_parquet(pair / "engaged" / "answers.parquet") for name in "abcd"}
    with pytest.raises(ValueError, match="three systems"):
        plane_of(frames)
    done = CliRunner().invoke(main, ["eval", "figures", str(tmp_path)])
    assert done.exit_code == 1
    assert "found no answers" in done.output
    silent = folder(tmp_path / "s", "interp.tasks.bbq", bbq_items(), {"m": ["C"] * 80})
    assert "names a person" in str(dict(figures_of(silent))["plane"])
