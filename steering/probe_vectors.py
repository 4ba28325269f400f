"""Weights of linear probes as directions, read from the file in which a sweep of probes keeps them."""

from __future__ import annotations

import json
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from interp.loading.fingerprint import tensors_sha256
from interp.site import Site


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
        target, position: may be left out where the file has one.
    Raises:
        ValueError: no such file; no probe of that description, or several (they are listed); a vector without its
            digest, or with another one.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path) / "directions.safetensors" if Path(path).is_dir() else Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such file. `diptych probes sweep CACHE --out FOLDER` writes it.")
    wanted = (target, position, str(site if isinstance(site, Site) else Site.parse(site)), kind)
    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.count("|") == 3]  # noqa: SIM118 (not a mapping)
            fits = [n for n in names if all(w in (None, part) for w, part in zip(wanted, n.split("|"), strict=True))]
            if len(fits) != 1:
                said = "|".join(part or "*" for part in wanted)
                raise ValueError(
                    f"{path}: expected one probe {said} (target|position|site|kind), {len(fits)} of {len(names)} fit: "
                    f"{', '.join((fits or names)[:8]) or 'none'}."
                )
            vector = file.get_tensor(fits[0])
            held = json.loads((file.metadata() or {}).get("probes", "{}")).get(fits[0], {}).get("sha256")
            if held != tensors_sha256({"": vector}):
                raise ValueError(f"{path}: the vector {fits[0]} is not what was written. Run the same sweep again.")
            return vector.float()
    except SafetensorError as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error}).") from None
