"""Vectors in a safetensors file with their description in a JSON file next to it; vectors of a sweep of probes."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NotRequired

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import TypedDict

from interp.io.digest import is_own_digest, sha256_of
from interp.io.files import write_file
from interp.io.read import checked
from interp.loading.files import read_json_object
from interp.loading.fingerprint import tensors_sha256
from interp.remedy import remedy
from interp.site import Site, as_site, by_depth

FORMAT, VERSION = "diptych-directions", 2


def sidecar(path: str | Path) -> Path:
    """The JSON file of a vectors file: the same name, `.json` in place of the suffix."""
    return Path(path).with_suffix(".json")


def write_vectors(
    path: str | Path,
    vectors: Mapping[str, Tensor],
    infos: Mapping[str, Mapping[str, Any]],
    refused: Mapping[str, str] | None = None,
    *,
    identity: Mapping[str, Any] | None = None,
) -> Path:
    """Write both files atomically: the JSON first, with its own digest and that of the vectors it describes.

    Args:
        refused: site -> why it has no direction.
        identity: what a command made them from (`refuse_other`); JSON values.
    Raises:
        ValueError: a suffix other than .safetensors, or a folder that does not exist.
    """
    from safetensors.torch import save

    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"{path}: expected a name ending in .safetensors.")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: no folder {path.parent}. Create it first.")
    data = save({name: vector.contiguous() for name, vector in vectors.items()})
    content = {
        "format": FORMAT,
        "version": VERSION,
        "sha256": hashlib.sha256(data).hexdigest(),
        "directions": plain({name: dict(info) for name, info in infos.items()}),
        "refused": dict(refused or {}),
        "identity": plain(dict(identity or {})),
    }
    content["digest"] = sha256_of(content)
    text = json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    write_file(sidecar(path), text.encode())
    write_file(path, data)
    return path


def refuse_other(path: Path, identity: Mapping[str, Any]) -> None:
    """Refuse to overwrite vectors that were fitted on something else.

    Raises:
        ValueError: `path` or its JSON file exists and was made from something else; names what differs.
    """
    beside = sidecar(path)
    if not path.exists() and not beside.exists():
        return
    try:
        stored: Any = read_json_object(beside).get("identity")
    except ValueError:
        stored = None
    if not isinstance(stored, dict) or not stored:
        raise ValueError(
            f"{path}: exists, and no file says how it was made. {remedy('Choose another {out}.', 'Delete it.')}"
        )
    asked = plain(dict(identity))
    differing = sorted(key for key in {*stored, *asked} if stored.get(key) != asked.get(key))
    if differing:
        shown = "; ".join(f"{key}: {stored.get(key)!r:.60} != {asked.get(key)!r:.60}" for key in differing)
        raise ValueError(
            f"{path} holds another direction ({shown}). "
            f"{remedy('Choose another {out}, or delete', 'Delete')} both of its files."
        )


def read_vectors(path: str | Path) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]], dict[str, str]]:
    """Vectors by name, what the JSON file says of each direction by layer, and why other sites have none.

    Raises:
        ValueError: a file is missing or is of another kind, or the two do not belong together.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    path, beside = Path(path), sidecar(path)
    for one in (path, beside):
        if not one.is_file():
            raise ValueError(
                f"{path}: {one.name} is missing; expected directions that `diptych steer fit ... --out` wrote: "
                "NAME.safetensors with NAME.json next to it."
            )
    data = path.read_bytes()
    try:
        content = read_json_object(beside)
        vectors = load(data)
    except (ValueError, SafetensorError, RuntimeError) as error:
        raise ValueError(f"{path}: not readable as a direction with its .json file ({error}).") from None
    if content.get("format") != FORMAT or content.get("version") != VERSION:
        raise ValueError(
            f"{beside}: expected format {FORMAT!r} version {VERSION}, got {content.get('format')!r} version "
            f"{content.get('version')!r}. It was written by another release, or is another kind of file: fit the "
            "direction again."
        )
    is_own = is_own_digest(content.get("digest"), {key: value for key, value in content.items() if key != "digest"})
    content = dict(checked(_Sidecar, content, str(beside)))
    if not is_own:
        raise ValueError(
            f"{beside}: changed after it was written (its digest differs). Restore it, or fit the direction again."
        )
    if content["sha256"] != hashlib.sha256(data).hexdigest():
        raise ValueError(f"{beside} does not describe the vectors in {path.name}; the two files were mixed up.")
    absent = [name for name in content["directions"] if name not in vectors]
    if absent:
        raise ValueError(
            f"{beside}: names a direction {absent[0]!r} that {path.name} does not contain. Save both again."
        )
    if not content["directions"] and not content.get("refused"):
        raise ValueError(f"{beside}: names no direction. Save both again.")
    order = sorted(content["directions"], key=by_depth)
    refused = {str(site): str(why) for site, why in (content.get("refused") or {}).items()}
    return vectors, {name: content["directions"][name] for name in order}, refused


class _Removed(TypedDict):
    kept: float
    cosine_before: list[float]
    cosine_after: list[float]
    product_after: list[float]
    rank: int
    n_dropped: int
    names: list[str]
    metric: Literal["euclidean", "cov", "leace"]
    ridge: float


class _Info(TypedDict):
    toward: str
    away_from: str
    position: str
    name: str
    stats: dict[str, int | float | None]
    provenance: dict[str, Any]
    removed: _Removed | None


class _Sidecar(TypedDict):
    """The JSON file of a vectors file."""

    format: str
    version: int
    sha256: str
    digest: str
    directions: dict[str, _Info]
    identity: NotRequired[dict[str, Any]]
    refused: NotRequired[dict[str, str]]


def plain(value: Any) -> Any:
    """The value as JSON: NaN becomes null, tuples become lists, numpy and torch numbers plain ones."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, Tensor):
        return plain(value.tolist())
    if hasattr(value, "item") and not isinstance(value, torch.dtype):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def read_probe_vector(
    path: str | Path,
    *,
    site: str | Site,
    kind: str = "logistic",
    target: str | None = None,
    position: str | None = None,
) -> Float[Tensor, "d_model"]:
    """The unit weight vector of one probe, in raw activation units; it points to the probe's positive class.

    Args:
        path: `directions.safetensors` of a sweep, or the sweep's folder.
        target, position: optional if the file has one.
    Raises:
        ValueError: no such file; no matching probe, or several (they are listed); a vector whose digest is missing or
            differs.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path) / "directions.safetensors" if Path(path).is_dir() else Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file. `diptych probes sweep CACHE --out FOLDER` writes it.")
    query = (target, position, str(as_site(site)), kind)
    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.count("|") == 3]  # noqa: SIM118 (not a mapping)
            fits = [n for n in names if all(w in (None, part) for w, part in zip(query, n.split("|"), strict=True))]
            if len(fits) != 1:
                pattern = "|".join(part or "*" for part in query)
                raise ValueError(
                    f"{path}: expected one probe {pattern} (target|position|site|kind), {len(fits)} of {len(names)} "
                    f"match: {', '.join((fits or names)[:8]) or 'none'}."
                )
            vector = file.get_tensor(fits[0])
            digest = json.loads((file.metadata() or {}).get("probes", "{}")).get(fits[0], {}).get("sha256")
            if digest != tensors_sha256({"": vector}):
                raise ValueError(
                    f"{path}: the vector {fits[0]} was changed after it was written. Run the same sweep again."
                )
            return vector.float()
    except SafetensorError as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error}).") from None
