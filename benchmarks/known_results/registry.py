"""The experiments: a new one is a module with `Settings` and `run(model, settings)`, and one entry of `EXPERIMENTS`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from benchmarks.known_results.rows import Findings


@dataclass(frozen=True)
class Experiment:
    """One known result.

    Attributes:
        name: on the command line, and of its results file.
        title: of its section in SCIENCE.md.
        about: what is measured and how, in two or three sentences.
        models: checkpoints that it runs on by default: folders in `DIPTYCH_REAL`.
        dtype: in which checkpoints are loaded.
    The module `benchmarks.known_results.<name>` has a frozen dataclass `Settings` (sizes and seeds, with defaults) and
    `run(model, settings) -> Findings`; `missing()`, if it has one, says which data it lacks here, or "".
    """

    name: str
    title: str
    about: str
    models: tuple[str, ...] = ("smollm2", "qwen")
    dtype: str = "float32"

    @property
    def module_name(self) -> str:
        return f"benchmarks.known_results.{self.name}"

    def settings(self) -> Any:
        return importlib.import_module(self.module_name).Settings()

    def missing(self) -> str:
        """Why it cannot run here; "" if it can."""
        module = importlib.import_module(self.module_name)
        return str(module.missing()) if hasattr(module, "missing") else ""

    @property
    def run(self) -> Callable[[Any, Any], Findings]:
        return cast("Callable[[Any, Any], Findings]", importlib.import_module(self.module_name).run)


EXPERIMENTS: dict[str, Experiment] = {
    one.name: one
    for one in (
        Experiment(
            "induction",
            "Induction heads",
            "Prefix-matching score of every head on random tokens written twice: the attention from a token to the one "
            "that followed its earlier copy (`interp.heads.induction_scores`). Heads are ranked on one half of the "
            "texts and measured on the other. The best are removed together (their output replaced by its mean at each "
            "position), and so are random sets with as many heads of the same layers; `head_sweep` removes every head "
            "alone.",
        ),
        Experiment(
            "identity",
            "Identity rules",
            "Lines `a^b^a` (ABA) or `a^b^b` (ABB) and a query `x^y^`; the output of every head at the last token is "
            "replaced by that of a prompt with the other answer (`head_sweep`, `identity_pairs`). Token context: same "
            "rule, exchanged query words. Abstract context: the other rule. Reference scores come from a plain loop of "
            "transformers on the same prompts.",
            models=("qwen",),
        ),
        Experiment(
            "number",
            "Subject number",
            "Beginnings such as `The keys near the cabinet` from templates: 40 subjects in both numbers, with "
            "distracting nouns in both numbers, read at the distracting noun. Probes and directions are tested on "
            "other subjects than they were fitted on; subjects are the independent unit. The rows at three quarters of "
            "the depth are exploratory: that depth, and three strengths instead of five, were chosen after the dose "
            "curve at half depth had come out open on SmolLM2.",
        ),
        Experiment(
            "lens",
            "Logit lens",
            "The rank of the first token of the answer to capitals and opposites, read from the residual stream of the "
            "last token after every layer (`interp.bridges.logit_lens`).",
        ),
        Experiment(
            "bbq",
            "BBQ",
            "The five metrics of the model cards of BBQ adapters on quads (two contexts by two questions) of six "
            "categories, drawn in turn from every story; every quad has its own random order of the options. The "
            "answer is the likeliest of A, B and C after the prompt. Intervals are over stories. Under the nulls an "
            "answer says nothing of its item: letters are exchanged among items, or options put in another order.",
        ),
    )
}
"""By name, in the order of SCIENCE.md."""
