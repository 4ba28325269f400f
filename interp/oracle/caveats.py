"""What is right to say before an oracle reads what it was not trained to read."""

from __future__ import annotations

import warnings

from interp.model import Model
from interp.oracle.features import Features
from interp.oracle.spec import OracleSpec


class OffDistributionWarning(UserWarning):
    """What is read differs from what the oracle was trained to read; answers are shown with that caveat."""


def warn_other_base(spec: OracleSpec, model: Model) -> None:
    """The base that the spec names is not the one that is loaded."""
    base = model.checkpoint.base if model.checkpoint is not None else None
    if (
        spec.base_model
        and base
        and spec.base_model.split("/")[-1].casefold() != base.rstrip("/").split("/")[-1].casefold()
    ):
        warnings.warn(
            f"the oracle was trained on {spec.base_model}, the model is {base}. Right only if that is a copy of it.",
            OffDistributionWarning,
            stacklevel=3,
        )


def warn_off_distribution(feats: Features, spec: OracleSpec, model: Model) -> None:
    """Layers, base weights, differences and vectors without a direction that the oracle never saw in training."""
    trained = set(spec.layer_indices(model.n_layers))
    strange = sorted({slot.layer for slot in feats.slots} - trained)
    if strange and spec.origin != "assumed":
        warnings.warn(
            f"layers {strange} are not among those that the oracle was trained on ({sorted(trained)}).",
            OffDistributionWarning,
            stacklevel=4,
        )
    read, own = feats.provenance.get("base_sha256"), model.fingerprint.weights_sha256 if model.fingerprint else None
    if read is not None and own is not None and read != own:
        warnings.warn(
            f"the activations ({feats.slots[0].source}) come from other base weights than the oracle's "
            f"({read[:12]}, {own[:12]}): it was never trained to read these.",
            OffDistributionWarning,
            stacklevel=4,
        )
    sources = sorted({slot.source for slot in feats.slots if " - " in slot.source})
    if sources:
        warnings.warn(
            f"{', '.join(sources)}: oracles are trained on activations, not on differences; read the controls first.",
            OffDistributionWarning,
            stacklevel=4,
        )
    if feats.null_slots and feats.provenance.get("control") != "zero":
        first = feats.slots[feats.null_slots[0]]
        warnings.warn(
            f"{len(feats.null_slots)} vectors are shorter than a millionth of their layer's median, the first at "
            f"{first}: they carry no direction, and what is injected there is noise.",
            OffDistributionWarning,
            stacklevel=4,
        )
