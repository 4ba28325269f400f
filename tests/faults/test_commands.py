"""Every long command, killed before calls into the file system and run again: the bytes of an undisturbed run.

And a second writer, and the same folder asked for something else: refused, nothing changed.
"""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from interp.cache import extract
from interp.checkpoint import Checkpoint
from interp.io import writer_lock
from interp.io.digest import safe_name
from interp.loading import load
from interp.oracle import OracleSpec
from interp.site import Site
from interp.tasks.protocol import load_task
from steering.direction import Direction, DirectionStats
from study.cli import main
from tests.faults.kit import check_kills, fork, tree
from tests.oracle_kit import chats, pair_with_oracle
from tests.tiny import save_checkpoint

TASK = "tests.faults.small_task"


@dataclass(frozen=True)
class Command:
    """One long command.

    Attributes:
        words: without --out.
        other: words of a run that must be refused in the folder of the first.
        out: name of what --out names, inside the folder of a test.
        again: words that are added when it is run again after a kill.
        lock: (folder that is locked, name of the lock) below the folder of a test.
    """

    words: Sequence[object]
    other: Sequence[object]
    out: str = ""
    again: Sequence[str] = ()
    lock: tuple[str, str] = ("", "job")
    refusal: str = "another"

    def run(self, root: Path, *more: object) -> None:
        """Run it into `root`; raises what it raises."""
        words = [*self.words, *more, "--out", root / self.out]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            main(list(map(str, words)), standalone_mode=False)


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, its cache, a direction, chains, and an oracle with its own base and caches."""
    root = tmp_path_factory.mktemp("given")
    save_checkpoint(root / "base", max_position_embeddings=1024)
    chains = [{"id": k, "question": f"{k} + 1?", "cot": f"{k} one. It is {k + 1}. So {k + 1}.", "answer": str(k + 1)}
              for k in range(3)]  # fmt: skip
    (root / "cot.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chains))
    vec = torch.randn(32, generator=torch.Generator().manual_seed(1))
    stats = DirectionStats(delta_norm=float(vec.norm()), resid_norm=9.0, sd_within=2.0, n_toward=30, n_away=30,
                           n_groups=12, held_out_gap=1.0)  # fmt: skip
    Direction(vec, Site("resid_post", 1), "yes", "no", stats=stats).save(root / "v.safetensors")
    model = load(Checkpoint("b", str(root / "base")), dtype="float32")
    extract(model, load_task("tests.steer_task").examples(), out=root / "acts", sites="resid_post.*", progress=False)
    pair = pair_with_oracle()
    pair.module.save_pretrained(root, selected_adapters=["oracle"])
    spec = OracleSpec(layers=(1,), enable_thinking=False, max_new_tokens=2)
    (root / "oracle" / "ao_config.json").write_text(json.dumps(spec.to_json()))
    for name, role in (("a", "engaged"), ("b", "heuristic")):
        with pair.adapters.use(role):
            extract(pair, chats(6), out=root / f"read_{name}", sites="resid_post.1", positions="sentence_ends",
                    progress=False)  # fmt: skip
    pair.causal_lm.config.architectures = ["Qwen3ForCausalLM"]
    pair.module.unload().save_pretrained(root / "reader")
    pair.tokenizer.save_pretrained(root / "reader")
    (root / "recipe.yaml").write_text(json.dumps(_recipe(root)))
    (root / "other.yaml").write_text(json.dumps(_recipe(root, seed=1)))
    return root


def _recipe(root: Path, **changes: object) -> dict[str, object]:
    quick = {"rank": 2, "alpha": 4, "lr": 0.01, "batch_size": 4, "window": 2, "save_every": 2, "max_steps": 5,
             "gradient_checkpointing": False}  # fmt: skip
    return {"base": str(root / "base"), "items": "tests.faults.test_commands:train_items",
            "spec": {"layers": [0, 1, 2], "base_model": "tiny"}, "validation": 4, "load": {"dtype": "float32"},
            "accept": _AUDITS, "recipe": {**quick, **changes}}  # fmt: skip


_AUDITS: dict[str, str] = {}


def train_items(tokenizer: object, spec: object, n_layers: int) -> list[object]:
    """Items of a training run."""
    from tests.oracle_train_kit import random_items

    return [replace(i, context_ids=tuple(5 + token % 300 for token in i.context_ids)) for i in random_items(48)]


def commands(given: Path) -> dict[str, Command]:
    base = ["--base", given / "base", "--name", "m", "--load-dtype", "float32"]
    task = [*base, "--task", TASK, "--quiet"]
    dose = ["steer", "dose", *task, "--direction", given / "v.safetensors", "--slot", ".", "--alphas=-0.4:0.4:3",
            "--n-random", "20", "--boot", "50", "--min-class", "4", "--min-groups", "4", "--no-figures", "--neutral",
            Path(__file__).parents[1] / "neutral.txt"]  # fmt: skip
    sweep = ["probes", "sweep", given / "acts", "--target", "label", "--groups", "story", "--kinds", "ridge", "--perm",
             "19", "--boot", "100", "--cs", "1", "--split-seeds", "1", "--sites", "resid_post.0"]  # fmt: skip
    fit = ["steer", "fit", given / "acts", "--groups", "story", "--sites", "resid_post.1", "--no-sign-check"]
    reader = ["--model", given / "reader", "--adapter", given / "oracle", "--load-dtype", "float32"]
    ask = ["oracle", "ask", *reader, "--acts", given / "read_a", "--no-selftest", "--limit", "4", "--partners", "2"]
    compare = ["oracle", "compare", given / "read_a", given / "read_b", *reader, "--limit", "4", "--partners", "2"]
    cot = ["cot", *base, "--data", given / "cot.jsonl", "--n", "2", "--max-new-tokens", "2"]
    cache = ["cache", *task, "--sites", "resid_post.*", "--shard-bytes", "1KB"]
    heads = ["heads", *task, "--n", "8", "--slot", ".", "--kind", "zero", "--no-figures"]
    return {
        "cache": Command(cache, ["--positions", "all", "--max-bytes", "1GB"]),
        "eval": Command(["eval", *task, "--mode", "labels", "--no-figures", "--tokens-per-batch", "60"],
                        ["--seed", "3"], lock=("m", "job")),
        "heads": Command(heads, ["--seed", "3"], lock=("m/zero", "job")),
        "steer dose": Command(dose, ["--alphas=-0.5:0.5:3"], lock=("m", "job")),
        "steer fit": Command([*fit, "--toward", "yes", "--away", "no"], ["--toward", "no", "--away", "yes"],
                             "v/d.safetensors", lock=("v", safe_name("d"))),
        "probes sweep": Command(sweep, ["--seed", "3"]),
        "oracle ask": Command([*ask, "--question", "What is it?"], ["--question", "Is it?", "--choices", "yes,no"]),
        "oracle compare": Command([*compare, "--question", "Is it?", "--choices", "yes,no"], ["--choices", "no,yes,x"]),
        "cot importance": Command([*cot, "--label", "importance"], ["--limit", "2"],
                                  lock=("m-importance", "job")),
        "oracle train": Command(["oracle", "train", given / "recipe.yaml"], ["!", given / "other.yaml"],
                                again=["--resume"]),
    }  # fmt: skip


NAMES = ("cache", "eval", "heads", "steer dose", "steer fit", "probes sweep", "oracle ask", "oracle compare",
         "cot importance", "oracle train")  # fmt: skip


@pytest.fixture(scope="module")
def warm(given: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Command]:
    """The command, run once in this process, so that its children import nothing."""
    known: dict[str, Command] = {}

    def get(name: str) -> Command:
        if name not in known:
            command = commands(given)[name]
            command.run(tmp_path_factory.mktemp("warm") / "x")
            known[name] = command
        return known[name]

    return get


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_killed_and_run_again_it_leaves_the_bytes_of_an_undisturbed_run(name, warm, tmp_path, kills):
    command = warm(name)
    check_kills(command.run, tmp_path, kills=max(2, kills // 2 if kills < 20 else kills),
                again=lambda root: command.run(root, *command.again))  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_second_writer_and_another_job_are_refused_and_change_nothing(name, warm, tmp_path):
    command, root = warm(name), tmp_path / "root"
    assert fork(lambda: command.run(root)) == 0
    before = tree(root)
    folder, lock = command.lock
    words = list(command.other)
    other = Command([*command.words[:-1], words[1]], ()) if words[0] == "!" else Command([*command.words, *words], ())
    other = Command(other.words, (), command.out)
    for attempt, words in ((command, "being written"), (other, command.refusal)):
        with writer_lock(root / folder, name=lock) if attempt is command else warnings.catch_warnings():
            said = tmp_path / "said"
            assert fork(lambda attempt=attempt, said=said: refused(attempt, root, said)) == 0
        assert words in said.read_text(), words
        assert tree(root) == before


def _elsewhere(name: str) -> object:
    return pytest.param(name, marks=() if name in ("eval", "cot importance", "probes sweep") else pytest.mark.long)


@pytest.mark.slow
@pytest.mark.parametrize("name", map(_elsewhere, NAMES))
def test_in_a_folder_of_another_name_time_zone_locale_and_threads_it_leaves_the_same_bytes(name, warm, tmp_path):
    command = warm(name)
    assert fork(lambda: command.run(tmp_path / "plain")) == 0
    assert fork(lambda: elsewhere(command, tmp_path / "Ünïcode und Leerzeichen")) == 0
    assert tree(tmp_path / "Ünïcode und Leerzeichen") == tree(tmp_path / "plain")


def elsewhere(command: Command, root: Path) -> None:
    os.environ |= {"TZ": "Asia/Tokyo", "LC_ALL": "tr_TR.UTF-8", "COLUMNS": "40", "HOSTNAME": "elsewhere"}
    time.tzset()
    torch.set_num_threads(2)
    root.mkdir()
    os.chdir(root)
    command.run(root)


def refused(command: Command, root: Path, said: Path) -> None:
    try:
        command.run(root)
    except Exception as error:
        said.write_text(str(getattr(error, "message", error)))
    else:
        raise AssertionError("it was not refused")
