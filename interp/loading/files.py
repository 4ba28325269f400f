"""Folders of Hugging Face models and adapters, local or from the hub: locate them, refuse unsafe ones, read headers."""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from interp.checkpoint import Checkpoint
from interp.io.read import COPY, checked, read_json

ADAPTER_WEIGHTS = "adapter_model.safetensors"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_SMALL = ("*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken")
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "tokenizer.model.v3", "tekken.json", "vocab.json", "vocab.txt",
                 "spiece.model", "sentencepiece.bpe.model")  # fmt: skip


@dataclass(frozen=True)
class AdapterFiles:
    """An adapter on disk before anything of it is loaded.

    Args:
        folder:  holds `adapter_config.json` and the weights.
        config:  the parsed `adapter_config.json`.
        shapes:  tensor name -> shape, from the safetensors headers.
        sources: tensor name -> (file, name in the file); the names differ if a training wrapper added its own.
        n_left_out: tensors of the files that do not belong to the adapter.
    """

    folder: Path
    config: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    sources: Mapping[str, tuple[Path, str]]
    n_left_out: int = 0

    @property
    def weights(self) -> tuple[Path, ...]:
        """The files that hold the tensors: one, or every shard."""
        return tuple(sorted({file for file, _ in self.sources.values()}))

    @property
    def is_plain(self) -> bool:
        """One file with the adapter's tensors and nothing else, under PEFT's names."""
        names_are_its_own = all(key == name for key, (_, name) in self.sources.items())
        return self.weights == (self.folder / ADAPTER_WEIGHTS,) and names_are_its_own and not self.n_left_out

    def tensors(self, keys: Iterable[str]) -> Iterator[tuple[str, Any]]:
        """(name, tensor) of `keys`, read one after the other on the CPU."""
        from safetensors import safe_open

        with ExitStack() as stack:
            opened: dict[Path, Any] = {}
            for key in keys:
                file, name = self.sources[key]
                if file not in opened:
                    opened[file] = stack.enter_context(safe_open(file, framework="pt"))
                yield key, opened[file].get_tensor(name)


def base_folder(checkpoint: Checkpoint, *, weights: bool) -> Path:
    """Folder of the base model; from the hub only the small files unless `weights`.

    Raises:
        ValueError: no such folder or repository, not a model folder, an adapter, weights only as pickles or incomplete.
    """
    where = f"base {checkpoint.base!r} of {checkpoint.name!r}"
    local = _local(checkpoint.base, where, revision=checkpoint.revision, option="revision")
    folder = local or _from_hub(checkpoint.base, checkpoint.revision, where, weights=weights)
    has_adapter, has_config = ((folder / name).is_file() for name in ("adapter_config.json", "config.json"))
    if has_adapter:
        more = "both config.json and adapter_config.json, and loading it would silently apply the adapter"
        raise ValueError(
            f"{where}: {folder} holds {more if has_config else 'an adapter, not a model'}. "
            f"Name the adapter's folder as `adapter` and the model it was trained on as `base`."
        )
    if not has_config:
        raise ValueError(f"{where}: {folder} has no config.json, so it is not a Hugging Face model folder.")
    if local or weights:
        weight_files(folder, where)
    return folder


def weight_files(folder: Path, where: str) -> tuple[Path, ...]:
    """The safetensors files of a model folder: one, or every shard of its index.

    Raises:
        ValueError: none (pickles are named and refused), or a shard of the index is missing.
    """
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        return (folder / "model.safetensors",)
    if not index.is_file():
        _refuse_pickles(where, [p.name for pattern in _PICKLES for p in folder.glob(pattern)])
        raise ValueError(f"{where}: {folder} has no model.safetensors and no model.safetensors.index.json.")
    return shards_of(index, where)


def shards_of(index: Path, where: str) -> tuple[Path, ...]:
    """The files that the index of a sharded model or adapter names.

    Raises:
        ValueError: an index that names none, a name outside the folder, a shard that is missing.
    """
    weight_map = read_json_object(index).get("weight_map")
    names_files = isinstance(weight_map, dict) and all(isinstance(name, str) for name in weight_map.values())
    if not isinstance(weight_map, dict) or not weight_map or not names_files:
        raise ValueError(f"{where}: {index} has no weight_map that names files. Copy it again.")
    names, folder = sorted(set(weight_map.values())), index.parent
    if strange := [name for name in names if Path(name).name != name]:
        raise ValueError(f"{where}: {index} names {strange[0]!r}, which is not a file of its folder.")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"{where}: {len(missing)} of {len(names)} shards are missing in {folder}, e.g. {missing[0]}.")
    return tuple(folder / name for name in names)


