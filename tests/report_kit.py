"""A whole run folder of a small synthetic study: every table, every kind of figure, hostile replies."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd

from study import figures
from study.run.state import RunState, StepState
from study.run.state import write_run as write_state
from study.schema import write_table
from tests import figure_tables, probe_figure_tables, steering_figure_tables
from tests.report_tables import all_tables

HOSTILE = (
    'Step 1 done. <script>window.hit=1;alert("x")</script><img src=x onerror="window.hit=1"> [SIG=OK]'
    "\x1b[31mred\x1b[0m "
    "\u202egnp.exe\u202c zero\u200bwidth ../../etc/passwd </pre></article><h1>out</h1> {{ 7*7 }} ]]> \ud800"
)
LONG = "noncompliant" * 90_000


STUDY = """\
name: procedural
probes: {targets: [gold_label], perm: 999}
published:
  - {name: "Training accuracy, engaged 7B", value: 0.68, source: card 0, leaves_out: "n, split",
     table: pair, where: {member: engaged, cell: training_distribution, metric: accuracy},
     model: same, prompt: same, decoding: same, data: same, metric: same}
  - {name: "Training accuracy, heuristic 14B", value: 0.93, source: card 1, leaves_out: "n, split",
     table: pair, where: {member: heuristic, cell: training_distribution, metric: accuracy},
     model: same, prompt: same, decoding: same, data: same, metric: same}
  - {name: "Training accuracy, engaged 7B, sampled", value: 0.66, source: card 0, leaves_out: "n, split",
     table: pair, where: {member: engaged, cell: training_distribution, metric: accuracy},
     model: same, prompt: same, decoding: {eval.temperature: 0.1}, data: another split, metric: same}
  - {name: "L19.H17 δ", value: 0.886, source: card 0, leaves_out: definition,
     not_comparable: "base 7B, other definition",
     table: heads, where: {member: engaged, kind: mean, head: L1.H1}}
  - {name: "BBQ commit bias, base → GRPO", value: 0.333, before: 0.279, source: card 4,
     leaves_out: "pairing (SE ≈ 0.06)",
     table: pair, where: {member: engaged - heuristic, cell: baseline_compliant},
     model: same, prompt: same, decoding: same, data: same, metric: same}
  - {name: ESI exact accuracy, value: 0.61, source: card 3, leaves_out: patients}
"""

DRAWN = {
    "dumbbell": "eval",
    "layers-gold_label": "probes",
    "selectivity-gold_label": "probes",
    "engaged-mean-map": "heads",
    "engaged-mean-top": "heads",
    "base-mean-cumulative": "heads",
    "dose": "steering",
    "plane": "steering",
}


def draw(stem: str) -> figures.Drawn:
    known = figure_tables.DRAW | probe_figure_tables.DRAW | steering_figure_tables.DRAW
    names = {
        "layers-gold_label": "probe_by_layer",
        "selectivity-gold_label": "selectivity",
        "dose": "dose_response",
        "engaged-mean-map": "head_map",
        "engaged-mean-top": "top_heads",
        "plane": "bias_plane",
        "base-mean-cumulative": "cumulative_ablation",
    }
    return known[names.get(stem, stem)]()


@cache
def files_of(stem: str) -> dict[str, bytes]:
    """The saved files of a figure, drawn once per process; of its pictures the SVG, which is what a page holds."""
    with TemporaryDirectory() as folder:
        paths = figures.save(draw(stem), Path(folder) / stem, formats=("svg",)).values()
        return {path.name: path.read_bytes() for path in paths}


def answers(member: str, n: int = 12) -> pd.DataFrame:
    texts = [HOSTILE, LONG, "compliant", "Step 1 ok.\nStep 2 missing.\nnoncompliant"]
    right = {"engaged": (1, 1, 1, 0), "heuristic": (1, 0, 0, 0)}[member]
    return pd.DataFrame(
        dict(
            member=member,
            id=f"item-{i}",
            cell="adversarial_surface_compliant",
            gold="compliant",
            sample=0,
            label="compliant" if right[i % 4] else "non<b>compliant</b>",
            text=texts[i % 4].replace("\ud800", ""),
            **{"score.correct": float(right[i % 4])},
        )
        for i in range(n)
    )


def write_run(
    root: Path,
    *,
    tables: Mapping[str, pd.DataFrame] | None = None,
    drawn: Mapping[str, str] = DRAWN,
    failed: Mapping[str, str] | None = None,
    study: str = STUDY,
    name: str = "procedural",
) -> Path:
    """A run folder under `root`; what is in `failed` has no tables and no figures."""
    tables = all_tables() if tables is None else tables
    failed = failed or {}
    for table_name, table in tables.items():
        if str(table["analysis"].iloc[0]) not in failed:
            write_table(table, root / "tables", table_name)
    for stem, owner in drawn.items():
        if owner not in failed:
            (root / "figures").mkdir(parents=True, exist_ok=True)
            for file, content in files_of(stem).items():
                (root / "figures" / file).write_bytes(content)
    for member in ("engaged", "heuristic"):
        folder = root / "steps" / "eval" / member
        folder.mkdir(parents=True, exist_ok=True)
        answers(member).to_parquet(folder / "answers.parquet")
    steps = {}
    for step in ("eval", "cache", "probes", "heads", "steering", "oracle", "figures"):
        state = ("failed", failed[step]) if step in failed else ("done", "")
        made = {f"figures/{stem}.svg": "00" * 32 for stem, owner in drawn.items() if owner == step}
        steps[step] = StepState("0123456789abcdef" * 4, state[0], state[1], made)  # type: ignore[arg-type]
    checkpoints = {
        "engaged": dict(base="Qwen2.5-7B-Instruct", adapter="b5-sft-7b", weights="9f31aa0177c0"),
        "heuristic": dict(base="Qwen2.5-14B-Instruct", adapter="v7-grpo-14b", weights="02be51c041aa"),
        "base": dict(base="Qwen2.5-7B-Instruct", adapter="none", weights="11be51c041aa"),
    }
    packages = {"torch": "2.13.0", "transformers": "5.23.0"}
    state = RunState(name, 5, "float32", "0.1.0", "c6c24f8", packages, checkpoints, "77d0" * 16, steps)
    write_state(root, state)
    (root / "study.yaml").write_text(study, encoding="utf-8")
    return root
