"""How one oracle is wired: block, formula, coefficient, placeholder, prompt format, layers. Declared, not guessed."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from typing_extensions import TypedDict

from interp.injection import Formula, Precision
from interp.io.paths import shown
from interp.io.read import checked
from interp.loading.files import read_json_object
from interp.oracle.formats import FORMATS, Format
from interp.site import layer_index, percent_of

if TYPE_CHECKING:
    from interp.model import Model

LayerOrder = Literal["layer-major", "boundary-major"]
AO_CONFIG = "ao_config.json"
SCHEMA = 1


class AssumedSpecWarning(UserWarning):
    """Nothing declares how an oracle was trained, so the original's wiring was assumed."""


@dataclass(frozen=True)
class OracleSpec:
    """The load contract of an oracle: everything that, when wrong, still works in part and gives wrong answers.

    Attributes:
        base_model:  what the adapter was trained on; None where nothing says.
        hook_layer:  0-based block whose *output* is changed.
        formula, coefficient, precision: see `interp.injection.norm_matched_injection`.
        placeholder: one text for all layers or one per layer; must be one token each.
        format:      prompt format, see `interp.oracle.formats.render_prefix`; `flat` is E without layer names.
        layers:      source layers that the oracle was trained on: block indices, or percents such as "50%".
        enable_thinking: given to the chat template; None where it has no such switch.
        context_thinking: the same for the text that is read.
        max_new_tokens: default length of an answer.
        revision:    of the adapter.
        origin:      where the declaration comes from: "declared", "ao_config.json", "registry" or "assumed".
    Raises:
        ValueError: an unknown format or formula, a negative block, a percent outside 0-99.
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
            raise ValueError(f"OracleSpec.hook_layer: a 0-based block index was expected, got {self.hook_layer}.")
        for word in self.layers:
            percent_of(word)

    @property
    def placeholders(self) -> tuple[str, ...]:
        return (self.placeholder,) if isinstance(self.placeholder, str) else self.placeholder

    @property
    def layer_order(self) -> LayerOrder:
        """How slots follow each other in the prompt: all positions of a layer, or all layers of a position."""
        return "boundary-major" if self.format == "D" else "layer-major"

    def layer_indices(self, n_layers: int) -> tuple[int, ...]:
        """`layers` as block indices of a model with `n_layers` blocks. Raises ValueError where one is out of range."""
        return tuple(layer_index(word, n_layers) for word in self.layers)

    def to_json(self) -> dict[str, Any]:
        """The declaration as `ao_config.json` holds it; `from_ao_config` reads it back."""
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
            source: the parsed file, the file, or the adapter's folder.
        Raises:
            ValueError: no such file, a prefix template that is none of the known formats, a wrong schema version.
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
            raise ValueError(f"{AO_CONFIG}: schema_version {config['schema_version']} is not known; expected {SCHEMA}.")
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
        """The spec of an adapter: its `ao_config.json`, else the registry by repository id, else format A, loudly.

        Args:
            adapter: folder of the adapter (its `ao_config.json` may stand beside or one folder above), or a hub id.
            model: what it is loaded on, for the record.
        Raises:
            ValueError: as `from_ao_config`.
        """
        base_model = model.checkpoint.base if model is not None and model.checkpoint is not None else None
        folder = None if adapter is None else Path(adapter).expanduser()
        for place in (folder, folder.parent) if folder is not None and folder.is_dir() else ():
            if (place / AO_CONFIG).is_file():
                found = cls.from_ao_config(place)
                return replace(found, base_model=found.base_model or base_model, revision=revision)
        from interp.oracle.registry import registered

        known = None if adapter is None else registered(str(adapter))
        if known is not None:
            return replace(known, base_model=known.base_model or base_model, revision=revision, origin="registry")
        warnings.warn(
            f"NOTHING DECLARES HOW THE ORACLE {str(adapter)!r} IS WIRED: no {AO_CONFIG}, not in the registry. Assuming "
            f"the original (format A, ' ?', block 1, addition, coefficient 1). A wrong wiring gives fluent answers "
            f"that mean nothing: run the wiring self-test before you read any, or pass spec=OracleSpec(...).",
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
        raise ValueError(f"{file}: no such file; an oracle's declaration is called {AO_CONFIG}.")
    return read_json_object(file)


class _AoConfig(TypedDict, total=False):
    """The fields of an `ao_config.json` that are read; others may stand beside them."""

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
    """The first of several layer combinations; a flat list is one combination."""
    if not combinations:
        return ()
    return tuple(combinations[0]) if isinstance(combinations[0], Sequence) else tuple(combinations)


def _format_of(config: Mapping[str, Any], *, n_layers: int) -> Format:
    """The format that a config names or that its `prefix_template` is a mnemonic of (it is not str.format-able)."""
    named = config.get("prefix_format")
    if named is not None:
        if named not in FORMATS:
            raise ValueError(f"{AO_CONFIG}: prefix_format {named!r} is none of {', '.join(FORMATS)}.")
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
        f"{AO_CONFIG}: prefix_template {template!r} is none of the known formats ({', '.join(FORMATS)}). "
        f"Give the format yourself: OracleSpec(format=..., ...)."
    )
