"""How an oracle is wired (block, formula, coefficient, placeholder, format, layers), and a registry of published ones.

The registry states only what a public source states. Variants under other names (DPO, other ranks) may differ; they
need their own `ao_config.json`, or are assumed with a warning.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from typing_extensions import TypedDict

from interp.injection import Formula, Precision
from interp.io.paths import shown
from interp.io.read import checked
from interp.loading.files import read_json_object
from interp.site import layer_index, percent_of

if TYPE_CHECKING:
    from interp.model import Model

Format = Literal["A", "A'", "B", "D", "E"]
FORMATS: tuple[str, ...] = get_args(Format)
LayerOrder = Literal["layer-major", "boundary-major"]
AO_CONFIG = "ao_config.json"
SCHEMA = 1


class AssumedSpecWarning(UserWarning):
    """No file or registry entry states how an oracle was trained, so the original's wiring was assumed."""


@dataclass(frozen=True)
class OracleSpec:
    """How an oracle is wired. A wrong value does not fail: the oracle still answers, only worse.

    Attributes:
        base_model:  model that the adapter was trained on; None if unknown.
        hook_layer:  0-based block whose *output* is changed.
        formula, coefficient, precision: see `interp.injection.norm_matched_injection`.
        placeholder: one text for all layers, or one per layer; each must be a single token.
        format:      prompt format, see `interp.oracle.prompt.render_prefix`; `flat` is E without layer names.
        layers:      source layers that the oracle was trained on: block indices, or percents such as "50%".
        enable_thinking: argument of the chat template; None if the template has no such switch.
        context_thinking: the same for the text whose activations are read.
        max_new_tokens: default length of an answer.
        revision:    revision of the adapter.
        origin:      source of these values: "declared", "ao_config.json", "registry" or "assumed".
    Raises:
        ValueError: unknown format or formula, negative block, percent outside 0-99.
    """

    base_model: str | None = None
    hook_layer: int = 1
    formula: Formula = "add"
    coefficient: float = 1.0
    placeholder: str | tuple[str, ...] = " ?"
    format: Format = "A"
    layers: tuple[int | str, ...] = ("50%",)
    flat: bool = False
    enable_thinking: bool | None = False
    context_thinking: bool | None = None
    max_new_tokens: int = 40
    precision: Precision = "wire"
    revision: str | None = None
    origin: str = "declared"

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise ValueError(f"OracleSpec.format: expected one of {', '.join(FORMATS)}, got {self.format!r}.")
        if self.formula not in ("add", "replace", "raw"):
            raise ValueError(f"OracleSpec.formula: expected 'add', 'replace' or 'raw', got {self.formula!r}.")
        if self.precision not in ("wire", "fp32"):
            raise ValueError(f"OracleSpec.precision: expected 'wire' or 'fp32', got {self.precision!r}.")
        if self.hook_layer < 0:
            raise ValueError(f"OracleSpec.hook_layer: expected a 0-based block index, got {self.hook_layer}.")
        for word in self.layers:
            percent_of(word)

    @property
    def placeholders(self) -> tuple[str, ...]:
        return (self.placeholder,) if isinstance(self.placeholder, str) else self.placeholder

    @property
    def layer_order(self) -> LayerOrder:
        """Order of the slots in the prompt: all positions of a layer first, or all layers of a position first."""
        return "boundary-major" if self.format == "D" else "layer-major"

    def layer_indices(self, n_layers: int) -> tuple[int, ...]:
        """`layers` as block indices of a model with `n_layers` blocks. Raises ValueError if one is out of range."""
        return tuple(layer_index(word, n_layers) for word in self.layers)

    def to_json(self) -> dict[str, Any]:
        """The spec in the format of `ao_config.json`; `from_ao_config` reads it back."""
        indices = [layer for layer in self.layers if isinstance(layer, int)]
        return {
            "schema_version": SCHEMA,
            "model_name": None if self.base_model is None else shown(self.base_model),
            "hook_onto_layer": self.hook_layer,
            "formula": self.formula,
            "steering_coefficient": self.coefficient,
            "special_token": self.placeholder if isinstance(self.placeholder, str) else list(self.placeholder),
            "prefix_format": self.format,
            "prefix_flat": self.flat,
            "layer_combinations": [[percent_of(w) for w in self.layers if isinstance(w, str)]],
            "act_layer_combinations": [indices] if indices else None,
            "enable_thinking": self.enable_thinking,
            "context_thinking": self.context_thinking,
            "max_new_tokens": self.max_new_tokens,
        }

    @classmethod
    def from_ao_config(cls, source: str | Path | Mapping[str, Any]) -> OracleSpec:
        """The spec that an `ao_config.json` declares.

        Args:
            source: the parsed file, its path, or the adapter's folder.
        Raises:
            ValueError: no such file, unknown prefix template, wrong schema version.
        """
        config = source if isinstance(source, Mapping) else _read(Path(source))
        try:
            return cls._declared(config)
        except ValueError as error:
            where = AO_CONFIG if isinstance(source, Mapping) else str(source)
            raise ValueError(f"{where}: {str(error).removeprefix(f'{AO_CONFIG}: ')} Correct the file.") from None

    @classmethod
    def _declared(cls, config: Mapping[str, Any]) -> OracleSpec:
        checked(_AoConfig, dict(config), AO_CONFIG, "")
        if config.get("schema_version", SCHEMA) != SCHEMA:
            raise ValueError(f"{AO_CONFIG}: schema_version: expected {SCHEMA}, got {config['schema_version']}.")
        token = config.get("special_token", " ?")
        layers = _first(config.get("act_layer_combinations")) or tuple(
            f"{percent}%" for percent in _first(config.get("layer_combinations")) or (50,)
        )
        return cls(
            base_model=config.get("model_name"),
            hook_layer=int(config.get("hook_onto_layer", 1)),
            formula=config.get("formula", "add"),
            coefficient=float(config.get("steering_coefficient", 1.0)),
            placeholder=token if isinstance(token, str) else tuple(token),
            format=_format_of(config, n_layers=len(layers)),
            layers=tuple(layers),
            flat=bool(config.get("prefix_flat", False)),
            enable_thinking=config.get("enable_thinking", False),
            context_thinking=config.get("context_thinking"),
            max_new_tokens=int(config.get("max_new_tokens", 40)),
            origin=AO_CONFIG,
        )

    @classmethod
    def infer(
        cls, adapter: str | Path | None = None, model: Model | None = None, *, revision: str | None = None
    ) -> OracleSpec:
        """The spec of an adapter: its `ao_config.json`, else the registry's entry, else the original's with a warning.

        Args:
            adapter: folder of the adapter (`ao_config.json` is looked up there and one folder above), or a hub id.
            model: model that it is loaded on; names the base where the spec does not.
        Raises:
            ValueError: as `from_ao_config`.
        """
        base_model = model.checkpoint.base if model is not None and model.checkpoint is not None else None
        folder = None if adapter is None else Path(adapter).expanduser()
        for place in (folder, folder.parent) if folder is not None and folder.is_dir() else ():
            if (place / AO_CONFIG).is_file():
                spec = cls.from_ao_config(place)
                return replace(spec, base_model=spec.base_model or base_model, revision=revision)
        spec = None if adapter is None else registered(str(adapter))
        if spec is not None:
            return replace(spec, base_model=spec.base_model or base_model, revision=revision, origin="registry")
        warnings.warn(
            f"THE WIRING OF THE ORACLE {str(adapter)!r} IS UNKNOWN: no {AO_CONFIG}, not in the registry. "
            "Assuming the original (format A, ' ?', block 1, addition, coefficient 1). A wrong wiring gives "
            "fluent answers that mean nothing: run the wiring self-test before you use any answer, or pass "
            "spec=OracleSpec(...).",
            AssumedSpecWarning,
            stacklevel=2,
        )
        return cls(base_model=base_model, revision=revision, origin="assumed")

    @classmethod
    def karvonen(cls, *, layer: int | str = "50%", base_model: str | None = None) -> OracleSpec:
        """The wiring of the original activation oracles, for one source layer."""
        return cls(base_model=base_model, layers=(layer,))


