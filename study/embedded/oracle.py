"""The embedded oracle: an adapter that reads the embedded base, its prior-only twin, and the script that builds both.

    python -m study.embedded.oracle --out oracle        or        diptych oracle build --out oracle

Everything is decided by steps and seeds; one thread, a few minutes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from safetensors.torch import load_file, save

from interp.checkpoint import Checkpoint
from interp.io.files import write_file, write_json
from interp.loading import load
from interp.loading.files import ADAPTER_WEIGHTS
from interp.model import Model
from interp.oracle.items import mix, shares
from interp.oracle.recipe import Recipe
from interp.oracle.train import Trained, train_oracle
from study.embedded import weights_folder
from study.embedded.build import one_thread
from study.embedded.oracle_items import ORACLE, PRIOR, SPEC, oracle_items
from study.rows import Row

RECORD = "oracle.json"
TRAINING = Recipe(
    rank=16, alpha=32, dropout=0.0, lr=3e-3, weight_decay=0.0, batch_size=64, max_steps=1200, drop_longest=0.0,
    gradient_checkpointing=False, save_every=300,
)  # fmt: skip
Log = Callable[[str, int, float], None]


@dataclass(frozen=True)
class OracleRecipe:
    """The two adapters.

    Attributes:
        documents: drawn for training, seven items each.
        prior_steps: of the prior-only oracle, which sees zeros; it has less to learn.
        held_out: documents for validation during training.
        training: of both.
        measured: documents of the validation split on which the saved files are measured.
    """

    documents: int = 11_200
    prior_steps: int = 400
    held_out: int = 60
    training: Recipe = TRAINING
    measured: int = 300


def embedded_oracle(*, prior: bool = False) -> Checkpoint:
    """The shipped oracle as a checkpoint on the embedded base, or the oracle that was trained on zeros."""
    folder, name = weights_folder(), PRIOR if prior else ORACLE
    return Checkpoint(name, str(folder / "base"), str(folder / name))


def build_oracle(
    out: str | os.PathLike[str], *, seed: int = 0, recipe: OracleRecipe | None = None, log: Log | None = None
) -> Row:
    """Train both adapters, save them in bfloat16, measure the saved files; returns what oracle.json holds.

    Raises:
        ValueError: `out` is not empty, or an audit of the labels failed.
    """
    from study.embedded.oracle_card import write_oracle_cards
    from study.embedded.oracle_gates import measure

    folder = Path(out)
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"out: expected a new or empty folder; {folder} has files in it. Name another one.")
    recipe = recipe or OracleRecipe()
    with one_thread():
        record = _train_both(folder, seed, recipe, log or (lambda *_: None))
        record |= {"weights_sha256": weights_sha256(folder)} | measure(folder, n_documents=recipe.measured)
    write_json(folder / RECORD, record)
    write_oracle_cards(folder, record)
    return record


def measure_again(folder: str | Path) -> Row:
    """Measure saved adapters once more, without training, as after a change of a statistic; rewrites oracle.json and
    the cards.

    Args:
        folder: holds oracle/, oracle_prior/ and oracle.json of `build_oracle`.
    Raises:
        ValueError: the adapters are not those of oracle.json.
    """
    from study.embedded.oracle_card import write_oracle_cards
    from study.embedded.oracle_gates import measure

    folder = Path(folder)
    record = json.loads((folder / RECORD).read_text())
    if (got := weights_sha256(folder)) != record["weights_sha256"]:
        what = f"{folder}: expected the adapters of {RECORD}, {record['weights_sha256']}, got {got}."
        raise ValueError(f"{what} Build both again with --out.")
    with one_thread():
        record |= measure(folder, n_documents=record["recipe"].get("measured", OracleRecipe().measured))
    write_json(folder / RECORD, record)
    write_oracle_cards(folder, record)
    return record


def weights_sha256(folder: Path) -> dict[str, str]:
    """sha256 of both adapters' weights."""
    files = {name: folder / name / ADAPTER_WEIGHTS for name in (ORACLE, PRIOR)}
    return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items()}


def _train_both(folder: Path, seed: int, recipe: OracleRecipe, log: Log) -> Row:
    start = time.process_time()
    settings = replace(recipe.training, seed=seed)
    items = oracle_items(recipe.documents, seed=f"{seed}/oracle", repeat=True)
    block = settings.batch_size * settings.window * recipe.documents // len(items)  # a window's worth of documents
    mixture = mix(items, validation=recipe.held_out, seed=seed, block=block)
    record: Row = {"seed": seed, "recipe": asdict(recipe), "items": shares(mixture.train)}
    record |= {"items_sha256": mixture.digest, "cpu_seconds": {}}
    prior = replace(settings, activations="zeros", max_steps=recipe.prior_steps, save_every=None)
    for name, chosen in ((ORACLE, settings), (PRIOR, prior)):
        with tempfile.TemporaryDirectory() as run:
            done = train_oracle(_base(), mixture, SPEC, chosen, out=run, log=_say(log, name))
            _keep(Path(run) / "best", folder / name)
        if name == ORACLE:
            record |= {"best_step": done.best.step, "audits": [str(f) for f in done.findings]}
            record["validations"] = _outline(done)
        record["cpu_seconds"][name] = round(time.process_time() - start, 1)
        start = time.process_time()
    return record


def _base() -> Model:
    return load(Checkpoint("base", str(weights_folder() / "base")), dtype="float32", device="cpu")


def _say(log: Log, name: str) -> Callable[..., None]:
    return lambda step, loss, _: log(name, step, loss)


def _outline(done: Trained) -> list[Row]:
    return [
        {"step": v.step, "gap": v.gap.value, **{task: s.accuracy.value for task, s in v.tasks.items()}}
        for v in done.validations
    ]


def _keep(run: Path, folder: Path) -> None:
    """The adapter of a run in bfloat16."""
    for name in ("adapter_config.json", "ao_config.json"):
        write_file(folder / name, (run / name).read_bytes())
    tensors = {key: tensor.bfloat16() for key, tensor in load_file(run / ADAPTER_WEIGHTS).items()}
    write_file(folder / ADAPTER_WEIGHTS, save(tensors, {"format": "pt"}))


def main() -> int:
    """Parse the command line, build, print the gates; 0 if every one holds."""
    parser = argparse.ArgumentParser(prog="python -m study.embedded.oracle", description=build_oracle.__doc__)
    parser.add_argument("--seed", type=int, default=0)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--out", help="a new or empty folder")
    which.add_argument("--measure", metavar="FOLDER", help="train nothing: measure the adapters of FOLDER once more")
    args = parser.parse_args()
    record = measure_again(args.measure) if args.measure else build_oracle(args.out, seed=args.seed, log=_print)
    for name, gate in record["gates"].items():
        print(f"{name}: {gate['value']:.4g} (bound {gate['bound']}) {'pass' if gate['passed'] else 'FAIL'}")
    return 0 if all(gate["passed"] for gate in record["gates"].values()) else 1


def _print(stage: str, step: int, loss: float) -> None:
    if step % 50 == 0:
        print(f"{stage} {step}: {loss:.4f}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
