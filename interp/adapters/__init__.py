"""Adapters of a model: which one is active, how headers are matched to modules, attaching, and one adapter per row."""

from interp.adapters.active import MERGED, Adapters, has_adapter_layers, name_roles, peft_names

__all__ = ["MERGED", "Adapters", "has_adapter_layers", "name_roles", "peft_names"]
