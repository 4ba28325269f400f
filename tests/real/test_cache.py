"""Caches of real checkpoints: the same bytes after a restart, and the same activations in any batch."""

from __future__ import annotations

from pathlib import Path

import pytest

from interp import Example, Model
from interp.cache import ActivationCache, extract
from tests.real.kit import TEXTS, relative

pytestmark = pytest.mark.quick


def cached(model: Model, out: Path, texts: list[str], **how: int) -> ActivationCache:
    items = [Example(f"t{TEXTS.index(text)}", text=text) for text in texts]
    sites = f"resid_post.*, z.{model.n_layers // 2}"
    return extract(model, items, out=out, sites=sites, positions="last", shard_bytes=200_000, progress=False, **how)


def shards(folder: Path) -> dict[str, bytes]:
    """Content of the data files, by shard."""
    return {file.name.split(".")[0]: file.read_bytes() for file in folder.glob("shards/*/*.safetensors")}


def test_a_restart_gives_the_same_bytes(model: Model, tmp_path: Path) -> None:
    texts = [*TEXTS]
    cached(model, tmp_path / "a", texts)
    whole = shards(tmp_path / "a")
    assert len(whole) > 1
    last = max((tmp_path / "a").glob("shards/*/*.safetensors"))
    last.unlink()
    with pytest.warns(UserWarning, match="missing"):
        cached(model, tmp_path / "a", texts)
    assert shards(tmp_path / "a") == whole


def test_activations_do_not_depend_on_the_batch(model: Model, tmp_path: Path) -> None:
    """Alone, all together, and in another order: equal up to the order of summation, 1e-5 of the largest value."""
    texts = [*TEXTS]
    together = cached(model, tmp_path / "together", texts)
    alone = cached(model, tmp_path / "alone", texts, tokens_per_batch=1)
    turned = cached(model, tmp_path / "turned", texts[::-1])
    for site in together.sites:
        ours = together.read(str(site), "last")
        assert relative(alone.read(str(site), "last"), ours) < 1e-5, site
        assert relative(turned.read(str(site), "last").flip(0), ours) < 1e-5, site