def has_weights(folder: Path) -> bool:
    """True if the folder has all weights; those of a hub repository may not have been downloaded yet."""
    try:
        return bool(weight_files(folder, str(folder)))
    except ValueError:
        return False


class _AdapterConfig(TypedDict, total=False):
    """What we read of an `adapter_config.json` ourselves; PEFT reads the rest."""

    peft_type: str
    base_model_name_or_path: str | None
    auto_mapping: dict[str, Any] | None


def read_adapter(checkpoint: Checkpoint) -> AdapterFiles:
    """The files of the checkpoint's adapter, config and header read.

    Raises:
        ValueError: no such folder or repository, no adapter_config.json, pickled weights, an unreadable header.
    """
    assert checkpoint.adapter is not None, "only called for checkpoints with an adapter"
    where = f"adapter {checkpoint.adapter!r} of {checkpoint.name!r}"
    folder = _local(checkpoint.adapter, where, revision=checkpoint.adapter_revision, option="adapter_revision")
    if folder is None:
        inside = checkpoint.subfolder
        folder = _from_hub(checkpoint.adapter, checkpoint.adapter_revision, where, weights=True, subfolder=inside)
    if checkpoint.subfolder is not None:
        folder = folder / checkpoint.subfolder
        where += f", subfolder {checkpoint.subfolder!r}"
    if not (folder / "adapter_config.json").is_file():
        inner = sorted({p.parent.relative_to(folder).as_posix() for p in folder.glob("*/adapter_config.json")})
        hint = f" Adapters are in its subfolders {', '.join(inner)}: set `subfolder`." if inner else ""
        raise ValueError(f"{where}: {folder} has no adapter_config.json, so it is not a PEFT adapter.{hint}")
    config, shapes, sources = read_json_object(folder / "adapter_config.json"), {}, {}
    checked(_AdapterConfig, config, str(folder / "adapter_config.json"), COPY)
    for file in _adapter_weights(folder, where):
        for key, shape in read_shapes(file, where).items():
            if key in sources:
                raise ValueError(f"{where}: tensor {key!r} is in {sources[key][0].name} and in {file.name}.")
            shapes[key], sources[key] = shape, (file, key)
    return AdapterFiles(folder, config, shapes, sources)


def _adapter_weights(folder: Path, where: str) -> tuple[Path, ...]:
    """The weight files of an adapter: one file, the shards of its index, or shards whose names give their number."""
    if (folder / ADAPTER_WEIGHTS).is_file():
        return (folder / ADAPTER_WEIGHTS,)
    if (folder / f"{ADAPTER_WEIGHTS}.index.json").is_file():
        return shards_of(folder / f"{ADAPTER_WEIGHTS}.index.json", where)
    shards = sorted(folder.glob("adapter_model-*-of-*.safetensors"))
    if not shards:
        _refuse_pickles(where, [p.name for pattern in _PICKLES for p in folder.glob(pattern)])
        raise ValueError(f"{where}: {folder} has no {ADAPTER_WEIGHTS}.")
    total = re.search(r"-of-(\d+)\.safetensors$", shards[0].name)
    if total is None or len(shards) != int(total[1]):
        raise ValueError(
            f"{where}: {folder} has {len(shards)} shards, {shards[0].name} is one of {total and total[1]}."
        )
    return tuple(shards)


def read_shapes(path: Path, where: str) -> dict[str, tuple[int, ...]]:
    """Tensor name -> shape, from the header of a safetensors file; no tensor is read.

    Raises:
        ValueError: the file is truncated or is not safetensors.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118 not a mapping
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"{where}: {path} is not a readable safetensors file ({error}). {COPY}") from None


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes; of a large file in the hub's cache, its name.

    The cache stores large files under their SHA-256 and links to them, so 15 GB need not be read again; small files
    are stored under a git hash, so their bytes are read.
    """
    blob = path.resolve()
    if blob.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", blob.name):
        return blob.name
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def has_tokenizer(folder: Path) -> bool:
    """True if the folder has a vocabulary; a tokenizer_config.json alone only configures one."""
    return any((folder / name).is_file() for name in _VOCABULARIES) or any(folder.glob("*.tiktoken"))


