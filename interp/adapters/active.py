"""Which adapter of a model is active, and switching between adapters without side effects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from interp.remedy import remedy

# Where `load` keeps role -> PEFT name on the module; a role without an adapter maps to None, a merged one to MERGED.
_ROLES = "diptych_roles"
MERGED = "(merged into the weights)"


class Adapters:
    """The adapters of a module, by role; the state is read from the adapter layers, never from the wrapper.

    Args:
        module: a PeftModel, a transformers model with injected adapters, or a plain module (which has none).
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module

    @property
    def names(self) -> tuple[str, ...]:
        """The roles that `use` accepts besides None: the names given at load, dots and all, else PEFT's own."""
        roles = roles_of(self._module)
        present = _present(self._module)
        named = [role for role, name in roles.items() if name in (None, MERGED) or name in present]
        return (*named, *(name for name in present if name not in roles.values()))

    @property
    def active(self) -> str | None:
        """The role whose adapter is applied now; None is the base.

        Raises:
            RuntimeError: layers disagree, or several adapters are active at once: no single name would be true.
        """
        roles = roles_of(self._module)
        if MERGED in roles.values():
            return next(role for role, name in roles.items() if name == MERGED)
        states = {state for _, layer in tuner_layers(self._module) if (state := _applied(layer)) is not None}
        if not states:
            return None
        if len(states) > 1 or len(next(iter(states))) > 1:
            listed = "; ".join(sorted(", ".join(state) or "base" for state in states))
            raise RuntimeError(
                f"adapter layers disagree on what is active: {listed}. Enter adapters.use(role) to make them agree."
            )
        name = next(iter(next(iter(states))), None)
        return next((role for role, known in roles.items() if known == name), name) if name else None

    @contextmanager
    def use(self, role: str | None) -> Iterator[None]:
        """Within the block `role`'s adapter is applied, or the bare base for None; afterwards everything is as before.

        Restored, also after an exception and when nested: active adapters and enabled state of every layer,
        train/eval mode of every submodule, `requires_grad` of every parameter. Entering changes neither of the last
        two (PEFT's own `set_adapter` turns gradients on).

        Raises:
            ValueError:   an unknown role, or a base that is gone because an adapter was merged into it.
            RuntimeError: the layers are not in the state asked for after switching, or an adapter that was active on
                entry was deleted inside the block.
        """
        name = self._resolve(role)
        before = _State.of(self._module)
        try:
            if name != MERGED:
                _switch(self._module, name)
                before.restore_flags()
                _assert_applied(self._module, name, role)
            yield
        finally:
            before.restore(self._module)

    def activate(self, role: str | None) -> None:
        """Apply `role`'s adapter from now on; modes and gradients stay as they are. Raises as `use`."""
        name = self._resolve(role)
        before = _State.of(self._module)
        if name != MERGED:
            _switch(self._module, name)
            before.restore_flags()
            _assert_applied(self._module, name, role)

    def delete(self, role: str) -> None:
        """Free the memory of `role`'s adapter.

        Raises:
            ValueError: unknown, or active now (PEFT would silently activate another one).
        """
        name = self._resolve(role)
        if name in (None, MERGED):
            raise ValueError(f"adapter {role!r} has no weights of its own to delete.")
        if any(name in layer.active_adapters for _, layer in tuner_layers(self._module)):
            raise ValueError(f"adapter {role!r} is the active one; enter use() of another before deleting it.")
        self._module.delete_adapter(name)  # pyright: ignore[reportCallIssue]
        roles_of(self._module).pop(role, None)

    def _resolve(self, role: str | None) -> str | None:
        roles = roles_of(self._module)
        merged = next((role_of for role_of, name in roles.items() if name == MERGED), None)
        if role is None and merged is not None:
            raise ValueError(
                f"use(None): adapter {merged!r} was merged into the weights, the base is gone. "
                f"{remedy('Load without {merge}.', 'Load it unmerged.')}"
            )
        if role is not None and role not in self.names:
            raise ValueError(f"adapter {role!r} is not loaded; adapters: {', '.join(self.names) or 'none'} (or None).")
        merged_names = sorted({name for _, layer in tuner_layers(self._module) for name in _merged_in(layer)})
        if merged_names:
            raise ValueError(f"adapters {', '.join(merged_names)} are merged in place; call unmerge_adapter() first.")
        return roles.get(role, role) if role is not None else None

    def __repr__(self) -> str:
        return f"Adapters(names={self.names}, active={self.active!r})"


def name_roles(module: nn.Module, roles: Mapping[str, str | None]) -> None:
    """Record on `module` the role of each PEFT adapter name (None: the bare base; `MERGED`: in the weights)."""
    setattr(module, _ROLES, dict(roles))


def peft_names(roles: list[str]) -> dict[str, str]:
    """Role -> a valid PEFT name, all different.

    No dots (they split module paths), no attribute of `ModuleDict`, no part of a tensor prefix such as "lora_".
    """
    from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING

    prefixes = [prefix for prefix in PEFT_TYPE_TO_PREFIX_MAPPING.values() if prefix]
    names: dict[str, str] = {}
    for role in roles:
        name = role.replace(".", "_")
        while (
            name in names.values()
            or any(name in prefix for prefix in prefixes)
            or any(hasattr(container, name) for container in (nn.ModuleDict(), nn.ParameterDict()))
        ):
            name += "_"
        names[role] = name
    return names


