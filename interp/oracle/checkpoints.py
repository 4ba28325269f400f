"""Files of a training run: plain PEFT adapters with their `ao_config.json`, and the state from which a run goes on.

out/plan.json           recipe, spec, items and base of the run (hashes), written before the first step
out/run.json            settings, audits, validation so far
out/step_500/           adapter_config.json, adapter_model.safetensors, ao_config.json
out/best/, out/last/    the same; the best by validation gap
out/items/state.item    step, adapter, optimiser and validations, exactly
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from interp.io.files import replace
from interp.io.items import ItemStore
from interp.io.paths import shown
from interp.loading.files import ADAPTER_WEIGHTS
from interp.oracle.spec import AO_CONFIG, OracleSpec

KIND, RUN, STATE = "training run", "run.json", "state"
_WEIGHT, _OPTIMIZER = "weight|", "optimizer|"


def put_run(root: Path, run: Mapping[str, Any]) -> None:
    """Replace run.json, the record of the run for people."""
    replace(root, root / RUN, _json(run))


def put_adapter(
    root: Path, name: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any], spec: OracleSpec
) -> Path:
    """Write an adapter folder in PEFT's own format, with the oracle's declaration next to it.

    Temporary files lie in the folder of the run, so that a kill leaves nothing in the adapter's.
    """
    files = {
        AO_CONFIG: _json(spec.to_json()),
        "adapter_config.json": _json(config),
        ADAPTER_WEIGHTS: save({key: t.detach().cpu().contiguous() for key, t in tensors.items()}, {"format": "pt"}),
    }
    folder = root / name
    for file, data in files.items():  # the weights last: a folder that has them is complete
        replace(root, folder / file, data)
    return folder


def put_state(store: ItemStore, state: Mapping[str, Any]) -> None:
    """Replace the state from which `read_state` lets a run go on: tensors as safetensors, the rest as one JSON text.

    Equal states give equal bytes (a pickle also says which of its objects were one), and nothing in it can run code.
    """
    held, optimizer = {f"{_WEIGHT}{name}": tensor for name, tensor in state["weights"].items()}, state["optimizer"]
    for index, values in optimizer["state"].items():
        held |= {f"{_OPTIMIZER}{index}|{key}": tensor for key, tensor in values.items()}
    rest = {key: value for key, value in state.items() if key not in ("weights", "optimizer")}
    text = json.dumps({**rest, "param_groups": optimizer["param_groups"]}, sort_keys=True)
    store.put(STATE, save({key: t.detach().cpu().contiguous() for key, t in held.items()}, {STATE: text}))


def read_state(store: ItemStore) -> dict[str, Any] | None:
    """The state as it was, or None where none was written."""
    if STATE not in store:
        return None
    data = store.get(STATE)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    state = json.loads(header["__metadata__"][STATE])
    weights, moments = {}, {}
    for key, tensor in load(data).items():
        if key.startswith(_WEIGHT):
            weights[key.removeprefix(_WEIGHT)] = tensor
        else:
            index, _, name = key.removeprefix(_OPTIMIZER).partition("|")
            moments.setdefault(int(index), {})[name] = tensor
    optimizer = {"state": moments, "param_groups": state.pop("param_groups")}
    return {**state, "weights": weights, "optimizer": optimizer}


def adapter_config(peft_model: Any, name: str, *, base: str | None) -> dict[str, Any]:
    """adapter_config.json of an adapter as PEFT writes it, sorted, with the base that the run named."""
    config = peft_model.peft_config[name].to_dict()
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    named = base or config.get("base_model_name_or_path")
    plain |= {"inference_mode": True, "base_model_name_or_path": shown(named) if named else None}
    return {key: getattr(value, "value", value) for key, value in plain.items()}


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()
