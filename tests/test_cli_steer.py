"""`diptych steer fit | show | export` end to end: from a cache to a file, a control vector and a model folder."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result

from interp.cache import ActivationCache, extract
from interp.checkpoint import Checkpoint
from interp.loading import load
from interp.prompt import Example
from steering import Direction, Directions, difference_of_means, steer
from study.cli import main
from tests.tiny import add_lora, save_checkpoint, tiny

N_STORIES, SIZE = 24, 4


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def examples() -> list[Example]:
    """Prompts whose last word goes with the class; every template holds both classes."""
    out = []
    for g in range(N_STORIES):
        for k in range(SIZE):
            label = ("anti", "stereo")[(g + k) % 2]
            text = f"the quick brown {g * SIZE + k} {'fox' if label == 'anti' else 'dog'}"
            units = {"story": f"s{g}", "template": f"t{g % 5}"}
            out.append(Example(f"i{g}-{k}", (), text=text, label=label, groups=units, metadata={"split": "ab"[g % 2]}))
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base and a LoRA on it on disk, and a cache of each."""
    folder = tmp_path_factory.mktemp("steer")
    save_checkpoint(folder / "base", tie_word_embeddings=True)
    peft = add_lora(tiny("qwen2", vocab_size=len_of(folder / "base"), tie_word_embeddings=True))
    peft.save_pretrained(folder / "lora")
    for name, adapter in (("base", None), ("tuned", str(folder / "lora"))):
        model = load(Checkpoint(name, str(folder / "base"), adapter))
        extract(model, examples(), out=folder / f"cache-{name}", sites="resid_post.*", progress=False)
    return folder


def len_of(base: Path) -> int:
    return int(json.loads((base / "config.json").read_text())["vocab_size"])


@pytest.fixture(scope="module")
def fitted(folder: Path) -> Path:
    out = folder / "directions" / "bias.safetensors"
    done = run("steer", "fit", folder / "cache-tuned", "--toward", "anti", "--away", "stereo", "--positions", "last",
               "--balance", "strata", "--out", out)  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "site          delta" in done.output and "resid_post.2" in done.output
    assert "48 and 48 rows, 24 groups" in done.output
    return out


def test_fit_writes_what_the_library_fits(folder: Path, fitted: Path) -> None:
    held = Directions.load(fitted)
    want = difference_of_means(
        ActivationCache.open(folder / "cache-tuned"), toward="anti", away_from="stereo", balance="strata"
    )
    assert list(held) == list(want)
    for site, one in held.items():
        assert torch.equal(one.vec, want[site].vec) and one.stats == want[site].stats
    origin = held["resid_post.1"].provenance
    assert (origin["checkpoint"], origin["strata"], origin["groups"]) == ("tuned", "template", "story")
    assert origin["tokens"] == {" fox": 48, " dog": 48} and held["resid_post.1"].stats.n_strata == 5


def test_a_fitted_direction_knows_its_checkpoint_and_its_siblings(folder: Path, fitted: Path) -> None:
    d = Direction.load(fitted, "resid_post.1")
    assert d.check_acts_on(load(Checkpoint("tuned", str(folder / "base"), str(folder / "lora")))) is None
    assert "a sibling on the same base weights" in str(d.check_acts_on(load(Checkpoint("base", str(folder / "base")))))


def test_fit_takes_other_directions_out_and_classes_from_a_file(folder: Path, fitted: Path) -> None:
    said = [("yes", "no")[(e.label == "stereo") ^ (i % 5 == 0)] for i, e in enumerate(examples())]
    table = pd.DataFrame({"id": [e.id for e in examples()], "said": said})
    answers = folder / "answers.csv"
    table.to_csv(answers, index=False)
    out = folder / "said.safetensors"
    done = run("steer", "fit", folder / "cache-tuned", "--toward", "yes", "--away", "no", "--target", "said",
               "--labels", answers, "--sites", "resid_post.1", "--orthogonal-to", fitted, "--no-sign-check",
               "--out", out)  # fmt: skip
    assert done.exit_code == 0, done.output
    made, bias = Direction.load(out), Direction.load(fitted, "resid_post.1")
    assert abs(float(made.unit @ bias.unit)) < 1e-6 and made.removed is not None
    assert "kept" in done.output and "cosine with stereo → anti" in done.output
    shown = run("steer", "show", out)
    assert "cosine with stereo → anti" in shown.output and "+alpha moves toward 'yes'" in shown.output


