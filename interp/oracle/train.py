"""Training an oracle adapter: masked loss on answers under injected activations of the bare base."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from interp.io.items import ItemStore
from interp.loading.fingerprint import fingerprint_module
from interp.model import Model
from interp.oracle.checkpoints import KIND, adapter_config, put_adapter, put_run, put_state, read_state
from interp.oracle.encode import Encoder
from interp.oracle.fresh import add_adapter
from interp.oracle.items import Mixture, TrainItem, audit_mixture, refuse_faults
from interp.oracle.processes import Processes
from interp.oracle.recipe import Recipe
from interp.oracle.run import Run, length_of
from interp.oracle.spec import OracleSpec
from interp.oracle.validate import Validation, Validator
from interp.tasks.cot.audits import Finding

Log = Callable[[int, float, Validation | None], None]


@dataclass(frozen=True)
class Trained:
    """A finished run.

    Attributes:
        model: the model with the adapter of the last step on it, active, in eval mode.
        adapter: its role.
        losses: loss of every step of this process's run, nats per answer token; a resumed run has those after it.
        validations: one per checkpoint.
        findings: audits of the labels, then of the best checkpoint.
        folder: where the files are; None for a run that was kept in memory.
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
        out: folder for checkpoints (see `interp.oracle.checkpoints`); None keeps nothing.
        resume: go on from what is in `out`.
        adapter: role of the new adapter.
        accept: audits that may fail, each with the reason why it does no harm.
        log: called after every step with the step (from 1), its loss, and the validation made at it, if any.
    Raises:
        ValueError: an audit that failed, an item that cannot be encoded, a source layer that the model does not have,
            a folder that holds another run, or one that holds this run and `resume` is False. All before the first
            step.
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
    losses: list[float] = []
    with ExitStack() as stack:
        store = None if out is None else _open(stack, Path(out), identity, processes)
        start, history = _begin(run, store, resume)
        stack.enter_context(run.training())
        for step, loss in run.steps(start):
            losses.append(loss)
            validation = validator(step) if run.is_checkpoint(step) else None
            if validation is not None:
                history.append(validation)
                if store is not None and processes.is_first:
                    _save(run, store, history, step, findings)
                processes.wait()
            if log is not None and processes.is_first:
                log(step, loss, validation)
    found = (*findings, *best_of(history).findings())
    return Trained(run.model, adapter, spec, tuple(losses), tuple(history), found, None if out is None else Path(out))


def _open(stack: ExitStack, out: Path, identity: Mapping[str, Any], processes: Processes) -> ItemStore:
    """The run's store while it trains: the first process holds it for writing, the others read what it found there."""
    store = stack.enter_context(ItemStore.writing(out, KIND, identity)) if processes.is_first else None
    processes.wait()
    return store or ItemStore.reading(out, KIND)


def _begin(run: Run, store: ItemStore | None, resume: bool) -> tuple[int, list[Validation]]:
    """(steps done, validations so far) of a new run or of the one in the folder."""
    state = None if store is None else read_state(store)
    if store is None or state is None:
        return 0, []
    if not resume:
        raise ValueError(f"{store.root} holds this run up to a checkpoint. Pass resume=True to go on, or delete it.")
    return run.restore(state), [Validation.of(held) for held in json.loads(state["validations"])]


def _identity(model: Model, mixture: Mixture, spec: OracleSpec, recipe: Recipe) -> dict[str, Any]:
    """What must agree for a run to go on."""
    whole = model.fingerprint or fingerprint_module(model.module, tokenizer=model.tokenizer)
    return {"recipe": recipe.digest, "spec": repr(replace(spec, origin="")), "items": mixture.digest,
            "base": whole.weights_sha256, "dtype": str(model.dtype).removeprefix("torch.")}  # fmt: skip


def _save(run: Run, store: ItemStore, history: Sequence[Validation], step: int, findings: Sequence[Finding]) -> None:
    """Write the checkpoint: adapters first, the state that makes it count last."""
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
    record = {**store.identity, "settings": run.recipe.to_dict(), "n_steps": run.n_steps,
              "best": best_of(history).step, "audits": [vars(f) for f in findings],
              "validations": validations}  # fmt: skip
    put_run(store.root, record)
    put_state(store, run.state(step) | {"validations": json.dumps(validations)})


def _ok(items: Sequence[TrainItem]) -> list[TrainItem]:
    return [item for item in items if item.status == "ok"]


def _kept(items: Sequence[TrainItem], encoder: Encoder, recipe: Recipe) -> list[TrainItem]:
    """Items that have an answer, all of them encoded once as a check, without the longest."""
    items = _ok(items)
    for at in range(0, len(items), 4096):
        encoder(items[at : at + 4096])
    n = len(items) - int(recipe.drop_longest * len(items))
    keep = set(sorted(range(len(items)), key=lambda i: length_of(items[i]))[:n])
    return [item for i, item in enumerate(items) if i in keep]


def _check_layers(model: Model, mixture: Mixture, spec: OracleSpec) -> None:
    used = sorted({layer for item in (*mixture.train, *mixture.validation) for layer in item.layers})
    if used and (used[0] < 0 or used[-1] >= model.n_layers):
        raise ValueError(f"items read the layers {used}, but {model.name} has blocks 0-{model.n_layers - 1}.")
    if spec.hook_layer >= model.n_layers - 1:
        raise ValueError(
            f"spec.hook_layer {spec.hook_layer}: nothing after block {model.n_layers - 1} could read what is injected; "
            f"expected 0-{model.n_layers - 2}."
        )
