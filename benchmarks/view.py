"""The page of `diptych view`, beside a plain one with a coloured span and a title for every token.

    python -m benchmarks.view [--json PATH]

40 items with two replies of 300 tokens: score, null and rank of each token. The peer writes all tokens of all items
into the markup, as a reader would. Compared first: the scores that both pages hold, to four digits. Seconds to the
first paint are those of headless Chromium (`performance.getEntriesByType("paint")`), the least of the rounds; without
Chromium that line is left out.
"""

from __future__ import annotations

import json
import re
import tempfile
from html import escape
from pathlib import Path

import numpy as np

from benchmarks.kit import Report, arguments, interleave
from study.view import Item, Strip, Track, View
from study.view.data import Values
from tests.chromium import chromium, executable

N_ITEMS, N_TOKENS, N_CONTROLS = 40, 300, 19
PAINT = "Math.max(...performance.getEntriesByType('paint').map(e => e.startTime)) / 1000"
READY = "new Promise(done => setTimeout(done, 300))"


def main() -> None:
    options = arguments(__doc__ or "")
    view = made_up()
    ours, peer = view.html(), plain(view)
    of_view = [x for item in view.items for strip in item.strips for x in strip.values[0].score]
    agree = max(float(np.abs(np.subtract(scores_of(page), of_view)).max()) for page in (ours, peer))
    report = Report("view")
    size = len(ours.encode())
    report.add("page of 40 x 2 replies of 300 tokens, MB", size / 1e6, goal="<= 3", agree=agree)
    report.add("size / a plain page", size / len(peer.encode()))
    seconds = interleave({"ours": view.html, "plain": lambda: plain(view)}, rounds=options.rounds)
    report.add("time to write / a plain page", seconds["ours"] / seconds["plain"])
    if executable() is not None:
        for name, page in (("first paint, s", ours), ("first paint of a plain page, s", peer)):
            report.add(name, painted(page, rounds=options.rounds), goal="<= 1" if page is ours else "")
    report.finish(options.json)


def made_up() -> View:
    """Replies whose scores wander, as those of a probe do."""
    track = Track("verdict = yes at resid_post.2", "score of the probe", 0.0, 2.0, "yes", "no")
    items = [Item(f"item-{k}", [_strip(2 * k, "engaged"), _strip(2 * k + 1, "heuristic")]) for k in range(N_ITEMS)]
    return View("Scores", [track], items)


def _strip(seed: int, member: str) -> Strip:
    rng = np.random.default_rng(seed)
    score, null = np.cumsum(rng.normal(size=N_TOKENS)) / 4, rng.normal(size=N_TOKENS) / 10
    rank = rng.integers(1, N_CONTROLS + 2, N_TOKENS).tolist()
    values = Values(score.tolist(), null.tolist(), (null - 1).tolist(), (null + 1).tolist(), rank, N_CONTROLS)
    return Strip(member, [f" word{k}" for k in range(N_TOKENS)], [values])


def plain(view: View) -> str:
    """A span with a colour and a title for every token."""
    parts = []
    for item in view.items:
        for strip in item.strips:
            (one,) = strip.values
            parts.append(f"<h3>{escape(item.id)} {escape(strip.member)}</h3><p>")
            rows = zip(strip.tokens, one.score, one.reference, one.lo, one.hi, one.rank, strict=True)
            for text, score, null, lo, hi, rank in rows:
                title = f"score {score:.4g}, null {null:.4g} [{lo:.4g}, {hi:.4g}], rank {rank}"
                hue, share = (150, min(abs(score) / 2, 1)) if score > 0 else (320, min(abs(score) / 2, 1))  # pyright: ignore[reportOperatorIssue, reportArgumentType]
                ground = f"hsl({hue} 60% {100 - 45 * share:.0f}%)"
                parts.append(f'<span style="background:{ground}" title="{title}">{escape(text)}</span>')
            parts.append("</p>")
    return f"<!doctype html><meta charset=utf-8><title>Scores</title>{''.join(parts)}"


def scores_of(page: str) -> list[float]:
    """The scores that a page holds, in the order of its tokens."""
    found = re.search(r'id="data">(.*?)</script>', page, flags=re.DOTALL)
    if found is None:
        return [float(x) for x in re.findall(r'title="score ([^,]+),', page)]
    items = json.loads(found[1])["items"]
    return [x for item in items for strip in item["strips"] for x in strip["values"][0]["score"]]


def painted(page: str, *, rounds: int) -> float:
    """Least seconds from the start of the navigation to the first paint of what the page shows."""
    with tempfile.TemporaryDirectory() as folder, chromium() as tab:
        path = Path(folder) / "page.html"
        path.write_text(page, encoding="utf-8")
        tab.show()
        least = float("inf")
        for _ in range(rounds):
            tab.open(path)
            tab.run(READY)
            least = min(least, float(tab.run(PAINT)))
    return least


if __name__ == "__main__":
    main()
