"""Training an oracle adapter: masked loss on answers under injected activations of the bare base.

Files of a run (plain PEFT adapters with their `ao_config.json`, and the state from which a run resumes):

out/plan.json           recipe, spec, items and base of the run (hashes), written before the first step
out/run.json            settings, audits, validations so far
out/step_500/           adapter_config.json, adapter_model.safetensors, ao_config.json
out/best/, out/last/    the same; the best by validation gap
out/items/state.item    step, adapter, optimiser and validations, exactly
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from interp.adapters import name_roles, peft_names
from interp.io.files import replace as replace_file
from interp.io.items import ItemStore
from interp.io.paths import shown
from interp.loading.files import ADAPTER_WEIGHTS
from interp.loading.fingerprint import fingerprint_module
from interp.model import Model
from interp.oracle.encode import Encoder
from interp.oracle.items import Mixture, TrainItem, audit_mixture, refuse_faults
from interp.oracle.recipe import Recipe
from interp.oracle.run import Processes, Run, cuda_devices, length_of
from interp.oracle.spec import AO_CONFIG, OracleSpec
from interp.oracle.validate import Validation, Validator
from interp.progress import track
from interp.tasks.cot.audits import Finding

Log = Callable[[int, float, Validation | None], None]


@dataclass(frozen=True)
class Trained:
    """A finished run.

    Attributes:
        model: the model with the adapter of the last step on it, active, in eval mode.
        adapter: its role.
        losses: loss of every step of this call, nats per answer token; a resumed run has only those after it resumed.
        validations: one per checkpoint.
        findings: audits of the labels, then of the best checkpoint.
        folder: folder of the files; None for a run in memory.
    """

    model: Model
    adapter: str
    spec: OracleSpec
    losses: tuple[float, ...]
    validations: tuple[Validation, ...]
    findings: tuple[Finding, ...]
    folder: Path | None

    @property
    def best(self) -> Validation:
        """The checkpoint with the largest validation gap; its adapter is in `folder/best`."""
        return best_of(self.validations)


def best_of(validations: Sequence[Validation]) -> Validation:
    """The validation with the largest control gap; the earliest of equals."""
    return max(validations, key=lambda v: (v.gap.value, -v.step))


def train_oracle(
    model: Model,
    mixture: Mixture,
    spec: OracleSpec,
    recipe: Recipe,
    *,
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    adapter: str = "oracle",
    accept: Mapping[str, str] | None = None,
    log: Log | None = None,
) -> Trained:
    """Train one oracle adapter on the model's base.

        loss = sum over answer tokens of -log p(token | prompt with injected activations, answer before) / their number

    The prompt carries no loss; the end of the answer does. Activations come from the base with every adapter off, in
    eval mode, on the fly, window by window. AdamW on the adapter alone; the rate rises over the warm-up and falls
    linearly to 0; gradients are clipped. Order: windows of `recipe.window` batches, sorted by length inside, tasks
    mixed. Everything is a function of seed and step, so a resumed run ends with the same weights.

    Args:
        mixture: items to train and to validate on; audited before the first step.
        out: folder for checkpoints (see this module's docstring); None writes none.
        resume: continue the run in `out`.
        adapter: role of the new adapter.
        accept: name of an audit that may fail -> why the failure is harmless here.
        log: called after every step with the step (from 1), its loss, and its validation, if any.
    Raises:
        ValueError: an audit failed, an item cannot be encoded, the model has no such source layer, the folder holds
            another run, or it holds this run and `resume` is False. All before the first step.
        FolderBusyError: another process trains into the folder.
    """
    processes = Processes.current()
    findings = refuse_faults(audit_mixture(mixture), accept=accept)
    _check_layers(model, mixture, spec)
    encoder = Encoder(spec, model.tokenizer)
    items = _kept(mixture.train, encoder, recipe)
    identity = {} if out is None else _identity(model, mixture, spec, recipe)
    model = add_adapter(model, recipe, adapter)
    run = Run(model, items, spec, recipe, encoder, adapter, processes)
    validator = Validator(run.model, spec, _ok(mixture.validation), encoder, seed=recipe.seed)
    with ExitStack() as stack:
        store = None if out is None else _open(stack, Path(out), identity, processes)
        (start, history), losses = _begin(run, store, resume), list[float]()
        stack.enter_context(run.training())
        bar = stack.enter_context(track("training", run.n_steps, unit="steps", done=start))
        for step, loss in bar.over(run.steps(start)):
            losses.append(loss)
            validation = validator(step) if run.is_checkpoint(step) else None
            if validation is not None:
                history.append(validation)
                if store is not None and processes.is_first:
                    _save(run, store, history, step, findings)
                processes.wait()
            if log is not None and processes.is_first:
                log(step, loss, validation)
    found, folder = (*findings, *best_of(history).findings()), None if out is None else Path(out)
    return Trained(run.model, adapter, spec, tuple(losses), tuple(history), found, folder)


def _open(stack: ExitStack, out: Path, identity: Mapping[str, Any], processes: Processes) -> ItemStore:
    """The run's store while it trains: the first process opens it for writing, then the others open it for reading."""
    store = stack.enter_context(ItemStore.writing(out, KIND, identity)) if processes.is_first else None
    processes.wait()
    return store or ItemStore.reading(out, KIND)


def _begin(run: Run, store: ItemStore | None, resume: bool) -> tuple[int, list[Validation]]:
    """(steps done, validations so far): (0, []) of a new run, those of the folder's run otherwise."""
    state = None if store is None else read_state(store)
    if store is None or state is None:
        return 0, []
    if not resume:
        raise ValueError(f"{store.root} holds this run up to a checkpoint. Pass resume=True to resume, or delete it.")
    return run.restore(state), [Validation.of(row) for row in json.loads(state["validations"])]


def _identity(model: Model, mixture: Mixture, spec: OracleSpec, recipe: Recipe) -> dict[str, Any]:
    """Fields that must be equal for a run to be resumed."""
    whole = model.fingerprint or fingerprint_module(model.module, tokenizer=model.tokenizer)
    return {
        "recipe": recipe.digest,
        "spec": repr(replace(spec, origin="")),
        "items": mixture.digest,
        "base": whole.weights_sha256,
        "dtype": str(model.dtype).removeprefix("torch."),
    }


def _save(run: Run, store: ItemStore, history: Sequence[Validation], step: int, findings: Sequence[Finding]) -> None:
    """Write the checkpoint: adapters first, the state last; a kill in between resumes from the previous checkpoint."""
    from peft import get_peft_model_state_dict

    module: Any = run.model.module
    tensors = get_peft_model_state_dict(module, adapter_name=run.adapter, save_embedding_layers=False)
    config = adapter_config(module, run.adapter, base=run.spec.base_model)
    names = ["last"] if step == run.n_steps else []
    names += [f"step_{step}"] if run.recipe.save_every is not None else []
    names += ["best"] if best_of(history).step == step else []
    for name in names:
        put_adapter(store.root, name, tensors, config, run.spec)
    validations = [v.to_dict() for v in history]
    record = {
        **store.identity,
        "settings": run.recipe.to_dict(),
        "n_steps": run.n_steps,
        "best": best_of(history).step,
        "audits": [vars(f) for f in findings],
        "validations": validations,
    }
    put_run(store.root, record)
    put_state(store, run.state(step) | {"validations": json.dumps(validations)})


def _ok(items: Sequence[TrainItem]) -> list[TrainItem]:
    return [item for item in items if item.status == "ok"]


def _kept(items: Sequence[TrainItem], encoder: Encoder, recipe: Recipe) -> list[TrainItem]:
    """Items with an answer, without the longest; all are encoded once, so that a bad item fails before training."""
    items = _ok(items)
    for at in range(0, len(items), 4096):
        encoder(items[at : at + 4096])
    n = len(items) - int(recipe.drop_longest * len(items))
    keep = set(sorted(range(len(items)), key=lambda i: length_of(items[i]))[:n])
    return [item for i, item in enumerate(items) if i in keep]


def _check_layers(model: Model, mixture: Mixture, spec: OracleSpec) -> None:
    used = sorted({layer for item in (*mixture.train, *mixture.validation) for layer in item.layers})
    if used and (used[0] < 0 or used[-1] >= model.n_layers):
        raise ValueError(f"items: expected blocks 0-{model.n_layers - 1} of {model.name}, got layers {used}.")
    if spec.hook_layer >= model.n_layers - 1:
        raise ValueError(
            f"spec.hook_layer: expected 0-{model.n_layers - 2}, got {spec.hook_layer}; no block after block "
            f"{model.n_layers - 1} could read the injected vectors."
        )


KIND, RUN, STATE = "training run", "run.json", "state"
_WEIGHT, _OPTIMIZER = "weight|", "optimizer|"


def put_run(root: Path, run: Mapping[str, Any]) -> None:
    """Replace run.json, the human-readable record of the run."""
    replace_file(root, root / RUN, _json(run))


def put_adapter(
    root: Path, name: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any], spec: OracleSpec
) -> Path:
    """Write an adapter folder in PEFT's own format, with the oracle's `ao_config.json`.

    Temporary files are in the run's folder, so that a kill leaves none in the adapter's.
    """
    files = {
        AO_CONFIG: _json(spec.to_json()),
        "adapter_config.json": _json(config),
        ADAPTER_WEIGHTS: save({key: t.detach().cpu().contiguous() for key, t in tensors.items()}, {"format": "pt"}),
    }
    folder = root / name
    for file, data in files.items():  # weights last: a folder that has them is complete
        replace_file(root, folder / file, data)
    return folder


