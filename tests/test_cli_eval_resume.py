"""Evaluating real BBQ rows through the command line: killed twice, it gives the table of an undisturbed run.

1,200 rows here, every one in `make test-slow`. The killed runs are forked children, so that nothing is imported again.
"""

from __future__ import annotations

import os
import signal
import time
import warnings
from pathlib import Path

import pandas as pd
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from interp.tasks import bbq
from study.cli import main
from tests.bbq_rows import thinned
from tests.cache_kit import fork, status
from tests.tiny import CHAT_TEMPLATE, tiny


@pytest.fixture(scope="module")
def base(bbq_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of one narrow block with one token per word: some 75 tokens per prompt."""
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<unk>"]
    letters = [s.strip() for letter in "ABC" for s in bbq.spellings(letter)]
    words = [word for e in bbq.examples(bbq_folder / "Religion.jsonl") for word in e.content.split()]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys([*specials, *letters, *words]))}
    tok = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tok.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tok, eos_token="<|im_end|>", pad_token="<|endoftext|>",
                                        unk_token="<unk>", additional_special_tokens=["<|im_start|>"],
                                        chat_template=CHAT_TEMPLATE, padding_side="left")  # fmt: skip
    root = tmp_path_factory.mktemp("model")
    shape = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1)
    tiny("qwen2", vocab_size=len(tokenizer), max_position_embeddings=512, **shape).save_pretrained(root)
    tokenizer.save_pretrained(root)
    return root


def run(base: Path, bbq_folder: Path, out: Path, rows: int) -> None:
    model = ["--base", str(base), "--name", "tiny"]
    task = ["--task", "interp.tasks.bbq", "--data", str(bbq_folder), "--mode", "labels", "--no-figures"]
    batches = ["--limit", str(rows), "--tokens-per-batch", str(6 * rows), "--quiet", "--out", str(out)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        main(["eval", *model, *task, *batches], standalone_mode=False)


@pytest.mark.slow
def test_a_run_over_real_rows_that_is_killed_twice_gives_the_same_table(
    base: Path, bbq_folder: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    rows = request.config.getoption("--bbq-rows")
    bbq_folder = _some(bbq_folder, tmp_path / "some", rows)
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    run(base, bbq_folder, calm, rows)
    counts = []
    for more in (2, 5):
        child = fork(lambda: run(base, bbq_folder, killed, rows))
        while batches(killed) < more and os.waitpid(child, os.WNOHANG) == (0, 0):
            time.sleep(0.01)
        os.kill(child, signal.SIGKILL)
        assert status(child) == -signal.SIGKILL, "the run ended before it could be killed"
        counts.append(batches(killed))
    assert not (killed / "table.csv").exists(), "the run ended before it could be killed"
    assert 0 < counts[0] < counts[1] < batches(calm)
    assert status(fork(lambda: run(base, bbq_folder, killed, rows))) == 0
    assert (killed / "table.csv").read_bytes() == (calm / "table.csv").read_bytes()
    frames = [pd.read_parquet(folder / "tiny" / "answers.parquet") for folder in (calm, killed)]
    pd.testing.assert_frame_equal(*frames)
    assert len(frames[0]) == rows
    assert set(frames[0]["rule"]) == {"labels"}
    table = pd.read_csv(killed / "table.csv").set_index(["cell", "metric"])
    assert table.loc[("all", "parse_rate"), "value"] == 1.0
    assert table.loc[("all", "accuracy"), "n"] == rows
    assert {"s_amb", "soft_s_amb", "letter_mass", "share_A"} <= set(table.loc["all"].index)


def _some(bbq_folder: Path, out: Path, rows: int) -> Path:
    """Real rows, half as many again as are asked or more: every run reads and checks all rows of its folder."""
    lines = {path.stem: path.read_bytes().count(b"\n") for path in sorted(bbq_folder.glob("*.jsonl"))}
    every = 2 * sum(lines.values()) // (3 * rows)
    return thinned(bbq_folder, out, list(lines), every=every) if every > 1 else bbq_folder


def batches(folder: Path) -> int:
    return len(list((folder / "tiny" / "items").glob("0*.item")))
