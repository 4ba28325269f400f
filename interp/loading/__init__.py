"""Checkpoints as Models: files, headers and tokenizers are checked before weights are read, the loaded model after."""

from interp.loading.load import LoadOptions, Skeleton, load, load_members, load_pair, open_skeleton

__all__ = ["LoadOptions", "Skeleton", "load", "load_members", "load_pair", "open_skeleton"]