def test_a_bias_tasks_answers_give_stances_and_the_letter_to_balance_over(folder: Path) -> None:
    rows = []
    for i, e in enumerate(examples()):
        committed, letter = (i % 7 != 0), "AB"[i % 2]
        biased = float(e.label == "stereo") if committed else None
        rows.append({"id": e.id, "label": letter, "score.committed": float(committed), "score.biased": biased})
    answers, out, unknown = (folder / name for name in ("answers.parquet", "stance.safetensors", "unknown.safetensors"))
    pd.DataFrame(rows).to_parquet(answers)
    options = ["--labels", answers, "--target", "stance", "--strata", "labels:label", "--sites", "resid_post.2"]
    done = run("steer", "fit", folder / "cache-base", "--toward", "anti", "--away", "stereo", *options, "--balance",
               "strata", "--no-sign-check", "--out", out)  # fmt: skip
    assert done.exit_code == 0, done.output
    d, cache = Direction.load(out), ActivationCache.open(folder / "cache-base")
    said = [None if row["score.biased"] is None else ("anti", "stereo")[int(row["score.biased"])] for row in rows]
    want = difference_of_means(
        cache, toward="anti", away_from="stereo", target=said, site="resid_post.2", balance="strata",
        strata=[row["label"] for row in rows], check_sign=False,
    )  # fmt: skip
    assert torch.equal(d.vec, want.vec) and d.stats.n_strata == 2
    done = run("steer", "fit", folder / "cache-base", "--toward", "unknown", "--away", "stereo+anti", *options[:4],
               "--sites", "resid_post.2", "--balance", "classes", "--no-sign-check", "--out", unknown)  # fmt: skip
    assert done.exit_code == 0, done.output
    d = Direction.load(unknown)
    n_unknown = sum(row["score.committed"] == 0 for row in rows)
    assert (d.stats.n_toward, d.stats.n_away) == (n_unknown, len(rows) - n_unknown) and d.away_from == "stereo+anti"


def test_show_prints_a_row_per_site_or_all_of_one(fitted: Path) -> None:
    table = run("steer", "show", fitted)
    assert [line.split()[0] for line in table.output.splitlines()[2:]] == [
        "resid_post.0",
        "resid_post.1",
        "resid_post.2",
    ]
    one = run("steer", "show", fitted, "--site", "resid_post.1")
    assert "fitted on    tuned" in one.output and "5 with both classes, 0 with one were left out" in one.output


def test_a_probes_weights_become_a_direction(folder: Path) -> None:
    swept = run("probes", "sweep", folder / "cache-base", "--target", "label", "--positive", "anti", "--groups",
                "story", "--kinds", "massmean", "--cs", "1", "--perm", "0", "--boot", "100", "--out",
                folder / "probes")  # fmt: skip
    assert swept.exit_code == 0, swept.output
    out = folder / "probe.safetensors"
    done = run("steer", "fit", folder / "cache-base", "--toward", "anti", "--away", "stereo", "--sites", "resid_post.2",
               "--from-probes", folder / "probes", "--probe-kind", "massmean", "--out", out)  # fmt: skip
    assert done.exit_code == 0, done.output
    d = Direction.load(out)
    assert d.provenance["method"] == "given vector"
    assert d.stats.proj_toward - d.stats.proj_away == pytest.approx(d.stats.delta_norm, rel=1e-4)
    assert float(d.vec.norm()) == pytest.approx(d.stats.delta_norm, rel=1e-5)
    turned = run("steer", "fit", folder / "cache-base", "--toward", "stereo", "--away", "anti", "--sites",
                 "resid_post.2", "--from-probes", folder / "probes", "--probe-kind", "massmean",
                 "--out", folder / "turned.safetensors")  # fmt: skip
    assert turned.exit_code == 1 and "Exchange toward and away_from" in turned.output


