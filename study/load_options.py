"""How weights are held: the section `load` of a study file, and the options of every command that loads a model."""

from __future__ import annotations

import datetime
from typing import Annotated, Literal

from pydantic import BeforeValidator
from pydantic.dataclasses import dataclass

from study.options import STRICT, option


def _iso(value: object) -> object:
    """A date as text: YAML reads an unquoted one as a date."""
    return value.isoformat() if isinstance(value, datetime.date) else value


@dataclass(frozen=True, config=STRICT, kw_only=True)
class DeviceOptions:
    """Where weights are held and how; `interp.load` documents them. An oracle takes these alone."""

    dtype: str = option(
        "auto", "Dtype of the weights; auto: bf16 on CUDA, fp32 on a CPU.", flag="--load-dtype", param="load_dtype"
    )
    device: str = option("auto", "Device: cpu, cuda, cuda:1, ...")
    device_map: str | None = option(None, "Device map; 'auto' spreads a model over several GPUs.")
    quantization: str | None = option(None, "Quantization: 4bit or 8bit (bitsandbytes).")
    attn_implementation: str | None = option(None, "Attention implementation: eager, sdpa, ...")


@dataclass(frozen=True, config=STRICT, kw_only=True)
class LoadOptions(DeviceOptions):
    """How weights are held and how prompts are made; `interp.load` documents them."""

    control_tokens: Literal["text", "refuse"] = option(
        "text", "Special tokens spelled out in a message: treat them as text, or refuse them as an error."
    )
    template_date: Annotated[str | None, BeforeValidator(_iso)] = option(
        None,
        "Date (YYYY-MM-DD) for chat templates that print the current date; default: today, fixed for the whole run.",
    )
    allow_closed_turn: bool = option(False, "Accept a chat template that does not open an assistant turn.")
    template: Literal["own", "plain"] = option(
        "own",
        "Chat template: the model's own, or plain (every chat as plain text, for base models without a template).",
    )
