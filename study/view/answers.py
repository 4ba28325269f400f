"""View of an oracle's answers, position by position."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from interp.oracle import Choices, Features
from interp.oracle.controls import HEADLINE
from study.view.data import Item, Strip, Track, Values
from study.view.views import View


def of_choices(choices: Mapping[str, Choices], feats: Features) -> View:
    """Probabilities that an oracle gives at every position that it read: a track for each choice, sources side by side.

    The reference is the mean over the matched shuffles (activations of other readings at the same kind of position),
    and the rank is that among them.

    Args:
        choices: source -> what `Oracle.choose` gave for it; the same readings and choices in each.
        feats: the readings, of `interp.oracle.collect(..., per="token")`: each ends at another position of its text.
    Raises:
        ValueError: no source, sources with other readings or choices, readings whose text is not known.
    """
    first = next(iter(choices.values()), None)
    if first is None:
        raise ValueError("no source: expected at least one, as {'engaged': oracle.choose(...)}.")
    for source, one in choices.items():
        if (one.items, one.choices) != (first.items, first.choices):
            raise ValueError(f"{source}: other readings or choices than the first source has.")
    if missing := [item for item in first.items if not feats.texts.get(item)]:
        raise ValueError(
            f"{len(missing)} readings have no text (first {missing[0]!r}): collect them with their prompts."
        )
    row = {item: k for k, item in enumerate(first.items)}
    items = []
    for text, readings in _by_text(first.items, feats).items():
        ends = [len(feats.texts[item]) for item in readings]
        tokens = [text[a:b] for a, b in zip([0, *ends], ends, strict=False)]
        at = [row[item] for item in readings]
        strips = [Strip(source, tokens, _values(one, at)) for source, one in choices.items()]
        items.append(Item(feats.group(readings[0]), strips))
    centres = [float(np.nanmedian(np.concatenate([_null(one, k).ravel() for one in choices.values()])))
               for k in range(len(first.choices))]  # fmt: skip
    tracks = [
        Track(f"p({choice})", "probability among the choices", centre, max(1 - centre, centre), choice, f"not {choice}",
              reference="mean of matched shuffles")
        for choice, centre in zip(first.choices, np.nan_to_num(centres, nan=0.5).tolist(), strict=True)
    ]  # fmt: skip
    lead = (
        f"What the oracle answers to “{first.question}” at each position, next to matched shuffles of the activations."
    )
    return View("Answers of an oracle", tracks, items, lead)


def _by_text(items: tuple[str, ...], feats: Features) -> dict[str, list[str]]:
    """Whole text -> readings of it, in the order of their ends: a reading's text is that up to its last position."""
    out: dict[str, list[str]] = {}
    for item in sorted(items, key=lambda one: -len(feats.texts[one])):
        text = feats.texts[item]
        whole = next(
            (w for w, of in out.items() if w.startswith(text) and feats.group(of[0]) == feats.group(item)), text
        )
        out.setdefault(whole, []).append(item)
    order = {item: k for k, item in enumerate(items)}
    found = {text: readings[::-1] for text, readings in out.items()}
    return dict(sorted(found.items(), key=lambda pair: min(order[one] for one in pair[1])))


def _null(choices: Choices, k: int) -> np.ndarray:
    """[repeat, item] probability of a choice under matched shuffles; NaN without a partner."""
    logp = choices.controls.get(HEADLINE)
    if logp is None:
        return np.full((1, len(choices.items)), np.nan)
    weights = np.exp(logp - logp.max(axis=2, keepdims=True))
    return (weights / weights.sum(axis=2, keepdims=True))[:, :, k]


def _values(choices: Choices, at: list[int]) -> list[Values]:
    out = []
    notes = [f"best answer: {choices.best[k]}" for k in at]
    for k in range(len(choices.choices)):
        p, null = choices.p[at, k], _null(choices, k)[:, at]
        known = ~np.isnan(null)
        mean = np.divide(
            np.nansum(null, axis=0), known.sum(axis=0), out=np.full(len(at), np.nan), where=known.any(axis=0)
        )
        rank = np.where(known.any(axis=0), 1.0 + (null > p).sum(axis=0), np.nan)
        n = int(known.sum(axis=0).max()) if known.any() else 0
        out.append(Values(p.tolist(), mean.tolist(), rank=rank.tolist() if n else (), n_controls=n, notes=notes))
    return out
