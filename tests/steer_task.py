"""A task of two labels for the tests of dose studies: short texts, groups, no data."""

from __future__ import annotations

from pathlib import Path

from interp.prompt import Example

WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog", "step", "one", "two", "three")
GROUP = "story"
PROMPT_BASELINE = "step one two"


def examples(data: str | Path | None = None, *, seed: int = 0) -> list[Example]:
    """60 questions in 12 stories; the seed changes which."""
    out = []
    for k in range(60):
        words = [WORDS[(k * 5 + j * (seed + 3)) % len(WORDS)] for j in range(4 + k % 3)]
        groups, answer = {"story": f"story{k % 12}"}, {"answer": ("yes", "no")[(k // 2) % 2]}
        text = " ".join(words) + " ?"
        out.append(Example(f"s{seed}-{k}", text=text, label=("yes", "no")[k % 2], groups=groups, metadata=answer))
    return out


def parse(text: str) -> str | None:
    return next((label for label in ("yes", "no") if text.strip().startswith(label)), None)


def score(example: Example, text: str) -> dict[str, float]:
    return {"correct": float(parse(text) == example.label)}


def labels(example: Example) -> tuple[str, ...]:
    return "yes", "no"
