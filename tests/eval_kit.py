"""A task of two labels, its examples, and answers to them as frames."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pandas as pd

from interp.prompt import Example, Message
from study.analyses.eval.store import answers_frame

LABELS = ("compliant", "noncompliant")


def read(text: str) -> str | None:
    found = [label for label in ("noncompliant", "compliant") if label in text]
    return found[0] if found else None


TASK = SimpleNamespace(
    examples=lambda data: [],
    parse=read,
    score=lambda example, text: {"correct": float(read(text) == example.label)},
    labels=lambda example: LABELS,
    MAX_NEW_TOKENS=12,
)


def items(n: int = 9) -> list[Example]:
    words = ["is this compliant ?", "the quick brown fox jumps over the lazy dog", "step one", "yes no"]
    return [
        Example(id=f"e{i}", messages=(Message("user", f"{words[i % 4]} {i}"),), label=LABELS[i % 2],
                groups={"procedure": f"p{i // 2}"}, metadata={"cell": f"c{i % 3}"})
        for i in range(n)
    ]  # fmt: skip


def frame(member: str, right: list[int]) -> pd.DataFrame:
    examples = items(len(right))
    answers = [
        {"example_id": e.id, "sample": 0, "text": "x", "label": str(e.label) if ok else None, "n_new_tokens": 3 + ok,
         "scores": {"correct": float(ok)}, "n_prompt_tokens": 9, "finished": True, "prompt_sha256": "",
         "p": {}, "logp": {}}
        for e, ok in zip(examples, right, strict=True)
    ]  # fmt: skip
    return answers_frame(answers, examples, member)


def grouped(right: list[int], member: str, *, per_group: int, samples: int = 1) -> pd.DataFrame:
    """One cell; replies listed item by item, `samples` each; `per_group` items share a procedure."""
    made = [replace(e, id=f"g{i}", groups={"procedure": f"p{i // per_group}"}, metadata={}) for i, e in
            enumerate(items(1) * (len(right) // samples))]  # fmt: skip
    answers = [
        {"example_id": made[k // samples].id, "sample": k % samples, "text": "x", "label": "compliant",
         "scores": {"correct": float(ok)}, "n_new_tokens": 1, "n_prompt_tokens": 1, "finished": True, "p": {}}
        for k, ok in enumerate(right)
    ]  # fmt: skip
    return answers_frame(answers, made, member)
