"""`diptych cache --replies` end to end on the embedded pair, and what it refuses before a weight is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from interp.cache import ActivationCache
from interp.io.items import ItemStore
from interp.prompt import render
from interp.tasks import procedural
from interp.tasks.decision_sites import decision_sites
from study.analyses.cache.replies import lines_of, read_replies
from study.analyses.eval.store import KIND
from study.cli import main
from study.embedded import embedded_pair
from study.members import models_of

ITEMS = ("--task", "interp.tasks.procedural", "--per-cell", "2", "--seed", "3")
RULES = r"match:\[SIG=(?P<sig>\w+)\], all:answer, decision, fraction:0,0.5,1"


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("eval")
    done = run("eval", "--pair", "embedded", *ITEMS, "--out", out, "--quiet", "--no-figures")
    assert done.exit_code == 0, done.output
    return out


@pytest.fixture(scope="module")
def caches(answers: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Own replies, and all replies through the heuristic member."""
    out = {"own": tmp_path_factory.mktemp("own"), "through": tmp_path_factory.mktemp("through")}
    for name, more in (("own", ()), ("through", ("--through", "heuristic"))):
        done = ask(answers, out[name], *more)
        assert done.exit_code == 0, done.output
    return out


def ask(answers: Path, out: Path, *more: str | Path, positions: str = RULES) -> Result:
    return run("cache", "--pair", "embedded", *ITEMS, "--replies", answers, "--positions", positions, "--sites",
               "resid_post.*", "--max-bytes", "1GB", "--out", out, "--quiet", *more)  # fmt: skip


def edited(answers: Path, out: Path, change) -> Path:
    """A copy of the evaluation with every stored answer of the engaged member changed."""
    import shutil

    shutil.copytree(answers, out)
    root = out / "engaged"
    source = ItemStore.reading(answers / "engaged", KIND)
    shutil.rmtree(root)
    with ItemStore.writing(root, KIND, source.identity, notes=source.notes) as store:
        number = 0
        for key in sorted(key for key in source.keys if key.isdigit()):
            rows = source.get_json(key)
            for row in rows:
                change(number, row)
                number += 1
            store.put_json(key, rows)
    return out


def test_the_ids_of_a_cache_are_those_that_were_generated(answers: Path, caches: dict[str, Path]) -> None:
    stored = {
        row["example_id"]: row
        for key in ItemStore.reading(answers / "engaged", KIND).keys
        if key.isdigit()
        for row in ItemStore.reading(answers / "engaged", KIND).get_json(key)
    }
    cache = ActivationCache.open(caches["own"] / "engaged")
    rows = cache.rows[cache.rows["position_name"] == "all:answer"]
    for name, part in rows.groupby("example_id"):
        assert part["token_id"].tolist() == stored[name]["token_ids"]
        assert len(part) == stored[name]["n_new_tokens"]
    assert set(rows["example_id"]) == set(stored)
    by_id = cache.examples.set_index("id")
    assert all(by_id.loc[name, "reply.label"] == row["label"] for name, row in stored.items())


def test_rows_at_decisions_are_what_a_plain_pass_over_the_text_gives(caches: dict[str, Path]) -> None:
    """Independent witness: the reply's text up to the decision, tokenized as text (words of this pair are tokens)."""
    examples = {e.id: e for e in procedural.examples(per_cell=2, seed=3, rendering="log")}
    cache = ActivationCache.open(caches["own"] / "engaged")
    rows = cache.rows[cache.rows["position_name"] == "decision"]
    feats = cache.read_rows("resid_post.3", "decision")
    texts = {row["example_id"]: [] for row in rows.to_dict("records")}
    for row in cache.rows[cache.rows["position_name"] == "all:answer"].to_dict("records"):
        texts[row["example_id"]].append(row["token_text"])
    for _, model in models_of(embedded_pair(), {}):
        with model.member("engaged"):
            for name in list(texts)[:6]:
                sites = decision_sites(procedural, examples[name], " ".join(texts[name]))
                mine = rows[rows["example_id"] == name]
                assert mine["span"].tolist() == [site.name for site in sites]
                begun = render(examples[name], model.tokenizer).text
                for (index, _), site in zip(mine.iterrows(), sites, strict=True):
                    ids = model.tokenizer(begun + site.before)["input_ids"]
                    hidden = model.module(torch.tensor([ids]), output_hidden_states=True).hidden_states
                    # the last hidden state is behind the final norm, so the layer before it is read
                    other = cache.rows_at([index], "resid_post.2")[0]
                    assert torch.allclose(other, hidden[3][0, -1], atol=1e-4)
    assert len(feats) == len(rows)


def test_through_another_member_the_text_is_the_same_and_the_model_is_not(caches: dict[str, Path]) -> None:
    own = ActivationCache.open(caches["own"] / "engaged")
    through = ActivationCache.open(caches["through"] / "engaged")
    pairs = own.pair(through)
    assert len(pairs) == own.n_rows == through.n_rows
    assert pairs.n_text_differs == 0
    site = "resid_post.3"
    gap = own.rows_at(pairs.left, site) - through.rows_at(pairs.right, site)
    assert gap.abs().max() > 0.1
    assert own.plan_id != through.plan_id
    assert through.manifest["identity"]["replies"]["read_by"] == "heuristic"
    first = ActivationCache.open(caches["own"] / "heuristic")
    again = ActivationCache.open(caches["through"] / "heuristic")
    assert torch.equal(first.read_rows(site), again.read_rows(site)), "the heuristic member reads its own either way"


