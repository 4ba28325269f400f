"""`diptych probes along` end to end on the embedded pair, and what it refuses before a weight is read."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from interp.cache import ActivationCache
from study.analyses.along.store import read_along
from study.analyses.probes.store import read_sweep
from study.cli import main
from study.tokens import read_tokens
from tests.test_cli_cache_replies import edited

ITEMS = ("--pair", "embedded", "--task", "interp.tasks.procedural", "--per-cell", "6", "--seed", "3")
ITEMS += ("--task-option", "cells=baseline_compliant,baseline_noncompliant")
QUICK = ("--perm", "19", "--boot", "100", "--fractions", "0,0.5,1")


def run(*args: str | Path) -> Result:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return CliRunner().invoke(main, [str(arg) for arg in args])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation, caches of its replies and a sweep of each at the label's decision, and their scores along it."""
    out = tmp_path_factory.mktemp("along")
    run_all(out, ITEMS, QUICK)
    return out


def run_all(out: Path, items: tuple[str, ...], options: tuple[str, ...]) -> None:
    steps = [("eval", *items, "--out", out / "eval", "--quiet", "--no-figures")]
    steps += [("cache", *items, "--replies", out / "eval", "--positions", "decision:label, all:answer", "--sites",
               "resid_post.1, resid_post.3", "--max-bytes", "1GB", "--out", out / "own", "--quiet")]  # fmt: skip
    steps += [("probes", "sweep", out / "own" / member, "--target", "label", "--groups", "procedure", "--kinds",
               "ridge", "--positions", "decision:label", "--perm", "19", "--boot", "100", "--split-seeds", "1",
               "--out", out / "sweeps" / member) for member in ("engaged", "heuristic")]  # fmt: skip
    steps += [("probes", "along", out / "sweeps", *items, "--replies", out / "eval", *options, "--out", out / "along")]
    for step in steps:
        done = run(*step)
        assert done.exit_code == 0, done.output


def test_scores_of_tokens_are_activations_of_the_reply_cache_times_the_held_out_weights(folder: Path) -> None:
    """Independent witness: the activations that `cache --replies` wrote, and a plain product."""
    tokens, replies = read_tokens(folder / "along")
    for member in ("engaged", "heuristic"):
        result = read_sweep(folder / "sweeps" / member)
        cell, place = result.pick(), {name: k for k, name in enumerate(result.ids)}
        cache = ActivationCache.open(folder / "own" / member)
        rows = cache.rows[cache.rows["position_name"] == "all:answer"]
        for reply in replies[replies["member"] == member].head(5).to_dict("records"):
            look = int(result.split.fold_of[place[reply["item"]]])
            key = cell.looks[look]
            assert reply["site"] == key[2] and reply["split"] == "test"
            d = result.looks[key][look].direction
            index = rows.index[rows["example_id"] == reply["item"]].tolist()
            feats = cache.rows_at(index, key[2]).double().numpy()
            weights = d.unit.double().numpy() * d.norm
            own = tokens[(tokens["member"] == member) & (tokens["item"] == reply["item"])]
            np.testing.assert_allclose(own["score"].to_numpy()[1:], feats @ weights + d.bias, rtol=1e-4, atol=2e-5)
            assert own["token_id"].tolist()[1:] == rows.loc[index, "token_id"].tolist()


def test_tokens_add_up_to_the_reply_and_stand_among_their_controls(folder: Path) -> None:
    tokens, replies = read_tokens(folder / "along")
    for (member, item), own in tokens.groupby(["member", "item"], sort=False):
        reply = replies[(replies["member"] == member) & (replies["item"] == item)].iloc[0]
        assert own["token"].tolist() == list(range(-1, len(own) - 1))
        assert "".join(own["token_text"].iloc[1:]) == reply["reply"]
        assert own["fraction"].iloc[0] == 0 and own["fraction"].iloc[-1] == 1
    assert tokens["rank"].between(1, 20).all() and set(replies["n_controls"]) == {19}
    assert (tokens["null_lo"] <= tokens["null_median"]).all() and (tokens["null_median"] <= tokens["null_hi"]).all()
    engaged = tokens[tokens["member"] == "engaged"]
    assert {"label", "step_lookup"} <= set(engaged["span"])


def test_the_table_has_both_members_their_controls_and_their_difference(folder: Path) -> None:
    table, lines = read_along(folder / "along")
    assert set(table["member"]) == {"engaged", "heuristic", "engaged - heuristic"}
    assert set(table["axis"]) == {"fraction", "tokens", "decision"}
    areas = table[(table["metric"] == "auroc") & (table["role"] == "probe") & ~table["is_difference"]]
    assert areas["null_max95"].notna().all() and (areas["n_perm"] == 19).all()
    main = areas[areas["selected"]]
    assert set(main["pooling"]) == {"selected"} and main["control_value"].notna().all()
    assert set(areas["pooling"]) == {"max", "mean", "last", "selected"}
    assert "residual" in set(table["role"]) and "confounds" in set(table["role"])
    assert {"decodable_at", "auroc_gain", "auroc_over_confounds"} <= set(table["metric"])
    assert any(line.startswith("engaged: 12 of 12 replies are read") for line in lines)
    assert (folder / "along" / "decodable.png").is_file()


