"""Views of scores: of a folder of `diptych probes along`, and of what a `monitor` saw."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from interp.replies import token_ranges, token_texts
from study.tokens import REPLY, read_tokens
from study.view.data import Item, Strip, Track, Values
from study.view.views import View

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

    from probes.watch import Monitor

REACH = 0.98
"""Share of the tokens whose colour is not yet full."""


def of_replies(folder: str | Path, *, n: int | None = 40, seed: int = 0) -> View:
    """Both members side by side, from a folder of `diptych probes along`.

    Args:
        n: items shown, drawn at random so that every cell has as many as it can; None: all.
        seed: of the draw.
    Raises:
        ValueError: no such folder; n below 1.
    """
    tokens, replies = read_tokens(Path(folder))
    if n is not None and n < 1:
        raise ValueError(f"n: expected at least 1 item, got {n}.")
    chosen = _drawn(replies, n, seed)
    kept = replies[replies["item"].isin(set(chosen))]
    of_reply = {key: rows for key, rows in tokens.groupby(list(REPLY), sort=False) if key[1] in set(chosen)}
    strips: dict[str, list[Strip]] = {item: [] for item in chosen}
    for fact in kept.to_dict("records"):
        rows = of_reply.get(tuple(fact[name] for name in REPLY))
        if rows is not None:
            strips[str(fact["item"])].append(_strip(fact, rows))
    cells = dict(zip(replies["item"], replies["cell"], strict=True))
    items = [Item(item, found, _word(cells[item])) for item, found in strips.items() if found]
    n_all = replies["item"].nunique()
    return View(_title(replies), [_track(tokens, replies)], items, _lead(replies), n_all - len(items))


def _drawn(replies: pd.DataFrame, n: int | None, seed: int) -> list[str]:
    """Ids of items, cell by cell in turn, those that every member answered first."""
    rng = np.random.default_rng(seed)
    facts = replies.groupby("item", sort=False).agg(cell=("cell", "first"), members=("member", "nunique"))
    facts = facts.iloc[rng.permutation(len(facts))].sort_values("members", ascending=False, kind="stable")
    facts["turn"] = facts.groupby("cell", dropna=False).cumcount()
    drawn = facts.sort_values("turn", kind="stable").index
    chosen = set(drawn if n is None else drawn[:n])
    return [str(item) for item in dict.fromkeys(replies["item"]) if item in chosen]


def _strip(fact: Mapping[Hashable, object], rows: pd.DataFrame) -> Strip:
    rows = rows.sort_values("token")
    first = int(rows["token"].iloc[0])
    texts = [str(text) for text in rows["token_text"]]
    if first < 0:
        texts[0] = "▸"  # the last token of the prompt, whose text the folded prompt shows
    spans = {int(k): str(name) for k, name in zip(rows["token"], rows["span"], strict=True) if _word(name)}
    shown = {"answer": fact["pred"], "gold": fact["gold"], "group": fact["group"], "read by": fact["read_by"]}
    shown |= {"sample": fact["sample"]} if fact["sample"] else {}
    shown |= {"probe": f"fitted {'without' if fact['split'] == 'test' else 'with'} its group"}
    if fact["read_by"] == fact["member"]:
        del shown["read by"]
    values = Values(
        rows["score"].tolist(),
        rows["null_median"].tolist(),
        rows["null_lo"].tolist(),
        rows["null_hi"].tolist(),
        rows["rank"].tolist(),
        _count(fact["n_controls"]),
    )
    right = None if _is_blank(fact["is_correct"]) else bool(fact["is_correct"])
    facts = {name: word for name, one in shown.items() if (word := _word(one))}
    return Strip(str(fact["member"]), texts, [values], first, spans, facts, right, _word(fact["prompt"]))


def _track(tokens: pd.DataFrame, replies: pd.DataFrame) -> Track:
    scores, centre = tokens["score"].dropna().to_numpy(float), float(tokens["null_median"].median())
    centre = centre if np.isfinite(centre) else 0.0
    target = _word(replies["target"].iloc[0])
    name = f"{target} at {', '.join(map(str, dict.fromkeys(replies['site'].dropna())))}"
    return Track(name, "score of the probe", centre, _reach(scores, centre), target, f"not {target}")


def _reach(scores: np.ndarray, centre: float) -> float:
    reach = float(np.quantile(np.abs(scores - centre), REACH)) if len(scores) else 1.0
    return reach if reach > 0 else 1.0


def _title(replies: pd.DataFrame) -> str:
    return f"{_word(replies['target'].iloc[0])} along the replies"


def _lead(replies: pd.DataFrame) -> str:
    """What the colours are, with the counts."""
    probe = ", ".join(map(str, dict.fromkeys(replies["train_checkpoint"].dropna())))
    counts = replies.groupby("member", sort=False)["item"].nunique()
    of = ", ".join(f"{member} {n}" for member, n in counts.items())
    controls = _count(replies["n_controls"].max())
    return (
        f"Score of a probe fitted on {probe or 'other rows'} at every token, next to {controls} probes fitted on "
        f"shuffled labels. Items with replies: {of}."
    )


def of_monitor(monitor: Monitor, tokenizer: PreTrainedTokenizerBase, *, name: str = "score") -> View:
    """What a `probes.monitor` block saw: one item for each text, one strip for each of its samples.

    A monitor scores one direction without controls: the centre of the colours is the median over all tokens.

    Args:
        tokenizer: of the model that wrote.
        name: of the score.
    Raises:
        ValueError: the block saw no reply.

    Example:
        with monitor(model, probe) as m:
            model.generate(ids)
        of_monitor(m, tokenizer)
    """
    if not monitor.replies:
        raise ValueError("the monitor has seen no reply: call generate inside its block.")
    scores = np.concatenate([np.asarray(one.scores, float) for one in monitor.replies])
    centre = float(np.median(scores))
    items: dict[str, list[Strip]] = {}
    for call, replies in enumerate(monitor.calls):
        for one in replies:
            facts = {"ended": "by the callback"} if one.stopped else {}
            ids = [0 if token is None else token for token in one.ids[1:]]
            texts = ["▸", *token_texts(*token_ranges(tokenizer, ids))]
            strip = Strip(f"sample {one.sample}", texts, [Values(one.scores.tolist())], -1, {}, facts)
            items.setdefault(f"call {call}, text {one.text}", []).append(strip)
    track = Track(name, f"score at {monitor.site}", centre, _reach(scores, centre), "higher", "lower")
    lead = "Score at every token while it was written. The centre of the colours is the median over all tokens; a monitor has no control directions."  # noqa: E501
    return View(f"{name} while writing", [track], [Item(key, strips) for key, strips in items.items()], lead)


def _is_blank(value: object) -> bool:
    return value is None or value != value or str(value) in ("", "<NA>", "nan", "None")


def _word(value: object) -> str:
    return "" if _is_blank(value) else str(value)


def _count(value: object) -> int:
    return 0 if _is_blank(value) else int(float(str(value)))