def put_state(store: ItemStore, state: Mapping[str, Any]) -> None:
    """Replace the state that a run resumes from: tensors as safetensors, the rest as one JSON text in their header.

    Equal states give equal bytes (a pickle does not: it records which objects are identical), and loading runs no code.
    """
    tensors, optimizer = {f"{_WEIGHT}{name}": tensor for name, tensor in state["weights"].items()}, state["optimizer"]
    for index, values in optimizer["state"].items():
        tensors |= {f"{_OPTIMIZER}{index}|{key}": tensor for key, tensor in values.items()}
    rest = {key: value for key, value in state.items() if key not in ("weights", "optimizer")}
    text = json.dumps({**rest, "param_groups": optimizer["param_groups"]}, sort_keys=True)
    store.put(STATE, save({key: t.detach().cpu().contiguous() for key, t in tensors.items()}, {STATE: text}))


def read_state(store: ItemStore) -> dict[str, Any] | None:
    """The stored state, or None if there is none."""
    if STATE not in store:
        return None
    data = store.get(STATE)
    # safetensors.load returns tensors only; the metadata is in the header, after its length as 8 bytes
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
    """adapter_config.json of an adapter as PEFT writes it, with sets sorted and the run's own name of the base."""
    config = peft_model.peft_config[name].to_dict()
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    named = base or config.get("base_model_name_or_path")
    plain |= {"inference_mode": True, "base_model_name_or_path": shown(named) if named else None}
    return {key: getattr(value, "value", value) for key, value in plain.items()}


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()