def test_what_is_finished_is_not_run_again_and_other_options_are_refused(folder: Path) -> None:
    same = ("probes", "along", folder / "sweeps", *ITEMS, "--replies", folder / "eval", *QUICK)
    again = run(*same, "--out", folder / "along")
    assert again.exit_code == 0 and "nothing was run again" in again.output
    other = run(*same, "--pool", "last", "--out", folder / "along")
    assert other.exit_code != 0 and "pool" in other.output


def test_empty_and_unfinished_replies_are_counted_and_not_scored(folder: Path, tmp_path: Path) -> None:
    def change(number: int, row: dict) -> None:
        if number == 0:
            row |= {"token_ids": [], "text": "", "n_new_tokens": 0}
        if number == 1:
            row["finished"] = False

    answers = edited(folder / "eval", tmp_path / "eval", change)
    done = run("probes", "along", folder / "sweeps", *ITEMS, "--replies", answers, *QUICK, "--pool", "last",
               "--confounds", "length, cell", "--out", tmp_path / "along")  # fmt: skip
    assert done.exit_code == 0, done.output
    table, lines = read_along(tmp_path / "along")
    assert "  excluded: 1 empty" in "\n".join(lines) and "  excluded: 1 unfinished" in "\n".join(lines)
    own = table[(table["member"] == "engaged") & (table["metric"] == "auroc") & (table["axis"] == "fraction")]
    assert set(own["n"]) == {10} and set(own["pooling"]) <= {"last", ""}
    assert any("length, cell" in str(control) for control in own["control"])


@pytest.mark.parametrize(
    ("more", "word"),
    [
        (("--pool", "middle"), "max, mean, last"),
        (("--fractions", "0.5,2"), "fraction"),
        (("--confounds", "mood"), "mood"),
        (("--kind", "logistic"), "logistic"),
        (("--through", "nobody"), "nobody"),
        (("--controls", "3"), "19"),
        (("--positive", "maybe"), "maybe"),
    ],
)
def test_faults_are_named(folder: Path, tmp_path: Path, more: tuple[str, str], word: str) -> None:
    done = run("probes", "along", folder / "sweeps", *ITEMS, "--replies", folder / "eval", *QUICK, *more, "--out",
               tmp_path / "x")  # fmt: skip
    assert done.exit_code != 0 and word in done.output and "Traceback" not in done.output


def test_a_folder_without_sweeps_or_replies_is_named(folder: Path, tmp_path: Path) -> None:
    none = run("probes", "along", folder / "own", *ITEMS, "--replies", folder / "eval", "--out", tmp_path / "x")
    assert none.exit_code != 0 and "engaged" in none.output and "probes sweep" in none.output
    unasked = run("probes", "along", folder / "sweeps", *ITEMS, "--out", tmp_path / "y")
    assert unasked.exit_code != 0 and "replies" in unasked.output
    with pytest.raises(ValueError, match="probes along"):
        read_along(folder / "own")


def test_a_probe_of_one_member_reads_the_replies_of_both(folder: Path, tmp_path: Path) -> None:
    done = run("probes", "along", folder / "sweeps" / "engaged", *ITEMS, "--replies", folder / "eval", *QUICK,
               "--confounds", "none", "--perm", "0", "--forced", "[SIG=DECIDE]", "--out", tmp_path / "x")  # fmt: skip
    assert done.exit_code == 0, done.output
    _, replies = read_tokens(tmp_path / "x")
    assert set(replies["train_checkpoint"]) == {"engaged"} and set(replies["member"]) == {"engaged", "heuristic"}
    table = pd.read_csv(tmp_path / "x" / "along.csv")
    assert not (table["metric"] == "decodable_at").any() and not (table["role"] == "residual").any()
    shares = table[(table["metric"] == "p_own_label") & (table["member"] == "engaged")].set_index("at")
    assert shares.loc[1, "value"] == pytest.approx(_own_label(folder / "eval"), abs=1e-5)
    assert shares.loc[1, "value"] > shares.loc[0, "value"] and shares["label_mass"].between(0, 1.0001).all()


def _own_label(folder: Path) -> float:
    """Mean probability of the engaged member's label where it wrote it, from `eval` itself."""
    from study.analyses.eval.store import read_answers

    answers = read_answers(folder / "engaged")
    return float(np.mean([row["p"][row["label"]] / sum(row["p"].values()) for row in answers]))


@pytest.mark.long
def test_the_engaged_member_knows_its_verdict_late_and_the_heuristic_one_from_the_start(tmp_path: Path) -> None:
    items = ("--pair", "embedded", "--task", "interp.tasks.procedural", "--per-cell", "8", "--seed", "5")
    run_all(tmp_path, items, ("--perm", "199"))
    table, _ = read_along(tmp_path / "along")
    rows = table[(table["role"] == "probe") & (table["pooling"] == "selected")]
    gains = rows[rows["metric"] == "auroc_gain"].set_index(["member", "control"])
    places = rows[(rows["metric"] == "decodable_at") & (rows["axis"] == "fraction")].set_index("member")
    assert gains.loc[("engaged", "AUROC at: first"), "lo"] > 0 and gains.loc[("engaged", "AUROC at: prompt"), "lo"] > 0
    assert places.loc["engaged", "value"] >= 0.8
    assert np.isnan(places.loc["heuristic", "value"]) or places.loc["heuristic", "hi"] == 0
    assert gains.loc[("heuristic", "AUROC at: prompt"), "hi"] < 0.1
