"""Traces whose signals have other names: counted, warned about, and read once the task is told what they mean."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from interp.example import Example
from interp.tasks import procedural
from interp.tasks.decision_sites import decision_sites, gold_reply
from interp.tasks.procedural.replies import SIGNALS, decision_prefix, parse_trace, score
from interp.tasks.procedural.reporting import counterfactuals, report
from interp.tasks.protocol import decision_prefix as prefix_of
from study.analyses.eval.store import answers_frame
from study.cli import main

OWN = {"VERIFY STEP 1/2": "STEP", "LOOK UP": "FIND", "COMPARE": "CHECK", "fine": "OK", "not fine": "VIOLATION",
       "SPECIAL CASE": "EXCEPTION", "SO": "DECIDE"}  # fmt: skip
ITS = {meaning: name for name, meaning in OWN.items()}


def own(text: str) -> str:
    """The text with every signal under the member's own name."""
    return re.sub(r"\[SIG=(\w+)\]", lambda m: f"[SIG={ITS[m[1]]}]", text)


@pytest.fixture(params=["log", "plain"])
def items(request: pytest.FixtureRequest) -> tuple[list[Example], list[Example]]:
    """The same examples without and with the mapping."""
    asked = {"per_cell": 2, "seed": 1, "rendering": request.param}
    return procedural.examples(**asked), procedural.examples(**asked, signals=OWN)


def test_every_signal_can_be_renamed() -> None:
    assert set(OWN.values()) == SIGNALS


def test_a_mapped_trace_is_read_as_the_one_it_stands_for(items: tuple[list[Example], list[Example]]) -> None:
    """Invariance: scores, decision sites and changed replies commute with renaming the signals."""
    n_changed = 0
    for plain, mapped in zip(*items, strict=True):
        gold = gold_reply(procedural, plain)
        assert gold is not None
        assert [m.content for m in plain.messages] == [m.content for m in mapped.messages]
        assert score(mapped, own(gold)) == score(plain, gold)
        assert score(plain, own(gold)).get("steps") is None
        assert prefix_of(procedural, own(gold), mapped) == own(prefix_of(procedural, gold, plain))
        sites = decision_sites(procedural, plain, gold)
        ours = decision_sites(procedural, mapped, own(gold))
        assert [(s.name, s.key, s.answer, own(s.before)) for s in sites] == [
            (s.name, s.key, s.answer, s.before) for s in ours
        ]
        assert len(decision_sites(procedural, plain, own(gold))) == 1, "unmapped, only the label is a site"
        changed = counterfactuals(plain, gold)
        assert counterfactuals(mapped, own(gold)) == [(kind, own(text), label) for kind, text, label in changed]
        n_changed += len(changed)
    assert n_changed > 5


def test_names_with_blanks_end_the_signal_before_them() -> None:
    """An unknown signal is not read as words of the one in front of it."""
    claims = parse_trace("[SIG=STEP] 1 [SIG=MY OWN NOTE] 2 none [SIG=OK] [SIG=DECIDE] compliant")
    assert claims.unknown == ("MY OWN NOTE",)
    assert claims.understood == 3 / 4
    assert claims.steps[0].number == 1
    assert parse_trace("compliant").understood is None
    assert decision_prefix("[SIG=SO] compliant") == ""


def frame(texts: list[str], signals: dict[str, str] | None = None) -> pd.DataFrame:
    examples = procedural.examples(per_cell=1, seed=0, cells=["training_distribution"], signals=signals)
    some = [Example(f"e{k}", examples[0].messages, examples[0].label, {"procedure": f"p{k}"},
                    metadata=examples[0].metadata) for k in range(len(texts))]  # fmt: skip
    answers = [
        {"example_id": e.id, "sample": 0, "text": text, "label": procedural.parse(text), "scores": score(e, text),
         "n_new_tokens": 5, "n_prompt_tokens": 9, "finished": True, "p": {}, "opened": ""}
        for e, text in zip(some, texts, strict=True)
    ]  # fmt: skip
    return answers_frame(answers, some, "engaged", task=procedural)


def test_the_share_that_is_understood_is_a_row_with_n_and_interval() -> None:
    known, half = "[SIG=STEP] 1 [SIG=OK] compliant", "[SIG=STEP] 1 [SIG=FINE] compliant"
    rows = {row["metric"]: row for row in report(frame([known, half, known, half, "compliant"]))}
    assert rows["signals_understood"]["value"] == pytest.approx(0.75)
    assert rows["signals_understood"]["n"] == 4, "a reply without signals is no trace"
    assert 0 <= rows["signals_understood"]["lo"] < 0.75 < rows["signals_understood"]["hi"] <= 1
    assert "signals_understood" not in {row["metric"] for row in report(frame(["compliant"] * 3))}


def test_names_that_are_mapped_are_not_listed_as_unknown() -> None:
    told = "[SIG=VERIFY STEP] 1 [SIG=HMM] x [SIG=fine] compliant"
    rows = {row["metric"]: row for row in report(frame([told] * 3, {"VERIFY STEP": "STEP", "fine": "OK"}))}
    assert rows["signals_understood"]["value"] == pytest.approx(2 / 3)
    assert rows["unknown_signals"]["value"] == 1.0
    assert rows["unknown_signals"]["note"].endswith(": [SIG=HMM] 3")


def test_a_scaffold_that_nobody_understands_is_said_loudly() -> None:
    with pytest.warns(UserWarning, match=r"no signal of 3 traces is understood .*\[SIG=VERIFY STEP\] 3"):
        rows = {row["metric"]: row for row in report(frame(["[SIG=VERIFY STEP] 1 [SIG=fine] compliant"] * 3))}
    row = rows["signals_understood"]
    assert (row["value"], row["n"]) == (0.0, 3)
    assert "no signal" in row["note"]


@pytest.mark.parametrize(
    ("signals", "words"),
    [({"A": "STEPP"}, "STEP"), ({"A]": "STEP"}, "A]"), (["A"], "mapping"), ({"": "STOP"}, "without brackets")],
)
def test_wrong_mappings_are_refused(signals: object, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        procedural.examples(per_cell=1, signals=signals)  # pyright: ignore[reportArgumentType]


def test_the_command_line_and_the_note_name_the_same_option(tmp_path: Path) -> None:
    ask = ["eval", "--pair", "embedded", "--task", "interp.tasks.procedural", "--per-cell", "1",
           "--quiet", "--no-figures"]  # fmt: skip
    given = ["--task-option", "signals={VERIFY STEP: STEP, fine: OK}", "--out", str(tmp_path / "a")]
    done = CliRunner().invoke(main, [*ask, *given])
    assert done.exit_code == 0, done.output
    table = pd.read_csv(tmp_path / "a" / "table.csv")
    row = table[(table["metric"] == "signals_understood") & (table["member"] == "engaged")]
    assert row["value"].tolist() == [1.0]
    wrong = CliRunner().invoke(main, [*ask, "--task-option", "signals={fine: OKAY}", "--out", str(tmp_path / "b")])
    assert wrong.exit_code == 1
    assert "OKAY" in wrong.output