def test_export_writes_a_control_vector(fitted: Path) -> None:
    import gguf

    failed = run("steer", "export", fitted, "--format", "gguf")
    assert failed.exit_code == 1 and "Choose others with" in failed.output
    done = run(
        "steer", "export", fitted, "--format", "gguf", "--sites", "resid_post.1, resid_post.2", "--unit", "delta"
    )
    assert done.exit_code == 0, done.output
    reader = gguf.GGUFReader(fitted.with_suffix(".gguf"))
    held = Directions.load(fitted)
    for tensor in reader.tensors:
        want = held[f"resid_post.{tensor.name.split('.')[1]}"]
        torch.testing.assert_close(torch.tensor(tensor.data), want.vec, rtol=1e-5, atol=1e-6)
    assert reader.fields["controlvector.model_hint"].contents() == "qwen2"


@pytest.mark.filterwarnings("ignore::steering.operators.OtherCheckpointWarning")
def test_export_writes_the_checkpoint_it_was_fitted_on_without_the_direction(folder: Path, fitted: Path) -> None:
    from transformers import AutoModelForCausalLM

    export = ("steer", "export", fitted, "--format", "hf-weights", "--sites", "resid_post.1")
    done = run(*export)  # a direction keeps no folder of the disk that it was fitted on
    assert done.exit_code == 1 and "base 'base'" in done.output and "--base" in done.output
    done = run(*export, "--base", folder / "base", "--adapter", folder / "lora", "--name", "tuned")
    assert done.exit_code == 0, done.output
    assert "the unembedding now has weights of its own" in done.output
    out = fitted.with_name("bias-ablated")
    assert (out / "tokenizer.json").is_file()
    model = load(Checkpoint("tuned", str(folder / "base"), str(folder / "lora")))
    ids = torch.tensor([[5, 9, 77, 12]])
    with torch.no_grad(), steer(model, Direction.load(fitted, "resid_post.1"), op="ablate_everywhere", positions="all"):
        want = model.module(ids).logits
    back = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    assert (back(ids).logits - want).abs().max() < 3e-5  # merged once, projected once: two roundings of each weight


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--toward", "antii"], "class 'antii' has no example to fit on. Classes: 'anti' (48), 'stereo' (48)"),
        (["--sites", "z.*"], "match none of the available sites: resid_post.0"),
        (["--out", "d.pt"], "expected a name ending in .safetensors"),
        (["--groups", "who"], "groups='who': no such column"),
        (["--fit-on", "split=c"], "fit_on split=c: no row is left. 'split' holds a, b."),
        (["--labels", "none.csv"], "none.csv: no such file"),
        (["--orthogonal-to", "none.safetensors"], "none.safetensors is missing"),
    ],
)
def test_what_cannot_be_fitted_is_said_in_one_line(folder: Path, tmp_path: Path, options: list[str], said: str) -> None:
    given = {"--toward": "anti", "--away": "stereo", "--out": str(tmp_path / "d.safetensors")}
    given |= dict(zip(options[::2], options[1::2], strict=True))
    done = run("steer", "fit", folder / "cache-base", *[word for pair in given.items() for word in pair])
    assert done.exit_code == 1 and said in done.output and "Traceback" not in done.output
    assert not [path for path in tmp_path.iterdir() if path.name != ".writer"]  # an empty lock file


def test_fit_on_some_examples_checks_the_sign_on_the_others(folder: Path, tmp_path: Path) -> None:
    done = run("steer", "fit", folder / "cache-base", "--toward", "anti", "--away", "stereo", "--fit-on", "split=a",
               "--groups", "none", "--out", tmp_path / "d.safetensors")  # fmt: skip
    assert done.exit_code == 0, done.output
    stats = Direction.load(tmp_path / "d.safetensors", "resid_post.2").stats
    assert stats.n_held_out == 48 and stats.n_toward == 24 and stats.held_out_gap > 0 and stats.n_groups == 48
