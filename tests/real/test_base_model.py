"""Built-in tasks on a base model: no chat template, prompts as plain text; evaluation, cache, heads and steering."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from interp import Checkpoint, Example, load
from interp.cache import extract
from interp.site import Site
from interp.tasks import esi, procedural
from interp.tasks.cot import chains
from interp.template import is_plain
from steering import Direction, Directions
from steering.direction import DirectionStats
from study.analyses.eval.options import EvalOptions
from study.analyses.eval.run import run_eval
from study.analyses.heads.options import HeadsOptions
from study.analyses.heads.run import run_heads
from study.analyses.steering.options import DoseOptions
from study.analyses.steering.run import run_dose

LOADING = {"template": "plain", "dtype": "float32"}
TASKS = ("procedural", "esi", "cot")


@pytest.fixture(scope="module")
def base(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """The checkpoint as a base model: without its chat template, if it has one."""
    folder = tmp_path_factory.mktemp("base") / checkpoint.name
    folder.mkdir()
    for file in checkpoint.iterdir():
        if file.name != "chat_template.jinja":
            (folder / file.name).symlink_to(file.resolve())
    config = json.loads((folder / "tokenizer_config.json").read_text())
    assert "chat_template" not in config
    return Checkpoint(checkpoint.name, str(folder))


def items(task: str, folder: Path) -> list[Example]:
    if task == "procedural":
        return procedural.examples(per_cell=8, cells=["training_distribution"], seed=1)
    if task == "esi":
        return esi.examples(per_cell=1, seed=1)[::2][:8]
    rows = [
        {"id": f"c{k}", "problem": f"p{k}", "question": f"Is 7 + 5 more than {k}?",
         "cot": f"7 + 5 is 12. 12 is more than {k}. So it is.", "answer": "yes"}
        for k in range(4)
    ]  # fmt: skip
    (folder / "cot.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    return chains.examples(folder / "cot.jsonl")


@pytest.mark.parametrize("task", TASKS)
def test_a_task_works_on_a_base_model(base: Checkpoint, task: str, tmp_path: Path) -> None:
    asked = items(task, tmp_path)
    model = load(base, **LOADING)
    assert is_plain(model.tokenizer)
    layer, path = model.n_layers // 2, f"interp.tasks.{task}"
    acts = extract(model, asked, out=tmp_path / "cache", sites=f"resid_post.{layer}", positions="last", progress=False)
    feats = torch.tensor(acts.read(f"resid_post.{layer}", "last"))
    assert feats.shape == (len(asked), model.d_model) and len(feats.unique(dim=0)) > 1
    if task == "cot":
        return  # its questions are read and steered by their chains; it names no labels
    options = EvalOptions(generate=False)
    frame = run_eval(base, path, asked, out=tmp_path / "eval", loading=LOADING, options=options, progress=False)
    answers = frame.answers[base.name]
    p = answers[[column for column in answers if column.startswith("p.")]].sum(axis=1)
    assert p.to_numpy() == pytest.approx(1.0) and answers["label"].notna().all()
    how = HeadsOptions(kinds=("zero",), slot="Answer: ")
    run_heads(base, path, asked, out=tmp_path / "heads", options=how, loading=LOADING, progress=False)
    assert len(list((tmp_path / "heads").rglob("*.item"))) >= len(asked)
    labels = sorted({str(example.label) for example in asked})[:2]
    norm = float(feats.norm(dim=-1).median())
    stats = DirectionStats(resid_norm=norm, n_toward=4, n_away=4, n_groups=8)
    site = Site("resid_post", layer)
    direction = Direction(feats[0] - feats[1], site, labels[0], labels[1], stats=stats)
    few = DoseOptions(alphas="-0.5:0.5:3", slot="Answer: ", n_random=19, n_shuffled=0, n_complement=0, min_items=2,
                      min_groups=2, boot=100)  # fmt: skip
    done = run_dose(base, path, asked, Directions({site: direction}), out=tmp_path / "dose", loading=LOADING,
                    progress=False, options=few)[base.name]  # fmt: skip
    assert done.slopes()["value"].abs().max() > 0
