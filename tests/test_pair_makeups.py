"""Every command that takes a pair, over every make-up of one: each member is measured with its own weights."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import torch
from click.testing import CliRunner

from interp.cache import ActivationCache
from interp.checkpoint import CheckpointPair
from interp.hooks import record
from interp.loading import load, load_pair
from interp.prompt import render
from study.cli import main
from tests import steer_task
from tests.tiny import add_lora, save_checkpoint, tiny, tiny_tokenizer

TASK = ("--task", "tests.steer_task")
MAKEUPS = {
    "two adapters": "base: {a}\nengaged: {{adapter: {lora}}}\nheuristic: {{adapter: {other_lora}}}",
    "adapter and its base": "engaged: {{base: {a}, adapter: {lora}}}\nheuristic: {{base: {a}}}",
    "two full fine-tunes": "engaged: {{base: {full}}}\nheuristic: {{base: {other_full}}}",
    "full and adapter": "engaged: {{base: {full}}}\nheuristic: {{base: {a}, adapter: {lora}}}",
    "two bases": "engaged: {{base: {a}, adapter: {lora}}}\nheuristic: {{base: {b}, adapter: {lora_of_b}}}",
    "bases ride along": "base: {a}\nheuristic_base: {b}\nengaged: {{base: {full}}}\n"
    "heuristic: {{base: {b}, adapter: {lora_of_b}}}",
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two bases of different sizes, two full fine-tunes of the first, and adapters on both."""
    root, vocab = tmp_path_factory.mktemp("weights"), len(tiny_tokenizer())
    wide = {"hidden_size": 48, "num_hidden_layers": 4}
    for name, seed, shape in (("a", 0, {}), ("b", 3, wide), ("full", 1, {}), ("other_full", 2, {})):
        save_checkpoint(root / name, seed=seed, **shape)
    for name, base, seed, shape in (("lora", "a", 0, {}), ("other_lora", "a", 0, {}), ("lora_of_b", "b", 3, wide)):
        peft = add_lora(tiny("qwen2", seed=seed, vocab_size=vocab, **shape), seed=len(name))
        peft.save_pretrained(root / name)
        path = root / name / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": str(root / base)}))
    return {path.name: path for path in root.iterdir()}


@dataclass(frozen=True)
class Made:
    """One make-up on disk: its file, the pair, the digest of each member loaded by itself, and a folder for output."""

    file: Path
    pair: CheckpointPair
    digests: dict[str, str]
    out: Path

    @property
    def roles(self) -> set[str]:
        return set(self.pair.members)

    @property
    def is_of_one_width(self) -> bool:
        return len({_width(member.base) for role, member in self.pair.members.items() if "base" not in role}) == 1


def _width(base: str) -> int:
    return int(json.loads((Path(base) / "config.json").read_text())["hidden_size"])


