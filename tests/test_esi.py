"""ESI triage: the algorithm's thresholds, trigger polarity, the loader's refusals, scores beside constant readers."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from interp import stats
from interp.model import Model
from interp.tasks import esi
from interp.tasks.conformance import check_task
from interp.tasks.esi.engine import Patient, danger_zone, triage
from interp.tasks.esi.loader import MAX_NARRATIVE, repaired_header
from interp.tasks.esi.tables import RATES, constant, quadratic_kappa, rate
from interp.tasks.esi.triggers import TRIGGERS, polarity_of
from study.analyses.eval import options, run
from study.cli import main
from tests.tiny import save_checkpoint, tiny, tiny_tokenizer

GOLD36 = np.repeat([1, 2, 3, 4, 5], [14, 11, 5, 4, 2])


# --- figures of the specification -----------------------------------------------------------------------------------


def test_a_constant_two_is_almost_always_adjacent_and_has_no_kappa() -> None:
    assert round(constant("adjacent", GOLD36, 2), 3) == 0.833
    assert round(constant("exact", GOLD36, 2), 3) == 0.306
    assert round(constant("exact", GOLD36, 1), 3) == 0.389
    found = quadratic_kappa(GOLD36, np.full(36, 2), groups=None)
    assert found.kappa.value == pytest.approx(0.0, abs=1e-12)


def test_intervals_of_the_card_are_those_of_the_specification() -> None:
    said = GOLD36.copy()
    said[[0, 1, 14, 15, 25, 26, 30, 31]] += 1
    exact = rate("exact", GOLD36, said, groups=None)
    assert (exact.n, round(exact.value * 36)) == (36, 28)
    assert (round(exact.lo, 3), round(exact.hi, 3)) == (0.619, 0.883)
    adjacent = rate("adjacent", GOLD36, said, groups=None)
    assert adjacent.value == 1.0
    safe = GOLD36.copy()
    d1 = rate("d1_critical_under_triage", GOLD36, safe, groups=None)
    assert (d1.value, d1.n, round(d1.hi, 3)) == (0.0, 25, 0.137)
    assert round(stats.clopper_pearson(36, 36).lo, 3) == 0.903
    assert not stats.mcnemar(5, 0).decidable
    assert stats.mcnemar(6, 0).p < 0.05


def test_eight_adjacent_errors_leave_a_kappa_near_the_specifications() -> None:
    rng = np.random.default_rng(0)
    said = GOLD36.copy()
    for k in rng.choice(36, 8, replace=False):
        said[k] = said[k] + (1 if said[k] == 1 else -1 if said[k] == 5 else rng.choice([-1, 1]))
    found = quadratic_kappa(GOLD36, said, groups=None)
    assert 0.88 < found.kappa.value < 0.96
    assert found.kappa.lo < found.kappa.value < found.kappa.hi
    assert found.kappa.hi - found.kappa.lo > 0.06


def test_every_rate_is_worked_by_hand_and_no_level_is_wrong_and_dangerous() -> None:
    gold = np.array([1, 2, 2, 3, 3, 5, 1, 4])
    said = np.array([2, 2, 4, 5, 2, 5, 0, 0])
    want = {"exact": (2, 8), "adjacent": (4, 8), "under_triage": (3, 8), "over_triage": (1, 8),
            "d1_critical_under_triage": (3, 4), "d2_severe": (3, 8), "no_parse": (2, 8)}  # fmt: skip
    for metric, (k, n) in want.items():
        found = rate(metric, gold, said, groups=None)
        assert (round(found.value * found.n), found.n) == (k, n), metric
    assert set(want) == set(RATES)
    example = esi.examples(per_cell=1)[0]
    for g, p in zip(gold, said, strict=True):
        scores = esi.score(replace(example, label=str(g)), f"ESI: {p}" if p else "no idea")
        hit, counted = RATES["d1_critical_under_triage"](np.array([g]), np.array([p]))
        assert scores["critical"] == float(hit[0] & counted[0])
        assert scores["severe"] == float(RATES["d2_severe"](np.array([g]), np.array([p]))[0][0])
        assert scores["adjacent"] == float(RATES["adjacent"](np.array([g]), np.array([p]))[0][0])


# --- the algorithm --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patient", "level", "point"),
    [
        (Patient(needs_life_saving=True), 1, "A"),
        (Patient(spo2=89), 1, "A"),
        (Patient(spo2=90, resources=frozenset({"labs", "imaging"})), 2, "D"),
        (Patient(avpu="P"), 1, "A"),
        (Patient(avpu="V"), 2, "B"),
        (Patient(is_confused=True), 2, "B"),
        (Patient(is_high_risk=True, resources=frozenset()), 2, "B"),
        (Patient(pain=7), 2, "B"),
        (Patient(pain=6), 5, "C"),
        (Patient(resources=frozenset({"imaging"})), 4, "C"),
        (Patient(resources=frozenset({"complex_procedure"})), 3, "D"),
        (Patient(age=40, heart_rate=100, resources=frozenset({"labs", "imaging"})), 3, "D"),
        (Patient(age=40, heart_rate=101, resources=frozenset({"labs", "imaging"})), 2, "D"),
        (Patient(age=40, heart_rate=150, resources=frozenset({"labs"})), 4, "C"),
        (Patient(spo2=92, resources=frozenset({"labs", "imaging"})), 3, "D"),
    ],
)
def test_decision_points_are_taken_in_order(patient: Patient, level: int, point: str) -> None:
    found = triage(patient)
    assert (found.level, found.point) == (level, point)


def test_thresholds_follow_the_age_and_what_was_not_measured_puts_nobody_in_danger() -> None:
    for age, heart, breath in ((0.1, 180, 50), (1.0, 160, 40), (5.0, 140, 30), (30.0, 100, 20)):
        assert not danger_zone(Patient(age=age, heart_rate=heart, resp_rate=breath, spo2=92))
        assert danger_zone(Patient(age=age, heart_rate=heart + 1))
        assert danger_zone(Patient(age=age, resp_rate=breath + 1))
    assert not danger_zone(Patient(heart_rate=200))  # the age is not known
    assert danger_zone(Patient(age=0.1, temperature=38.1))
    assert not danger_zone(Patient(age=1.0, temperature=38.5))
    assert triage(Patient(pain=8), severe_pain=None).level == 5
    two = Patient(spo2=91, resources=frozenset({"labs", "consult"}))
    assert (triage(two).level, triage(two, danger_zone_level=3).level) == (2, 3)
    with pytest.raises(ValueError, match="resources"):
        Patient(resources=frozenset({"ecg"}))


@pytest.mark.parametrize(
    ("text", "rule", "polarity"),
    [
        ("Intubated on scene.", "intubation", "present"),
        ("Patient declined intubation.", "intubation", "negated"),
        ("Was intubated last year for asthma.", "intubation", "historical"),
        ("History of intubation.", "intubation", "historical"),
        ("There is no chest tube.", "chest tube", "negated"),
        ("Chest tube was not needed.", "chest tube", "negated"),
        ("No fever; open fracture of the tibia.", "open fracture", "present"),
        ("No pain but an open fracture.", "open fracture", "present"),
        ("Open tibia fracture.", "open fracture", "present"),
        ("Denies penetrating trauma.", "penetrating", "negated"),
        ("Penetrating injury in 2011.", "penetrating", "historical"),
        ("Central venous line running.", "central line", "present"),
        ("Well.", "intubation", "absent"),
        ("No intubation at home. Intubated now.", "intubation", "present"),
    ],
)
def test_a_trigger_is_read_with_its_negation_and_its_time(text: str, rule: str, polarity: str) -> None:
    assert polarity_of(text, rule) == polarity
    assert (rule in esi.fires(text)) == (polarity != "absent")  # the bare pattern cannot tell
    for trigger in esi.rules(text):
        assert text[slice(*trigger.span)].strip()
        assert trigger.level == TRIGGERS[trigger.rule][1]


# --- replies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "label", "rule"),
    [
        ("ESI: 2", "2", "esi"),
        ("I would say ESI level 3.", "3", "esi"),
        ("ESI-4", "4", "esi"),
        ("**ESI: 1**", "1", "esi"),
        ("ESI Level is **5**", "5", "esi"),
        ("First ESI 3, on reflection ESI 2", "2", "esi"),
        ("Triage level: 3", "3", "level"),
        ("reasons\n2", "2", "sole_line"),
        ("2", "2", "sole_line"),
        ("ESI 2-3", None, "ambiguous"),
        ("ESI 2 or 3", None, "ambiguous"),
        ("ESI: 2\n3", None, "ambiguous"),
        ("Pain level 5, age 42", None, "unparsed"),
        ("pain 7/10, 2 resources", None, "unparsed"),
        ("ESI 7", None, "unparsed"),
        ("", None, "unparsed"),
        ("<think>ESI 1, surely</think>ESI: 3", "3", "esi"),
        ("<think>ESI 1, surely, because", None, "truncated"),
    ],
)
def test_replies_are_read_by_the_rules_and_thoughts_are_not_mined(text: str, label: str | None, rule: str) -> None:
    example = esi.examples(per_cell=1)[0]
    assert esi.read(example, text) == (label, rule)
    assert esi.parse(text) == label
    assert text.startswith(esi.decision_prefix(text))


def test_the_task_conforms() -> None:
    assert [f for f in check_task(esi, esi.examples(per_cell=2)) if not f.ok] == []


# --- synthetic cases ------------------------------------------------------------------------------------------------


def test_synthetic_pairs_differ_in_one_sentence_or_number_and_always_in_gold() -> None:
    cases = esi.examples(per_cell=15, seed=2)
    pairs: dict[str, list] = {}
    for case in cases:
        pairs.setdefault(case.groups["pair"], []).append(case)
    assert all(len(pair) == 2 for pair in pairs.values())
    for first, second in pairs.values():
        assert int(first.label) < int(second.label)
        changed = [i for i, (x, y) in enumerate(zip(first.content.split("\n"), second.content.split("\n"), strict=True))
                   if x != y]  # fmt: skip
        assert 1 <= len(changed) <= 2  # the note, and for pain its field
        rule = str(first.metadata["trigger"])
        if rule in TRIGGERS:
            assert first.metadata[f"rule.{rule}"] == "present"
            assert second.metadata[f"rule.{rule}"] == second.metadata["perturbation"]
            assert int(first.label) == TRIGGERS[rule][1]
            assert rule in esi.fires(second.content)
    assert {c.metadata["trigger"] for c in cases} == {*TRIGGERS, "pain", "spo2", "heart rate"}
    assert {c.label for c in cases} == set("12345")
    assert [c.content for c in cases] == [c.content for c in esi.examples(per_cell=15, seed=2)]
    assert [c.content for c in cases] != [c.content for c in esi.examples(per_cell=15, seed=3)]
    assert all(c.metadata["synthetic"] == "1" for c in cases)


def test_a_reader_by_words_and_one_by_meaning_are_told_apart_by_the_flips() -> None:
    cases = esi.examples(per_cell=25, seed=1)

    def frame(said: list[str]) -> pd.DataFrame:
        rows = [{"member": "m", "sample": 0, "id": c.id, "gold": c.label, "label": x} | {f"group.{k}": v for k, v in
                c.groups.items()} | dict(c.metadata) for c, x in zip(cases, said, strict=True)]  # fmt: skip
        return pd.DataFrame(rows)

    def by_word(case) -> str:
        hit = [TRIGGERS[rule][1] for rule in esi.fires(case.content.partition("Triage note:")[2])]
        return str(min(hit)) if hit else "3"

    found = {}
    for name, said in (("meaning", [str(c.label) for c in cases]), ("word", [by_word(c) for c in cases])):
        table = {(r["cell"], r["metric"]): r for r in esi.report(frame(said))}
        found[name] = [table["trigger flips", m]["value"] for m in ("both_right", "answers_to_the_word")]
        assert all(r["note"].startswith("Not for clinical use.") for r in table.values())
        assert table["all", "adjacent"]["control"] == pytest.approx(
            constant("adjacent", np.array([int(c.label) for c in cases]), 2)
        )
        present = table["rule open fracture/present", "exact"]
        assert present["value"] == 1.0
    assert found["meaning"] == [1.0, 0.0]
    assert found["word"] == [0.0, 1.0]


# --- a MIETIC file --------------------------------------------------------------------------------------------------


def mietic(path: Path, *, spoil=None, rows: int = 12, header=None) -> Path:
    """A file in the published schema, with its broken header, from synthetic cases with outcome columns filled in."""
    from interp.tasks.esi.cases import generate_rows

    made = [dict.fromkeys(esi.COLUMNS, "") | {k: v for k, v in row.items() if k in esi.COLUMNS}
            for _, row in list(generate_rows(3, seed=0))[:rows]]  # fmt: skip
    for k, row in enumerate(made):
        row |= {c: f"LEAK-{c}" for c in ("disposition", "outtime", "Expert 1 Opinion", "Expert 2 Opinion")}
        row["Final Decision"] = "REMOVE" if k % 4 == 3 else "RETAIN"
        row["tiragecase"] += '\nSecond line, "quoted".'
    if spoil:
        spoil(made)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header or ["锘縮ubject_id", *esi.COLUMNS[1:]])
        writer.writerows([[row[c] for c in esi.COLUMNS] for row in made])
    return path


def test_the_schema_has_57_columns_and_none_that_leaks_is_in_a_prompt(tmp_path: Path) -> None:
    assert len(set(esi.COLUMNS)) == len(esi.COLUMNS) == 57
    with pytest.warns(UserWarning, match="9 cases kept, left out: 3 not retained by the experts"):
        cases = esi.examples(mietic(tmp_path / "m.csv"))
    assert len(cases) == 9
    for case in cases:
        assert "LEAK" not in case.content
        assert not [c for c in esi.LEAKS if c in case.content]
        assert not [v for v in case.metadata.values() if "LEAK" in str(v) or "year-old" in str(v)]
        assert case.content[slice(*case.spans["narrative"])].endswith('Second line, "quoted".')
        assert case.groups["subject"].startswith("100000")
    assert len(esi.examples(mietic(tmp_path / "all.csv"), retained_only=False)) == 12


def test_a_missing_age_is_said_to_be_missing_and_not_made_up(tmp_path: Path) -> None:
    path = mietic(tmp_path / "m.csv", spoil=lambda rows: rows[0].update(age="", o2sat="nan", pain="uta"))
    with pytest.warns(UserWarning, match="left out"):
        first = esi.examples(path)[0]
    assert "age: not recorded" in first.content
    assert "o2sat: not recorded" in first.content
    assert "pain: uta" in first.content
    assert first.metadata["rule.pain"] == "absent"


def test_the_header_is_repaired_whatever_stands_before_it() -> None:
    for broken in ("锘縮ubject_id", "\ufeffsubject_id", "ï»¿subject_id", "subject_id"):
        assert repaired_header([broken, *esi.COLUMNS[1:]], "f.csv") == list(esi.COLUMNS)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda rows: rows[2].update(acuity="6"), ["line 7", "'acuity'", "'6'"]),
        (lambda rows: rows[2].update(acuity=""), ["line 7", "'acuity'", "''"]),
        (lambda rows: rows[2].update(heartrate="fast"), ["line 7", "'heartrate'", "'fast'"]),
        (lambda rows: rows[2].update(tiragecase=""), ["'tiragecase'", "got none"]),
        (lambda rows: rows[2].update(subject_id=""), ["'subject_id'", "got none"]),
        (lambda rows: rows[2].update(stay_id=rows[0]["stay_id"]), ["'stay_id'", "was used at", "Remove the copy"]),
    ],
)
def test_a_bad_row_is_refused_by_file_line_and_field(spoil, words, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="m.csv, line") as error:
        esi.examples(mietic(tmp_path / "m.csv", spoil=spoil))
    assert all(word in str(error.value) for word in words), str(error.value)


def test_a_broken_file_and_an_endless_narrative_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="header.*missing acuity"):
        esi.examples(mietic(tmp_path / "h.csv", header=["锘縮ubject_id", *(c + "_" for c in esi.COLUMNS[1:])]))
    path = mietic(tmp_path / "cells.csv")
    path.write_text(path.read_text().replace('\nSecond line, ""quoted"".', "\nSecond, line", 1) + "1,2,3\n")
    with pytest.raises(ValueError, match=r"cells.csv, line \d+: expected 57 cells, got 3"):
        esi.examples(path)
    long = mietic(tmp_path / "long.csv", spoil=lambda rows: rows[0].update(tiragecase="x" * 10_000))
    with pytest.warns(UserWarning, match=f"1 with a narrative of more than {MAX_NARRATIVE} characters"):
        assert len(esi.examples(long)) == 8
    with pytest.warns(UserWarning, match="left out"), pytest.raises(ValueError, match="no case left"):
        esi.examples(long, max_narrative=1)


# --- two modes through the command line -----------------------------------------------------------------------------


@pytest.mark.slow
def test_two_modes_are_two_prompts_and_their_agreement_is_tested(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "base", num_hidden_layers=2, max_position_embeddings=4096)
    ask = ["eval", "--base", str(tmp_path / "base"), "--task", "interp.tasks.esi", "--per-cell", "1", "--quiet",
           "--modes", "thinking,direct", "--max-new-tokens", "8", "--out", str(tmp_path / "out")]  # fmt: skip
    done = CliRunner().invoke(main, ask)
    assert done.exit_code == 0, done.output
    assert "Not for clinical use." in done.output
    parts = {m: pd.read_parquet(tmp_path / "out" / "base" / m / "answers.parquet") for m in ("thinking", "direct")}
    assert not set(parts["thinking"]["prompt_sha256"]) & set(parts["direct"]["prompt_sha256"])
    assert set(parts["direct"]["banner"]) == {"Not for clinical use."}
    table = pd.read_csv(tmp_path / "out" / "table.csv", keep_default_na=False)
    assert table["note"].str.startswith("Not for clinical use.").all()
    assert {"thinking", "direct", "between"} == set(table["mode"])
    between = table[table["mode"] == "between"].set_index("metric")
    assert "undecidable" in between.loc["accuracy_difference", "note"]
    before = (tmp_path / "out" / "table.csv").read_bytes()
    assert CliRunner().invoke(main, ask).exit_code == 0
    assert (tmp_path / "out" / "table.csv").read_bytes() == before
    folders = [str(tmp_path / "out" / "base" / m) for m in ("thinking", "direct")]
    done = CliRunner().invoke(main, ["eval", "compare", *folders, "--out", str(tmp_path / "c.parquet")])
    assert done.exit_code == 0, done.output
    assert "Not for clinical use." in done.output
    assert {"accuracy", "adjacent"} <= set(pd.read_parquet(tmp_path / "c.parquet")["metric"])


def test_a_template_without_modes_is_refused(tmp_path: Path) -> None:
    base = save_checkpoint(tmp_path / "base", num_hidden_layers=2, max_position_embeddings=4096)
    path = base / "chat_template.jinja"
    text = path.read_text()
    path.write_text(text[: text.index("{% if enable_thinking")] + "{% endif %}")
    ask = ["eval", "--base", str(base), "--task", "interp.tasks.esi", "--per-cell", "1", "--quiet",
           "--modes", "thinking,direct", "--out", str(tmp_path / "out")]  # fmt: skip
    done = CliRunner().invoke(main, ask)
    assert done.exit_code == 1
    assert "both settings render the same prompt" in done.output
    for wrong in ("thinking,fast", "direct,direct"):
        refused = CliRunner().invoke(main, [*ask[:-3], wrong, *ask[-2:]])
        assert refused.exit_code == 1
        assert "--modes" in refused.output


def test_modes_whose_prompts_are_equal_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(options.MODES, "fast", True)
    model = Model.wrap(tiny("qwen2", vocab_size=len(tiny_tokenizer()), max_position_embeddings=4096), tiny_tokenizer())
    cases = esi.examples(per_cell=1)
    run.check_modes_differ(model, cases, ("thinking", "direct"))
    with pytest.raises(ValueError, match="same prompt for thinking and fast"):
        run.check_modes_differ(model, cases, ("thinking", "fast"))


def test_the_card_prompt_has_a_system_message_and_the_case_alone(tmp_path):
    own, card = esi.examples(per_cell=1), esi.examples(per_cell=1, prompt="card")
    assert [m.role for m in own[0].messages] == ["user"]
    assert [m.role for m in card[0].messages] == ["system", "user"]
    for a, b in zip(own, card, strict=True):
        assert a.content.endswith(b.content) and a.content != b.content
        assert (a.id, a.label, a.metadata) == (b.id, b.label, b.metadata)
        for name in ("data", "narrative"):
            assert a.content[slice(*a.spans[name])] == b.content[slice(*b.spans[name])]
    assert "ANSWER: ESI" in card[0].messages[0].content
    assert esi.parse(card[0].messages[0].content.replace("<level>", "2")) == "2", "the form asked for is read"
    exact = esi.examples(per_cell=1, prompt="card", system="You triage.")
    assert exact[0].messages[0].content == "You triage."
    with pytest.raises(ValueError, match="prompt: expected toolkit or card"):
        esi.examples(per_cell=1, prompt="cards")
    with pytest.raises(ValueError, match="system"):
        esi.examples(per_cell=1, system="You triage.")
