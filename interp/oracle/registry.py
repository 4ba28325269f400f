"""Published oracles by repository id: how each is wired, and the public source that says so.

Only what a source states stands here. Variants under other names (DPO, other ranks) may differ and are left to the
adapter's own `ao_config.json`, or to an assumption that is made loudly.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import NamedTuple

from interp.oracle.spec import OracleSpec

_QWEN = "Qwen/Qwen3-8B"
_CODE = "adamkarvonen/activation_oracles, nl_probes/utils/dataset_utils.py (get_introspection_prefix)"
_TABLE = "ceselder/cot-oracle @ 15a1e0f, AObench/configs/sft_config.py (FALLBACK_REPO_TRAINING_CONFIGS)"
_CARD = "ceselder/cot-oracle @ 33996d3, model_card.md (v4)"
_DEMO = "operator's notes of the public demo of ceselder/qwen3-8b-ao-v3-best: layers 21 22 23 24 25, 'Layer: {layer}'"
_EVERY_THIRD = tuple(range(2, 36, 3))


class Published(NamedTuple):
    """A published oracle and where its wiring is stated."""

    spec: OracleSpec
    source: str


def registered(repo: str) -> OracleSpec | None:
    """The spec of a published oracle by its repository id; None where it is not known."""
    found = [pattern for pattern in REGISTRY if fnmatchcase(repo, pattern)]
    return REGISTRY[max(found, key=len)].spec if found else None


def _inline(*layers: int) -> Published:
    """Layer tags in the line of the placeholders, `L9: ? ? L18: ? ?.`"""
    return Published(OracleSpec(base_model=_QWEN, format="B", layers=layers), _TABLE)


# Patterns of repository ids; the longest that matches decides. Earlier adapters of adamkarvonen used replacement with
# coefficient 2, so only those that are called "addition" are known.
REGISTRY: dict[str, Published] = {
    "adamkarvonen/checkpoints_*addition*": Published(OracleSpec(layers=("50%",)), _CODE),
    "ceselder/cot-oracle-8b-v2*": Published(
        OracleSpec(base_model=_QWEN, layers=("50%",), context_thinking=True, max_new_tokens=64),
        "model card of ceselder/cot-oracle-8b-v2",
    ),
    "ceselder/cot-oracle-v4-8b": Published(
        OracleSpec(
            base_model=_QWEN, format="D", layers=(9, 18, 27), placeholder=(" @", " ?", " #"), context_thinking=True,
            max_new_tokens=64,
        ),
        _CARD,
    ),
    "ceselder/qwen3-8b-ao-v3-best": Published(
        OracleSpec(base_model=_QWEN, format="A'", layers=(21, 22, 23, 24, 25)), _DEMO
    ),
    "ceselder/cot-oracle-paper-ablation-adam-recipe-1layer": _inline(18),
    "ceselder/cot-oracle-paper-ablation-ours-1layer": _inline(18),
    "ceselder/cot-oracle-paper-ablation-ours-3layers": _inline(9, 18, 27),
    "ceselder/cot-oracle-paper-ablation-ours-3layers-onpolicy-lens-only": _inline(9, 18, 27),
    "ceselder/cot-oracle-qwen3-8b-final-sprint-checkpoint-no-DPO": _inline(9, 18, 27),
    "ceselder/cot-oracle-grpo-step-500": _inline(9, 18, 27),
    "ceselder/cot-oracle-paper-ablation-ours-12layers-r512-a1024": _inline(*_EVERY_THIRD),
    "ceselder/cot-oracle-paper-12layers-scaled-r1024-a1024-lr3e5-100m-pastonly": _inline(*_EVERY_THIRD),
    "ceselder/cot-oracle-paper-12layers-stage2-convqa-bs4": _inline(*_EVERY_THIRD),
    "ceselder/cot-oracle-paper-3layers-r1024-a128": _inline(9, 18, 27),
    "ceselder/cot-oracle-paper-3layers-r1024-a16-exact-match": _inline(9, 18, 27),
}  # fmt: skip