def has_adapter_layers(module: nn.Module) -> bool:
    """True where at least one submodule is an adapter layer whose state can be read and switched."""
    return next(tuner_layers(module), None) is not None


@dataclass(frozen=True)
class _State:
    """What `use` restores: taken from every layer, so that even an inconsistent model is restored exactly."""

    layers: tuple[tuple[Any, list[str], bool], ...]
    wrappers: tuple[tuple[nn.Module, str, object], ...]
    modes: tuple[tuple[nn.Module, bool], ...]
    grads: tuple[tuple[nn.Parameter, bool], ...]

    @classmethod
    def of(cls, module: nn.Module) -> _State:
        wrapped = [m for m in (module, getattr(module, "base_model", None)) if isinstance(m, nn.Module)]
        keys = ("active_adapter", "_adapters_disabled")
        return cls(
            layers=tuple((m, list(m.active_adapters), m.disable_adapters) for _, m in tuner_layers(module)),
            wrappers=tuple((m, key, vars(m)[key]) for m in wrapped for key in keys if key in vars(m)),
            modes=tuple((m, m.training) for m in module.modules()),
            grads=tuple((p, p.requires_grad) for p in module.parameters()),
        )

    def restore(self, module: nn.Module) -> None:
        present = _present(module)
        gone = sorted({name for _, active, _ in self.layers for name in active if name not in present})
        for layer, active, is_disabled in self.layers:
            _set_layer(layer, [name for name in active if name in present], enabled=not is_disabled)
        for owner, key, value in self.wrappers:
            if not (gone and key == "active_adapter"):
                setattr(owner, key, value)
        self.restore_flags()
        if gone:
            raise RuntimeError(
                f"adapter {', '.join(gone)} was active before use() and was deleted inside the block; the base is "
                f"active now. Delete adapters outside of use()."
            )

    def restore_flags(self) -> None:
        for submodule, is_training in self.modes:
            submodule.training = is_training
        for parameter, needs_grad in self.grads:
            if parameter.requires_grad != needs_grad:
                parameter.requires_grad_(needs_grad)


def roles_of(module: nn.Module) -> dict[str, str | None]:
    return vars(module).get(_ROLES, {})


def tuner_layers(module: nn.Module) -> Iterator[tuple[str, Any]]:
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    for name, submodule in module.named_modules():
        if isinstance(submodule, (BaseTunerLayer, AuxiliaryTrainingWrapper)):
            yield name, submodule


def _present(module: nn.Module) -> tuple[str, ...]:
    """PEFT names that some layer holds weights for, in the order they were added where the wrapper knows it."""
    names = {name for _, layer in tuner_layers(module) for name in layer._get_available_adapters()}
    order = list(getattr(module, "peft_config", {}) or {})
    return tuple(sorted(names, key=lambda name: (order.index(name) if name in order else len(order), name)))


def _holds(layer: Any, name: str) -> bool:
    return name in layer._get_available_adapters()


def _merged_in(layer: Any) -> list[str]:
    return list(getattr(layer, "merged_adapters", ()) or ())


def _applied(layer: Any) -> tuple[str, ...] | None:
    """Names the layer adds to its output, () for none; None where it holds none of the active ones."""
    if layer.disable_adapters:
        return ()
    applied = tuple(name for name in layer.active_adapters if _holds(layer, name))
    return applied or None


def _set_layer(layer: Any, names: list[str], *, enabled: bool) -> None:
    from peft.utils.other import AuxiliaryTrainingWrapper

    # A wrapped module refuses names it lacks; with none active it passes the original module through.
    accepted = [n for n in names if _holds(layer, n)] if isinstance(layer, AuxiliaryTrainingWrapper) else names
    layer.set_adapter(accepted)
    layer.enable_adapters(enabled)


def _switch(module: nn.Module, name: str | None) -> None:
    for _, layer in tuner_layers(module):
        _set_layer(layer, list(layer.active_adapters) if name is None else [name], enabled=name is not None)
    if name is not None:
        for owner in (module, getattr(module, "base_model", None)):
            if isinstance(owner, nn.Module) and "active_adapter" in vars(owner):
                setattr(owner, "active_adapter", name)  # noqa: B010 nn.Module types attributes as tensors
    if "_adapters_disabled" in vars(module):
        setattr(module, "_adapters_disabled", name is None)  # noqa: B010


def _assert_applied(module: nn.Module, name: str | None, role: str | None) -> None:
    wrong = []
    for path, layer in tuner_layers(module):
        expected = (name,) if name is not None and _holds(layer, name) else ()
        if (_applied(layer) or ()) != expected:
            wrong.append(path)
    if wrong:
        raise RuntimeError(
            f"adapters.use({role!r}): {len(wrong)} layers did not switch, the first is {wrong[0]!r}; it has "
            f"active_adapters={dict(tuner_layers(module))[wrong[0]].active_adapters}."
        )
