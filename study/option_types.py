"""Types of options that several analyses share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import click
from pydantic import AfterValidator, BeforeValidator, Field
from pydantic.dataclasses import dataclass

from interp.site import percent_of
from study.options import STRICT, option

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]
Verified = Annotated[float, Field(ge=0, le=1)]
Names = tuple[str, ...]
InPath = Annotated[Path, click.Path(path_type=Path, exists=True)]
InFile = Annotated[Path, click.Path(path_type=Path, exists=True, dir_okay=False)]
InFolder = Annotated[Path, click.Path(path_type=Path, exists=True, file_okay=False)]
OutFile = Annotated[Path, click.Path(path_type=Path, dir_okay=False)]
OutFolder = Annotated[Path, click.Path(path_type=Path, file_okay=False)]


def _layer(value: object) -> object:
    """A block index, or a percent of depth; which layers there are is known once the model is."""
    if isinstance(value, bool) or not isinstance(value, int | str) or (isinstance(value, int) and value < 0):
        raise ValueError(f"expected a block index from 0 or a percent of depth such as '50%', got {value!r}")
    percent_of(value)
    return value


def _conditions(value: Mapping[str, tuple[str, ...]] | tuple[str, ...]) -> object:
    from interp.where import conditions

    conditions(value)
    return value


Where = Annotated[Mapping[str, tuple[str, ...]] | tuple[str, ...], AfterValidator(_conditions)]
Layer = Annotated[int | str, BeforeValidator(_layer)]


@dataclass(frozen=True, config=STRICT, kw_only=True)
class Quiet:
    """How much is printed and drawn."""

    no_figures: bool = option(False, "Write tables only, no figures.")
    quiet: bool = option(False, "Show no progress bar.")
