"""The readers of the package, each with a folder of valid files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml
from click.testing import CliRunner

from interp.checkpoint import Checkpoint, CheckpointPair
from interp.loading import load, open_skeleton
from interp.oracle.spec import OracleSpec
from interp.prompt import render
from interp.site import Site
from interp.tasks import cot, procedural, read_examples
from steering import Direction, Directions, read_probe_vector
from study.analyses.oracle.training import TrainingFile
from study.cli import main
from study.config import read_study
from tests.faults.malformed import Door
from tests.hub_folders import make_hub
from tests.study_kit import SMALL as SMALL_STUDY
from tests.study_kit import write_study

SMALL = ("items", "array", "csv", "parquet", "folder", "records", "chains", "labels", "checkpoint", "pair", "training",
         "study", "declaration", "direction")  # fmt: skip
MODELS = ("skeleton", "weights", "adapter")
RUNS = ("eval", "heads", "probes", "dose", "cache", "run")

ITEM = {"id": "a", "messages": [{"role": "user", "content": "Is it so?"}], "label": "yes", "spans": {"s": [0, 2]},
        "groups": {"g": "x"}, "answer": "yes", "note": {"k": [1, None]}}  # fmt: skip
CHAIN = {"id": "0", "question": "How many?", "cot": "Two and two. That is four.", "answer": "4", "problem": "p",
         "sentences": [[0, 12], [13, 26]]}  # fmt: skip
LABEL = {"id": "0", "sentence": 0, "task": "taxonomy", "label": "step", "context": "c", "problem": "p", "status": "ok",
         "split": "train", "boundary": "x."}  # fmt: skip
MEMBER = {"name": "a", "base": "org/a", "adapter": "org/b", "revision": "main", "tokenizer": "org/c"}
PAIR = {"engaged": MEMBER, "heuristic": MEMBER | {"base": "org/d"}, "base": "org/a"}
TRAINING = {"base": "org/a", "corpus": "c.jsonl", "labels": "l.jsonl", "tasks": {"context": 5, "taxonomy": None},
            "recipe": {"rank": 4, "lr": 0.1, "targets": ["q_proj"]}, "spec": {"hook_layer": 1, "layers": ["50%"]},
            "validation": 0.1, "accept": {"A1": "known"}, "load": {"dtype": "float32"}}  # fmt: skip
STUDY = {"name": "s", "task": {"path": "interp.tasks.procedural", "per_cell": 4, "options": {}}, "pair": "embedded",
         "seed": 1, "eval": {"per_cell": 4, "modes": []}, "load": {"dtype": "auto"}, "cache": {"sites": "resid_post.*"},
         "probes": {"groups": "procedure", "where": {"cell": ["a"]}, "cs": [0.1]}}  # fmt: skip


def run(*command: str | Path) -> Callable[[], object]:
    """The command; what it raises leaves it, as an error of the system or of the user does not."""

    def go() -> object:
        done = CliRunner().invoke(main, [str(word) for word in command])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        if done.exit_code:
            raise ValueError(done.output)
        return done.output

    return go


def small_doors(root: Path) -> list[Door]:
    """Readers of single files, which need no model."""

    def door(name: str, files: dict[str, bytes | str], load: Callable[[Path], object]) -> Door:
        folder = root / name
        folder.mkdir(parents=True)
        for file, content in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
        return Door(name, folder, tuple(files), load)

    rows = [ITEM, {"id": "b", "prompt": "Is it?", "label": "no"}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    table = pd.DataFrame({"id": ["a", "b"], "prompt": ["x", "y"], "label": ["1", "2"], "groups.g": ["u", "v"]})
    table.to_parquet(root / "t.parquet")
    parquet = (root / "t.parquet").read_bytes()
    chains = "".join(json.dumps(CHAIN | {"id": str(i), "problem": f"p{i}"}) + "\n" for i in range(2))
    labels = "".join(json.dumps(LABEL | {"id": str(i), "context": f"c{i}"}) + "\n" for i in range(4))
    oracle = OracleSpec(layers=("25%", "50%"), format="A'").to_json() | {"prefix_template": None}
    folder = root / "direction"
    folder.mkdir()
    one = Direction(torch.arange(1.0, 9.0), Site.parse("resid_post.1"), "a", "b", provenance={"checkpoint": "c"})
    one.save(folder / "d.safetensors")
    return [
        door("items", {"items.jsonl": lines}, lambda at: read_examples(at / "items.jsonl")),
        door("array", {"items.json": json.dumps(rows)}, lambda at: read_examples(at / "items.json")),
        door("csv", {"items.csv": table.to_csv(index=False)}, lambda at: read_examples(at / "items.csv")),
        door("parquet", {"items.parquet": parquet}, lambda at: read_examples(at / "items.parquet")),
        door("folder", {"data/train.jsonl": lines, "data/test.jsonl": lines}, lambda at: read_examples(at)),
        door("records", {"r.jsonl": procedural_lines()}, lambda at: procedural.examples(at / "r.jsonl", split="all")),
        door("chains", {"c.jsonl": chains}, lambda at: cot.chain_examples(at / "c.jsonl")),
        door("labels", {"l.jsonl": labels}, lambda at: cot.audit(cot.read_items(at / "l.jsonl"))),
        door("checkpoint", {"c.yaml": yaml.safe_dump(MEMBER)}, lambda at: Checkpoint.from_yaml(at / "c.yaml")),
        door("pair", {"p.yaml": yaml.safe_dump(PAIR)}, lambda at: CheckpointPair.from_yaml(at / "p.yaml")),
        door("training", {"t.yaml": yaml.safe_dump(TRAINING)}, lambda at: TrainingFile.read(at / "t.yaml").oracle_spec),
        door("study", {"s.yaml": yaml.safe_dump(STUDY)}, lambda at: read_study(at / "s.yaml")),
        door("declaration", {"ao_config.json": json.dumps(oracle)}, lambda at: OracleSpec.from_ao_config(at)),
        Door("direction", folder, ("d.safetensors", "d.json"), lambda at: run("steer", "show", at / "d.safetensors")()),
    ]  # fmt: skip


def procedural_lines() -> str:
    """Three records, as `diptych data procedural` writes them."""
    from interp.tasks.procedural.cells import grid
    from interp.tasks.procedural.records import record_of, to_row

    return "".join(json.dumps(to_row(record_of(item))) + "\n" for item in list(grid(per_cell=1, seed=0))[:3])


def model_doors(root: Path) -> list[Door]:
    """Folders of models and adapters, on disk and on the meta device."""
    hub = make_hub(root / "hub")
    base, adapter = hub / "base", hub / "lora"
    small = tuple(p.name for p in sorted(base.iterdir()) if p.suffix in (".json", ".jinja"))
    example = read_examples_of(ITEM)

    def headers(at: Path) -> object:
        skeleton = open_skeleton(Checkpoint("a", str(at)))
        return skeleton.tokenizer and render(example, skeleton.tokenizer)

    def whole(at: Path) -> object:
        return load(Checkpoint("a", str(at)))

    def tuned(at: Path) -> object:
        return load(Checkpoint("a", str(base), adapter=str(at)))

    return [
        Door("skeleton", base, small, headers),
        Door("weights", base, ("model.safetensors", "config.json"), whole),
        Door("adapter", adapter, ("adapter_config.json", "adapter_model.safetensors"), tuned),
    ]


def read_examples_of(row: dict[str, Any]) -> Any:
    from interp.tasks.records import example_from_row

    return example_from_row({k: v for k, v in row.items() if k != "answer"}, "item")


def run_doors(root: Path) -> list[Door]:
    """Every folder that a study leaves, and the commands that read it."""
    run_folder = root / "run"
    text = SMALL_STUDY[: SMALL_STUDY.index("oracle:")] + SMALL_STUDY[SMALL_STUDY.index("figures:") :]
    run("study", "run", write_study(root, text), "--out", run_folder)()
    steps = run_folder / "steps"

    def files(folder: Path, *patterns: str) -> tuple[str, ...]:
        return tuple(
            p.relative_to(folder).as_posix()
            for pattern in patterns
            for p in [q for q in sorted(folder.glob(pattern)) if q.is_file()][:1]
        )

    cache, evals, heads = steps / "cache" / "engaged", steps / "eval", steps / "heads"
    probes, dose = steps / "probes" / "engaged" / "surface_label", steps / "steering" / "heuristic"
    of_eval = files(evals, "engaged/*.json", "engaged/*.parquet", "*/batches/*", "*/items/*")
    of_heads = files(heads, "*/mean-*/plan.json", "*/mean-*/items/*", "cumulative.csv", "difference.csv")
    of_probes = files(probes, "plan.json", "items/*", "table.parquet", "scores.npz", "directions.safetensors")
    of_dose = files(dose, "dose/*/plan.json", "dose/*/items/*", "dose/*/table.csv", "dose/*/slopes.csv", "*.json",
                    "*.safetensors")  # fmt: skip
    of_cache = files(cache, "manifest.json", "SEALED.json", "*.parquet", "shards/**/*")
    of_run = files(run_folder, "run.json", "study.yaml", "tables/*.parquet", "steps/eval/step.json", ".digests.json",
                   "figures/*.svg", "steps/eval/engaged/*.parquet")  # fmt: skip

    def read_evals(at: Path) -> object:
        return run("eval", "compare", at / "engaged", at / "heuristic")()

    def read_probes(at: Path) -> object:
        run("probes", "figures", at, "--out", at.parent / "drawn")()
        return read_probe_vector(at, site="resid_post.2", kind="ridge")

    def read_dose(at: Path) -> object:
        return run("steer", "figures", at / "dose")(), Directions.load(at / "fit-0.safetensors")

    def read_cache(at: Path) -> object:
        return run("cache", "inspect", at)(), run("cache", "verify", at, "--hash")(), reads(at)

    def read_run(at: Path) -> object:
        return run("report", at)(), run("tables", at)(), run("study", "plan", at)()

    return [
        Door("eval", evals, of_eval, read_evals),
        Door("heads", heads, of_heads, lambda at: run("heads", "show", at)()),
        Door("probes", probes, of_probes, read_probes),
        Door("dose", dose, of_dose, read_dose),
        Door("cache", cache, of_cache, read_cache),
        Door("run", run_folder, of_run, read_run),
    ]


def reads(at: Path) -> object:
    from interp.cache import ActivationCache

    with ActivationCache.open(at) as cache:
        return cache.read(
            cache.sites[0], cache.positions[0] if hasattr(cache, "positions") else "last"
        ).sum(), cache.examples