def _read(path: Path) -> Mapping[str, Any]:
    file = path / AO_CONFIG if path.is_dir() else path
    if not file.is_file():
        raise ValueError(f"{file}: no such file; expected the oracle's {AO_CONFIG}.")
    return read_json_object(file)


class _AoConfig(TypedDict, total=False):
    """The fields of an `ao_config.json` that are read; other fields are ignored."""

    schema_version: int
    model_name: str | None
    hook_onto_layer: int
    formula: Formula
    steering_coefficient: float
    special_token: str | list[str]
    prefix_format: str | None
    prefix_template: str | None
    prefix_flat: bool
    layer_combinations: list[list[int | float] | int | float] | None
    act_layer_combinations: list[list[int] | int] | None
    enable_thinking: bool | None
    context_thinking: bool | None
    max_new_tokens: int


def _first(combinations: Sequence[Any] | None) -> tuple[Any, ...]:
    """The first layer combination; a flat list is one combination."""
    if not combinations:
        return ()
    return tuple(combinations[0]) if isinstance(combinations[0], Sequence) else tuple(combinations)


def _format_of(config: Mapping[str, Any], *, n_layers: int) -> Format:
    """The format that a config names, else the one that its `prefix_template` abbreviates (not a str.format string)."""
    named = config.get("prefix_format")
    if named is not None:
        if named not in FORMATS:
            raise ValueError(f"{AO_CONFIG}: prefix_format: expected one of {', '.join(FORMATS)}, got {named!r}.")
        return named
    template = config.get("prefix_template")
    many: Format = "A'" if n_layers > 1 else "A"
    if template is None:
        return many
    text = template.replace("\\n", "\n")
    if text.startswith("Layer: {layer}\n"):
        return many
    if text.startswith("Layer: {layers}\n"):
        return "D"
    if text.startswith("L{layer}:"):
        return "B" if text.rstrip("\n").endswith(".") else "E"
    raise ValueError(
        f"{AO_CONFIG}: prefix_template: expected one of the formats {', '.join(FORMATS)}, got {template!r}. "
        f"Give the format yourself: OracleSpec(format=..., ...)."
    )


