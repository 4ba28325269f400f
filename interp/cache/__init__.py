"""Activations on disk: extract once, read by site and position, never mix two models."""

from __future__ import annotations

from interp.cache.activation_cache import ActivationCache
from interp.cache.extract import extract, extract_pair, extract_replies
from interp.cache.request import Request

__all__ = ["ActivationCache", "Request", "extract", "extract_pair", "extract_replies"]
