"""Files of a training run: plain PEFT adapters with their `ao_config.json`, and the state from which a run goes on.

out/run.json             recipe, spec and items of the run (hashes), audits, validation so far
out/step_500/            adapter_config.json, adapter_model.safetensors, ao_config.json
out/best/, out/last/     the same; the best by validation gap
out/state.pt             step, adapter and optimiser, exactly
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from interp.cache.files import TEMP, replace
from interp.files import ADAPTER_WEIGHTS, read_json_object
from interp.oracle.spec import AO_CONFIG, OracleSpec

RUN, STATE = "run.json", "state.pt"


class RunFolder:
    """The folder of one run; every file is written whole or not at all."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read_run(self) -> dict[str, Any] | None:
        """run.json, or None where no run was begun."""
        path = self.root / RUN
        return read_json_object(path) if path.is_file() else None

    def put_run(self, run: Mapping[str, Any]) -> None:
        """Replace run.json."""
        replace(self.root, self.root / RUN, _json(run))

    def put_adapter(
        self, name: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any], spec: OracleSpec
    ) -> Path:
        """Write an adapter folder in PEFT's own format, with the oracle's declaration beside it."""
        files = {
            AO_CONFIG: _json(spec.to_json()),
            "adapter_config.json": _json(config),
            ADAPTER_WEIGHTS: save({key: t.detach().cpu().contiguous() for key, t in tensors.items()}, {"format": "pt"}),
        }
        folder = self.root / name
        for file, data in files.items():  # the weights last: a folder that has them is complete
            replace(folder, folder / file, data)
        (folder / TEMP).rmdir()
        return folder

    def put_state(self, state: Mapping[str, Any]) -> None:
        """Replace the state from which `read_state` lets a run go on."""
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        replace(self.root, self.root / STATE, buffer.getvalue())

    def read_state(self) -> dict[str, Any] | None:
        """The state, or None where none was written. Tensors and plain values only: nothing in it can run code."""
        path = self.root / STATE
        return torch.load(path, map_location="cpu", weights_only=True) if path.is_file() else None


def adapter_config(peft_model: Any, name: str, *, base: str | None) -> dict[str, Any]:
    """adapter_config.json of an adapter as PEFT writes it, sorted, with the base that the run named."""
    config = peft_model.peft_config[name].to_dict()
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    plain |= {"inference_mode": True, "base_model_name_or_path": base or config.get("base_model_name_or_path")}
    return {key: getattr(value, "value", value) for key, value in plain.items()}


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()
