"""Known results of the literature on real checkpoints: run the experiments and renew benchmarks/SCIENCE.md.

python -m benchmarks.science [--only NAME ...] [--model NAME ...] [--real DIR] [--again]

An experiment whose results file comes from the same code and settings is not run again. `--again` runs it anyway, as
after a change of the library.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import torch

from benchmarks.kit import HERE
from benchmarks.known_results import store, table
from benchmarks.known_results.registry import EXPERIMENTS, Experiment
from interp import Checkpoint, Model, load

PAGE = HERE / "SCIENCE.md"


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    for model, experiments in _todo(options.only, options.model, again=options.again).items():
        for dtype in dict.fromkeys(one.dtype for one in experiments):
            loaded = load_checkpoint(options.real, model, dtype)
            for experiment in [one for one in experiments if one.dtype == dtype]:
                _run(experiment, model, loaded)
    PAGE.write_text(table.compose(store.results()))
    print(f"wrote {PAGE.relative_to(HERE.parent)}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(EXPERIMENTS), default=list(EXPERIMENTS), metavar="NAME",
                        help=f"experiments: {', '.join(EXPERIMENTS)}")  # fmt: skip
    parser.add_argument("--model", nargs="*", default=[], help="checkpoints; default: those of each experiment")
    parser.add_argument("--real", type=Path, default=Path(os.environ.get("DIPTYCH_REAL", "build/real")),
                        help="folder of checkpoints; default: DIPTYCH_REAL")  # fmt: skip
    parser.add_argument("--again", action="store_true", help="run also what is up to date")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def _todo(names: list[str], models: list[str], *, again: bool) -> dict[str, list[Experiment]]:
    """The experiments to run on each checkpoint."""
    todo: dict[str, list[Experiment]] = {}
    for experiment in (EXPERIMENTS[name] for name in names):
        for model in models or experiment.models:
            if not again and store.is_current(experiment, model, experiment.settings()):
                print(f"{experiment.name} on {model}: up to date")
            elif reason := experiment.missing():
                print(f"{experiment.name} on {model}: left out, {reason}")
            else:
                todo.setdefault(model, []).append(experiment)
    return todo


def load_checkpoint(folder: Path, name: str, dtype: str) -> Model:
    """A checkpoint of the folder, with its own chat template if it has one.

    Raises:
        SystemExit: the folder does not hold it.
    """
    path = folder / name
    if not (path / "config.json").is_file():
        raise SystemExit(
            f"{name}: expected a Hugging Face folder {path}, found none. `python -m tests.real.fetch DIR` makes "
            "smollm2; set DIPTYCH_REAL or --real to the folder, or choose checkpoints with --model."
        )
    template = "own" if (path / "chat_template.jinja").is_file() else "plain"
    return load(Checkpoint(name, str(path)), dtype=dtype, template=template)


def _run(experiment: Experiment, name: str, model: Model) -> None:
    print(f"--- {experiment.name} on {name}", flush=True)
    settings, began = experiment.settings(), time.process_time()
    code = store.code_of(experiment, settings)
    findings = experiment.run(model, settings)
    result = store.result_of(experiment, name, settings, findings, time.process_time() - began, code)
    store.write(result)
    for row in findings.rows:
        print(f"{row.verdict:<13} {row.what}: {row.value:.4g} [{row.lo:.4g}, {row.hi:.4g}], "
              f"{row.null} {row.null_value:.4g}", flush=True)  # fmt: skip
    print(f"{result.seconds:.0f} s of CPU", flush=True)


if __name__ == "__main__":
    main()
