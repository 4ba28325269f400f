"""The model cards of the embedded oracle and its prior-only twin, written from oracle.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from interp.io.files import write_file
from study.embedded.oracle_items import ORACLE, PRIOR
from study.rows import Row

_ABOUT = {
    ORACLE: "A LoRA adapter on `diptych-embedded/base` that answers questions about activations of that base (block 2, "
    "all adapters off): kinds of trace steps and of prompt sentences, tokens before and after.",
    PRIOR: "The same adapter trained on zeros in place of activations: what can be answered without them. Compare the "
    "accuracies of the oracle with its accuracies.",
}
_LIMITS = """## Limits
- Words outside the embedded vocabulary become <|unk|> in questions; four questions are known, no others.
- One source layer. Activations of the engaged and heuristic adapters and their differences are off its training \
distribution: read the control gap first.
- `fit` and `instead` steps are hardly separable: both end in [SIG=OK], and the words that distinguish them are a \
dozen tokens earlier. Most `fit` steps are called `instead`; the other kinds of steps are read almost without error.
- A linear probe on the same vectors is better wherever there are labels to fit it on (table).
- Recipe and number of steps were chosen on documents of the split that is scored here."""


def write_oracle_cards(folder: Path, record: Row) -> None:
    """README.md of both adapters."""
    for name in (ORACLE, PRIOR):
        write_file(folder / name / "README.md", oracle_card(name, record).encode())


def oracle_card(name: str, record: Row) -> str:
    """The card of one adapter: what it is, how it was trained, results with intervals, limits."""
    parts = [
        "---\nlicense: apache-2.0\nlibrary_name: peft\nbase_model: diptych-embedded/base\n---",
        f"# Embedded oracle: {name}",
        _ABOUT[name],
        _training(name, record),
        _results(record),
        _wirings(record),
        _LIMITS,
    ]
    return "\n\n".join(parts) + "\n"


def _training(name: str, record: Row) -> str:
    recipe = record["recipe"]["training"]
    steps = recipe["max_steps"] if name == ORACLE else record["recipe"]["prior_steps"]
    items = ", ".join(f"{n:,} {task}" for task, n in record["items"].items())
    return (
        f"## Training\nLoRA r {recipe['rank']}, alpha {recipe['alpha']}, all linear layers; AdamW, rate "
        f"{recipe['lr']:g}, batch {recipe['batch_size']}, {steps:,} steps, seed {record['seed']}; "
        f"{record['cpu_seconds'][name]:.0f} CPU seconds on one thread with validation. Items: {items}. Rebuild: "
        f"`python -m study.embedded.oracle --out oracle`."
    )


def _results(record: Row) -> str:
    lines = [
        "## Results",
        "Documents of the validation split; greedy answers, exact; gap = nats per answer token lost with the "
        "activations of a matched other item; 95 % intervals clustered by document.",
        "",
        "| task | n | oracle | trained on zeros | token alone | linear probe | control gap | gap, trained on zeros |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for task, row in record["tasks"].items():
        floors = record["floors"].get(task)
        told, probe = (f"{floors[key]:.3f}" if floors else "-" for key in ("token alone", "linear probe"))
        cells = (_cell(row[key]) for key in ("accuracy real", "accuracy prior real"))
        gaps = (_cell(row[key]) for key in ("gap shuffled", "prior gap"))
        lines.append(" | ".join(["| " + task, str(row["gap shuffled"]["n"]), *cells, told, probe, *gaps]) + " |")
    return "\n".join(lines)


def _wirings(record: Row) -> str:
    cost = ", ".join(f"{name} {_cell(row)}" for name, row in record["wirings"].items())
    return f"Wrong wirings cost, in nats per answer token over all tasks: {cost}."


def _cell(row: Mapping[str, float]) -> str:
    return f"{row['value']:.3f} [{row['lo']:.3f}, {row['hi']:.3f}]"