_QWEN = "Qwen/Qwen3-8B"
_CODE = "adamkarvonen/activation_oracles, nl_probes/utils/dataset_utils.py (get_introspection_prefix)"
_TABLE = "ceselder/cot-oracle @ 15a1e0f, AObench/configs/sft_config.py (FALLBACK_REPO_TRAINING_CONFIGS)"
_CARD = "ceselder/cot-oracle @ 33996d3, model_card.md (v4)"
_DEMO = "operator's notes of the public demo of ceselder/qwen3-8b-ao-v3-best: layers 21 22 23 24 25, 'Layer: {layer}'"
_EVERY_THIRD = tuple(range(2, 36, 3))


class Published(NamedTuple):
    """A published oracle and the source that states its wiring."""

    spec: OracleSpec
    source: str


def registered(repo: str) -> OracleSpec | None:
    """The spec of a published oracle by its repository id; None if the registry has no entry for it."""
    patterns = [pattern for pattern in REGISTRY if fnmatchcase(repo, pattern)]
    return REGISTRY[max(patterns, key=len)].spec if patterns else None


def _inline(*layers: int) -> Published:
    """Layer tags in the line of the placeholders, `L9: ? ? L18: ? ?.`"""
    return Published(OracleSpec(base_model=_QWEN, format="B", layers=layers), _TABLE)


# Patterns of repository ids; the longest match decides. Earlier adapters of adamkarvonen used replacement with
# coefficient 2, so only those called "addition" are listed.
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
