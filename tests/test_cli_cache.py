"""`diptych cache` end to end: real BBQ prompts through a tiny model on disk, and errors in the user's words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from interp.cache import ActivationCache
from study.cli import main
from tests.tiny import add_lora, save_checkpoint, tiny, tiny_tokenizer


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_checkpoint(tmp_path_factory.mktemp("base"), max_position_embeddings=2048)


@pytest.fixture(scope="module")
def adapters(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for seed, name in ((7, "engaged"), (8, "heuristic")):
        peft = add_lora(tiny("qwen2", vocab_size=len(tiny_tokenizer()), max_position_embeddings=2048), seed=seed)
        folders[name] = tmp_path_factory.mktemp(name)
        peft.save_pretrained(folders[name])
        config = json.loads((folders[name] / "adapter_config.json").read_text())
        (folders[name] / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": str(base)}))
    return folders


@pytest.fixture
def items(tmp_path: Path) -> Path:
    path = tmp_path / "items.jsonl"
    rows = [{"id": f"i{k}", "prompt": f"the quick brown fox {k}", "label": k % 2, "source": "web"} for k in range(6)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("n", [64, pytest.param(512, marks=pytest.mark.long)])
def test_real_bbq_prompts_equal_single_unpadded_forwards(
    base: Path, official_bbq: Path, tmp_path: Path, n: int
) -> None:
    from transformers import AutoModelForCausalLM

    from interp.prompt import render
    from interp.tasks import bbq

    out = tmp_path / "cache"
    done = run("cache", "--base", base, "--task", "interp.tasks.bbq", "--data", official_bbq, "--limit", n,
               "--sites", "resid_post.*,z.*", "--positions", "last", "--out", out, "--quiet")  # fmt: skip
    assert done.exit_code == 0, done.output
    cache = ActivationCache.open(out)
    known = {e.id: e for e in bbq.examples(official_bbq)}
    examples = [known[name] for name in cache.examples["id"]]
    assert len({e.id for e in examples}) == n
    assert len({e.metadata["category"] for e in examples}) > 5, "a limit is spread over the whole file"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), tiny_tokenizer()
    first, second = cache.read("resid_post.0", "last"), cache.read("resid_post.1", "last")
    with torch.no_grad():
        for i, example in enumerate(examples):
            ids = torch.tensor([render(example, tokenizer).ids])
            hidden = model.model(ids, output_hidden_states=True).hidden_states
            assert torch.allclose(first[i], hidden[1][0, -1], atol=2e-5)
            assert torch.allclose(second[i], hidden[2][0, -1], atol=2e-5)


def test_an_adapter_is_extracted_and_inspected_and_verified(base: Path, adapters, items: Path, tmp_path: Path) -> None:
    out = tmp_path / "cache"
    done = run("cache", "--base", base, "--adapter", adapters["engaged"], "--data", items, "--out", out, "--quiet",
               "--sites", "resid_post.1,z.2.1", "--positions", "last,stride:4")  # fmt: skip
    assert done.exit_code == 0, done.output
    cache = ActivationCache.open(out)
    assert cache.examples["source"].tolist() == ["web"] * 6
    assert cache.read("z.2.1", "last").shape == (6, 8)
    shown = run("cache", "inspect", out)
    assert "resid_post.1" in shown.output
    digest = json.loads((out / "manifest.json").read_text())["identity"]["adapter"]["sha256"]
    assert f"adapter   {adapters['engaged'].name} (sha256 {digest[:12]}...)" in shown.output
    assert f"model     {base.name} (sha256 " in shown.output and "{" not in shown.output
    assert run("cache", "verify", out, "--hash").exit_code == 0
    data = next(out.glob("shards/*/*.safetensors"))
    data.chmod(0o644)
    content = bytearray(data.read_bytes())
    content[-5] ^= 1
    data.write_bytes(content)
    broken = run("cache", "verify", out, "--hash")
    assert broken.exit_code == 1
    assert data.name in broken.output


def test_a_pair_is_extracted_in_one_walk_with_its_base(base: Path, adapters, items: Path, tmp_path: Path) -> None:
    pair = tmp_path / "pair.yaml"
    pair.write_text(
        f"base: {base}\nengaged: {{adapter: {adapters['engaged']}}}\nheuristic: {{adapter: {adapters['heuristic']}}}\n"
    )
    out = tmp_path / "pair"
    done = run("cache", "--pair", pair, "--data", items, "--sites", "resid_post.2", "--out", out, "--quiet")
    assert done.exit_code == 0, done.output
    caches = {role: ActivationCache.open(out / role) for role in ("engaged", "heuristic", "base")}
    feats = {role: cache.read("resid_post.2", "last") for role, cache in caches.items()}
    assert (feats["engaged"] - feats["base"]).abs().max() > 1e-3
    assert (feats["engaged"] - feats["heuristic"]).abs().max() > 1e-3
    assert len(caches["engaged"].pair(caches["heuristic"])) == 6
    refused = run("cache", "inspect", out)
    assert refused.exit_code == 1 and all(str(out / role) in refused.output for role in caches), refused.output
    alone = tmp_path / "alone"
    run("cache", "--base", base, "--adapter", adapters["heuristic"], "--data", items, "--out", alone, "--quiet",
        "--sites", "resid_post.2")  # fmt: skip
    assert torch.equal(ActivationCache.open(alone).read("resid_post.2", "last"), feats["heuristic"])
    assert ActivationCache.open(alone).plan_id == caches["heuristic"].plan_id


def test_plan_prints_the_size_and_reads_no_weight(base: Path, adapters, items: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in base.iterdir():
        (bare / file.name).write_bytes(b"not read" if file.suffix == ".safetensors" else file.read_bytes())
    ask = ("cache", "plan", "--base", bare, "--data", items, "--sites", "resid_post.*")
    done = run(*ask)
    assert done.exit_code == 0, done.output
    assert "6 rows" in done.output
    refused = run(*ask, "--positions", "all")
    assert refused.exit_code == 1
    assert "--max-bytes" in refused.output
    too_big = run(*ask, "--positions", "all", "--max-bytes", "1kB")
    assert too_big.exit_code == 1
    assert "1.00 kB" in too_big.output


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"--sites": "resid_post.9"}, "3 layers (0-2)"),
        ({"--sites": "resid_pots.1"}, "Did you mean 'resid_post'"),
        ({"--positions": "lsat"}, "last"),
        ({"--data": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"--base": "nowhere"}, "nowhere"),
        ({"--task": "interp.tasks.bqb"}, "Did you mean 'interp.tasks.bbq'"),
        ({"--max-length": "5"}, "i0"),
        ({"--max-length": "9999"}, "2048 tokens"),
        ({"--device": "gpu"}, "expected 'auto', 'cpu', 'cuda'"),
        ({"--shard-bytes": "0"}, "expected a size such as '256MB'"),
    ],
)
def test_bad_input_gets_one_message_and_no_traceback(
    base: Path, items: Path, tmp_path: Path, change, words: str
) -> None:
    options = {"--base": base, "--data": items, "--out": tmp_path / "out", **change}
    done = run("cache", *(part for option in options.items() for part in option))
    assert done.exit_code == 1
    assert words in done.output
    assert "Traceback" not in done.output
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_bad_line_is_named_with_its_number(base: Path, items: Path, tmp_path: Path) -> None:
    items.write_text(items.read_text() + '{"id": "x", "prompt": ""}\n')
    done = run("cache", "--base", base, "--data", items, "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "items.jsonl" in done.output
    assert "line 7" in done.output


def test_exactly_one_way_to_name_the_model() -> None:
    done = run("cache", "--data", "x", "--out", "y")
    assert done.exit_code == 2
    assert "exactly one of --base, --checkpoint and --pair" in done.output
    assert "plan, inspect or verify" in run("cache").output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--checkpoint", "ck.yaml", "--adapter", "x"), "--adapter: only with --base"),
        (("--pair", "pair.yaml", "--merge", "--name", "x"), "--name, --merge: only with --base"),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(options: tuple[str, ...], words: str) -> None:
    done = run("cache", *options, "--data", "x", "--out", "y")
    assert done.exit_code == 2
    assert words in done.output


def test_a_misspelt_command_is_not_taken_for_an_extraction(tmp_path: Path) -> None:
    done = run("cache", "verfy", tmp_path)
    assert done.exit_code == 2
    assert "Did you mean 'verify'?" in done.output


def test_a_pair_whose_second_member_is_bad_fails_before_the_first_is_read(
    base: Path, items: Path, tmp_path: Path
) -> None:
    pair = tmp_path / "pair.yaml"
    pair.write_text(f"engaged: {{name: engaged, base: {base}}}\nheuristic: {{name: heuristic, base: ./nowhere}}\n")
    done = run("cache", "--pair", pair, "--data", items, "--out", tmp_path / "out", "--quiet")
    assert done.exit_code == 1
    assert "nowhere" in done.output
    assert not (tmp_path / "out").exists()
