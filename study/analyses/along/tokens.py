"""Scores of single tokens next to control directions: the tables that `diptych view` reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from interp.prompt import Prompt
from study.analyses.along.inputs import column_of
from study.analyses.along.member import Read
from study.analyses.along.read import spans_of, texts_of
from study.tokens import FACTS, TOKEN

if TYPE_CHECKING:
    import pandas as pd


def token_table(read: Read) -> pd.DataFrame:
    """One row per token of the scored replies of a member; columns `study.tokens.TOKEN`."""
    import pandas as pd

    scales = _scales(read)
    parts = [_token_rows(read, k, scales[int(read.looks[k])]) for k in range(len(read.scores))]
    return pd.concat(parts, ignore_index=True)[list(TOKEN)]


def _scales(read: Read) -> list[tuple[np.ndarray, np.ndarray]]:
    """(mean, standard deviation) of each direction over the reply tokens that its look shows, the probe's first."""
    out = []
    for look in range(int(read.looks.max()) + 1):
        rows = [_shown(read, k)[:, 1:] for k in np.flatnonzero(read.looks == look).tolist()]
        every = np.concatenate(rows, axis=1) if rows else np.zeros((1, 1))
        spread = every.std(axis=1)
        out.append((every.mean(axis=1), np.where(spread > 0, spread, 1.0)))
    return out


def _shown(read: Read, k: int) -> np.ndarray:
    """Scores of a reply in the look that shows it, then those of its controls [1 + control, token]."""
    one = read.scores[k]
    return np.concatenate([one.looks[[int(read.looks[k])]], one.controls])


def _token_rows(read: Read, k: int, scale: tuple[np.ndarray, np.ndarray]) -> pd.DataFrame:
    import pandas as pd

    prompt, scores, (mean, spread) = read.prompts[k], _shown(read, k), scale
    z = (scores - mean[:, None]) / spread[:, None]
    low, middle, high = np.quantile(z[1:], (0.025, 0.5, 0.975), axis=0) * spread[0] + mean[0]
    tokens, spans = np.arange(-1, prompt.n_reply), spans_of(prompt)
    item, sample = read.keys[k]
    return pd.DataFrame(
        {
            "member": read.member,
            "item": item,
            "sample": sample,
            "token": tokens,
            "token_id": prompt.ids[prompt.n_prompt - 1 :],
            "token_text": texts_of(prompt),
            "fraction": (tokens + 1) / prompt.n_reply,
            "span": [spans.get(int(token), "") for token in tokens],
            "score": scores[0],
            "null_lo": low,
            "null_median": middle,
            "null_hi": high,
            "rank": 1 + (z[1:] > z[0]).sum(axis=0),
        }
    )


def reply_table(read: Read) -> pd.DataFrame:
    """One row per scored reply of a member; columns `study.tokens.FACTS`."""
    import pandas as pd

    tested, rows = read.labelled.split.is_tested, []
    for k, (prompt, example) in enumerate(zip(read.prompts, read.examples, strict=True)):
        item, sample = read.keys[k]
        group = column_of(example, read.probe.groups)
        rows.append(
            {
                "member": read.member,
                "item": item,
                "sample": sample,
                "read_by": read.read_by,
                "group": int(read.labelled.split.group[k]) if group is None else group,
                "cell": column_of(example, "cell", default=""),
                "target": f"{read.probe.column}={read.probe.cell.target}",
                "is_positive": bool(read.labelled.labels[k]),
                "gold": example.label,
                "pred": example.metadata.get("reply.label"),
                "is_correct": _correct(example.metadata.get("reply.correct")),
                "split": "test" if tested[k] else "dev",
                "site": read.probe.cell.looks[int(read.looks[k])][2],
                "kind": read.probe.cell.kind,
                "train_checkpoint": read.probe.name,
                "n_controls": len(read.scores[k].controls),
                "prompt": _asked(prompt),
                "reply": prompt.text[slice(*prompt.spans["answer"])],
            }
        )
    return pd.DataFrame(rows)[list(FACTS)]


def _asked(prompt: Prompt) -> str:
    return prompt.text[: prompt.spans["answer"][0]]


def _correct(value: object) -> bool | None:
    return None if not isinstance(value, int | float) else bool(value)