def add_adapter(model: Model, recipe: Recipe, name: str = "oracle") -> Model:
    """The model with a fresh, seeded LoRA under the role `name`; its other adapters are left alone.

    A model without adapters is wrapped by PEFT; use the returned one.

    Raises:
        ValueError: the role is taken, or PEFT does not allow it as a name.
    """
    from peft import LoraConfig, get_peft_model

    if name in model.adapters.names or peft_names([name])[name] != name:
        taken = "is already on the model" if name in model.adapters.names else "cannot be a module's name"
        raise ValueError(f"adapter {name!r} {taken}; choose another name for the new oracle.")
    targets = recipe.targets if isinstance(recipe.targets, str) else list(recipe.targets)
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        use_rslora=recipe.rslora,
        bias="none",
        target_modules=_text_only(model, targets),
        task_type="CAUSAL_LM",
    )
    module: Any = model.module
    with torch.random.fork_rng(devices=cuda_devices(model)), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")
        torch.manual_seed(recipe.seed)
        if hasattr(module, "peft_config"):
            module.add_adapter(name, config)
        else:
            module = get_peft_model(module, config, adapter_name=name)
            name_roles(module, {name: name})
    return Model(module, model.tokenizer, checkpoint=model.checkpoint, fingerprint=model.fingerprint)


def _text_only(model: Model, targets: str | list[str]) -> str | list[str]:
    """ "all-linear" restricted to the text decoder if the model has linear layers elsewhere (a vision tower)."""
    if targets != "all-linear":
        return targets
    inside = {id(m) for m in model.decoder.modules()} | {id(model.causal_lm.get_output_embeddings())}
    elsewhere = [n for n, m in model.causal_lm.named_modules() if isinstance(m, nn.Linear) and id(m) not in inside]
    if not elsewhere:
        return targets
    path = next(n for n, m in model.causal_lm.named_modules() if m is model.decoder)
    leaves = sorted({n.rsplit(".", 1)[-1] for n, m in model.decoder.named_modules() if isinstance(m, nn.Linear)})
    return rf"{path.replace('.', chr(92) + '.')}\..*\.({'|'.join(leaves)})"
