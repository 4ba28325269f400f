"""What the embedded oracle must show before it ships, measured from its files on documents of the validation split."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from interp.checkpoint import Checkpoint
from interp.loading import load
from interp.model import Model
from interp.oracle.encode import Encoded, Encoder, Scores, base_vectors, score_answers, zero_vectors
from interp.oracle.evidence import NO_GAP
from interp.oracle.items import TrainItem, balanced
from interp.oracle.validate import matched_partners
from interp.stats import Estimate, cluster_mean, paired_difference, wilson_clustered
from study.embedded import weights_folder
from study.embedded.oracle_items import ORACLE, PRIOR, SPEC, oracle_items
from study.rows import Row

CLASSES = ("taxonomy", "sentence")
ABOVE_FLOOR = 0.3
WRONG: Mapping[str, Row] = {
    "block 0": {"hook_layer": 0},
    "block 2": {"hook_layer": 2},
    "replace": {"formula": "replace"},
    "coefficient 0.5": {"coefficient": 0.5},
    "coefficient 2": {"coefficient": 2.0},
    "coefficient -1": {"coefficient": -1.0},
    "raw vector added": {"formula": "raw"},
}


@dataclass(frozen=True, eq=False)
class Bench:
    """Held-out items with their activations and those of their matched partners."""

    items: tuple[TrainItem, ...]
    encoded: tuple[Encoded, ...]
    real: tuple[Tensor, ...]
    shuffled: tuple[Tensor, ...]
    zero: tuple[Tensor, ...]

    @classmethod
    def of(cls, model: Model, items: Sequence[TrainItem]) -> Bench:
        """The bench of some items; those without a partner are left out."""
        encoded = Encoder(SPEC, model.tokenizer)(items)
        vectors, zeros = base_vectors(model, items, encoded), zero_vectors(model, encoded)
        pairs = [(i, j) for i, j in enumerate(matched_partners(items)) if j is not None]
        return cls(
            tuple(items[i] for i, _ in pairs),
            tuple(encoded[i] for i, _ in pairs),
            tuple(vectors[i] for i, _ in pairs),
            tuple(vectors[j] for _, j in pairs),
            tuple(zeros[i] for i, _ in pairs),
        )

    def of_tasks(self, *tasks: str) -> list[int]:
        """Indices of the items of some tasks."""
        return [i for i, item in enumerate(self.items) if item.task in tasks]

    def groups(self, chosen: Sequence[int]) -> list[str]:
        """The document of each item."""
        return [self.items[i].problem for i in chosen]


def held_out_items(n: int = 300) -> list[TrainItem]:
    """Items of `n` documents of the validation split, answers of the class tasks balanced."""
    return oracle_items(n, seed="embedded oracle", split="validation")


def open_oracles(folder: Path) -> Model:
    """The base with the oracle and its prior-only twin as adapters of one model."""
    base = str(weights_folder() / "base")
    oracle, prior = (Checkpoint(name, base, str(folder / name)) for name in (ORACLE, PRIOR))
    return load(oracle, siblings=(prior,), dtype="float32", device="cpu")


def measure(folder: Path, *, n_documents: int = 300) -> Row:
    """Tasks under every control, wrong wirings, floors and gates, from the saved files."""
    model = open_oracles(folder)
    bench = Bench.of(model, held_out_items(n_documents))
    scores = control_scores(model, bench)
    wirings = wiring_scores(model, bench)
    tasks = {task: task_rows(bench, scores, task) for task in sorted({item.task for item in bench.items})}
    return {
        "tasks": _plain(tasks),
        "wirings": _plain(wirings),
        "floors": {task: floors(model, bench, task) for task in CLASSES},
        "gates": gates(tasks, wirings),
    }


def control_scores(model: Model, bench: Bench) -> dict[str, Scores]:
    """The oracle under real, shuffled and zero vectors, and the prior-only oracle under real and shuffled ones."""
    out = {}
    vectors = {"real": bench.real, "shuffled": bench.shuffled, "zero": bench.zero}
    with model.adapters.use(ORACLE):
        for name, given in vectors.items():
            out[name] = score_answers(model, SPEC, bench.encoded, given)
    with model.adapters.use(PRIOR):
        for name in ("real", "shuffled", "zero"):
            out[f"prior {name}"] = score_answers(model, SPEC, bench.encoded, vectors[name])
    return out


def task_rows(bench: Bench, scores: Mapping[str, Scores], task: str) -> dict[str, Estimate]:
    """Accuracy and NLL of one task under every control, and the gaps in nats per token, clustered by document."""
    chosen = bench.of_tasks(task)
    groups = bench.groups(chosen)
    out: dict[str, Estimate] = {}
    for name, score in scores.items():
        out[f"accuracy {name}"] = wilson_clustered([float(score.is_right[i]) for i in chosen], groups=groups)
        out[f"nll {name}"] = cluster_mean(score.nll[chosen].numpy(), groups=groups)
    for name, control, real in (
        ("gap shuffled", "shuffled", "real"),
        ("gap zero", "zero", "real"),
        ("prior gap", "prior shuffled", "prior real"),
    ):
        a, b = scores[control].nll[chosen].numpy(), scores[real].nll[chosen].numpy()
        out[name] = paired_difference(a, b, groups=groups)
    return out


def wiring_scores(model: Model, bench: Bench) -> dict[str, Estimate]:
    """Per wrong wiring, how much worse than the declared one: mean NLL difference in nats per token, all tasks."""
    groups = bench.groups(range(len(bench.items)))
    with model.adapters.use(ORACLE):
        right = score_answers(model, SPEC, bench.encoded, bench.real).nll.numpy()
        wrong = {
            name: score_answers(model, replace(SPEC, **change), bench.encoded, bench.real).nll.numpy()
            for name, change in WRONG.items()
        }
    return {name: paired_difference(nll, right, groups=groups) for name, nll in wrong.items()}


def floors(model: Model, bench: Bench, task: str) -> dict[str, float]:
    """What needs no oracle: the most frequent class, the best class per token read, and a linear probe on the vectors.

    The last two are fitted on other documents of the same split.
    """
    from sklearn.linear_model import LogisticRegression

    fit = balanced([i for i in oracle_items(400, seed="probe", split="validation") if i.task == task])
    vectors = base_vectors(model, fit, Encoder(SPEC, model.tokenizer)(fit))
    chosen = bench.of_tasks(task)
    labels = [bench.items[i].answer for i in chosen]
    per_token: dict[int, Counter[str]] = defaultdict(Counter)
    for item in fit:
        per_token[item.context_ids[-1]][item.answer] += 1
    told = [per_token[bench.items[i].context_ids[-1]].most_common(1)[0][0] for i in chosen]
    train = torch.cat(vectors).numpy()
    mean, std = train.mean(0), train.std(0)
    probe = LogisticRegression(C=0.1, max_iter=500).fit((train - mean) / std, [item.answer for item in fit])
    guessed = probe.predict((torch.cat([bench.real[i] for i in chosen]).numpy() - mean) / std)
    return {
        "majority": max(Counter(labels).values()) / len(labels),
        "token alone": sum(a == b for a, b in zip(told, labels, strict=True)) / len(labels),
        "linear probe": float(np.mean(guessed == np.array(labels))),
    }


def gates(tasks: Mapping[str, Mapping[str, Estimate]], wirings: Mapping[str, Estimate]) -> dict[str, Row]:
    """Every condition with its number, its bound, and whether it holds."""
    out: dict[str, Row] = {}
    for task, row in tasks.items():
        out[f"{task}: lower end of the control gap"] = _above(row["gap shuffled"].lo, 0.0)
        out[f"{task}: gap of the oracle trained on zeros"] = _within(row["prior gap"].value, NO_GAP)
    for task in CLASSES:
        above = tasks[task]["accuracy real"].value - tasks[task]["accuracy prior real"].value
        out[f"{task}: accuracy above the prior-only oracle"] = _above(above, ABOVE_FLOOR)
    for name, worse in wirings.items():
        out[f"wrong wiring, {name}: lower end of the loss it costs"] = _above(worse.lo, 0.0)
    return out


def _above(value: float, bound: float) -> Row:
    return {"value": value, "bound": f"> {bound:g}", "passed": bool(value > bound)}


def _within(value: float, bound: float) -> Row:
    return {"value": value, "bound": f"+-{bound:g}", "passed": bool(abs(value) <= bound)}


def _plain(rows: Row) -> Row:
    return {key: asdict(v) if isinstance(v, Estimate) else _plain(v) for key, v in rows.items()}