def test_replies_in_which_nothing_matches_are_counted(answers: Path, caches: dict[str, Path], tmp_path: Path) -> None:
    """The heuristic member writes no signal: its cache has the other rules, and of signals alone it has none."""
    cache = ActivationCache.open(caches["own"] / "heuristic")
    counts = cache.rows["position_name"].value_counts()
    assert "match:\\[SIG=(?P<sig>\\w+)\\]" not in counts
    done = ask(answers, tmp_path / "a", positions=r"match:\[SIG=\w+\]")
    assert done.exit_code == 0, done.output
    assert "selects nothing in 38" in done.output
    assert not (tmp_path / "a" / "heuristic").exists()


def test_empty_and_unfinished_replies_are_counted_exclusions(answers: Path, tmp_path: Path) -> None:
    def change(number: int, row: dict) -> None:
        if number == 4:
            row |= {"token_ids": [], "text": "", "n_new_tokens": 0}
        if number in (5, 6):
            row["finished"] = False

    folder = edited(answers, tmp_path / "eval", change)
    examples = procedural.examples(per_cell=2, seed=3, rendering="log")
    replies = read_replies(folder, "engaged", examples)
    assert {reason: len(ids) for reason, ids in replies.excluded.items()} == {"empty": 1, "unfinished": 2}
    assert len(replies.examples) == 38 - 3
    lines = "\n".join(lines_of(replies, {}))
    assert "35 of 38" in lines
    assert "1 empty" in lines
    assert "2 unfinished" in lines
    assert len(read_replies(folder, "engaged", examples, keep_unfinished=True).examples) == 38 - 1
    done = ask(folder, tmp_path / "out", positions="all:answer")
    assert "2 unfinished" in done.output


def test_folders_without_ids_are_refused(answers: Path, tmp_path: Path) -> None:
    folder = edited(answers, tmp_path / "old", lambda number, row: row.pop("token_ids"))
    done = ask(folder, tmp_path / "out")
    assert done.exit_code == 1
    assert "no token ids" in done.output


@pytest.mark.parametrize(
    ("more", "positions", "words"),
    [
        ((), "match:(a", "match:(a"),
        ((), "match:zebra", "zebra"),
        (("--through", "hueristic"), RULES, "heuristic"),
        (("--mode", "thinking"), RULES, "thinking"),
        (("--thinking",), RULES, "--thinking"),
    ],
)
def test_wrong_options_are_refused_before_a_weight_is_read(
    answers: Path, tmp_path: Path, more: tuple[str, ...], positions: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*args: object, **kwargs: object) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr("study.analyses.cache.readers.models_of", load)
    done = ask(answers, tmp_path / "out", *more, positions=positions)
    assert done.exit_code == 1
    assert words in done.output
    assert not isinstance(done.exception, AssertionError)


def test_other_items_and_other_weights_are_refused(answers: Path, tmp_path: Path) -> None:
    other = run("cache", "--pair", "embedded", *ITEMS[:-1], "4", "--replies", answers, "--positions", "all:answer",
                "--max-bytes", "1GB", "--out", tmp_path / "a", "--quiet")  # fmt: skip
    assert other.exit_code == 1
    assert "no reply" in other.output
    plan = json.loads((answers / "engaged" / "plan.json").read_text())
    assert plan["identity"]["weights"]
    import shutil

    swapped = tmp_path / "swapped"
    shutil.copytree(answers, swapped)
    shutil.rmtree(swapped / "engaged")
    shutil.copytree(answers / "heuristic", swapped / "engaged")
    done = ask(swapped, tmp_path / "b", positions="all:answer")
    assert done.exit_code == 1
    assert "other weights" in done.output
    assert run("cache", "--pair", "embedded", *ITEMS, "--through", "engaged", "--out", tmp_path / "c").exit_code == 1


def test_sampled_replies_are_rows_of_one_item(tmp_path: Path) -> None:
    args = ("--pair", "embedded", *ITEMS[:2], "--per-cell", "1", "--limit", "4")
    done = run(
        "eval", *args, "--samples", "3", "--temperature", "1", "--out", tmp_path / "e", "--quiet", "--no-figures"
    )
    assert done.exit_code == 0, done.output
    made = run("cache", *args, "--replies", tmp_path / "e", "--positions", "fraction:1", "--out", tmp_path / "c",
               "--quiet", "--unfinished", "keep")  # fmt: skip
    assert made.exit_code == 0, made.output
    cache = ActivationCache.open(tmp_path / "c" / "engaged")
    assert len(cache) == 12
    assert cache.examples["item"].value_counts().tolist() == [3] * 4
    assert sorted(set(cache.examples["reply.sample"])) == [0, 1, 2]