def tokenizer_folder(checkpoint: Checkpoint) -> Path:
    """The folder that the checkpoint's `tokenizer` names, downloaded if it is a hub id.

    Raises:
        ValueError: no such folder or repository, or one without a vocabulary.
    """
    assert checkpoint.tokenizer is not None, "only called for checkpoints that name a tokenizer"
    where = f"tokenizer {checkpoint.tokenizer!r} of {checkpoint.name!r}"
    folder = _local(checkpoint.tokenizer, where, revision=None, option="revision")
    folder = folder or _from_hub(checkpoint.tokenizer, None, where, weights=False)
    if not has_tokenizer(folder):
        raise ValueError(f"{where}: {folder} holds no vocabulary ({', '.join(_VOCABULARIES[:2])}, ...).")
    return folder


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ValueError as `interp.io.read.read_json`."""
    return read_json(path)


def _refuse_pickles(where: str, names: list[str]) -> None:
    if names:
        raise ValueError(
            f"{where}: the weights are pickles ({', '.join(sorted(names)[:3])}), which can run code when loaded. "
            f"If you trust them, convert them once with `save_pretrained(folder, safe_serialization=True)`."
        )


def _local(name: str, where: str, *, revision: str | None, option: str) -> Path | None:
    folder = Path(name).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise ValueError(f"{where}: {option}={revision!r}, but a local folder has no revisions. Leave it out.")
        return folder
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", name):
        raise ValueError(f"{where}: no such folder, and not a hub id of the form 'owner/name'.")
    return None


_SILENT = 300.0  # the hub's client retries for half a minute, and a study asks for every checkpoint several times


@dataclass
class _Silence:
    """That the hub gave no answer: until when it is not asked again (`time.monotonic`, s), and why."""

    until: float = -math.inf
    why: str = ""


_SILENCE = _Silence()


def _from_hub(repo: str, revision: str | None, where: str, *, weights: bool, subfolder: str | None = None) -> Path:
    """The snapshot folder of a hub repository, named by its commit. Without a network, the one in the hub's cache."""
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    top = f"{subfolder}/" if subfolder else ""
    patterns = [top + p for p in (*_SMALL, *(("*.safetensors",) if weights else ()))]
    inner = [top + "*/*", top + "consolidated*"]  # Mistral repositories hold a second copy of the weights
    is_offline, no_answer = constants.HF_HUB_OFFLINE, None
    try:
        if not is_offline:
            no_answer = _refuse_pickles_on_hub(repo, revision, where, top)
        snapshot = snapshot_download(
            repo,
            revision=revision,
            allow_patterns=patterns,
            ignore_patterns=inner,
            local_files_only=is_offline or no_answer is not None,
        )
    except (LocalEntryNotFoundError, _http_error(), HFValidationError) as error:
        at = f" at revision {revision!r}" if revision else ""
        if no_answer is not None:
            raise ValueError(
                f"{where}: neither a local folder nor in the hub's cache on this disk{at}, and the hub cannot be "
                f"reached ({no_answer}). Check the network, or name a local folder."
            ) from error
        offline = " (HF_HUB_OFFLINE is set, so only the local cache was searched)" if is_offline else ""
        raise ValueError(
            f"{where}: neither a local folder nor a hub repository that could be read{at}{offline}: {_why(error)}"
        ) from error
    return Path(snapshot)


def _refuse_pickles_on_hub(repo: str, revision: str | None, where: str, top: str) -> str | None:
    """Refuse a repository whose weights under `top` are pickles; returns why the hub gave no answer, if it did not."""
    from huggingface_hub import list_repo_files
    from huggingface_hub.errors import HfHubHTTPError

    if time.monotonic() < _SILENCE.until:
        return _SILENCE.why
    try:
        names = [n.removeprefix(top) for n in list_repo_files(repo, revision=revision) if n.startswith(top)]
    except HfHubHTTPError:
        raise  # an answer of the hub: no such repository, no access
    except _http_error() as error:
        _SILENCE.until, _SILENCE.why = time.monotonic() + _SILENT, _why(error)
        return _SILENCE.why
    if not any(n.endswith(".safetensors") and "/" not in n for n in names):
        _refuse_pickles(where, [n for n in names if "/" not in n and Path(n).suffix in (".bin", ".pt", ".pth")])
    return None


def _http_error() -> type[Exception]:
    """What the hub's HTTP client raises without a connection or after a time-out: no OSError, no HfHubHTTPError."""
    from huggingface_hub.errors import HTTPError  # pyright: ignore[reportPrivateImportUsage] of httpx or httpx2

    return HTTPError


def _why(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