IN_SHORT = ("two adapters", "full and adapter", "bases ride along")
"""What `make test` runs: adapters alone, a full fine-tune beside one, and two bases; the others in CI."""


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[] if name in IN_SHORT else [pytest.mark.long]) for name in MAKEUPS],
)
def made(request: pytest.FixtureRequest, weights: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Made:
    out = tmp_path_factory.mktemp("pair")
    file = out / "pair.yaml"
    file.write_text(MAKEUPS[request.param].format(**weights))
    pair = CheckpointPair.from_yaml(file)
    alone = {role: load(member).fingerprint for role, member in pair.members.items()}
    assert len({one.sha256 for one in alone.values() if one}) == len(alone)
    return Made(file, pair, {role: one.sha256 for role, one in alone.items() if one}, out)


def run(*args: object, code: int = 0) -> str:
    done = CliRunner().invoke(main, [str(arg) for arg in args])
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture(scope="module")
def caches(made: Made) -> dict[str, Path]:
    run("cache", "--pair", made.file, *TASK, "--data", "none", "--sites", "resid_post.*", "--out", made.out / "cache",
        "--quiet")  # fmt: skip
    return {role: made.out / "cache" / role for role in made.pair.members}


def test_a_cache_of_a_pair_holds_what_each_member_computes_alone(made: Made, caches: dict[str, Path]) -> None:
    for role, member in made.pair.members.items():
        model = load(member)
        cache = ActivationCache.open(caches[role])
        prompts = [render(e, model.tokenizer) for e in steer_task.examples()]
        with record(model, "resid_post.1", positions=[[len(p.ids) - 1] for p in prompts]) as acts:
            model([p.ids for p in prompts])
        assert torch.allclose(cache.read("resid_post.1", "last"), acts["resid_post.1"], atol=1e-5)
        assert cache.examples["id"].tolist() == [e.id for e in steer_task.examples()]


def test_eval_answers_with_every_members_own_weights(made: Made) -> None:
    out = made.out / "eval"
    run("eval", "--pair", made.file, *TASK, "--mode", "labels", "--limit", 12, "--out", out, "--no-figures", "--quiet")
    held = {
        role: json.loads((out / role / "plan.json").read_text())["identity"]["weights"] for role in made.pair.members
    }
    assert held == made.digests
    assert set(pd.read_csv(out / "table.csv")["member"]) == made.roles
    assert (out / "pair.csv").is_file()


@pytest.mark.slow
def test_heads_are_swept_in_every_member_and_matched(made: Made) -> None:
    out = made.out / "heads"
    run("heads", "--pair", made.file, *TASK, "--n", 8, "--kind", "zero", "--slot", "", "--out", out, "--no-figures",
        "--quiet")  # fmt: skip
    held = {
        role: json.loads((out / role / "zero" / "plan.json").read_text())["identity"]["weights"]
        for role in made.pair.members
    }
    assert held == made.digests
    run("heads", "match", f"{out}:engaged", f"{out}:heuristic", "--control", f"{out}:engaged", "--perm", 19,
        "--out", made.out / "match")  # fmt: skip
    matched = pd.read_csv(made.out / "match" / "match.csv")
    assert set(matched["arm"]) >= {"match"}


def test_directions_are_fitted_dosed_and_carried_over(made: Made, caches: dict[str, Path]) -> None:
    files = {}
    for role in ("engaged", "heuristic"):
        files[role] = made.out / f"{role}.safetensors"
        run("steer", "fit", caches[role], "--toward", "yes", "--away", "no", "--groups", "story", "--sites",
            "resid_post.1", "--no-sign-check", "--out", files[role])  # fmt: skip
    fast = ("--alphas=-0.1:0.1:3", "--n-random", 20, "--n-complement", 0, "--n-shuffled", 0, "--min-class", 10,
            "--min-groups", 6, "--boot", 100, "--slot", "", "--prompt-baseline", "", "--limit", 24, "--seed", 1,
            "--no-figures", "--quiet")  # fmt: skip
    given = ("steer", "pair", "--pair", made.file, *TASK, "--engaged", files["engaged"], "--heuristic",
             files["heuristic"], *fast, "--out", made.out / "steer")  # fmt: skip
    if not made.is_of_one_width:
        assert "32" in (said := run(*given, code=1)) and "48" in said, "the message gives both widths"
        return
    run(*given)
    assert _plans(made.out / "steer", ("engaged", "heuristic")) == {
        role: made.digests[role] for role in ("engaged", "heuristic")
    }
    pair = [role for role in made.pair.members if _width(made.pair.members[role].base) == 32]
    if len(pair) == len(made.roles):
        run("steer", "dose", "--pair", made.file, *TASK, "--direction", files["engaged"], *fast, "--out",
            made.out / "dose")  # fmt: skip
        assert _plans(made.out / "dose", pair) == made.digests


def _plans(root: Path, roles: object) -> dict[str, str]:
    return {role: json.loads((root / role / "plan.json").read_text())["identity"]["weights"] for role in roles}  # pyright: ignore[reportGeneralTypeIssues]


def test_probes_are_swept_and_compared_over_the_members_caches(made: Made, caches: dict[str, Path]) -> None:
    for role in ("engaged", "heuristic"):
        run("probes", "sweep", caches[role], "--target", "label", "--groups", "story", "--kinds", "ridge", "--perm", 19,
            "--folds", 2, "--boot", 100, "--sites", "resid_post.1", "--out", made.out / "probes" / role)  # fmt: skip
    said = run("probes", "compare", made.out / "probes" / "engaged", made.out / "probes" / "heuristic")
    assert "auroc" in said


def test_chains_are_labelled_by_every_member(made: Made) -> None:
    data, out = made.out / "chains.jsonl", made.out / "cot"
    row = {"id": "a", "question": "the quick fox?", "answer": 5, "cot": "One step. Two step. The answer is 5."}
    data.write_text(json.dumps(row) + "\n" + json.dumps({**row, "id": "b", "cot": "No step. So it is 5."}) + "\n")
    CliRunner().invoke(main, ["cot", "--pair", str(made.file), "--data", str(data), "--label", "importance",
                              "--out", str(out)])  # fmt: skip
    read = {p.name.removesuffix("-importance.jsonl"): p.read_text().splitlines() for p in out.glob("*.jsonl")}
    assert set(read) == made.roles
    values = {role: tuple(json.loads(line)["value"] for line in lines) for role, lines in read.items()}
    assert len(set(values.values())) == len(values), "two members gave the same numbers"


STUDY = """\
name: small
pair: {pair}
seed: 5
task: {{path: tests.steer_task}}
eval: {{generate: false, limit: 12}}
cache: {{sites: resid_post.1, positions: last}}
probes: {{targets: [label], groups: story, kinds: [ridge], perm: 19, boot: 100, n_folds: 2, transfer: none}}
heads: {{n: 8, kinds: [zero], slot: ''}}
steering: {{groups: story, target: label, toward: 'yes', away_from: 'no', slot: '', alphas: '-0.2:0.2:3', n_random: 20,
           n_shuffled: 2, n_complement: 0, min_items: 2, min_groups: 1, boot: 100, limit: 12, test_share: 0.5}}
"""


@pytest.mark.slowest
@pytest.mark.long
@pytest.mark.parametrize("made", ["two full fine-tunes", "bases ride along"], indirect=True)
def test_a_study_runs_on_the_makeups_that_need_more_than_one_model(made: Made) -> None:
    lines = made.file.read_text().splitlines()
    file = made.out / "study.yaml"
    file.write_text(STUDY.format(pair="{" + ", ".join(lines) + "}"))
    run("study", "run", file, "--out", made.out / "run")
    steps = json.loads((made.out / "run" / "run.json").read_text())["steps"]
    assert {name: step["status"] for name, step in steps.items()} == dict.fromkeys(steps, "done")
    for role in made.roles:
        cached = json.loads((made.out / "run" / "steps" / "cache" / role / "manifest.json").read_text())["identity"]
        mine = load(made.pair.members[role]).fingerprint
        assert mine is not None
        assert cached["model"]["weights_sha256"] == mine.weights_sha256
        assert ([cached["adapter"]["sha256"]] if cached["adapter"] else []) == list(mine.adapters.values())


def test_a_member_that_is_not_held_is_refused_by_name(weights: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "pair.yaml"
    file.write_text(MAKEUPS["adapter and its base"].format(**weights))
    model = load_pair(CheckpointPair.from_yaml(file))
    with pytest.raises(ValueError, match="'enagged' is not in this model; members: engaged, heuristic"):
        with model.member("enagged"):
            pass
    ids = torch.tensor([[3, 5, 8]])
    with model.member("heuristic"):
        bare = model(ids).logits
    with model.adapters.use(None):
        assert torch.equal(bare, model(ids).logits)
    with model.member("engaged"):
        assert not torch.equal(bare, model(ids).logits)
